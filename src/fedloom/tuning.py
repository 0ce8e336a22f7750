"""Which engine, and how many clients train at a time: found by timing the first clients before round 1.

What is measured depends on the machine and the moment, so the engine that was taken is journaled with its size and a
resumed run repeats it. Nothing else of a measurement is left: what clients would remember of it is forgotten.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from time import perf_counter

import numpy as np

from .adapters.threads import forkable, single_threaded
from .core.errors import ConfigError
from .core.layout import Layout
from .core.model import Resident, Stack
from .core.state import State
from .core.strategy import Strategy, Terms
from .core.task import Fault, Task, Train
from .engines import Engine, Parties, stack_of
from .runtime.device import VECTORS, fitting_device, on_device
from .runtime.machine import cores, memory
from .runtime.pool import MOST
from .runtime.processes import forks
from .runtime.together import train_together
from .runtime.trainer import Trainer
from .schedule.fold import publics

CACHE = 6e6  # bytes: so much of clients' vectors and rows stays close to a core while they train
ROOM = 0.25  # of the memory that is available may be vectors of stacks, six for each client
SIZES = (5, 10, 25, 50, 100)  # clients at a time that are tried beside what fits the cache
SAMPLE, SOON_S = 8, 0.05  # clients that are measured alone; below so many seconds a round, processes bring nothing
LONG_S = 1.0  # a client that takes so long is measured once, and by itself
COMPARE_S, FEW = 0.5, 10  # sizes are compared for so long, which is part of a start, on so many clients or a stack
APART = 1.5  # times the rule, or a part of it: what is nearer is as quick
GAIN = 0.95  # of the rule's time: another size must be better than noise

Timings = Mapping[int, float]  # clients at a time -> seconds for each client


@dataclass(frozen=True, eq=False)
class Trial:
    """The first clients of a federation and what round 1 would ask of them, done as often as one likes."""

    parties: Sequence[Trainer]
    tasks: Sequence[Task]
    body: Train

    @staticmethod
    def of(clients: int, strategy: Strategy, parties: Parties, terms: Terms, state: State) -> "Trial":
        """Return a trial of so many clients, at most all."""
        some = list(islice(parties.values(), clients))
        body = Train(1, state.vector, terms.total.digest, terms.cap, publics(strategy, state))
        tasks = [Task(number, party.name, body, strategy.merges) for number, party in enumerate(some, start=1)]
        return Trial(some, tasks, body)

    def first(self, clients: int) -> "Trial":
        """Return a trial of the first of them."""
        return Trial(self.parties[:clients], self.tasks[:clients], self.body)

    @property
    def examples(self) -> int:
        """How many they train on."""
        return sum(party.prepared().train.size for party in self.parties)

    def alone(self, clients: int) -> Callable[[], None]:
        """Return what trains the first clients one by one."""

        def work() -> None:
            for party, task in islice(zip(self.parties, self.tasks, strict=True), clients):
                next(party.answer([task]))

        return work

    def stacked(self, stack: Stack, size: int) -> Callable[[], None]:
        """Return what trains all of them, `size` at a time; it raises `ConfigError` if one fails."""

        def work() -> None:
            for at in range(0, len(self.tasks), size):
                some = slice(at, at + size)
                for reply in train_together(self.parties[some], self.tasks[some], self.body, stack):
                    if isinstance(reply.body, Fault):
                        raise ConfigError(reply.body.message)

        return work

    @contextmanager
    def forgotten(self) -> Iterator["Trial"]:
        """Measure inside: libraries keep to one thread, and parties forget what they did."""
        try:
            with single_threaded():
                yield self
        finally:
            for party in self.parties:
                party.pending.clear()


def fitting(layout: Layout, rows: int = 0) -> int:
    """Return how many clients' vectors, and `rows` bytes of rows for each, fit the cache: from 1 to 50."""
    return int(min(MOST, max(1, CACHE // (layout.size * layout.dtype.itemsize + rows))))


def sizes(layout: Layout, cohort: int, rows: int = 0) -> tuple[int, ...]:
    """Return how many clients at a time are worth trying: the rule's number first, then others in their order from it.

    A worker of the pool has no more at hand than its share of the cohort, and no more than memory holds.

    >>> from fedloom.core.layout import Leaf
    >>> sizes(Layout((Leaf("w", (10,)),)), 1), sizes(Layout((Leaf("w", (10**12,)),)), 1000)
    ((1,), (1,))
    """
    share = -(-cohort // max(1, min(cores(), cohort)))
    most = int(max(1, min(SIZES[-1], share, _room() // (VECTORS * layout.size * layout.dtype.itemsize))))
    rule = min(fitting(layout, rows), most)
    others = {min(size, most) for size in SIZES}
    tried = {rule} | {size for size in others if not 1 / APART < size / rule < APART}
    return tuple(sorted(tried, key=lambda size: (max(size / rule, rule / size), size)))


def _room() -> float:
    """Return bytes for the vectors of one worker's stack; a gigabyte on a system that does not tell what it has."""
    try:
        return memory() * ROOM / cores()
    except ConfigError:
        return 1e9


def chosen(asked: Engine, strategy: Strategy, parties: Parties, terms: Terms, state: State) -> Engine:
    """Return the engine to use: the one that was asked for, or what measuring says."""
    if asked.name == "vectorized" and asked.chunk < 1:
        return _vectorized(strategy, parties, terms, state)
    if asked.name != "auto":
        return asked
    if on_device(next(iter(parties.values())).model):
        return _on_device(strategy, parties, terms, state)
    cohort = strategy.select.most(len(parties))
    each, stacked = measured(strategy, parties, terms, state)
    alone = each * cohort
    if cores() < 2 or not (forks() and forkable()) or cohort < 2 or alone < SOON_S:
        return Engine("sequential", why=f"{each * 1e3:.2g} ms a client, {alone:.2g} s a round")
    pool = alone / min(cores(), cohort)
    why = f"{pool:.2g} s a round expected on {cores()} cores, {alone:.2g} s on one"
    if stacked < 0.8 * each:
        gain = f"{stacked * cohort / min(cores(), cohort):.2g} s with --engine vectorized, equal to rounding"
        why = f"{why}; {gain}"
    return Engine("pool", why=why)


def _on_device(strategy: Strategy, parties: Parties, terms: Terms, state: State) -> Engine:
    """Return "vectorized" for a model on a device, where nothing can be forked, or why it is not."""
    try:
        return _vectorized(strategy, parties, terms, state)
    except ConfigError as error:
        return Engine("sequential", why=str(error))


def _vectorized(strategy: Strategy, parties: Parties, terms: Terms, state: State) -> Engine:
    cohort, stack = strategy.select.most(len(parties)), stack_of(parties)
    if isinstance(stack, Resident):
        examples = next(iter(parties.values())).prepared().train
        size = fitting_device(stack, terms.total, examples, cohort)
        return Engine("vectorized", size, f"{size} clients at a time in {stack.free() / 1e9:.1f} GB on the device")
    rows = np.asarray(next(iter(parties.values())).prepared().train.inputs).nbytes
    tried = sizes(terms.model, cohort, rows)
    return best(tried[0], timed(tried, stack, Trial.of(max(tried), strategy, parties, terms, state)))


def best(rule: int, times: Timings) -> Engine:
    """Return the size that was fastest, or the rule's where nothing is clearly better than it.

    >>> best(10, {10: 1.0e-3, 5: 0.99e-3, 25: 0.7e-3}).why
    'ms a client by clients at a time: 5: 0.99, 10: 1, 25: 0.7'
    >>> best(10, {10: 1.0e-3, 5: 0.99e-3}).chunk, best(10, {}).chunk
    (10, 10)
    """
    if len(times) < 2:
        return Engine("vectorized", rule, "what fits the cache; no time to measure other sizes")
    fastest = min(times, key=lambda size: times[size])
    taken = fastest if times[fastest] < GAIN * times.get(rule, float("inf")) else rule
    told = ", ".join(f"{size}: {seconds * 1e3:.2g}" for size, seconds in sorted(times.items()))
    return Engine("vectorized", taken, f"ms a client by clients at a time: {told}")


def timed(tried: Sequence[int], stack: Stack, trial: Trial, limit_s: float = COMPARE_S) -> Timings:
    """Return seconds for each client by size, the better of two turns; sizes take turns, so that none has luck.

    Sizes train different clients, so seconds are counted by example first. Where there is no time for all sizes, those
    nearest to the rule are tried. A client that fails ends it: round 1 will say what is wrong.
    """
    times: dict[int, float] = {}
    with trial.forgotten(), suppress(ConfigError):
        began = perf_counter()
        each, rule = min(_once(trial.first(1).stacked(stack, 1)) for _ in range(2)), tried[0]
        if 4 * rule * each < limit_s:  # a client in a stack takes a part of that
            each = min(each, _once(trial.first(rule).stacked(stack, rule)) / rule)
        kept = affordable(tried, each, limit_s)
        for size in (*kept, *kept):
            if perf_counter() - began > limit_s:
                break
            some = trial.first(_clients(size))
            seconds = _once(some.stacked(stack, size)) / some.examples
            times[size] = min(seconds, times.get(size, seconds))
        mean = trial.first(_clients(max(times, default=1)))
        return {size: seconds * mean.examples / len(mean.tasks) for size, seconds in times.items()}
    return {}


def _clients(size: int) -> int:
    """Return how many clients a size is timed on: whole stacks."""
    return -(-FEW // size) * size


def affordable(tried: Sequence[int], each_s: float, limit_s: float) -> Sequence[int]:
    """Return the first sizes that can be timed twice before the limit; none if there are not two of them.

    >>> affordable((7, 5, 10, 17), 0.002, 1.0), affordable((7, 5, 10, 17), 0.02, 1.0), affordable((1, 2), 5.0, 1.0)
    ((7, 5, 10, 17), (7, 5), ())
    """
    for n in range(len(tried), 1, -1):
        if 2 * sum(map(_clients, tried[:n])) * each_s <= limit_s:
            return tried[:n]
    return ()


def measured(strategy: Strategy, parties: Parties, terms: Terms, state: State) -> tuple[float, float]:
    """Return seconds for one client, alone and in a stack (infinity if they cannot be stacked); nothing is kept."""
    rule, *_ = sizes(terms.model, strategy.select.most(len(parties)))
    trial = Trial.of(min(SAMPLE, rule), strategy, parties, terms, state)
    clients = len(trial.tasks)
    with trial.forgotten():
        each, together = _seconds(trial.alone(1)), float("inf")
        if each < LONG_S:
            each = _seconds(trial.alone(clients)) / clients
            with suppress(ConfigError):
                together = _seconds(trial.stacked(stack_of(parties), clients)) / clients
    return each, together


def _seconds(work: Callable[[], None]) -> float:
    times: list[float] = []
    while len(times) < 3 and sum(times) < LONG_S:
        times.append(_once(work))
    return min(times)


def _once(work: Callable[[], None]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began
