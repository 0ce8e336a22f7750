"""Gradients of single examples, clipped and added, for K clients: x has shape (K, P).

Two forms, as in `torch_stacked`. *Direct*: in a chain of Linear layers an example's gradient is the outer product of
its slope and its input, so its norm is a product of two norms, and one backward pass is enough: no example's gradient
is ever formed (Goodfellow 2015, arXiv 1510.01799v2, section 4). *General*: any other module by `torch.func`, one
example at a time inside vmap, so that a forward pass cannot mix them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from ..core.errors import ConfigError
from ..core.layout import Layout
from .torch_direct import Dense, Take, backward, forward, slopes, store
from .torch_objective import Objective
from .torch_stacked import each_loss

ELEMENTS = 1 << 24  # of single examples' gradients, or of activations, that are held at once


def unclippable(module: nn.Module) -> str:
    """Return why gradients of single examples make no sense for this module, in a sentence; "" if they do.

    >>> unclippable(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))
    ''
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            return (
                f"{type(part).__name__} ({name or 'the module'}) mixes the examples of a batch, so that no gradient is "
                f"one example's; take GroupNorm or LayerNorm."
            )
        if isinstance(part, nn.modules.batchnorm._NormBase) and part.track_running_stats:
            return f"{type(part).__name__} ({name or 'the module'}) keeps running statistics; switch them off."
    if next(module.buffers(), None) is not None:
        return "the module has buffers, which would leave beside the noise; make them constants in forward."
    return ""


def direct(
    layers: tuple[Dense, ...], objective: Objective, x: Tensor, batch: tuple[Tensor, ...], clip: float
) -> Tensor:
    """Return Σ weight·g·min(1, clip/‖g‖) (K, P), given inputs (K, B, d), targets (K, B, …) and weights (K, B)."""
    inputs, targets, weights = batch
    total: Tensor | None = None
    widest = max(max(layer.inputs, layer.outputs) for layer in layers)
    for rows in _pieces(inputs.shape[1], len(x) * widest):
        found = _direct(layers, objective, x, (inputs[:, rows], targets[:, rows], weights[:, rows]), clip)
        total = found if total is None else total.add_(found)
    return torch.zeros_like(x) if total is None else total


def _direct(
    layers: tuple[Dense, ...], objective: Objective, x: Tensor, batch: tuple[Tensor, ...], clip: float
) -> Tensor:
    inputs, targets, weights = batch
    seen, taken = forward(layers, x, inputs), []
    _, slope = slopes(objective, seen[-1], targets)

    def take(layer: Dense, slope: Tensor, below: Tensor) -> None:
        taken.append((layer, slope, below))

    backward(layers, x, seen, slope, take)
    squares = sum(_square(slope) * (_square(below) + bool(layer.bias)) for layer, slope, below in taken)
    norms = torch.as_tensor(squares).sqrt()
    factor = scaled(weights, norms, clip).unsqueeze(2)
    gradient = torch.empty_like(x)
    put: Take = store(gradient)
    for layer, slope, below in taken:
        put(layer, known(slope, norms).mul_(factor), known(below, norms))
    return gradient


def scaled(weights: Tensor, norms: Tensor, clip: float) -> Tensor:
    """Return weight·min(1, clip/norm), in the shape of the norms; of a zero gradient the weight."""
    return weights * clip / known(norms, norms).clamp_min(clip)


def known(values: Tensor, norms: Tensor) -> Tensor:
    """Return the values with zeros for examples whose gradient has no finite norm: they count as nothing.

    Otherwise one example could make a whole update no number, which everybody would see.
    """
    finite = norms.isfinite()
    if bool(finite.all()):
        return values
    return torch.where(finite.view(*finite.shape, *[1] * (values.ndim - finite.ndim)), values, 0.0)


def _square(values: Tensor) -> Tensor:
    squares: Tensor = torch.linalg.vecdot(values, values)
    return squares


def general(module: nn.Module, objective: Objective, layout: Layout) -> Callable[..., Tensor]:
    """Return (x (P,), inputs (B, …), targets (B, …)) -> gradients of single examples (B, P)."""
    parts = [(leaf, at) for leaf, at in zip(layout.leaves, layout.offsets, strict=False)]

    def loss(x: Tensor, row: Tensor, target: Tensor) -> Tensor:
        named = {leaf.name: x[at : at + leaf.size].view(leaf.shape) for leaf, at in parts}
        outputs = functional_call(module, named, (row.unsqueeze(0),))
        if not isinstance(outputs, Tensor):
            raise ConfigError(f"the module's forward must return one tensor, got {type(outputs).__name__}.")
        return each_loss(objective, outputs, target.unsqueeze(0)).sum()

    return vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")


def one_by_one(each: Callable[..., Tensor], x: Tensor, batch: tuple[Tensor, ...], clip: float) -> Tensor:
    """Return Σ weight·g·min(1, clip/‖g‖) (K, P), where `each` gives the gradients of single examples."""
    total = torch.zeros_like(x)
    for k, (own, *rows) in enumerate(zip(x, *batch, strict=True)):
        for piece in _pieces(len(rows[0]), x.shape[1]):
            inputs, targets, weights = (part[piece] for part in rows)
            found: Any = each(own, inputs, targets).detach()
            norms = torch.linalg.vector_norm(found, dim=1)
            total[k] += scaled(weights, norms, clip) @ known(found, norms)
    return total


def _pieces(rows: int, width: int) -> Iterator[slice]:
    """Yield slices of so many rows, each few enough for `width` elements a row."""
    size = max(1, ELEMENTS // max(1, width))
    for begin in range(0, rows, size):
        yield slice(begin, begin + size)
