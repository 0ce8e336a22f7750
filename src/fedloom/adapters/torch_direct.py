"""The direct form of a stack: chains of Linear and elementwise activations as batched products on rows of x (K, P).

Forward and backward are written out, and a plain step is fused into the backward pass, so gradients are never stored.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.layout import Layout
from .losses import check_classes, check_values
from .torch_objective import Objective


@dataclass(frozen=True)
class Dense:
    """A Linear layer as slices of the flat vector, and the activation behind it ("" for none)."""

    weight: slice
    bias: slice | None
    inputs: int
    outputs: int
    activation: str = ""


_ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}


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
        own = f"{name}." if name else ""
        if type(part) is nn.Linear and f"{own}weight" in places:
            bias = places.get(f"{own}bias")
            if (bias is None) != (part.bias is None):
                return ()
            layers.append(Dense(places[f"{own}weight"], bias, part.in_features, part.out_features))
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
        seen.append(activate(torch.baddbmm(bias, seen[-1], weight), layer.activation))
    return seen


def activate(z: Tensor, activation: str, out: Tensor | None = None) -> Tensor:
    """Return the activation of z, written to `out`; without it, in z's memory."""
    out = z if out is None else out
    match activation:
        case "relu":
            return torch.clamp_min(z, 0, out=out)
        case "tanh":
            return torch.tanh(z, out=out)
        case "sigmoid":
            return torch.sigmoid(z, out=out)
    return out if out is z else out.copy_(z)


def slope_below(slope: Tensor, output: Tensor, activation: str, out: Tensor | None = None) -> Tensor:
    """Return the slope times the activation's derivative, written in its own output; to `out`, or in place."""
    aten, out = torch.ops.aten, slope if out is None else out
    match activation:
        case "relu":
            aten.threshold_backward.grad_input(slope, output, 0, grad_input=out)
        case "tanh":
            aten.tanh_backward.grad_input(slope, output, grad_input=out)
        case "sigmoid":
            aten.sigmoid_backward.grad_input(slope, output, grad_input=out)
        case _ if out is not slope:
            out.copy_(slope)
    return out


Take = Callable[[Dense, Tensor, Tensor], None]  # (layer, slope (K, B, o), inputs (K, B, d))


def backward(layers: tuple[Dense, ...], x: Tensor, seen: list[Tensor], slope: Tensor, take: Take) -> None:
    """Go back from ∂loss/∂output (K, B, o); `take` gets each layer once its weights are no longer needed."""
    for at in reversed(range(len(layers))):
        layer, inputs = layers[at], seen[at]
        slope = slope_below(slope, seen[at + 1], layer.activation)
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
    check(objective, outputs.shape[1:], targets.shape[1:])
    if objective.loss == "cross_entropy":
        at, top = targets.unsqueeze(2), outputs.amax(2, keepdim=True)
        slope = (outputs - top).exp_()  # softmax by hand: the library's is slow for few classes
        total = slope.sum(2, keepdim=True)
        each = total.log() + top - outputs.gather(2, at)
        slope.div_(total).scatter_add_(2, at, torch.full_like(at, -1, dtype=outputs.dtype))
        return each.squeeze(2), slope
    if objective.loss == "binary_cross_entropy":
        truth = targets.reshape(outputs.shape)
        each = functional.binary_cross_entropy_with_logits(outputs, truth, reduction="none").mean(2)
        return each, (outputs.sigmoid() - truth).div_(outputs.shape[2])
    away = outputs - targets.reshape(outputs.shape)
    return (away * away).mean(2), away.mul(2 / outputs.shape[2])


def check(objective: Objective, outputs: tuple[int, ...], targets: tuple[int, ...]) -> None:
    """Refuse what one client's loss refuses; shapes without the axis of clients."""
    if objective.loss == "cross_entropy":
        check_classes(outputs, targets)
    else:
        check_values(outputs, targets, str(objective.loss))
