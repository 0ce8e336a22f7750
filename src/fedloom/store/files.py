"""Trees as safetensors bytes, and files that are written whole or not at all."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from ..core.errors import RunError, StorageError, WireError
from ..core.tree import Tree, join, split
from .reused import Files

_SKELETON = "$skeleton"
_MOST_HEADER = 1 << 24  # bytes
_BLOCK = 1 << 12  # bytes that are looked at for the end of a line
_DTYPES = {"BOOL": "?", "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1"}
_DTYPES |= {"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1"}
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}


def dump(tree: Tree) -> bytes:
    """Return a tree as one safetensors file: its arrays, and the JSON skeleton as an array of bytes.

    >>> restore(dump({"round": 3}))
    {'round': 3}
    """
    return b"".join(pieces(tree))


def pieces(tree: Tree) -> list[bytes | memoryview]:
    """Return the parts that `dump` joins, the arrays among them as they lie in memory: nothing is copied.

    The format is safetensors: 8 bytes with the header's length, the header as JSON, then the data.
    """
    skeleton, arrays = split(tree)
    return named({**arrays, _SKELETON: np.frombuffer(json.dumps(skeleton).encode(), np.uint8)})


def digest_of(tree: Tree) -> str:
    """Return BLAKE3 over what `dump` returns, hexadecimal: a value's name, on the wire and in a record.

    >>> digest_of({"round": 3}) == blake3(dump({"round": 3})).hexdigest()
    True
    """
    seen = blake3()
    for part in pieces(tree):
        seen.update(part)
    return seen.hexdigest()


def named(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None) -> list[bytes | memoryview]:
    """Return the parts of a safetensors file of these arrays, as they lie in memory."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    arrays, at = dict(sorted(arrays.items(), key=lambda pair: -pair[1].itemsize)), 0  # so that all lie aligned
    for name, array in arrays.items():
        if array.dtype not in _NAMES:
            raise TypeError(f"cannot store an array of {array.dtype}; use numbers of up to 64 bits, or truth values")
        about = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        header[name], at = about, at + array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    flat = [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in arrays.values() if array.size]
    return [len(text).to_bytes(8, "little") + text, *flat]


def restore(content: bytes | memoryview) -> Tree:
    """Return what `dump` took; raises `RunError` for anything else.

    Its arrays are read-only views of `content`, which may be a file that is mapped into memory: nothing is copied.
    Nothing in it is trusted: types are a closed set, and shapes must fit the bytes that there are.
    """
    try:
        arrays = _arrays(memoryview(content))
        return join(json.loads(arrays.pop(_SKELETON).tobytes()), arrays)
    except (WireError, LookupError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise RunError(f"this is not a stored value, or it is damaged: {str(error).rstrip('.')}.") from error


def _arrays(content: memoryview) -> dict[str, NDArray[Any]]:
    """Return the views of a safetensors file: 8 bytes with the header's length, the header as JSON, then the data."""
    length = int.from_bytes(content[:8], "little")
    if length > min(len(content) - 8, _MOST_HEADER):
        raise ValueError("its header is longer than it may be")
    header, data = json.loads(bytes(content[8 : 8 + length])), content[8 + length :]
    header.pop("__metadata__", None)
    return {name: _array(data, **about) for name, about in header.items()}


def _array(data: memoryview, dtype: str, shape: list[int], data_offsets: list[int]) -> NDArray[Any]:
    start, end = data_offsets
    if not 0 <= start <= end <= len(data) or any(type(size) is not int or size < 0 for size in shape):
        raise ValueError("an array lies outside of it")
    array = np.frombuffer(data[start:end], _DTYPES[dtype]).reshape(shape)
    array.flags.writeable = False
    return array


@contextmanager
def writing(path: Path, then: str = "") -> Iterator[None]:
    """Say which file the block cannot write, and why, and `then`; raises `StorageError`."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}{then}.") from error


@contextmanager
def passing(partial: Path) -> Iterator[None]:
    """Take away what the block has written for a moment, if it cannot go on."""
    try:
        yield
    except OSError:
        with suppress(OSError):  # on a disk that is read-only there is nothing to take away
            partial.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write a file so that a crash leaves the old one or the new one, never half of it; raises `RunError`.

    Args:
        path: of the file; its folder is there.
        content: all of it.
        mode: who may read and write it, before the umask; 0o600 for what is private, from its first byte on.
    """
    write_parts(path, [content], mode)


def write_parts(path: Path, parts: Sequence[bytes | memoryview], mode: int = 0o666, files: Files | None = None) -> None:
    """Write a file as `write_whole` does, from parts that are not joined before; `files` may have one to write over."""
    partial = path.with_name(f".{path.name}.partial")
    with writing(path), passing(partial):
        if files is not None:
            files.make(partial, size := sum(map(len, parts)), size)
        how = "wb" if files is None else "r+b"
        with open(partial, how, opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        synced(path.parent)


def append(path: Path, text: str) -> int:
    """Write lines behind the whole ones of a file, and return where they begin; half a line at its end is cut off.

    A crash or a full disk leaves such a half, and what is written behind it could not be read. What cannot be written
    leaves nothing; raises `StorageError`. A power cut may take all of it, until the file is `on_disk`.
    """
    with writing(path):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            end = _whole_lines(file)
            write_behind(file, end, text.encode())
        finally:
            os.close(file)
    return end


def write_behind(file: int, end: int, content: bytes, *, durable: bool = False) -> None:
    """Write behind so many bytes of an open file, whatever is there: all of it, or nothing.

    With `durable` it is on the disk when this returns.
    """
    try:
        os.ftruncate(file, end)
        at = 0
        while at < len(content):
            at += os.pwrite(file, content[at:], end + at)
        if durable:
            os.fsync(file)
    except OSError:
        os.ftruncate(file, end)
        raise


def _whole_lines(file: int) -> int:
    """Return how many bytes of an open file are whole lines."""
    end = os.fstat(file).st_size
    while end:
        begin = max(0, end - _BLOCK)
        if (found := os.pread(file, end - begin, begin).rfind(b"\n")) >= 0:
            return begin + found + 1
        end = begin
    return 0


def on_disk(path: Path) -> None:
    """Wait until a power cut would take nothing of what was written to a file; raises `StorageError`."""
    with writing(path):
        file = os.open(path, os.O_RDWR)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def synced(folder: Path) -> None:
    """Wait until a power cut would change nothing of which files are in a folder."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON, whole or not at all."""
    write_whole(path, json.dumps(value, indent=1).encode())


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; raises `RunError`."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: {error}.") from error
