"""The protocols of the axes. A part is a frozen record; its state is a value handed in and out, never an attribute."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from .event import DpEvent
from .examples import Examples
from .hidden import Identity
from .layout import Array, Layout, Vector
from .metrics import Metrics
from .model import Model, Stack
from .rng import Streams
from .state import State
from .task import Federation, Member, Reply, Task
from .update import Update

M = TypeVar("M")  # one client's memory
S = TypeVar("S")  # a server half's memory
B = TypeVar("B")  # what a server half lets clients see


@dataclass(frozen=True, eq=False)
class Work:
    """What a client's training gives back: δ in the payload's layout, examples trained on, metrics, new memory."""

    delta: Vector
    examples: int
    metrics: Metrics
    memory: Any = None


@dataclass(frozen=True, eq=False)
class Works:
    """What K clients' training gives back: deltas `(K, P)`, the rest by client."""

    deltas: Any
    examples: tuple[int, ...]
    metrics: tuple[Metrics, ...]
    memories: tuple[Any, ...]


class Local(Protocol[M]):
    """What a client does with a model and its data."""

    @property
    def stacks(self) -> bool:
        """Can it train K clients at once?"""
        ...

    @property
    def population(self) -> tuple[str, ...]:
        """Blocks of its payload that must be averaged over all members."""
        ...

    def payload(self, layout: Layout) -> Layout:
        """Return what travels, given the model's layout: leaves may stay home, blocks may come along."""
        ...

    def init(self, layout: Layout, initial: Vector) -> M:
        """Return a new client's memory, given the model's layout and initial values."""
        ...

    def train(self, model: Model, start: Vector, data: Examples, memory: M, *, round: int, streams: Streams) -> Work:
        """Train from `start` (payload's layout)."""
        ...

    def train_many(
        self,
        stack: Stack,
        layout: Layout,
        start: Vector,
        data: Sequence[Examples],
        memories: Sequence[M],
        *,
        round: int,
        streams: Sequence[Streams],
    ) -> Works:
        """Train K clients at once, to float tolerance as `train` does; only asked if it `stacks`."""
        ...

    def personal(self, layout: Layout, start: Vector, memory: M) -> Vector:
        """Return what this client would deploy, in the model's layout: evaluation uses it."""
        ...

    def event(self) -> DpEvent:
        """Describe example-level privacy, apart from how many examples there are: each client accounts for its own."""
        ...


class Stage(Protocol[M, S, B]):
    """What happens to an update on the road: the client's half and the server's half in one object."""

    each: ClassVar[bool]  # must decode() see one client at a time?
    sums: ClassVar[bool]  # does finish() change the sum?

    def payload(self, layout: Layout) -> Layout:
        """Return what travels, given what came in."""
        ...

    def fits(self, total: Layout) -> None:
        """Refuse a sum, by its layout and cohort, in which this stage could not keep its word; both sides ask."""
        ...

    def init(self, layout: Layout) -> M:
        """Return a new client's memory."""
        ...

    def start(self, layout: Layout) -> S:
        """Return the server's first memory."""
        ...

    def public(self, server: S) -> B:
        """Return the part of the server's memory that clients may see."""
        ...

    def encode(self, update: Update, memory: M, public: B, streams: Streams) -> tuple[Update, M]:
        """Client half: δ, unweighted."""
        ...

    def decode(self, update: Update) -> Update:
        """Server half, one client."""
        ...

    def finish(self, update: Update, server: S, streams: Streams) -> tuple[Update, S]:
        """Server half, the sum: change it, or return it as it is."""
        ...

    def event(self) -> DpEvent:
        """Describe the mechanism."""
        ...


class Weights(Protocol):
    """How much a client counts."""

    private: ClassVar[bool]  # do they tell something about a client's data?

    def cap(self, members: Sequence[Member]) -> int:
        """Return the public power of two that numbers of examples are divided by."""
        ...

    def weigh(self, name: str, examples: int, cap: int) -> float:
        """Return w in (0, 1]."""
        ...


class Gather(Protocol):
    """How a cohort's updates reach the server: plain, or as one hidden sum."""

    # If it hides nothing, replies are the parties' own, and a schedule without cohorts receives them by itself.
    hides: ClassVar[bool]

    def fits(self, total: Layout) -> None:
        """Refuse a sum, by its layout and cohort, that cannot be gathered this way."""
        ...

    def collect(
        self, federation: Federation, tasks: Sequence[Task], close: Callable[[], float | None], least: int = 0
    ) -> Iterator[Reply]:
        """Server half: yield replies until all are in or `close` returns no time left (None: no deadline).

        Fewer clients than `least` will not be counted: a hidden sum of so few is not opened.
        """
        ...

    def answer(self, task: Task, prior: Any, work: Callable[[], Reply], identity: Identity | None) -> tuple[Reply, Any]:
        """Client half; `prior` is the party's memory of this gather, which is kept before the reply leaves."""
        ...


class Aggregator(Protocol[S]):
    """How many updates become one direction. The empty total is None."""

    # Must it see single clients? One that need not has an `Update` as its total; one that must, a list of them, which
    # the schedule puts in order of dispatch before it finishes.
    each: ClassVar[bool]

    @property
    def least(self) -> int:
        """The fewest clients that it works with."""
        ...

    @property
    def population(self) -> frozenset[str]:
        """Blocks that are averaged over all members, asked or not, which is only right with equal weights."""
        ...

    def add(self, total: S | None, update: Update) -> S:
        """Take one in; may write into `total`."""
        ...

    def finish(self, total: S, members: int) -> Vector:
        """Return the mean delta in the payload's layout, as float64, for a federation of that many members.

        May write into `total`, and return a part of it; raises `QuorumLost` for fewer clients than `least`.
        """
        ...


class Optimizer(Protocol[S]):
    """How a vector moves against a gradient; the same classes serve clients and server, NumPy and other arrays."""

    def init(self, params: Array, layout: Layout) -> S:
        """Return the first state, for vectors like `params`, which are packed by `layout`."""
        ...

    def step(self, params: Array, gradient: Array, state: S, *, scale: float = 1.0) -> tuple[Array, S]:
        """Return the moved parameters and the next state; both may be written in place. `scale` times the rate."""
        ...


class Selector(Protocol):
    """Who is asked."""

    def pick(self, members: Sequence[Member], round: int, streams: Streams) -> Sequence[Member]:
        """Return the cohort of a round."""
        ...

    def most(self, members: int) -> int:
        """Return the largest possible cohort; raises `StrategyError` if so many members cannot be asked."""
        ...

    def event(self, inner: DpEvent) -> DpEvent:
        """Describe the amplification by sampling."""
        ...


class Schedule(Protocol):
    """When: the only loops over rounds."""

    streams: ClassVar[bool]  # does it send tasks while others are being done?

    def fits(self, strategy: Any) -> None:
        """Refuse parts that this schedule cannot work with."""
        ...

    def cohort(self, drawn: int, members: int) -> int:
        """Return the most updates in one step, given how many the selector draws at most.

        Raises `StrategyError` for what this schedule cannot be satisfied with.
        """
        ...

    def run(self, strategy: Any, terms: Any, federation: Federation, state: State) -> Iterator[State]:
        """Yield the state after each closed round, for ever, given a `Strategy` and its `Terms`."""
        ...
