"""Several trainers of one process through one batched pass."""

from collections.abc import Iterator, Sequence
from time import perf_counter

from ..core.errors import UpdateError
from ..core.metrics import total
from ..core.parts import Stack, Work, Works
from ..core.rng import stream
from ..core.task import Reply, Task, Train, Trained
from ..core.update import weigh_many
from .trainer import Trainer, fault


def train_together(parties: Sequence[Trainer], tasks: Sequence[Task], body: Train, stack: Stack) -> Iterator[Reply]:
    """Yield replies to tasks that all have this body: merged into one sum where the strategy lets it.

    A party that cannot begin is a fault of its own; what fails in the batch fails for all of it.
    """
    began = perf_counter()
    ready, memories, data = [], [], []
    for party, task in zip(parties, tasks, strict=True):
        try:
            party.agreed(body)
            memory, examples = party.remembered(), party.prepared().train
        except Exception as error:  # noqa: BLE001 (a failing party is a value)
            yield Reply((task.number,), (party.name,), fault(party.name, task, error))
            continue
        ready.append((party, task))
        memories.append(memory)
        data.append(examples)
    if not ready:
        return
    first = ready[0][0]
    streams = [stream(party.seed, task.number) for party, task in ready]
    try:
        works = first.strategy.local.train_many(
            stack,
            first.model.layout,
            body.start,
            data,
            [memory["local"] for memory in memories],
            round=body.round,
            streams=[one.child("local") for one in streams],
        )
    except Exception as error:  # noqa: BLE001 (the border to the user's code)
        seconds = (perf_counter() - began) / len(ready)
        for party, task in ready:
            yield Reply((task.number,), (party.name,), fault(party.name, task, error), seconds)
        return
    merged = _merged(ready, works, body) if ready[0][1].merge and not first.strategy.stages else None
    if merged is not None:
        numbers, names = tuple(task.number for _, task in ready), tuple(party.name for party, _ in ready)
        yield Reply(numbers, names, merged, perf_counter() - began)
        return
    seconds = (perf_counter() - began) / len(ready)
    for i, (party, task) in enumerate(ready):
        work = Work(works.deltas[i], works.examples[i], works.metrics[i], works.memories[i])
        try:
            answer = party.concluded(task, body, work, streams[i])
        except Exception as error:  # noqa: BLE001 (stages may be the user's)
            answer = fault(party.name, task, error)
        yield Reply((task.number,), (party.name,), answer, seconds)


def _merged(ready: Sequence[tuple[Trainer, Task]], works: Works, body: Train) -> Trained | None:
    """Return the sum of all clients; None if one of them does not fit, so that each is judged by itself."""
    first = ready[0][0]
    weigh = first.strategy.weights.weigh
    weights = [weigh(party.name, n, body.cap) for (party, _), n in zip(ready, works.examples, strict=True)]
    try:
        update = weigh_many(works.deltas, first.agreed(body).total, weights)
    except UpdateError:
        return None
    for (party, task), memory in zip(ready, works.memories, strict=True):
        if memory is not None:
            party.pending[task.number] = {**party.remembered(), "local": memory}
    return Trained(update, total(works.metrics))
