"""What a PyTorch model is trained on and measured by: a named loss or a function, and further metrics."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..core.errors import ConfigError, DataError
from ..core.metrics import Metrics
from .losses import RANKED, Loss, check_classes, check_values, class_numbers, named

PerExample = Callable[[Tensor, Tensor], Tensor]  # (outputs, targets) to one number for each example, shape (n,)

_RESERVED = {"examples", "loss", "correct", "positives", "negatives"}
_RESERVED |= {"absolute_error", "squared_error", "target", "target_square"}


@dataclass(frozen=True, eq=False)
class Objective:
    """A loss and the metrics beside it.

    Args:
        loss: a name that `losses.named` knows, or a function of (outputs, targets).
        metrics: functions of (outputs, targets) by the name of their figure.
    """

    loss: str | PerExample
    metrics: Mapping[str, PerExample]

    def __post_init__(self) -> None:
        clash = sorted(_RESERVED & set(self.metrics))
        if clash:
            raise ConfigError(f"the metric name {clash[0]!r} is taken; choose another.")
        if self.known is None and not callable(self.loss):
            raise ConfigError(f"a loss is a name or a function (outputs, targets), got {type(self.loss).__name__}.")

    @property
    def known(self) -> Loss | None:
        """The named loss; None for a function."""
        return named(self.loss) if isinstance(self.loss, str) else None

    @property
    def figures(self) -> frozenset[str]:
        """Names of the figures, those of two classes included."""
        known = self.known
        figures = (known.figures | RANKED if known.whole else known.figures) if known else {"loss"}
        return frozenset(figures) | set(self.metrics)

    def targets(self, targets: Any, like: Tensor) -> Tensor:
        """Return class numbers as int64, values in the dtype of `like`; for a function whole numbers stay whole."""
        if self.loss == "cross_entropy" and not isinstance(targets, Tensor):
            targets = class_numbers(targets)
        tensor = as_tensor(targets)
        whole = not isinstance(self.loss, str) and not tensor.is_floating_point()
        return tensor.to(like.device, torch.int64 if whole or self.loss == "cross_entropy" else like.dtype)

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss, to differentiate."""
        if isinstance(self.loss, str):
            return _MEANS[self.loss](outputs, targets)
        return single(self.loss, "the loss", outputs, targets).mean()

    def measure(self, outputs: Tensor, targets: Tensor) -> Metrics:
        """Return sums over the examples, in float64."""
        further = {name: _sum(single(metric, name, outputs, targets)) for name, metric in self.metrics.items()}
        if isinstance(self.loss, str):
            found = named(self.loss).metrics(wide(outputs), targets.cpu().numpy()).sums
        else:
            found = {"examples": len(targets), "loss": _sum(single(self.loss, "the loss", outputs, targets))}
        return Metrics({**found, **further})


def as_tensor(array: Any) -> Tensor:
    """Return a tensor that shares memory with NumPy; what torch cannot share (read-only, strides) is copied."""
    if isinstance(array, Tensor):
        return array
    shared = array.flags.writeable and array.flags.c_contiguous
    return torch.from_numpy(array if shared else array.copy())


def unwritten(array: NDArray[Any]) -> Tensor:
    """Return a tensor that shares memory with NumPy also where that is read-only: nobody may write into it."""
    _told()
    return torch.from_numpy(array)


@cache
def _told() -> None:
    """Hear the warning that a tensor of read-only memory can be written to; torch gives it once in a process."""
    nothing = np.empty(0)
    nothing.flags.writeable = False
    with catch_warnings():
        simplefilter("ignore")
        torch.from_numpy(nothing)


def inputs_like(inputs: Any, like: Tensor) -> Tensor:
    """Return inputs for a module: token numbers (int32, int64) stay whole, all else is in the dtype of `like`."""
    tensor = as_tensor(inputs)
    whole = tensor.dtype in (torch.int64, torch.int32)
    return tensor.to(like.device, tensor.dtype if whole else like.dtype)


def seeded(seed: int, like: Tensor) -> None:
    """Seed torch's own generator, from which modules such as dropout draw."""
    torch.default_generator.manual_seed(seed)
    if like.is_cuda:
        with torch.cuda.device(like.device):
            torch.cuda.manual_seed(seed)


def wide(outputs: Tensor) -> Any:
    """Return NumPy float64."""
    return outputs.detach().to("cpu", torch.float64).numpy()


def _sum(values: Tensor) -> float:
    return values.sum(dtype=torch.float64).item()


def single(function: PerExample, name: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return what somebody's own function says of each example (n,); raises `ConfigError` for another shape."""
    found = function(outputs, targets)
    if not isinstance(found, Tensor) or found.shape != targets.shape[:1]:
        received = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ConfigError(
            f"{name} must return one number for each example, shape ({len(targets)},), got {received}.\n"
            f"  wrong:  return functional.cross_entropy(outputs, targets)\n"
            f"  right:  return functional.cross_entropy(outputs, targets, reduction='none')"
        )
    return found


def _mean_classes(outputs: Tensor, targets: Tensor) -> Tensor:
    check_classes(outputs.shape, targets.shape)
    try:
        return functional.cross_entropy(outputs, targets)
    except IndexError as error:
        classes = outputs.shape[1]
        raise DataError(f"class numbers must be 0 to {classes - 1}, for {classes} outputs; {error}") from error


def _mean_pair(outputs: Tensor, targets: Tensor) -> Tensor:
    check_values(outputs.shape, targets.shape, "binary_cross_entropy")
    return functional.binary_cross_entropy_with_logits(outputs.reshape(targets.shape), targets)


def _mean_values(outputs: Tensor, targets: Tensor) -> Tensor:
    check_values(outputs.shape, targets.shape, "mse")
    return functional.mse_loss(outputs.reshape(targets.shape), targets)


_MEANS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": _mean_classes,
    "binary_cross_entropy": _mean_pair,
    "mse": _mean_values,
}
