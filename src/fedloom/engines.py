"""What carries a simulation's tasks: one process, a pool of them, or a pool whose clients train in stacks.

"sequential" and "pool" give the same bits on one machine. "vectorized" gives the same model to rounding, and says so by
being asked for: `auto` measures, takes the faster of the first two, and tells what the third would bring. Shorter
batches are padded there with rows that weigh nothing; a module that mixes a batch's examples (x - x.mean(0)) would
see them, and belongs in the pool.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from time import perf_counter

from .adapters.threads import forkable, one_thread, single_threaded
from .core.errors import ConfigError
from .core.layout import Layout
from .core.parts import Stack
from .core.state import State
from .core.strategy import Strategy, Terms
from .core.task import Fault, Federation, Task, Train
from .runtime.chunk import Together
from .runtime.inprocess import InProcess
from .runtime.pool import Pool, cores, forks
from .runtime.together import train_together
from .runtime.trainer import Trainer
from .schedule.fold import publics

ENGINES = ("auto", "sequential", "pool", "vectorized")
CACHE = 6e6  # bytes: so much of clients' vectors stays close to a core while they train
SAMPLE, SOON_S = 8, 0.05  # clients that are measured; below so many seconds a round, processes bring nothing
LONG_S = 1.0  # a client that takes so long is measured once, and by itself

Parties = Mapping[str, Trainer]


@dataclass(frozen=True)
class Engine:
    """An engine and why it was taken; `chunk` clients train at a time in the vectorized one."""

    name: str
    chunk: int = 1
    why: str = ""

    def __str__(self) -> str:
        return f"{self.name}/{self.chunk}" if self.name == "vectorized" else self.name

    @staticmethod
    def of(text: str) -> "Engine":
        """Return the engine that `str` wrote.

        >>> Engine.of("vectorized/5").chunk
        5
        """
        name, _, chunk = text.partition("/")
        if name not in ENGINES:
            raise ConfigError(f"there is no engine {name!r}; there are {', '.join(ENGINES)}.")
        return Engine(name, int(chunk) if chunk.isdigit() else 0)


def carried(engine: Engine, sequential: InProcess, parties: Parties, terms: Terms) -> Federation:
    """Return the federation of that engine; raises `ConfigError` for what it cannot do, by name."""
    if engine.name == "sequential":
        return sequential
    if not forkable():
        raise ConfigError(f"{engine.name} forks processes, which cannot use a CUDA device; take sequential.")
    together = Together(stack_of(parties), engine.chunk) if engine.name == "vectorized" else None
    size, now = min(cores(), len(parties)), sequential.now
    return Pool(parties, sequential.roster, terms.payload, terms.total, one_thread, together, size, now)


def stack_of(parties: Parties) -> Stack:
    """Return what trains several clients at once; raises `ConfigError` that names what keeps them apart."""
    first = next(iter(parties.values()))
    local = first.strategy.local
    if not local.stacks:
        raise ConfigError(f"{type(local).__name__} trains one client at a time; take the engine pool or sequential.")
    if _definer(local, "train") is not _definer(local, "train_many"):
        raise ConfigError(f"{type(local).__name__} has a train of its own; give it a train_many, or take the pool.")
    return first.model.stack()


def _definer(part: object, name: str) -> type | None:
    return next((kind for kind in type(part).__mro__ if name in vars(kind)), None)


def fitting(layout: Layout) -> int:
    """Return how many clients' vectors fit the cache, from 1 to 50."""
    return int(min(50, max(1, CACHE // (layout.size * layout.dtype.itemsize))))


def chosen(asked: Engine, strategy: Strategy, parties: Parties, terms: Terms, state: State) -> Engine:
    """Return the engine to use: the one that was asked for, or, for "auto", what measuring says."""
    if asked.name == "vectorized" and asked.chunk < 1:
        return replace(asked, chunk=fitting(terms.model))
    if asked.name != "auto":
        return asked
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


def measured(strategy: Strategy, parties: Parties, terms: Terms, state: State) -> tuple[float, float]:
    """Return seconds for one client, alone and in a stack (infinity if they cannot be stacked); nothing is kept."""
    some = list(parties.values())[: max(1, min(SAMPLE, fitting(terms.model)))]
    body = Train(1, state.vector, terms.total.digest, terms.cap, publics(strategy, state))
    tasks = [Task(number, party.name, body, strategy.merges) for number, party in enumerate(some, start=1)]

    def alone(clients: int) -> Callable[[], None]:
        def work() -> None:
            for party, task in zip(some[:clients], tasks, strict=False):
                next(party.answer([task]))

        return work

    def stacked(stack: Stack) -> Callable[[], None]:
        def work() -> None:
            for reply in train_together(some, tasks, body, stack):
                if isinstance(reply.body, Fault):
                    raise ConfigError(reply.body.message)

        return work

    with single_threaded():
        each, together = _seconds(alone(1)), float("inf")
        if each < LONG_S:
            each = _seconds(alone(len(some))) / len(some)
            with suppress(ConfigError):
                together = _seconds(stacked(stack_of(parties))) / len(some)
    for party in some:
        party.pending.clear()
    return each, together


def _seconds(work: Callable[[], None]) -> float:
    times: list[float] = []
    while len(times) < 3 and sum(times) < LONG_S:
        began = perf_counter()
        work()
        times.append(perf_counter() - began)
    return min(times)
