"""Trees as safetensors bytes, and files that are written whole or not at all."""

import json
import os
from pathlib import Path

import numpy as np

from ..core.errors import RunError
from ..core.tree import Tree, join, split

_SKELETON = "$skeleton"


def dump(tree: Tree) -> bytes:
    """Return a tree as one safetensors file: its arrays, and the JSON skeleton as an array of bytes.

    >>> restore(dump({"round": 3}))
    {'round': 3}
    """
    from safetensors.numpy import save  # loaded where it is used: importing fedloom stays light

    skeleton, arrays = split(tree)
    text = np.frombuffer(json.dumps(skeleton).encode(), np.uint8)
    return save({**arrays, _SKELETON: text})


def restore(content: bytes) -> Tree:
    """Return what `dump` took; raises `RunError` for anything else."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)
        skeleton = json.loads(arrays.pop(_SKELETON).tobytes())
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"this is not a stored value, or it is damaged: {error}.") from error
    return join(skeleton, arrays)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, never half of it; raises `RunError`."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunError(f"{path} cannot be written: {error.strerror}.") from error
