"""What an app *is*, as text and as a digest: two apps with one digest train alike.

Settings are written in canonical form; functions and classes by the text of their source; arrays by their hash. Where
rows lie and who holds them is not part of it, so that a simulation and a federation of the same app agree.
"""

import inspect
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from hashlib import sha256
from pathlib import PurePath
from typing import Any

import numpy as np

from .core.model import Model

HIDDEN = frozenset({"partition", "path", "test_path", "device"})  # who holds what, where, and what computes


def described(value: Any) -> Any:
    """Return a value as JSON can hold it, the same in every process.

    >>> from fedloom.optimize import Step
    >>> described(Step(0.5))
    {'Step': {'lr': 0.5}}
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if value == value and abs(value) != float("inf") else repr(value)
        case np.generic():
            return described(value.item())
        case np.ndarray():
            return {"array": sha256(np.ascontiguousarray(value).tobytes()).hexdigest(), "shape": list(value.shape)}
        case PurePath():
            return "path"
        case partial():
            return {"partial": [described(part) for part in (value.func, value.args, value.keywords)]}
        case Mapping():
            return {str(key): described(item) for key, item in sorted(value.items())}
        case list() | tuple() | set() | frozenset():
            return [described(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, Model) and not isinstance(value, type):
        return {"model": value.layout.digest, "figures": sorted(value.figures)} | _plain(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {type(value).__name__: _settings(value)}
    return {"code": _source(value)}


def _settings(value: Any) -> dict[str, Any]:
    return {f.name: described(getattr(value, f.name)) for f in fields(value) if f.init and f.name not in HIDDEN}


def _plain(model: Any) -> dict[str, Any]:
    """Return a model's settings: plain values, such as its penalty, and its objective; the rest is code and weights."""
    names = [f.name for f in fields(model) if f.name not in HIDDEN] if is_dataclass(model) else []
    found = {n: getattr(model, n) for n in names}
    return {n: described(v) for n, v in found.items() if n == "objective" or isinstance(v, str | int | float)}


def digest(value: Any) -> str:
    """Return SHA-256 over the description, hexadecimal."""
    return sha256(json.dumps(described(value), sort_keys=True).encode()).hexdigest()


def _source(value: Any) -> str:
    try:
        text = inspect.getsource(value if inspect.isroutine(value) or inspect.isclass(value) else type(value))
    except (OSError, TypeError):
        text = f"{type(value).__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return sha256(text.encode()).hexdigest()
