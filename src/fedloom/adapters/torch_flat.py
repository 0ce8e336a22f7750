"""A PyTorch module whose parameters, gradients and floating buffers are views of one flat tensor each.

Loading the next client is one copy, zeroing gradients one fill, and the gradient is a vector already.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import ConfigError, LayoutMismatch
from ..core.layout import MODEL, Layout, Leaf, Vector

_DTYPES = {torch.float32: "float32", torch.float64: "float64"}


class Place(NamedTuple):
    """Where a buffer lives: `owner._buffers[name]` should be `tensor`, also when a forward pass has replaced it."""

    owner: nn.Module
    name: str
    tensor: Tensor


@dataclass(frozen=True, eq=False)
class Flat:
    """The resident module and its flat memory; P parameters, B elements of floating buffers.

    Args:
        module: its tensors are views of `values` and `grads`.
        layout: trainable parameters, then floating buffers; tied parameters once, frozen ones not at all.
        values: shape `(P + B,)`.
        grads: shape `(P,)`.
        buffers: the view `values[P:]`.
        packed: where the floating buffers live.
        home: buffers that stay here (integers, and what the state dictionary leaves out), with their first values.
    """

    module: nn.Module
    layout: Layout
    values: Tensor
    grads: Tensor
    buffers: Tensor
    packed: tuple[Place, ...]
    home: tuple[tuple[Place, Tensor], ...]

    def load(self, vector: Any) -> Tensor:
        """Copy NumPy or torch values `(P + B,)` in, put the home buffers back, and return the resident tensor."""
        if tuple(vector.shape) != (self.layout.size,):
            raise LayoutMismatch(f"the model has {self.layout.size} values, got shape {tuple(vector.shape)}.")
        if isinstance(vector, Tensor):
            self.values.copy_(vector)
        elif self.values.is_cpu:
            np.copyto(self.values.numpy(), vector, casting="same_kind")  # also from a read-only array
        else:
            self.values.copy_(torch.tensor(vector))
        for place, first in self.home:
            place.owner._buffers[place.name] = place.tensor.copy_(first)
        return self.values

    def holds(self, x: Any) -> bool:
        """Is `x` the resident memory itself?"""
        return x is self.values or (
            isinstance(x, Tensor) and x.shape == self.values.shape and x.data_ptr() == self.values.data_ptr()
        )

    @contextmanager
    def at(self, x: Any) -> Iterator[None]:
        """Hold `x` for a while: values, and home buffers at their first values; then what was here before."""
        if self.holds(x):
            yield
            return
        values, found = self.values.clone(), [place.owner._buffers[place.name] for place, _ in self.home]
        kept = [None if tensor is None else tensor.clone() for tensor in found]
        try:
            self.load(x)
            yield
        finally:
            self.values.copy_(values)
            for (place, _), tensor in zip(self.home, kept, strict=True):
                place.owner._buffers[place.name] = tensor

    def settle(self) -> None:
        """Take buffers that a forward pass has replaced (`self.mean = …`) back into the flat memory."""
        for owner, name, tensor in self.packed:
            found = owner._buffers[name]
            if found is not tensor and found is not None:
                owner._buffers[name] = tensor.copy_(found.detach())


def values_of(module: nn.Module) -> dict[str, Tensor]:
    """Return what a layout holds, by name and in its order: trainable parameters, then persistent floating buffers.

    >>> list(values_of(nn.BatchNorm1d(2)))
    ['weight', 'bias', 'running_mean', 'running_var']
    """
    persistent = module.state_dict(keep_vars=True)
    buffers = ((name, tensor) for name, tensor in module.named_buffers() if name in persistent)
    return {name: p for name, p in module.named_parameters() if p.requires_grad} | {
        name: tensor for name, tensor in buffers if tensor.is_floating_point()
    }


def flatten(module: nn.Module, bound: float, device: str) -> Flat:
    """Move `module` to the device and into one flat memory; raises `ConfigError` for what cannot lie there.

    >>> flat = flatten(nn.Linear(2, 1), 16.0, "cpu")
    >>> _ = flat.values.fill_(0.5)
    >>> flat.module(torch.ones(1, 2)).item()
    1.5
    """
    tensors = values_of(_checked(module).to(device))
    layout = _layout(tensors, bound)
    size = layout.block(MODEL, "parameter").stop
    dtype = getattr(torch, str(layout.dtype))
    values = torch.empty(layout.size, dtype=dtype, device=device)
    grads = torch.zeros(size, dtype=dtype, device=device)
    for tensor, begin in zip(tensors.values(), layout.offsets, strict=False):
        view = values[begin : begin + tensor.numel()].view(tensor.shape)
        view.copy_(tensor.detach())
        tensor.data = view
        if begin < size:
            tensor.grad = grads[begin : begin + tensor.numel()].view(tensor.shape)
    packed, home = _places(module, {id(tensor) for tensor in tensors.values()})
    return Flat(module, layout, values, grads, values[size:], packed, home)


def _places(module: nn.Module, flat: set[int]) -> tuple[tuple[Place, ...], tuple[tuple[Place, Tensor], ...]]:
    places = [
        Place(owner, name, tensor)
        for owner in module.modules()
        for name, tensor in owner._buffers.items()
        if tensor is not None
    ]
    packed = tuple(place for place in places if id(place.tensor) in flat)
    return packed, tuple((place, place.tensor.clone()) for place in places if id(place.tensor) not in flat)


def _layout(tensors: dict[str, Tensor], bound: float) -> Layout:
    return Layout(
        tuple(
            Leaf(
                name,
                tuple(tensor.shape),
                _DTYPES[tensor.dtype],
                "parameter" if tensor.requires_grad else "buffer",
                bound,
            )
            for name, tensor in tensors.items()
        )
    )


def _checked(module: nn.Module) -> nn.Module:
    if any(nn.parameter.is_lazy(tensor) for tensor in [*module.parameters(), *module.buffers()]):
        raise ConfigError("the module has lazy parameters without a shape; run one batch through it first.")
    tensors = values_of(module)
    if not any(tensor.requires_grad for tensor in tensors.values()):
        raise ConfigError(f"{type(module).__name__} has no trainable parameters: nothing could be learned.")
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    if len(set(dtypes.values())) > 1 or not set(dtypes.values()) <= set(_DTYPES):
        first = next(iter(dtypes.values()))
        odd = next((name for name, dtype in dtypes.items() if dtype not in _DTYPES or dtype != first))
        raise ConfigError(
            f"parameters and floating buffers must all be float32, or all float64, because deltas are summed exactly; "
            f"{odd!r} is {str(dtypes[odd]).removeprefix('torch.')}. Call module.float(), and use torch.autocast in "
            f"forward for the speed of half precision."
        )
    return module


def to_numpy(tensor: Tensor) -> Vector:
    """Return NumPy, sharing memory where it can; bfloat16, which NumPy lacks, becomes float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
