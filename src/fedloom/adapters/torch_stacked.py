"""K clients through one batched pass: x has shape (K, P), a row for each client.

Three forms. *Direct*: chains of Linear and elementwise activations, see torch_direct.py. *Shared*: plain steps of such
chains from one vector, see torch_shared.py. *General*: any other module by `torch.func` (vmap of grad). What cannot be
stacked is named in one sentence by `unstackable`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional

from ..core.layout import Layout
from ..core.model import Batch, Gradient, Steps
from ..core.update import Update, weigh_many
from .torch_direct import Dense, Take, backward, check, forward, losses, step, store
from .torch_objective import Objective, as_tensor, inputs_like, seeded, single, unwritten
from .torch_shared import NARROW, Moved, Own, descend, worth
from .torch_summed import joined, sum_moved

RANDOM = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
APART = 1 << 15  # bytes of a client's inputs: to copy less costs less than to call a library for each client
_RUNNING = (nn.modules.batchnorm._NormBase,)


def unstackable(module: nn.Module, objective: Objective) -> str:
    """Return why clients of this module cannot be trained together, in a sentence; "" if they can."""
    for name, part in module.named_modules():
        if isinstance(part, _RUNNING) and part.track_running_stats:
            return f"{type(part).__name__} ({name or 'the module'}) keeps running statistics of one client at a time."
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            return f"{type(part).__name__} ({name or 'the module'}) mixes a batch's examples, and so its padding."
        if isinstance(part, RANDOM) and part.p > 0:
            return f"{type(part).__name__} ({name or 'the module'}) draws other random numbers in a batch of clients."
    if next(module.buffers(), None) is not None:
        return "the module has buffers, which one batch cannot keep apart by client."
    if not isinstance(objective.loss, str):
        return "the loss is a function of its own; name one of the known losses."
    return ""


def _general(module: nn.Module, objective: Objective) -> Callable[..., tuple[Any, Any]]:
    """Return (parameters by name (K, …), inputs (K, B, …), targets, weights) -> (gradients, (means, Σ losses))."""

    def mean(parameters: dict[str, Tensor], inputs: Tensor, targets: Tensor, weights: Tensor) -> Any:
        outputs = functional_call(module, parameters, (inputs,))
        total = (each_loss(objective, outputs, targets) * weights).sum()
        return total / weights.sum(), total

    return vmap(grad_and_value(mean, has_aux=True))


def each_loss(objective: Objective, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the examples' losses (n,), to differentiate."""
    if not isinstance(objective.loss, str):
        return single(objective.loss, "the loss", outputs, targets)
    check(objective, outputs.shape, targets.shape)
    if objective.loss == "cross_entropy":
        return functional.cross_entropy(outputs, targets, reduction="none")
    flat = outputs.reshape(targets.shape)
    if objective.loss == "binary_cross_entropy":
        found = functional.binary_cross_entropy_with_logits(flat, targets, reduction="none")
    else:
        found = (flat - targets) ** 2
    return found.reshape(len(targets), -1).mean(1)


@dataclass(frozen=True, eq=False)
class TorchStack:
    """K clients of one module at once; see the head of this file. Made by `TorchModel.stack`.

    Args:
        module: stays as it is: its parameters are handed in.
        objective: a named loss.
        layout: of one client's vector, P elements, all of them parameters.
        layers: of the direct form; none for the general one.
        device: where x lives.
        flattens: does the module flatten its inputs first? Else the direct form takes only inputs (K, B, d).
    """

    module: nn.Module
    objective: Objective
    layout: Layout
    layers: tuple[Dense, ...]
    device: str
    flattens: bool

    @property
    def like(self) -> Tensor:
        """Nothing, in the layout's type and on the device."""
        return torch.empty(0, dtype=getattr(torch, self.layout.dtype.name), device=self.device)

    def load(self, vectors: Any, clients: int) -> Tensor:
        """Return (K, P): one vector for all, or one for each client."""
        given = clients if np.ndim(vectors) > 1 or self.device == "cpu" else 1  # one row crosses the bus once
        rows = torch.empty(given, self.layout.size, dtype=getattr(torch, self.layout.dtype.name))
        np.copyto(rows.numpy(), vectors, casting="same_kind")
        moved = rows.to(self.device)
        return moved if given == clients else moved.expand(clients, -1).clone()

    def read(self, x: Any) -> Any:
        """Return x as NumPy, written out."""
        if isinstance(x, Moved):
            x = x.written()
        return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)

    def moved(self, x: Tensor, start: Any) -> Any:
        """Return x - start as NumPy; on the CPU in x's memory."""
        vectors = self.read(x)
        vectors -= start
        return vectors

    def grad(self, x: Tensor, batch: Batch) -> Gradient:
        """Return the clients' mean gradients (K, P) and Σ losses (K,)."""
        if not self._direct(batch):
            return self._general(x, batch)
        gradient = torch.empty_like(x)
        return Gradient(gradient, self._pass(x, batch, store(gradient)), x[:, :0])

    def descend(self, start: Any, steps: Steps, rate: float) -> tuple[Any, Any]:
        """Take plain steps; return how far the clients have moved (K, P), for `read` or `weigh`, and Σ losses (K,)."""
        moved, lost = self.taken(start, steps, rate)
        return moved if isinstance(moved, Moved) else self.read(moved), lost

    def weigh(self, deltas: Any, layout: Layout, weights: Sequence[float]) -> Update:
        """Return Σ w·δ and Σ w; what is not written out is added as one product, if nothing can be beyond its bound."""
        total = sum_moved(deltas, layout, weights) if isinstance(deltas, Moved) else None
        if total is None:
            return weigh_many(self.read(deltas), layout, weights)
        return Update(total.numpy(), layout, len(weights))

    def joined(self, parts: Sequence[tuple[Sequence[int], Any]], clients: int) -> Any:
        """Return the deltas of all clients from parts of them with their positions; who is in no part has not moved."""
        return joined(parts, clients, lambda: np.zeros((clients, self.layout.size), self.layout.dtype))

    def taken(self, start: Any, steps: Steps, rate: float) -> tuple[Tensor | Moved, Any]:
        """Return the same, where x lives."""
        if np.ndim(start) == 1 and self.layers and worth(self.layers, steps.wanted * steps.size, steps.size):
            data = self._apart(steps) or self._rows(steps)
            if data is not None:
                with torch.no_grad():
                    return descend(
                        self.layers, self.objective, self.load(start, 1)[0], data, size=steps.size, rate=rate
                    )
        x, lost = self.load(start, steps.clients), cast(Any, 0.0)
        for batch in steps:
            lost = lost + self._step(x, batch, rate)
        return x.sub_(self.load(start, 1 if np.ndim(start) == 1 else len(x))), lost

    def _step(self, x: Tensor, batch: Batch, rate: float) -> Any:
        """Move x by -rate·gradient in place; return Σ losses (K,)."""
        if self._direct(batch):
            return self._pass(x, batch, step(x, rate))
        found = self._general(x, batch)
        x.sub_(found.vector, alpha=rate)
        return found.loss

    def _apart(self, steps: Steps) -> tuple[Own, Tensor, Tensor] | None:
        """Return what `_rows` does without copying large inputs, if it is all in one step of few outputs; else None."""
        first, whole = steps.data[0].inputs, steps.whole()
        if (
            whole is None
            or self.layers[0].outputs >= NARROW
            or first.nbytes < APART
            or first.dtype != self.layout.dtype
        ):
            return None
        if not (self.flattens or first.ndim == 2):
            return None
        own = [unwritten(np.reshape(one.inputs, (one.size, -1))) for one in steps.data]
        targets = self.objective.targets(whole.targets, self.like)
        return (own, [one.largest for one in steps.data]), targets, as_tensor(whole.weights).to(self.like.dtype)

    def _rows(self, steps: Steps) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return inputs, targets and weights of all steps, one after the other: (K, steps·size, …), inputs flat.

        None if the module takes inputs as they are, and they are not flat.
        """
        rows, found = steps.wanted * steps.size, list[tuple[Tensor, Tensor, Tensor]]()
        for passed in steps.passes():
            parts = inputs, targets, weights = self.tensors(self.like, passed)
            several = inputs.shape[1] < rows  # the next pass comes in the same memory
            found.append((inputs.clone(), targets.clone(), weights) if several else parts)
        inputs, targets, weights = (
            found[0] if len(found) == 1 else (torch.cat(part, 1) for part in zip(*found, strict=True))
        )
        if not (self.flattens or inputs.ndim == 3):
            return None
        return inputs[:, :rows].flatten(2), targets[:, :rows], weights[:, :rows]

    def clipped(self, x: Tensor, batch: Batch, clip: float, seed: int) -> Tensor:
        """Return Σ weight·g·min(1, clip/‖g‖) (K, P) over single examples' gradients."""
        from . import torch_clipped as by_example

        inputs, targets, weights = self.tensors(x, batch)
        if self._direct(batch):
            with torch.no_grad():
                return by_example.direct(self.layers, self.objective, x, (inputs.flatten(2), targets, weights), clip)
        seeded(seed, x)
        each = by_example.general(self.module, self.objective, self.layout)
        return by_example.one_by_one(each, x, (inputs.clone(), targets, weights), clip)

    def _direct(self, batch: Batch) -> bool:
        return bool(self.layers) and (self.flattens or np.ndim(batch.inputs) == 3)

    def _pass(self, x: Tensor, batch: Batch, take: Take) -> Any:
        inputs, targets, weights = self.tensors(x, batch)
        with torch.no_grad():
            seen = forward(self.layers, x, inputs.flatten(2))
            lost, slope = losses(self.objective, seen[-1], targets, weights)
            backward(self.layers, x, seen, slope, take)
        return lost.double()

    def _general(self, x: Tensor, batch: Batch) -> Gradient:
        inputs, targets, weights = self.tensors(x, batch)
        parts = zip(self.layout.leaves, self.layout.offsets, strict=False)
        named = {leaf.name: x[:, at : at + leaf.size].view(len(x), *leaf.shape) for leaf, at in parts}
        copied = inputs.clone()  # a module may write into it
        gradients, (_, lost) = _general(self.module, self.objective)(named, copied, targets, weights)
        vector = torch.cat([gradients[leaf.name].reshape(len(x), -1) for leaf in self.layout.leaves], 1)
        return Gradient(vector, lost.detach().double(), x[:, :0])

    def tensors(self, x: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return inputs, targets and weights where x is, in the types that module and loss take."""
        inputs, targets = inputs_like(batch.inputs, x), self.objective.targets(batch.targets, x)
        return inputs, targets, as_tensor(batch.weights).to(x.device, x.dtype)
