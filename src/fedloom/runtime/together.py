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

    What fails for several at once is done again for each by itself, so that a fault is its own party's alone.
    """
    began = perf_counter()
    ready: list[tuple[Trainer, Task]] = []
    for party, task in zip(parties, tasks, strict=True):
        try:
            party.agreed(body)
            party.remembered()
            party.prepared()
            ready.append((party, task))
        except Exception as error:  # noqa: BLE001 (a failing party is a value)
            yield Reply((task.number,), (party.name,), fault(party.name, task, error))
    if not ready:
        return
    try:
        works = _works(ready, body, stack)
        merged = _merged(ready, works, body) if _merges(ready) else None
    except Exception as error:  # noqa: BLE001 (the border to the user's code)
        yield from _singly(ready, body, stack, error)
        return
    seconds = perf_counter() - began
    if merged is not None:
        numbers, names = tuple(task.number for _, task in ready), tuple(party.name for party, _ in ready)
        yield Reply(numbers, names, merged, seconds)
        return
    for i, (party, task) in enumerate(ready):
        work = Work(works.deltas[i], works.examples[i], works.metrics[i], works.memories[i])
        try:
            answer = party.concluded(task, body, work, stream(party.seed, task.number))
        except Exception as error:  # noqa: BLE001 (stages may be the user's)
            answer = fault(party.name, task, error)
        yield Reply((task.number,), (party.name,), answer, seconds / len(ready))


def _works(ready: Sequence[tuple[Trainer, Task]], body: Train, stack: Stack) -> Works:
    first = ready[0][0]
    return first.strategy.local.train_many(
        stack,
        first.model.layout,
        body.start,
        [party.prepared().train for party, _ in ready],
        [party.remembered()["local"] for party, _ in ready],
        round=body.round,
        streams=[stream(party.seed, task.number).child("local") for party, task in ready],
    )


def _singly(ready: Sequence[tuple[Trainer, Task]], body: Train, stack: Stack, error: Exception) -> Iterator[Reply]:
    if len(ready) == 1:
        party, task = ready[0]
        yield Reply((task.number,), (party.name,), fault(party.name, task, error))
        return
    for party, task in ready:
        yield from train_together([party], [task], body, stack)


def _merges(ready: Sequence[tuple[Trainer, Task]]) -> bool:
    party, task = ready[0]
    return task.merge and not party.strategy.stages and not party.strategy.gather.hides


def _merged(ready: Sequence[tuple[Trainer, Task]], works: Works, body: Train) -> Trained | None:
    """Return the sum of all clients; None if one of them does not fit, so that each is judged by itself."""
    first = ready[0][0]
    weigh = first.strategy.weights.weigh
    if not all(works.examples):
        return None
    weights = [weigh(party.name, n, body.cap) for (party, _), n in zip(ready, works.examples, strict=True)]
    try:
        update = weigh_many(works.deltas, first.agreed(body).total, weights)
    except UpdateError:
        return None
    for (party, task), memory in zip(ready, works.memories, strict=True):
        if memory is not None:
            party.pending[task.number] = {**party.remembered(), "local": memory}
    return Trained(update, total(works.metrics))
