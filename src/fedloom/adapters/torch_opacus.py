"""Gradients of single examples where `torch.func` has none: recurrent layers, through Opacus.

Opacus (Yousefpour et al. 2021, arXiv 2109.12298) writes LSTM, GRU and RNN out in layers whose gradients it can tell
apart. Only that is used of it: lots, clipping, noise and accounting are this library's.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import ConfigError, MissingExtra
from ..core.layout import Layout
from ..core.model import Batch
from .torch_clipped import one_by_one
from .torch_objective import Objective, seeded
from .torch_stacked import RANDOM, TorchStack, each_loss

_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
PROBES = 2  # examples whose gradients are compared with those of each by itself
FAR = 1e-3  # how far, of the longest, they may be apart: float32 in another order, and no more


def recurrent(module: nn.Module) -> bool:
    """Is there a layer that loops over time?"""
    return any(isinstance(part, _RECURRENT) for part in module.modules())


def by_opacus(module: nn.Module, objective: Objective, layout: Layout, device: str) -> "OpacusClipping":
    """Return what clips gradients of a module with recurrent layers; raises `MissingExtra`, or `ConfigError`."""
    try:
        from opacus import GradSampleModule
        from opacus.layers import DPGRU, DPLSTM, DPRNN
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "gradients of single examples in recurrent layers need Opacus: pip install 'fedloom[torch-dp]'"
        ) from error
    known = {nn.LSTM: DPLSTM, nn.GRU: DPGRU, nn.RNN: DPRNN}
    copied = _replaced(deepcopy(module), "", known).to(device).train()
    try:
        sampled = GradSampleModule(copied, loss_reduction="sum", strict=True)
    except NotImplementedError as error:
        raise ConfigError(f"gradients of single examples cannot be had of this module: {error}") from error
    stack = TorchStack(copied, objective, layout, (), device, False)
    return OpacusClipping(stack, sampled)


def _replaced(module: nn.Module, name: str, known: dict[Any, Any]) -> nn.Module:
    """Return the module with recurrent layers written out, their values kept under the same names."""
    if type(module) in known:
        return _written_out(module, name, known[type(module)])
    if isinstance(module, _RECURRENT):
        raise ConfigError(f"{type(module).__name__} ({name or 'the module'}) is not known here; take LSTM, GRU or RNN.")
    for own, part in module.named_children():
        setattr(module, own, _replaced(part, f"{name}.{own}".lstrip("."), known))
    return module


def _written_out(layer: Any, name: str, kind: Any) -> nn.Module:
    if getattr(layer, "proj_size", 0):
        raise ConfigError(f"{type(layer).__name__} ({name or 'the module'}) projects its output; leave proj_size out.")
    names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
    more = {"nonlinearity": layer.nonlinearity} if isinstance(layer, nn.RNN) else {}
    written: nn.Module = kind(**{each: getattr(layer, each) for each in names}, **more)
    written.load_state_dict(layer.state_dict())
    return written


@dataclass(eq=False)
class OpacusClipping:
    """K clients' clipped gradients, one client after the other. Made by `by_opacus`.

    The first two examples of the first lot are looked at by themselves as well: a forward pass that mixes examples
    gives other gradients then, and is refused.
    """

    stack: TorchStack
    sampled: Any
    _checked: list[bool] = field(default_factory=list)

    def load(self, vectors: Any, clients: int) -> Tensor:
        """Return (K, P): one vector for all, or one for each client."""
        return self.stack.load(vectors, clients)

    def read(self, x: Any) -> Any:
        """Return x as NumPy."""
        return self.stack.read(x)

    def moved(self, x: Tensor, start: Any) -> Any:
        """Return x - start as NumPy."""
        return self.stack.moved(x, start)

    def clipped(self, x: Tensor, batch: Batch, clip: float, seed: int) -> Tensor:
        """Return Σ weight·g·min(1, clip/‖g‖) (K, P) over single examples' gradients."""
        inputs, targets, weights = self.stack.tensors(x, batch)
        if not self._checked and inputs.shape[1] >= PROBES:
            self._check(x[0], inputs[0, :PROBES], targets[0, :PROBES])
        seeded(seed, x)
        return one_by_one(self._each, x, (inputs, targets, weights), clip)

    def _each(self, x: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the gradients of single examples (B, P)."""
        layout, parameters = self.stack.layout, dict(self.sampled._module.named_parameters())
        for leaf, at in zip(layout.leaves, layout.offsets, strict=False):
            parameters[leaf.name].data.copy_(x[at : at + leaf.size].view(leaf.shape))
        self.sampled.zero_grad(set_to_none=True)
        with torch.enable_grad():
            each_loss(self.stack.objective, self.sampled(inputs), targets).sum().backward()  # type: ignore[no-untyped-call]
        found = [parameters[leaf.name].grad_sample.reshape(len(inputs), -1) for leaf in layout.leaves]
        self.sampled.zero_grad(set_to_none=True)
        return torch.cat(found, 1)

    def _check(self, x: Tensor, inputs: Tensor, targets: Tensor) -> None:
        still = [part for part in self.sampled.modules() if isinstance(part, RANDOM)]
        for part in still:
            part.eval()
        together = self._each(x, inputs, targets).nan_to_num(0, 0, 0)  # no example's rows may decide what is refused
        single = torch.cat([self._each(x, inputs[i : i + 1], targets[i : i + 1]) for i in range(PROBES)])
        single = single.nan_to_num(0, 0, 0)
        self.sampled.train()
        if not (together - single).abs().max() <= FAR * single.abs().max() + 1e-6:
            raise ConfigError(
                "the module's forward mixes the examples of a batch, so that no gradient is one example's; let it "
                "treat each row by itself, with the batch as the first axis."
            )
        self._checked.append(True)
