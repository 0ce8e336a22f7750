"""A chunk: some clients' tasks that one worker does in one go, as a value that travels to it and back.

Where a strategy merges, a worker adds its clients' updates and sends one partial sum; the sum is exact, so neither the
number of workers nor where chunks begin can change a bit of the model.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from ..core.layout import Layout, Vector
from ..core.metrics import Metrics, total
from ..core.task import Evaluate, Evaluated, Fault, Reply, Task, Train, Trained
from ..core.tree import Tree
from ..core.update import Update
from .trainer import Trainer

Parties = Mapping[str, Trainer]


def request(tasks: Sequence[Task], parties: Parties) -> Tree:
    """Return what a worker needs besides the vector: who does what, and what each of them remembers."""
    body = tasks[0].body
    asked = {"tasks": [[task.number, task.party] for task in tasks], "merge": tasks[0].merge}
    memories = [parties[task.party].memory for task in tasks]
    if isinstance(body, Train):
        said = {"round": body.round, "layout": body.layout, "cap": body.cap, "public": body.public}
        return {**asked, "memories": memories, "train": said}
    assert isinstance(body, Evaluate), "chunks train or evaluate"
    return {**asked, "memories": memories, "evaluate": {"figure": body.figure, "resamples": body.resamples}}


def work(parties: Parties, asked: Tree, start: Vector, out: NDArray[np.float64]) -> Tree:
    """Do a chunk, in a worker. A partial sum is written into `out`; everything else is in what is returned."""
    body = Train(start=start, **asked["train"]) if "train" in asked else Evaluate(start, **asked["evaluate"])
    rows, added = [], 0
    for (number, name), memory in zip(asked["tasks"], asked["memories"], strict=True):
        party = parties[name]
        party.memory = memory if memory is not None else party.memory
        reply = next(party.answer([Task(number, name, body, asked["merge"])]))
        row: Tree = {"seconds": reply.seconds, "memory": party.pending.pop(number, None)}
        match reply.body:
            case Trained(update, metrics) if asked["merge"]:
                _add(out, update, first=not added)
                added += update.count
                row["metrics"] = dict(metrics.sums)
            case Trained(update, metrics):
                row |= {"metrics": dict(metrics.sums), "vector": update.vector, "side": dict(update.side)}
            case Evaluated(metrics, estimate):
                row |= {"metrics": dict(metrics.sums), "estimate": estimate}
            case Fault() as fault:
                row["fault"] = {**asdict(fault), "trace": list(fault.trace)}
        rows.append(row)
    return {"rows": rows, "added": added}


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
    sums, numbers, names, seconds = [], [], [], 0.0
    for (number, name), row in zip(asked["tasks"], done["rows"], strict=True):
        if row["memory"] is not None:
            parties[name].pending[number] = row["memory"]
        if "fault" in row:
            said = row["fault"]
            yield Reply((number,), (name,), Fault(**{**said, "trace": tuple(said["trace"])}), row["seconds"])
        elif "evaluate" in asked:
            yield Reply((number,), (name,), Evaluated(Metrics(row["metrics"]), row["estimate"]), row["seconds"])
        elif asked["merge"]:
            sums.append(Metrics(row["metrics"]))
            numbers.append(number)
            names.append(name)
            seconds += row["seconds"]
        else:
            update = Update(row["vector"], payload if row["side"] else totals, side=row["side"])
            yield Reply((number,), (name,), Trained(update, Metrics(row["metrics"])), row["seconds"])
    if numbers:
        vector = out if len(numbers) > 1 else out.astype(totals.dtype)
        yield Reply(tuple(numbers), tuple(names), Trained(Update(vector, totals, len(numbers)), total(sums)), seconds)


def lost(asked: Tree, why: str) -> Iterator[Reply]:
    """Yield a fault for every task of a chunk whose worker died twice."""
    phase = "train" if "train" in asked else "evaluate"
    for number, name in asked["tasks"]:
        yield Reply((number,), (name,), Fault(name, phase, "WorkerDied", why))
