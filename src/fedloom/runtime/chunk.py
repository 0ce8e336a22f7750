"""A chunk: some clients' tasks that one worker does in one go, as a value that travels to it and back.

Where a strategy merges, a worker adds its clients' updates and sends one partial sum; the sum is exact, so neither the
number of workers nor where chunks begin can change a bit of the model.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.layout import Layout, Vector
from ..core.metrics import Metrics, total
from ..core.model import Stack
from ..core.task import Evaluate, Evaluated, Fault, Reply, ReplyBody, Task, Train, Trained
from ..core.tree import Tree, holds_something
from ..core.update import Update
from .together import evaluate_together, train_together
from .trainer import Trainer

Parties = Mapping[str, Trainer]


def request(tasks: Sequence[Task], parties: Parties) -> Tree:
    """Return what a worker needs besides the vector: who does what, and what each of them remembers."""
    body = tasks[0].body
    asked = {
        "numbers": [task.number for task in tasks],
        "parties": [task.party for task in tasks],
        "memories": [parties[task.party].memory for task in tasks],
        "merge": tasks[0].merge,
    }
    if isinstance(body, Train):
        said = {name: getattr(body, name) for name in ("round", "layout", "cap", "public", "cohort")}
        return {**asked, "train": said}
    assert isinstance(body, Evaluate), "chunks train or evaluate"
    return {**asked, "evaluate": {"figure": body.figure, "resamples": body.resamples}}


@dataclass(frozen=True)
class Together:
    """Clients of a chunk train together, `clients` at a time: few enough for their vectors to stay in the cache."""

    stack: Stack
    clients: int


def work(
    parties: Parties, asked: Tree, start: Vector, out: NDArray[np.float64], together: Together | None = None
) -> Tree:
    """Do a chunk, in a worker.

    Returns partial sums' numbers, metrics and seconds under "merged", the sum itself in `out`; single answers under
    "rows"; and the memories that wait to be settled, by number.
    """
    body = Train(start=start, **asked["train"]) if "train" in asked else Evaluate(start, **asked["evaluate"])
    chosen = [parties[name] for name in asked["parties"]]
    tasks = [Task(number, name, body, asked["merge"]) for number, name in _pairs(asked)]
    for party, memory in zip(chosen, asked["memories"], strict=True):
        party.memories = {} if memory is None else {party.name: memory}
    merged: Tree = {"numbers": [], "parties": [], "metrics": [], "seconds": 0.0}
    rows: list[Tree] = []
    for reply in _answers(chosen, tasks, body, together):
        if isinstance(reply.body, Trained) and asked["merge"]:
            _add(out, reply.body.update, first=not merged["numbers"])
            merged["numbers"] += reply.numbers
            merged["parties"] += reply.parties
            merged["metrics"].append(dict(reply.body.metrics.sums))
            merged["seconds"] += reply.seconds
        else:
            rows.append(_row(reply))
    waiting = {
        str(n): party.pending.pop(n) for n, party in zip(asked["numbers"], chosen, strict=True) if n in party.pending
    }
    kept = {number: memory for number, memory in waiting.items() if holds_something(memory)}
    return {"merged": merged, "rows": rows, "memories": kept}


def _answers(
    parties: Sequence[Trainer], tasks: Sequence[Task], body: Train | Evaluate, together: Together | None
) -> Iterator[Reply]:
    if together is not None and isinstance(body, Train):
        for at in range(0, len(tasks), together.clients):
            some = slice(at, at + together.clients)
            yield from train_together(parties[some], tasks[some], body, together.stack)
        return
    if together is not None and isinstance(body, Evaluate):
        yield from evaluate_together(parties, tasks, body)
        return
    for party, task in zip(parties, tasks, strict=True):
        yield from party.answer([task])


def _row(reply: Reply) -> Tree:
    row: Tree = {"number": reply.numbers[0], "party": reply.parties[0], "seconds": reply.seconds}
    match reply.body:
        case Trained(update, metrics):
            return row | {"metrics": dict(metrics.sums), "vector": update.vector, "side": dict(update.side)}
        case Evaluated(metrics, estimate):
            return row | {"metrics": dict(metrics.sums), "estimate": estimate}
        case Fault() as said:
            return row | {"fault": {**asdict(said), "trace": list(said.trace)}}
    raise TypeError(f"a chunk cannot answer with {type(reply.body).__name__}")


def _add(out: NDArray[np.float64], update: Update, first: bool) -> None:
    if first:
        out[:] = update.vector
    else:
        np.add(out, update.vector, out=out)


def replies(
    asked: Tree, done: Tree, out: NDArray[np.float64], parties: Parties, totals: Layout, payload: Layout
) -> Iterator[Reply]:
    """Yield what a worker's answer means, and hand each party the memory that waits to be settled.

    A partial sum lies in `out` and is only valid until the worker's next chunk.
    """
    names = dict(_pairs(asked))
    for number, memory in done["memories"].items():
        parties[names[int(number)]].pending[int(number)] = memory
    for row in done["rows"]:
        yield Reply((row["number"],), (row["party"],), _body(row, "evaluate" in asked, totals, payload), row["seconds"])
    merged = done["merged"]
    if merged["numbers"]:
        count = len(merged["numbers"])
        update = Update(out if count > 1 else out.astype(totals.dtype), totals, count)
        body = Trained(update, total(Metrics(sums) for sums in merged["metrics"]))
        yield Reply(tuple(merged["numbers"]), tuple(merged["parties"]), body, merged["seconds"])


def _body(row: Tree, evaluated: bool, totals: Layout, payload: Layout) -> ReplyBody:
    if "fault" in row:
        return Fault(**{**row["fault"], "trace": tuple(row["fault"]["trace"])})
    if evaluated:
        return Evaluated(Metrics(row["metrics"]), row["estimate"])
    update = Update(row["vector"], payload if row["side"] else totals, side=row["side"])
    return Trained(update, Metrics(row["metrics"]))


def singly(asked: Tree) -> list[Tree]:
    """Return the chunk's tasks as chunks of one task each."""
    each = zip(_pairs(asked), asked["memories"], strict=True)
    return [{**asked, "numbers": [number], "parties": [name], "memories": [own]} for (number, name), own in each]


def _pairs(asked: Tree) -> Iterator[tuple[int, str]]:
    return zip(asked["numbers"], asked["parties"], strict=True)


def lost(asked: Tree, why: str) -> Iterator[Reply]:
    """Yield a fault for every task of a chunk whose worker died twice."""
    phase = "train" if "train" in asked else "evaluate"
    for number, name in _pairs(asked):
        yield Reply((number,), (name,), Fault(name, phase, "WorkerDied", why))
