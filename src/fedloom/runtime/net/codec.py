"""Tasks and replies as trees, and back: a closed union, checked field by field. No name from the wire is looked up."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from ...core.blocks import blocks
from ...core.errors import WireError
from ...core.hidden import (
    Advertise,
    Advertised,
    Confirm,
    Confirmed,
    Decrypt,
    Decrypted,
    Share,
    Shared,
    Unmask,
    Unmasked,
)
from ...core.layout import Layout
from ...core.metrics import SCORE_BINS, Metrics
from ...core.task import Evaluate, Evaluated, Fault, Measure, Prepare, Ready, ReplyBody, TaskBody, Train, Trained
from ...core.tree import Tree
from ...core.update import Update

TASKS: dict[str, type] = {"train": Train, "evaluate": Evaluate, "measure": Measure, "prepare": Prepare}
TASKS |= {"advertise": Advertise, "share": Share, "confirm": Confirm, "unmask": Unmask, "decrypt": Decrypt}
MOST_TEXT, MOST_SUMS, MOST_NAME = 4000, 64, 80
MOST_ROWS, MOST_NUMBER = 2**48, 1e100  # so that the sums and squares of what sites say are finite too

_HISTOGRAMS = ("positives", "negatives")  # the only sums that are no numbers; training has none
_NAMES = ("peers", "asked", "names", "alive", "signers", "senders")
_HIDDEN: dict[str, type] = {
    "advertised": Advertised,
    "shared": Shared,
    "confirmed": Confirmed,
    "unmasked": Unmasked,
    "decrypted": Decrypted,
}
_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("round", "cap", "cohort", "resamples", "size"), int),
    **dict.fromkeys(("layout", "figure", "what", "session", "content"), str),
    **dict.fromkeys(("known", "statistics"), dict),
    "start": np.ndarray,
    **dict.fromkeys(("public", *_NAMES), tuple),
    **dict.fromkeys(("keys", "signatures", "sealed"), np.ndarray),
}


def task_tree(body: TaskBody) -> Tree:
    """Return a task's body as a tree."""
    name = next(name for name, kind in TASKS.items() if isinstance(body, kind))
    return {"task": name, **{part.name: getattr(body, part.name) for part in fields(body)}}


def task_of(tree: Tree) -> TaskBody:
    """Return the body that `task_tree` took; raises `WireError` for anything else."""
    if not isinstance(tree, dict) or not isinstance(tree.get("task"), str) or tree["task"] not in TASKS:
        raise WireError("a task is of no kind that is known here.")
    kind = TASKS[tree["task"]]
    values = {name: value for name, value in tree.items() if name != "task"}
    if set(values) != {part.name for part in fields(kind)}:
        raise WireError(f"a task {tree['task']!r} has other fields than here; compare the versions of fedloom.")
    for name, value in values.items():
        if not isinstance(value, _TYPES[name]) or isinstance(value, bool):
            raise WireError(f"a task {tree['task']!r} has a {type(value).__name__} as its {name}.")
    if any(not all(isinstance(name, str) for name in values.get(part, ())) for part in _NAMES):
        raise WireError(f"a task {tree['task']!r} names somebody by what is no text.")
    if any(values[part].dtype != np.uint8 for part in ("keys", "signatures", "sealed") if part in values):
        raise WireError(f"keys, signatures and what is sealed are bytes; in a task {tree['task']!r} they are not.")
    start = values.get("start")
    if start is not None and (start.ndim != 1 or start.dtype.kind != "f" or not _finite(start)):
        raise WireError("a shared vector must be one row of finite numbers.")
    body: TaskBody = kind(**values)
    return body


def reply_tree(body: ReplyBody) -> Tree:
    """Return a reply's body as a tree."""
    match body:
        case Trained(update, metrics):
            return {"reply": "trained", **_packed(update), "metrics": dict(metrics.sums)}
        case Evaluated(metrics, estimate):
            return {"reply": "evaluated", "metrics": dict(metrics.sums), "estimate": estimate}
        case Update():
            return {"reply": "update", **_packed(body)}
        case Ready(train, held_out):
            return {"reply": "ready", "train": train, "held_out": held_out}
        case Fault():
            return {"reply": "fault", **asdict(body), "trace": list(body.trace)}
        case Advertised() | Shared() | Confirmed() | Unmasked() | Decrypted():
            return {"reply": type(body).__name__.lower(), **vars(body)}
    raise TypeError(f"a reply cannot be a {type(body).__name__}")


def reply_of(tree: Tree, layouts: Mapping[str, Layout], site: str) -> ReplyBody:
    """Return the body that `reply_tree` took, from `site`; raises `WireError` for anything else.

    Args:
        tree: as it arrived.
        layouts: by digest: those that an update may be packed by.
        site: who sent it; a fault is in its name, whatever it says.
    """
    known = isinstance(tree, dict) and isinstance(tree.get("reply"), str)  # an array is not compared with a word
    match tree if known else None:
        case {"reply": "trained", "metrics": metrics}:
            return Trained(_update(tree, layouts), _metrics(metrics, bins=0))
        case {"reply": "evaluated", "metrics": metrics, "estimate": estimate}:
            return Evaluated(_metrics(metrics, SCORE_BINS), _estimate(estimate))
        case {"reply": "update"}:
            return _update(tree, layouts)
        case {"reply": "ready", "train": int(train), "held_out": int(held_out)} if _rows(train, held_out):
            return Ready(train, held_out)
        case {"reply": "fault", "phase": str(phase), "error": str(error), "message": str(said), "trace": list(trace)}:
            lines = tuple(_text(str(line), 200) for line in trace[:50])
            return Fault(site, _text(phase, 40), _text(error, 80), _text(said, MOST_TEXT), lines)
        case {"reply": str(kind)} if kind in _HIDDEN:
            return _hidden(_HIDDEN[kind], {name: value for name, value in tree.items() if name != "reply"})
    raise WireError("a reply is of no kind that is known here, or lacks a field.")


def _hidden(kind: type, values: dict[str, Any]) -> ReplyBody:
    """Return an answer in a hidden sum: names, and rows of bytes, whose sizes are looked at where they are used."""
    names = values.get("names", ())
    arrays = [value for name, value in values.items() if name != "names"]
    if set(values) != {part.name for part in fields(kind)} or not isinstance(names, tuple):
        raise WireError(f"an answer {kind.__name__} has other fields than here; compare the versions of fedloom.")
    if not all(isinstance(name, str) for name in names):
        raise WireError(f"an answer {kind.__name__} names somebody by what is no text.")
    if not all(isinstance(array, np.ndarray) and array.dtype == np.uint8 for array in arrays):
        raise WireError(f"an answer {kind.__name__} holds something else than bytes.")
    body: ReplyBody = kind(**values)
    return body


def _packed(update: Update) -> Tree:
    packed = {"layout": update.layout.digest, "count": update.count, "side": dict(update.side)}
    return {"vector": update.vector, **packed}


def _update(tree: Tree, layouts: Mapping[str, Layout]) -> Update:
    match tree:
        case {"vector": np.ndarray() as vector, "layout": str(digest), "count": int(count), "side": dict(side)}:
            if digest not in layouts:
                known = ", ".join(sorted(name[:12] for name in layouts)) or "none"
                raise WireError(f"an update of layout {digest[:12]} was not asked for; those that were: {known}.")
            if count < 1 or any(not _scalar(value) and not isinstance(value, np.ndarray) for value in side.values()):
                raise WireError("an update sums at least one client, and has numbers or arrays beside it.")
            return Update(vector, layouts[digest], count, side)
    raise WireError("an update lacks its vector, layout, count or side values.")


def _metrics(sums: Any, bins: int) -> Metrics:
    """Return metrics whose figures can be computed, alone and added to others': numbers, and histograms if allowed."""
    if not isinstance(sums, dict) or len(sums) > MOST_SUMS:
        raise WireError(f"metrics are at most {MOST_SUMS} named sums.")
    sums = {name: _sum(name, value, bins) for name, value in sums.items()}
    if not _rows(sums.get("examples", -1)):
        raise WireError("metrics must say of how many examples they are.")
    try:
        Metrics({**sums, "examples": max(1, sums["examples"])}).view()  # as if added to others'
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise WireError("metrics lack a sum that their figures need.") from error
    return Metrics(sums)


def _sum(name: str, value: Any, bins: int) -> Any:
    """Return one of metrics' sums; a histogram in numbers that others can be added to without overflow."""
    if not name.isprintable() or len(name) > MOST_NAME:
        raise WireError(f"a sum among the metrics has a printable name of at most {MOST_NAME} letters.")
    if name not in _HISTOGRAMS and _scalar(value):
        return value
    if name in _HISTOGRAMS and bins and isinstance(value, np.ndarray) and _counts(value, bins):
        return value if value.dtype == np.int64 else value.astype(np.float64)
    raise WireError(f"the sum {name[:40]!r} among the metrics is not finite, or has another shape than here.")


def _finite(vector: np.ndarray[Any, Any]) -> bool:
    return all(bool(np.isfinite(vector[block]).all()) for block in blocks(slice(0, len(vector))))


def _rows(*numbers: int) -> bool:
    return all(type(number) is int and 0 <= number < MOST_ROWS for number in numbers)


def _text(said: str, most: int) -> str:
    """Return a text that can be stored and shown anywhere: no half characters, nothing that moves a cursor."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in said[:most])


def _counts(value: np.ndarray[Any, Any], bins: int) -> bool:
    if value.shape != (bins,) or value.dtype.kind not in "fiu":
        return False
    counts = value.astype(np.float64)  # a small type does not hold the bound
    return bool(((counts >= 0) & (counts < MOST_ROWS)).all())  # NaN is neither


def _estimate(value: Any) -> tuple[float, float, float] | None:
    if value is None:
        return None
    if not isinstance(value, tuple) or len(value) != 3 or not all(isinstance(part, float) for part in value):
        raise WireError("an estimate is a value with a lower and an upper end.")
    return value


def _scalar(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST_NUMBER
