"""What an adapter implements: a model as mathematics on one flat vector, for one client or for K at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from .examples import Examples
from .layout import Array, Layout, Vector
from .metrics import Metrics
from .rng import Streams
from .update import Update


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
    data: Sequence[Examples]  # of the clients

    def whole(self) -> Batch | None:
        """Return the only step, if it takes all of `data`, without its inputs: they lie there, not padded."""
        ...

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

    def descend(self, start: Vector, steps: Steps, rate: float) -> tuple[Any, Array]:
        """Take plain steps x ← x - rate·gradient from `start`, in the fastest way there is.

        Returns how far the clients have moved, for `joined`, `weigh` or `read`, and Σ losses `(K,)`.
        """
        ...

    def joined(self, parts: Sequence[tuple[Sequence[int], Any]], clients: int) -> Any:
        """Return the deltas of all clients from parts of them with their positions; who is in no part has not moved."""
        ...

    def weigh(self, deltas: Any, layout: Layout, weights: Sequence[float]) -> Update:
        """Return the sum of what `update.weigh` makes of every δ, to rounding; raises `UpdateError` likewise.

        Args:
            deltas: of `descend`, `joined` or `moved`, K clients; may be used up.
            layout: of a sum.
            weights: w by client, in (0, 1].
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
