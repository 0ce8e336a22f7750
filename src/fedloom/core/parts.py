"""The protocols of the axes. A part is a frozen record; its state is a value handed in and out, never an attribute."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from .hidden import Identity
from .layout import Array, Layout, Vector
from .metrics import Metrics
from .rng import Streams
from .state import State
from .task import Federation, Member, Reply, Task
from .update import Update

M = TypeVar("M")  # one client's memory
S = TypeVar("S")  # a server half's memory
B = TypeVar("B")  # what a server half lets clients see


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs and targets of n examples: arrays whose first axis is the example.

    Args:
        inputs: shape `(n, …)`.
        targets: shape `(n,)` (class numbers or values), or `(n, k)`.

    >>> import numpy as np
    >>> Examples(np.zeros((3, 2)), np.zeros(3)).size
    3
    """

    inputs: Array
    targets: Array

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.targets)

    def take(self, rows: Any) -> "Examples":
        """Return those rows."""
        return Examples(self.inputs[rows], self.targets[rows])


@dataclass(frozen=True, eq=False)
class Split:
    """One party's examples: what it trains on, and what it holds out to measure on; either may be empty."""

    train: Examples
    held_out: Examples


class Holding(Protocol):
    """One party's raw rows, which never leave it: sums over them do."""

    @property
    def train_size(self) -> int:
        """Number of rows to train on, as declared to the coordinator."""
        ...

    def measure(self, what: str, known: Mapping[str, Any]) -> Update:
        """Return sums of the statistic `what` over the training rows' columns, given what is `known` by column."""
        ...

    def prepare(self, statistics: Mapping[str, Any]) -> Split:
        """Return the rows as numbers; raises `DataError` for what the schema does not allow."""
        ...


@dataclass(frozen=True, eq=False)
class Gradient:
    """What one batch gives.

    Args:
        vector: mean gradient of the loss, of shape `(number of parameters,)`; the model may overwrite it next time.
        loss: Σ of the examples' losses; of a stack, by client.
        buffers: new values of the layout's buffers (BatchNorm statistics), which bypass the optimizer; may be empty.
    """

    vector: Array
    loss: Any
    buffers: Array


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's examples of K clients at once.

    Args:
        inputs: shape `(K, B, …)`.
        targets: shape `(K, B)`.
        weights: shape `(K, B)`: 1 for an example, 0 for padding.
    """

    inputs: Array
    targets: Array
    weights: Array


class Steps(Protocol):
    """The steps of K clients that take the same number of them, in passes over their examples."""

    clients: int
    size: int  # examples of one client in a step
    wanted: int  # steps in all

    def passes(self) -> Iterator[Batch]:
        """Yield every pass at once, its steps one after the other: `(K, steps·size, …)`; valid until the next."""
        ...

    def __iter__(self) -> Iterator[Batch]:
        """Yield every step, `(K, size, …)`; valid until the next."""
        ...


class Clipping(Protocol):
    """K clients of one model whose gradients are clipped example by example; x has shape `(K, P)`."""

    def load(self, vectors: Vector, clients: int) -> Array:
        """Return x: one vector `(P,)` for all, or one for each `(K, P)`, copied into the stack's array type."""
        ...

    def read(self, x: Array) -> Array:
        """Return x, or any of the stack's arrays, as NumPy; may share memory."""
        ...

    def moved(self, x: Array, start: Vector) -> Array:
        """Return x - start, in x's memory; `start` as `load` takes it. NumPy, unless the stack is `Resident`."""
        ...

    def clipped(self, x: Array, batch: Batch, clip: float, seed: int) -> Array:
        """Return Σ weight·g·min(1, clip/‖g‖₂) over each client's examples, `(K, P)`; g is one example's gradient.

        Weights may be any; what weighs nothing is not seen, nor is an example whose gradient has no finite norm: the
        sum would be none. `seed` is of a module's own randomness.
        """
        ...


class Stack(Clipping, Protocol):
    """K clients of one model through one batched pass; x has shape `(K, P)` and is written in place."""

    def grad(self, x: Array, batch: Batch) -> Gradient:
        """Return mean gradients `(K, P)`, and Σ losses `(K,)`."""
        ...

    def descend(self, start: Vector, steps: Steps, rate: float) -> tuple[Array, Array]:
        """Take plain steps x ← x - rate·gradient from `start`, in the fastest way there is.

        Returns what `moved` would, and Σ losses `(K,)`.
        """
        ...


@runtime_checkable
class Resident(Stack, Protocol):
    """A stack whose rows, vectors, deltas and sums stay on a device: only what `read` is asked for leaves it."""

    def put(self, examples: Examples) -> Examples:
        """Return the examples on the device, in the types that the module takes."""
        ...

    def gather(self, data: Sequence[Examples], places: Array, weights: Array) -> Batch:
        """Return the batches of one pass: `places` are row numbers in all of `data` end to end, any shape."""
        ...

    def weigh(self, deltas: Array, layout: Layout, weights: Sequence[float]) -> Update:
        """Return what `update.weigh_many` returns, with the vector on the device."""
        ...

    def free(self) -> int:
        """Return how many bytes the device has left for stacks and rows."""
        ...

    def exhausted(self, error: Exception) -> bool:
        """Does the error say that the device's memory is full?"""
        ...


@runtime_checkable
class Model(Protocol):
    """What an adapter implements: mathematics on one flat vector. Parameters come first in its layout, then buffers."""

    @property
    def layout(self) -> Layout:
        """How the vector is packed."""
        ...

    @property
    def figures(self) -> frozenset[str]:
        """Names of the figures that `evaluate` leads to, such as "accuracy"."""
        ...

    def init(self, streams: Streams) -> Vector:
        """Return initial values, as NumPy."""
        ...

    def load(self, vector: Vector) -> Array:
        """Return a copy in the model's own array type, to train in place; valid until the next `load`."""
        ...

    def read(self, x: Array) -> Vector:
        """Return `x` as NumPy; may share memory."""
        ...

    def grad(self, x: Array, batch: Examples, streams: Streams) -> Gradient:
        """Return the gradient at `x`."""
        ...

    def evaluate(self, x: Array, data: Examples) -> Metrics:
        """Return sums over all of `data`."""
        ...

    def evaluate_many(self, x: Array, data: Sequence[Examples]) -> list[Metrics]:
        """Return what `evaluate` returns for each, to rounding: small ones may go through the model together."""
        ...

    def predict(self, x: Array, inputs: Array) -> Array:
        """Return outputs as NumPy: class probabilities `(n, classes)`, or values `(n,)`."""
        ...

    def stack(self) -> Stack:
        """Return what trains K clients at once; raises `ConfigError` that says what keeps this model from it."""
        ...

    def clipping(self) -> Clipping:
        """Return what clips gradients by example; raises `ConfigError` that says what keeps this model from it."""
        ...

    def export(self, vector: Vector) -> dict[str, Array]:
        """Return the arrays of a model file, by the names that the framework's own loader expects."""
        ...


@dataclass(frozen=True, slots=True)
class DpEvent:
    """What a part does for differential privacy, as data for the accountant; not private unless it says otherwise.

    Args:
        kind: of mechanism or sampling, as `privacy/accountant.py` knows them.
        values: its numbers, by name.
        inner: what is sampled or composed.

    >>> DpEvent("poisson sampled", {"rate": 0.1}, (DpEvent("gaussian", {"noise_multiplier": 1.0}),)).private
    True
    """

    kind: str = "not private"
    values: Mapping[str, float] = field(default_factory=dict)
    inner: tuple["DpEvent", ...] = ()

    @property
    def private(self) -> bool:
        """Does it claim anything? Noise that is drawn from a seed does not."""
        if self.inner:
            return any(event.private for event in self.inner)
        return self.kind not in (NOT_PRIVATE.kind, SEEDED.kind)


NOT_PRIVATE = DpEvent()
SEEDED = DpEvent("noise from a seed, for tests")
EXAMPLES = "examples"  # the kind of a mechanism on lots of each client's own examples; its values are `lots`' settings


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
        self, federation: Federation, tasks: Sequence[Task], close: Callable[[], float | None]
    ) -> Iterator[Reply]:
        """Server half: yield replies until all are in or `close` returns no time left (None: no deadline)."""
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
