"""K clients through one batched pass: x has shape (K, P), a row for each client.

Two forms. *Direct*: chains of Linear and elementwise activations, forward and backward written out as batched matrix
products on views of x; a plain step is fused into the backward pass, so gradients are never stored. *General*: any
other module by `torch.func` (vmap of grad). What cannot be stacked is named in one sentence by `unstackable`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional

from ..core.layout import Layout
from ..core.parts import Batch, Gradient
from .losses import check_classes, check_values
from .torch_objective import Objective, as_tensor, inputs_like, seeded, single

RANDOM = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_RUNNING = (nn.modules.batchnorm._NormBase,)


@dataclass(frozen=True)
class Dense:
    """A Linear layer as slices of the flat vector, and the activation behind it ("" for none)."""

    weight: slice
    bias: slice | None
    inputs: int
    outputs: int
    activation: str = ""


_ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}


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


def chain(module: nn.Module, layout: Layout) -> tuple[Dense, ...]:
    """Return the layers of the direct form; none if the module is not a chain of Linear and activations.

    Whatever else a forward pass would do (a subclass's own, a hook, a frozen or a shared tensor) is left to the general
    form.
    """
    places = {leaf.name: slice(at, at + leaf.size) for leaf, at in zip(layout.leaves, layout.offsets, strict=False)}
    layers: list[Dense] = []
    if any(_hooked(part) for part in module.modules()):
        return ()
    for at, (name, part) in enumerate(_flattened("", module)):
        if type(part) is nn.Linear and f"{name}.weight" in places:
            bias = places.get(f"{name}.bias")
            if (bias is None) != (part.bias is None):
                return ()
            layers.append(Dense(places[f"{name}.weight"], bias, part.in_features, part.out_features))
        elif type(part) in _ACTIVATIONS and layers and not layers[-1].activation:
            layers[-1] = replace(layers[-1], activation=_ACTIVATIONS[type(part)])
        elif type(part) is not nn.Identity and (at or not _flattens(part)):
            return ()
    used = sum(leaf.size for leaf in layout.leaves)
    return tuple(layers) if layers and used == sum(_size(layer) for layer in layers) else ()


def _flattened(prefix: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    if type(module) is not nn.Sequential:
        return [(prefix, module)]
    own = [(name, part) for name, part in module._modules.items() if part is not None]  # with those that come twice
    parts = [_flattened(f"{prefix}.{name}" if prefix else name, part) for name, part in own]
    return [pair for part in parts for pair in part]


def flattens(module: nn.Module) -> bool:
    """Does the module begin by making a row of every example?"""
    first = next(iter(_flattened("", module)), ("", module))[1]
    return _flattens(first)


def _flattens(module: nn.Module) -> bool:
    return type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)


def _hooked(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or "forward" in vars(module)


def _size(layer: Dense) -> int:
    return layer.inputs * layer.outputs + (layer.outputs if layer.bias else 0)


def forward(layers: tuple[Dense, ...], x: Tensor, inputs: Tensor) -> list[Tensor]:
    """Return the inputs (K, B, d) and every layer's activated outputs (K, B, o)."""
    seen = [inputs]
    for layer in layers:
        weight = x[:, layer.weight].view(len(x), layer.outputs, layer.inputs).transpose(1, 2)
        bias = x[:, None, layer.bias] if layer.bias else x.new_zeros(1)
        seen.append(_activate(torch.baddbmm(bias, seen[-1], weight), layer.activation))
    return seen


def _activate(z: Tensor, activation: str) -> Tensor:
    match activation:
        case "relu":
            return z.relu_()
        case "tanh":
            return z.tanh_()
        case "sigmoid":
            return z.sigmoid_()
    return z


def _slope(slope: Tensor, output: Tensor, activation: str) -> Tensor:
    """Multiply by the activation's derivative, written in its own output."""
    match activation:
        case "relu":
            return slope.mul_(output > 0)
        case "tanh":
            return slope.mul_(1 - output * output)
        case "sigmoid":
            return slope.mul_(output * (1 - output))
    return slope


Take = Callable[[Dense, Tensor, Tensor], None]  # (layer, slope (K, B, o), inputs (K, B, d))


def backward(layers: tuple[Dense, ...], x: Tensor, seen: list[Tensor], slope: Tensor, take: Take) -> None:
    """Go back from ∂loss/∂output (K, B, o); `take` gets each layer once its weights are no longer needed."""
    for at in reversed(range(len(layers))):
        layer, inputs = layers[at], seen[at]
        slope = _slope(slope, seen[at + 1], layer.activation)
        below = None
        if at:
            below = torch.bmm(slope, x[:, layer.weight].view(len(x), layer.outputs, layer.inputs))
        take(layer, slope, inputs)
        if below is not None:
            slope = below


def step(x: Tensor, rate: float) -> Take:
    """Return what moves x by -rate·gradient, fused with the product that makes the gradient."""

    def take(layer: Dense, slope: Tensor, inputs: Tensor) -> None:
        weight = x[:, layer.weight].view(len(x), layer.outputs, layer.inputs)
        weight.baddbmm_(slope.transpose(1, 2), inputs, alpha=-rate)
        if layer.bias:
            x[:, layer.bias].sub_(slope.sum(1), alpha=rate)

    return take


def store(gradient: Tensor) -> Take:
    """Return what writes into the rows of `gradient` (K, P)."""

    def take(layer: Dense, slope: Tensor, inputs: Tensor) -> None:
        out = gradient[:, layer.weight].view(len(gradient), layer.outputs, layer.inputs)
        torch.bmm(slope.transpose(1, 2), inputs, out=out)
        if layer.bias:
            torch.sum(slope, 1, out=gradient[:, layer.bias])

    return take


def losses(objective: Objective, outputs: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return Σ of the examples' losses by client (K,), and ∂(mean loss)/∂outputs (K, B, o).

    Args:
        outputs: (K, B, o); targets: (K, B), or for "mse" also (K, B, o); weights: (K, B), 1 for an example and 0 for
            padding.
    """
    share = (weights / weights.sum(1, keepdim=True)).unsqueeze(2)
    each, slope = slopes(objective, outputs, targets)
    return (each * weights).sum(1), slope.mul_(share)


def slopes(objective: Objective, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return every example's loss (K, B) and ∂loss/∂outputs (K, B, o), of a named loss."""
    _check(objective, outputs.shape[1:], targets.shape[1:])
    if objective.loss == "cross_entropy":
        logs = functional.log_softmax(outputs, 2)
        at = targets.unsqueeze(2)
        each = -logs.gather(2, at).squeeze(2)
        slope = logs.exp_()
        slope.scatter_add_(2, at, torch.full_like(at, -1, dtype=outputs.dtype))
        return each, slope
    if objective.loss == "binary_cross_entropy":
        truth = targets.reshape(outputs.shape)
        each = functional.binary_cross_entropy_with_logits(outputs, truth, reduction="none").mean(2)
        return each, (outputs.sigmoid() - truth).div_(outputs.shape[2])
    away = outputs - targets.reshape(outputs.shape)
    return (away * away).mean(2), away.mul(2 / outputs.shape[2])


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
    _check(objective, outputs.shape, targets.shape)
    if objective.loss == "cross_entropy":
        return functional.cross_entropy(outputs, targets, reduction="none")
    flat = outputs.reshape(targets.shape)
    if objective.loss == "binary_cross_entropy":
        found = functional.binary_cross_entropy_with_logits(flat, targets, reduction="none")
    else:
        found = (flat - targets) ** 2
    return found.reshape(len(targets), -1).mean(1)


def _check(objective: Objective, outputs: tuple[int, ...], targets: tuple[int, ...]) -> None:
    """Refuse what one client's loss refuses; shapes without the axis of clients."""
    if objective.loss == "cross_entropy":
        check_classes(outputs, targets)
    else:
        check_values(outputs, targets, str(objective.loss))


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

    def load(self, vectors: Any, clients: int) -> Tensor:
        """Return (K, P): one vector for all, or one for each client."""
        given = clients if np.ndim(vectors) > 1 or self.device == "cpu" else 1  # one row crosses the bus once
        rows = torch.empty(given, self.layout.size, dtype=getattr(torch, self.layout.dtype.name))
        np.copyto(rows.numpy(), vectors, casting="same_kind")
        moved = rows.to(self.device)
        return moved if given == clients else moved.expand(clients, -1).clone()

    def read(self, x: Any) -> Any:
        """Return x as NumPy."""
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

    def descend(self, x: Tensor, batch: Batch, rate: float) -> Any:
        """Move x by -rate·gradient in place; return Σ losses (K,)."""
        if self._direct(batch):
            return self._pass(x, batch, step(x, rate))
        found = self._general(x, batch)
        x.sub_(found.vector, alpha=rate)
        return found.loss

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
