"""Several trainers of one process through one batched pass."""

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter

from ..core.errors import UpdateError
from ..core.examples import Examples
from ..core.metrics import Metrics, total
from ..core.model import Stack
from ..core.parts import Work, Works
from ..core.rng import stream
from ..core.task import Evaluate, Evaluated, Reply, Task, Train, Trained
from ..core.tree import Tree
from .trainer import Trainer, fault

Ready = tuple[Trainer, Task, Examples, Tree]  # the last is what the party remembers


def own(party: Trainer) -> Examples:
    """Return what a party trains on, where it is."""
    return party.prepared().train


def never(error: Exception) -> bool:
    """No error ends the whole."""
    return False


def train_together(
    parties: Sequence[Trainer],
    tasks: Sequence[Task],
    body: Train,
    stack: Stack,
    *,
    rows: Callable[[Trainer], Examples] = own,
    ends: Callable[[Exception], bool] = never,
) -> Iterator[Reply]:
    """Yield replies to tasks that all have this body: merged into one sum where the strategy lets it.

    What fails for several at once is done again for each by itself, so that a fault is its own party's alone.

    Args:
        parties: who trains; tasks: theirs, in the same order.
        body: of all tasks.
        stack: what trains them.
        rows: where a party's examples lie.
        ends: is this error of several not theirs, so that it is raised?
    """
    began = perf_counter()
    ready: list[Ready] = []
    for party, task in zip(parties, tasks, strict=True):
        try:
            party.agreed(body)
            ready.append((party, task, rows(party), party.remembered()))
        except Exception as error:  # noqa: BLE001 (a failing party is a value)
            yield Reply((task.number,), (party.name,), fault(party.name, task, error))
    if not ready:
        return
    try:
        works = _works(ready, body, stack)
        merged = _merged(ready, works, body, stack) if _merges(ready) else None
    except Exception as error:
        if len(ready) > 1 and ends(error):
            raise
        if len(ready) == 1:
            yield Reply((ready[0][1].number,), (ready[0][0].name,), fault(ready[0][0].name, ready[0][1], error))
            return
        for party, task, *_ in ready:
            yield from train_together([party], [task], body, stack, rows=rows, ends=ends)
        return
    seconds = perf_counter() - began
    if merged is not None:
        numbers, names = tuple(task.number for _, task, *_ in ready), tuple(party.name for party, *_ in ready)
        yield Reply(numbers, names, merged, seconds)
        return
    deltas = stack.read(works.deltas)
    for i, (party, task, *_) in enumerate(ready):
        work = Work(deltas[i], works.examples[i], works.metrics[i], works.memories[i])
        try:
            answer = party.concluded(task, body, work, stream(party.seed, task.number))
        except Exception as error:  # noqa: BLE001 (stages may be the user's)
            answer = fault(party.name, task, error)
        yield Reply((task.number,), (party.name,), answer, seconds / len(ready))


def evaluate_together(parties: Sequence[Trainer], tasks: Sequence[Task], body: Evaluate) -> Iterator[Reply]:
    """Yield replies to tasks that all have this body; those that would deploy one and the same model go together.

    A party without a local memory has nothing that could make its model another one. What fails for several at once is
    done again for each by itself, and so is a bootstrap.
    """
    began = perf_counter()
    found = None if body.resamples else _measured(parties, body)
    if found is None:
        for party, task in zip(parties, tasks, strict=True):
            yield from party.answer([task])
        return
    seconds = (perf_counter() - began) / len(parties)
    for party, task, metrics in zip(parties, tasks, found, strict=True):
        yield Reply((task.number,), (party.name,), Evaluated(metrics), seconds)


def _measured(parties: Sequence[Trainer], body: Evaluate) -> list[Metrics] | None:
    """Return everybody's sums; None if they would deploy different models, or one of them fails."""
    model = parties[0].model
    try:
        if any(party.remembered()["local"] is not None for party in parties):
            return None
        deployed = model.load(parties[0].personal(body.start))
        return model.evaluate_many(deployed, [party.prepared().held_out for party in parties])
    except Exception:  # noqa: BLE001 (the border to the user's code; whose error it is, each tells by itself)
        return None


def _works(ready: Sequence[Ready], body: Train, stack: Stack) -> Works:
    first = ready[0][0]
    return first.strategy.local.train_many(
        stack,
        first.model.layout,
        body.start[: first.layouts[0].size],
        [examples for _, _, examples, _ in ready],
        [memory["local"] for *_, memory in ready],
        round=body.round,
        streams=[stream(party.seed, task.number).child("local") for party, task, *_ in ready],
    )


def _merges(ready: Sequence[Ready]) -> bool:
    party, task, *_ = ready[0]
    return task.merge and not party.strategy.stages and not party.strategy.gather.hides


def _merged(ready: Sequence[Ready], works: Works, body: Train, stack: Stack) -> Trained | None:
    """Return the sum of all clients; None if one of them does not fit, so that each is judged by itself."""
    first = ready[0][0]
    counted = first.strategy.weights.weigh
    if not all(works.examples):
        return None
    weights = [counted(party.name, n, body.cap) for (party, *_), n in zip(ready, works.examples, strict=True)]
    try:
        update = stack.weigh(works.deltas, first.agreed(body).total, weights)
    except UpdateError:
        return None
    for (party, task, _, before), memory in zip(ready, works.memories, strict=True):
        if memory is not None:
            party.pending[task.number] = {**before, "local": memory}
    return Trained(update, total(works.metrics))
