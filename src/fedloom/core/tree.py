"""Values to bytes and back without pickle: nested dicts, lists, tuples, arrays and scalars as JSON and named arrays.

This is how a state, a client's memory or a message is stored: a JSON skeleton in which {"$array": key} stands for an
array that lies beside it (in a safetensors file). Types are a closed set; anything else is refused.
"""

from typing import Any

import numpy as np

from . import reused
from .errors import WireError

Tree = Any  # None, bool, int, float, str, ndarray, or list, tuple and dict[str, …] of such

_MARKS = ("$array", "$tuple")
_PLAIN = frozenset({type(None), bool, int, float, str})  # most of what long lists hold: it is as it is


def split(tree: Tree) -> tuple[Any, dict[str, np.ndarray[Any, Any]]]:
    """Return (what JSON can hold, the arrays by key). `join` undoes it.

    >>> skeleton, arrays = split({"m": np.zeros(2), "steps": 3})
    >>> skeleton
    {'m': {'$array': '0'}, 'steps': 3}
    >>> join(skeleton, arrays)
    {'m': array([0., 0.]), 'steps': 3}
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    return _taken_apart(tree, arrays), arrays


def _taken_apart(value: Tree, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    """Return what JSON can hold of a value, and put its arrays with the others: no closure, which would keep them."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case np.ndarray():
            arrays[key := str(len(arrays))] = np.asarray(value, order="C")
            return {"$array": key}
        case np.generic():
            return value.item()
        case tuple():
            return {"$tuple": [_taken_apart(item, arrays) for item in value]}
        case list():
            return [item if type(item) in _PLAIN else _taken_apart(item, arrays) for item in value]
        case dict() if all(isinstance(key, str) and key not in _MARKS for key in value):
            return {key: _taken_apart(item, arrays) for key, item in value.items()}
    raise TypeError(f"cannot store a {type(value).__name__}; use dicts, lists, tuples, arrays, numbers or strings")


def join(skeleton: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Tree:
    """Return the value that `split` took apart; raises `WireError` for a skeleton that it never writes."""
    try:
        return _put_together(skeleton, arrays)
    except RecursionError as error:
        raise WireError("a value is nested too deep to be read.") from error


def _put_together(skeleton: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Tree:
    match skeleton:
        case None | bool() | int() | float() | str():
            return skeleton
        case list():
            return [item if type(item) in _PLAIN else _put_together(item, arrays) for item in skeleton]
        case dict() if not any(mark in skeleton for mark in _MARKS):
            return {key: _put_together(item, arrays) for key, item in skeleton.items()}
        case {"$array": str(key)} if len(skeleton) == 1 and key in arrays:
            return arrays[key]
        case {"$tuple": list(items)} if len(skeleton) == 1:
            return tuple([_put_together(item, arrays) for item in items])
    raise WireError("a value names an array that does not lie beside it, or has a part that no value has.")


def copied(tree: Tree) -> Tree:
    """Return the same value with its arrays copied, to lend to somebody who writes.

    >>> lent = copied(kept := {"m": np.zeros(1)})
    >>> lent["m"] += 1
    >>> kept
    {'m': array([0.])}
    """
    skeleton, arrays = split(tree)
    return join(skeleton, {key: reused.copied(array) for key, array in arrays.items()})


def holds_something(tree: Tree) -> bool:
    """Return whether there is anything but None and empty containers in it: is it worth keeping?

    >>> holds_something({"local": None, "stages": [None]})
    False
    """
    if isinstance(tree, dict):
        return any(holds_something(part) for part in tree.values())
    if isinstance(tree, list | tuple):
        return any(holds_something(part) for part in tree)
    return tree is not None
