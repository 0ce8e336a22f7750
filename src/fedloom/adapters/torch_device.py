"""A stack that lives on a device: rows, vectors, deltas and the weighed sum stay there, and only the sum is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import DataError
from ..core.examples import Examples
from ..core.layout import Layout
from ..core.model import Batch, Gradient, Steps
from ..core.update import Update, weigh_many
from .torch_objective import as_tensor, inputs_like
from .torch_shared import Moved
from .torch_stacked import TorchStack
from .torch_summed import joined, sum_moved, sum_written

HOST_BYTES = 1 << 30  # what a device without a memory of its own counts as free
SHARE = 0.8  # of what CUDA calls free: the rest is for the libraries' own workspaces


@dataclass(frozen=True, eq=False)
class TorchResident:
    """K clients on one device, "cuda:0" or, to try the same code, "cpu"; made by `TorchModel.resident`.

    Args:
        stack: what trains them.
        budget: bytes that stacks and rows may take; by default a share of what CUDA says is free.
    """

    stack: TorchStack
    budget: int | None = None

    def load(self, vectors: Any, clients: int) -> Tensor:
        """Return (K, P): one vector for all, or one for each client."""
        return self.stack.load(vectors, clients)

    def read(self, x: Any) -> Any:
        """Return x as NumPy."""
        return self.stack.read(x)

    def moved(self, x: Tensor, start: Any) -> Tensor:
        """Return x - start in x's memory, on the device."""
        return x.sub_(self.load(start, 1 if np.ndim(start) == 1 else len(x)))

    def grad(self, x: Tensor, batch: Batch) -> Gradient:
        """Return the clients' mean gradients (K, P) and Σ losses (K,)."""
        return self.stack.grad(x, batch)

    def descend(self, start: Any, steps: Steps, rate: float) -> tuple[Any, Any]:
        """Take plain steps; return how far the clients have moved (K, P), on the device, and Σ losses (K,)."""
        return self.stack.taken(start, steps, rate)

    def clipped(self, x: Tensor, batch: Batch, clip: float, seed: int) -> Tensor:
        """Return Σ weight·g·min(1, clip/‖g‖) (K, P) over single examples' gradients."""
        return self.stack.clipped(x, batch, clip, seed)

    def put(self, examples: Examples) -> Examples:
        """Return the examples on the device: inputs in the module's dtype, targets in the loss's."""
        like = self.stack.like
        inputs, targets = inputs_like(examples.inputs, like), self.stack.objective.targets(examples.targets, like)
        if self.stack.objective.loss == "cross_entropy" and len(targets):
            _check_range(examples.targets, self._classes(inputs))
        return Examples(inputs, targets)

    def gather(self, data: Sequence[Examples], places: Any, weights: Any) -> Batch:
        """Return one pass's batches in three kernels, however many clients there are."""
        at, like = as_tensor(places).to(self.stack.device), self.stack.like
        inputs, targets = (torch.cat(list(parts)) for parts in zip(*((d.inputs, d.targets) for d in data), strict=True))
        return Batch(inputs[at], targets[at], as_tensor(weights).to(like.device, like.dtype))

    def joined(self, parts: Sequence[tuple[Sequence[int], Any]], clients: int) -> Any:
        """Return the deltas of all clients from parts of them with their positions; who is in no part has not moved."""
        return joined(parts, clients, lambda: self.stack.like.new_zeros(clients, self.stack.layout.size))

    def weigh(self, deltas: Any, layout: Layout, weights: Sequence[float]) -> Update:
        """Return Σ w·δ and Σ w on the device; on the host, if local work has ended there."""
        if isinstance(deltas, np.ndarray):
            return weigh_many(deltas, layout, weights)
        total = sum_moved(deltas, layout, weights) if isinstance(deltas, Moved) else None
        if total is None:
            written = deltas.written() if isinstance(deltas, Moved) else deltas
            total = sum_written(written, layout, weights)
        return Update(total, layout, len(weights))

    def free(self) -> int:
        """Return how many bytes stacks and rows may take."""
        if self.budget is not None:
            return self.budget
        if self.stack.like.is_cuda:
            return int(torch.cuda.mem_get_info(self.stack.device)[0] * SHARE)
        return HOST_BYTES

    def exhausted(self, error: Exception) -> bool:
        """Is this the device's out-of-memory error?"""
        return isinstance(error, torch.OutOfMemoryError)

    def _classes(self, inputs: Tensor) -> int:
        if self.stack.layers:
            return self.stack.layers[-1].outputs
        with torch.no_grad():
            return int(self.stack.module(inputs[:1].clone()).shape[-1])


def _check_range(targets: Any, classes: int) -> None:
    """Refuse on the host what a device would answer with an assertion that ends every later call."""
    low, high = int(np.min(targets)), int(np.max(targets))
    if low < 0 or high >= classes:
        raise DataError(f"class numbers must be 0 to {classes - 1}, for {classes} outputs; got {low} to {high}.")
