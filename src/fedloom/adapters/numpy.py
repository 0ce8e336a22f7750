"""Linear and logistic regression in NumPy alone: convex models that need no framework."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ConfigError, LayoutMismatch
from ..core.examples import Examples
from ..core.layout import Array, Layout, Leaf, Vector
from ..core.metrics import Metrics
from ..core.model import Batch, Gradient, Steps
from ..core.rng import Streams
from ..core.update import Update, weigh_many
from .losses import LOSSES, RANKED, Floats, class_numbers, sigmoid, softmax


@dataclass(frozen=True)
class LinearModel:
    """Outputs z = X·Wᵀ + b under a named loss; made by `linear` or `logistic`.

    Leaves "weight" `(outputs, inputs)` and "bias" `(outputs,)` have the names and shapes of `torch.nn.Linear`, so
    that is what an exported file loads into. Inputs of any shape `(n, …)` are flattened to `(n, inputs)`.
    """

    inputs: int
    outputs: int
    loss: str
    l2: float = 0.0
    bound: float = 16.0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.inputs < 1 or self.outputs < 1:
            raise ConfigError(f"a model needs inputs and outputs, got inputs={self.inputs}, outputs={self.outputs}.")
        if not 0 <= self.l2 < np.inf:
            raise ConfigError(f"l2 must be zero or positive, got {self.l2}.")
        if self.dtype not in ("float32", "float64"):
            raise ConfigError(f"dtype must be 'float32' or 'float64', got {self.dtype!r}.")

    @property
    def layout(self) -> Layout:
        """How the vector is packed: weight, then bias."""
        weight = Leaf("weight", (self.outputs, self.inputs), self.dtype, bound=self.bound)
        return Layout((weight, Leaf("bias", (self.outputs,), self.dtype, bound=self.bound)))

    @property
    def figures(self) -> frozenset[str]:
        """Names of the figures that `evaluate` leads to."""
        two = self.loss == "cross_entropy" and self.outputs == 2
        return LOSSES[self.loss].figures | (RANKED if two else frozenset())

    def init(self, streams: Streams) -> Vector:
        """Return zeros."""
        return np.zeros((self.inputs + 1) * self.outputs, self.dtype)

    def load(self, vector: Vector) -> Array:
        """Return a copy, to train in place; raises `LayoutMismatch`."""
        if np.shape(vector) != (self.layout.size,):
            raise LayoutMismatch(f"the model has {self.layout.size} values, got shape {np.shape(vector)}.")
        return np.array(vector, self.dtype)

    def read(self, x: Array) -> Vector:
        """Return `x` itself."""
        return np.asarray(x)

    def grad(self, x: Array, batch: Examples, streams: Streams) -> Gradient:
        """Return the mean gradient Rᵀ·X/n + l2·W, R = ∂loss/∂z; `loss` is without the penalty. An empty batch: l2·W."""
        inputs, x = self._rows(batch.inputs), np.asarray(x)
        gradient = np.zeros(x.shape, x.dtype)
        weight, bias = self._parts(gradient)
        np.multiply(self._parts(x)[0], self.l2, out=weight)
        if batch.size == 0:
            return Gradient(gradient, 0.0, x[:0])
        with np.errstate(invalid="ignore", over="ignore"):
            outputs = self._outputs(x, inputs)
            losses = LOSSES[self.loss].each(outputs, batch.targets)
            slope = _SLOPES[self.loss](outputs, np.asarray(batch.targets)) / x.dtype.type(batch.size)
            weight += slope.T @ inputs
            bias += slope.sum(axis=0)
        return Gradient(gradient, float(losses.sum(dtype=np.float64)), x[:0])

    def evaluate(self, x: Array, data: Examples) -> Metrics:
        """Return sums over all of `data`."""
        if data.size == 0:
            return Metrics({"examples": 0})
        with np.errstate(invalid="ignore", over="ignore"):
            outputs = self._outputs(np.asarray(x), self._rows(data.inputs))
        return LOSSES[self.loss].metrics(outputs, data.targets)

    def evaluate_many(self, x: Array, data: Sequence[Examples]) -> list[Metrics]:
        """Return the sums over each."""
        return [self.evaluate(x, one) for one in data]

    def predict(self, x: Array, inputs: Array) -> Array:
        """Return class probabilities `(n, classes)`, or values `(n,)`."""
        with np.errstate(invalid="ignore", over="ignore"):
            return LOSSES[self.loss].predict(self._outputs(np.asarray(x), self._rows(inputs)))

    def stack(self) -> "LinearStack":
        """Return what trains K clients at once."""
        return LinearStack(self)

    def clipping(self) -> "LinearStack":
        """Return what clips gradients by example; a penalty belongs to none."""
        if self.l2:
            raise ConfigError("a penalty 'l2' belongs to no example; set weight_decay of the local work instead.")
        return LinearStack(self)

    def export(self, vector: Vector) -> dict[str, Array]:
        """Return "weight" and "bias", as `torch.nn.Linear` names and shapes them."""
        return self.layout.unpack(np.array(vector, self.dtype))

    def _rows(self, inputs: Array) -> Floats:
        inputs = np.asarray(inputs)
        if inputs.size != len(inputs) * self.inputs:
            raise ConfigError(f"this model takes {self.inputs} inputs for each example, got shape {inputs.shape}.")
        return np.asarray(inputs.reshape(len(inputs), self.inputs), self.dtype)

    def _parts(self, x: Array) -> tuple[Array, Array]:
        cut = self.inputs * self.outputs
        return x[:cut].reshape(self.outputs, self.inputs), x[cut:]

    def _outputs(self, x: Array, inputs: Floats) -> Floats:
        weight, bias = self._parts(x)
        return np.asarray(inputs @ weight.T + bias)


@dataclass(frozen=True)
class LinearStack:
    """K clients of a linear model at once: the same formulas on arrays with a leading axis."""

    model: LinearModel

    def load(self, vectors: Vector, clients: int) -> Array:
        """Return (K, P)."""
        return np.array(np.broadcast_to(vectors, (clients, self.model.layout.size)), self.model.dtype)

    def read(self, x: Array) -> Array:
        """Return x itself."""
        return np.asarray(x)

    def moved(self, x: Array, start: Vector) -> Array:
        """Return x - start, in x."""
        x -= start
        return x

    def joined(self, parts: Sequence[tuple[Sequence[int], Array]], clients: int) -> Array:
        """Return the deltas of all clients from parts of them with their positions; who is in no part has not moved."""
        deltas = np.zeros((clients, self.model.layout.size), self.model.dtype)
        for where, moved in parts:
            deltas[where] = moved
        return deltas

    def weigh(self, deltas: Array, layout: Layout, weights: Sequence[float]) -> Update:
        """Return Σ w·δ and Σ w."""
        return weigh_many(deltas, layout, weights)

    def grad(self, x: Array, batch: Batch) -> Gradient:
        """Return the clients' mean gradients (K, P) and Σ losses (K,)."""
        inputs, weights, losses, slope = self._pass(x, batch)
        share = weights / weights.sum(axis=1, keepdims=True)
        gradient = self._summed(slope * share[:, :, None], inputs)
        cut = self.model.inputs * self.model.outputs
        gradient[:, :cut] += self.model.l2 * x[:, :cut]
        return Gradient(gradient, (losses * weights).sum(axis=1, dtype=np.float64), x[:, :0])

    def clipped(self, x: Array, batch: Batch, clip: float, seed: int) -> Array:
        """Return Σ weight·g·min(1, clip/‖g‖) (K, P); an example's ‖g‖² is ‖slope‖²·(‖input‖² + 1)."""
        inputs, weights, _, slope = self._pass(x, batch)
        with np.errstate(invalid="ignore", over="ignore"):
            norms = np.sqrt(np.square(slope).sum(axis=2) * (np.square(inputs).sum(axis=2) + 1))
        if not np.isfinite(norms).all():  # where it is, slope and input are
            known = np.isfinite(norms)
            norms = np.where(known, norms, 0)
            slope, inputs = (np.where(known[:, :, None], part, 0) for part in (slope, inputs))
        return self._summed(slope * (weights * clip / np.maximum(norms, clip))[:, :, None], inputs)

    def _pass(self, x: Array, batch: Batch) -> tuple[Floats, Floats, Floats, Floats]:
        """Return inputs (K, B, d), weights and losses (K, B), and ∂loss/∂outputs (K, B, o) of each example."""
        model, clients, size = self.model, len(x), np.shape(batch.targets)[1]
        inputs = np.asarray(batch.inputs, model.dtype).reshape(clients, size, model.inputs)
        cut = model.inputs * model.outputs
        weight = x[:, :cut].reshape(clients, model.outputs, model.inputs)
        with np.errstate(invalid="ignore", over="ignore"):
            outputs = inputs @ weight.transpose(0, 2, 1) + x[:, None, cut:]
            flat, truth = outputs.reshape(clients * size, model.outputs), np.reshape(batch.targets, clients * size)
            losses = LOSSES[model.loss].each(flat, truth).reshape(clients, size)
            slope = _SLOPES[model.loss](flat, truth).reshape(outputs.shape)
        return inputs, np.asarray(batch.weights, model.dtype), losses, slope

    def _summed(self, slope: Floats, inputs: Floats) -> Floats:
        """Return Σ of the examples' gradients, (K, P)."""
        with np.errstate(invalid="ignore", over="ignore"):
            weights, biases = slope.transpose(0, 2, 1) @ inputs, slope.sum(axis=1)
        return np.concatenate([weights.reshape(len(slope), -1), biases], axis=1)

    def descend(self, start: Vector, steps: Steps, rate: float) -> tuple[Array, Array]:
        """Take plain steps; return how far the clients have moved (K, P), and Σ losses (K,)."""
        x, lost = self.load(start, steps.clients), np.zeros(steps.clients)
        for batch in steps:
            found = self.grad(x, batch)
            x -= rate * found.vector
            lost += found.loss
        return self.moved(x, start), lost


def linear(inputs: int, bound: float = 16.0, *, dtype: str = "float32") -> LinearModel:
    """Return linear regression: loss (w·x + b - target)², without a half.

    Args:
        inputs: number of features; arrays `(n, …)` are flattened to it.
        bound: largest |weight·δ| that one client may contribute to any element.
        dtype: "float32" or "float64".

    >>> from fedloom.core.rng import stream
    >>> model = linear(2)
    >>> x = model.load([1.0, 2.0, 0.5])
    >>> model.predict(x, np.array([[1.0, 1.0]])).tolist()
    [3.5]
    >>> model.grad(x, Examples(np.array([[1.0, 1.0]]), np.array([3.0])), stream(0, 1)).vector.tolist()
    [1.0, 1.0, 1.0]
    """
    return LinearModel(inputs, 1, "mse", bound=bound, dtype=dtype)


def logistic(
    inputs: int, classes: int = 2, l2: float = 0.0, *, bound: float = 16.0, dtype: str = "float32"
) -> LinearModel:
    """Return logistic regression: a single logit for two classes, softmax for more; the mean loss + l2/2·‖W‖².

    The bias is not penalised. scikit-learn's `C` for n examples is 1/(n·l2).

    Args:
        inputs: number of features; arrays `(n, …)` are flattened to it.
        classes: number of classes; targets are 0 to classes - 1.
        l2: strength of the penalty, zero or positive.
        bound: largest |weight·δ| that one client may contribute to any element.
        dtype: "float32" or "float64".

    >>> logistic(4).layout.size, logistic(4, classes=3).layout.size
    (5, 15)
    >>> model = logistic(1)
    >>> model.predict(model.load([0.0, 0.0]), np.zeros((1, 1))).tolist()
    [[0.5, 0.5]]
    """
    if classes < 2:
        raise ConfigError(f"logistic regression needs two classes or more, got classes={classes}.")
    if classes == 2:
        return LinearModel(inputs, 1, "binary_cross_entropy", l2, bound, dtype)
    return LinearModel(inputs, classes, "cross_entropy", l2, bound, dtype)


def _slope_classes(logits: Floats, targets: NDArray[Any]) -> Floats:
    slope = softmax(logits)
    slope[np.arange(len(targets)), class_numbers(targets)] -= 1
    return slope


def _slope_pair(logits: Floats, targets: NDArray[Any]) -> Floats:
    return np.asarray(sigmoid(logits) - targets.reshape(logits.shape).astype(logits.dtype))


def _slope_values(values: Floats, targets: NDArray[Any]) -> Floats:
    return np.asarray(2 * (values - targets.reshape(values.shape).astype(values.dtype)))


_SLOPES: dict[str, Callable[[Floats, NDArray[Any]], Floats]] = {
    "cross_entropy": _slope_classes,
    "binary_cross_entropy": _slope_pair,
    "mse": _slope_values,
}
