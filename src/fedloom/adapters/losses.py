"""Named losses, written once in NumPy for every adapter: what they measure, what they predict, which sums they leave.

An adapter computes gradients in its own framework and hands raw outputs (logits or values) to these functions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ConfigError, DataError
from ..core.metrics import Metrics, histogram

Floats = NDArray[np.floating[Any]]
RANKED = frozenset({"auc", "average_precision"})


@dataclass(frozen=True)
class Loss:
    """A loss by name; n examples, k outputs.

    Args:
        name: as an app writes it.
        whole: are the targets class numbers? Else they are floating values.
        each: (outputs, targets) to the examples' losses, shape `(n,)`; raises `ConfigError` or `DataError` where
            the shapes or the targets do not fit.
        predict: outputs to class probabilities `(n, classes)`, or values `(n,)`.
        judge: (outputs, targets, losses) to further sums by name, as `Metrics` understands them.
        figures: names of the figures that the sums lead to; with two classes also `RANKED`.

    >>> logits, classes = np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([0, 0])
    >>> figures = named("cross_entropy").metrics(logits, classes).view()
    >>> figures["examples"], figures["accuracy"], round(figures["loss"], 4)
    (2, 0.5, 0.7201)
    """

    name: str
    whole: bool
    each: Callable[[Any, Any], Floats]
    predict: Callable[[Any], Floats]
    judge: Callable[[Any, Any, Floats], dict[str, Any]]
    figures: frozenset[str]

    def metrics(self, outputs: Any, targets: Any) -> Metrics:
        """Return the sums over n examples, from raw outputs `(n, k)` or `(n,)`. NaN outputs give a NaN loss."""
        outputs = np.asarray(outputs, np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            losses = self.each(outputs, targets)
            sums = self.judge(outputs, np.asarray(targets), losses)
        return Metrics({"examples": len(losses), "loss": float(losses.sum()), **sums})


def named(name: str) -> Loss:
    """Return the loss of that name; raises `ConfigError`, which lists the known names with the nearest first."""
    if name in LOSSES:
        return LOSSES[name]
    nearest = sorted(LOSSES, key=lambda known: -SequenceMatcher(None, str(name), known).ratio())
    raise ConfigError(f"there is no loss {name!r}; the known ones are {', '.join(nearest)}, or pass a function.")


def class_numbers(targets: Any) -> NDArray[np.int64]:
    """Return targets as int64, without a copy where they are; raises `DataError` unless they are whole numbers."""
    targets = np.asarray(targets)
    if targets.dtype.kind not in "iub":
        raise DataError(f"class numbers must be integers, got {targets.dtype}; convert with targets.astype('int64').")
    return np.asarray(targets, np.int64)


def check_classes(shape: tuple[int, ...], targets: tuple[int, ...]) -> None:
    """Refuse outputs that are not `(n, classes)` for n class numbers."""
    if len(shape) != 2 or shape[0] != targets[0] or shape[1] < 2 or len(targets) != 1:
        raise ConfigError(
            f"cross_entropy needs outputs of shape (n, classes) with two classes or more and targets of shape (n,), "
            f"got {tuple(shape)} and {tuple(targets)}; a single logit is for binary_cross_entropy."
        )


def check_values(shape: tuple[int, ...], targets: tuple[int, ...], loss: str) -> None:
    """Refuse outputs that are not as many as the targets, or (for a single logit) more than one for an example."""
    if shape != targets and shape != (*targets, 1):
        raise ConfigError(
            f"{loss} needs one output for each target, got outputs {tuple(shape)} for targets {tuple(targets)}."
        )


def softmax(logits: Floats) -> Floats:
    """Return exp(z) / Σ exp(z) along the last axis.

    >>> softmax(np.array([[0.0, 0.0]])).tolist()
    [[0.5, 0.5]]
    """
    with np.errstate(invalid="ignore"):
        raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def sigmoid(logits: Floats) -> Floats:
    """Return 1 / (1 + exp(-z)), written as (1 + tanh(z/2)) / 2, which cannot overflow."""
    return np.asarray((1 + np.tanh(logits / 2)) / 2)


def _cross_entropy(logits: Floats, targets: Any) -> Floats:
    """log Σⱼ exp(zⱼ) - z_target."""
    numbers = class_numbers(targets)
    check_classes(logits.shape, numbers.shape)
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < logits.shape[1]:
        raise DataError(
            f"class numbers run from {numbers.min()} to {numbers.max()}, but the model has {logits.shape[1]} outputs, "
            f"for classes 0 to {logits.shape[1] - 1}."
        )
    top = logits.max(axis=1, keepdims=True)
    spread = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    return np.asarray(spread - logits[np.arange(len(numbers)), numbers])


def _binary_cross_entropy(logits: Floats, targets: Any) -> Floats:
    """log(1 + exp(z)) - target·z."""
    targets = np.asarray(targets)
    check_values(logits.shape, targets.shape, "binary_cross_entropy")
    if not np.isin(targets, (0, 1)).all():
        raise DataError(f"binary_cross_entropy needs targets 0 or 1, got {np.unique(targets)[:5].tolist()}.")
    z, t = logits.reshape(len(targets)), targets.astype(logits.dtype).reshape(len(targets))
    return np.asarray(np.logaddexp(0, z) - t * z)


def _squared_error(values: Floats, targets: Any) -> Floats:
    """(value - target)², the mean of them for an example with several outputs."""
    targets = np.asarray(targets, values.dtype)
    check_values(values.shape, targets.shape, "mse")
    return np.asarray(np.square(values.reshape(targets.shape) - targets).reshape(len(targets), -1).mean(axis=1))


def _pair(logits: Floats) -> Floats:
    positive = sigmoid(np.asarray(logits, np.float64).reshape(-1))
    return np.stack([1 - positive, positive], axis=1)


def _flat_values(values: Floats) -> Floats:
    values = np.asarray(values)
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _judge_classes(logits: Floats, targets: Any, losses: Floats) -> dict[str, Any]:
    right = (logits.argmax(axis=1) == targets) & ~np.isnan(losses)
    ranked = _ranked(softmax(logits)[:, 1], targets) if logits.shape[1] == 2 else {}
    return {"correct": int(right.sum()), **ranked}


def _judge_pair(logits: Floats, targets: Any, losses: Floats) -> dict[str, Any]:
    z, t = logits.reshape(len(losses)), targets.reshape(len(losses))
    right = ((z > 0) == (t == 1)) & ~np.isnan(losses)
    return {"correct": int(right.sum()), **_ranked(sigmoid(z), t)}


def _ranked(scores: Floats, targets: Any) -> dict[str, Any]:
    scores = np.nan_to_num(scores, nan=0.0)
    return {"positives": histogram(scores[targets == 1]), "negatives": histogram(scores[targets == 0])}


def _judge_values(values: Floats, targets: Any, losses: Floats) -> dict[str, Any]:
    targets = targets.astype(np.float64)
    away = np.abs(values.reshape(targets.shape) - targets).reshape(len(losses), -1).mean(axis=1)
    sums: dict[str, Any] = {"absolute_error": float(away.sum()), "squared_error": float(losses.sum())}
    if targets.size == len(losses):  # r2 of several outputs has no single mean to compare with
        sums |= {"target": float(targets.sum()), "target_square": float(np.square(targets).sum())}
    return sums


_ACCURACY = frozenset({"loss", "accuracy"})

LOSSES = {
    loss.name: loss
    for loss in (
        Loss("cross_entropy", True, _cross_entropy, softmax, _judge_classes, _ACCURACY),
        Loss("binary_cross_entropy", False, _binary_cross_entropy, _pair, _judge_pair, _ACCURACY | RANKED),
        Loss("mse", False, _squared_error, _flat_values, _judge_values, frozenset({"loss", "mae", "rmse", "r2"})),
    )
}
