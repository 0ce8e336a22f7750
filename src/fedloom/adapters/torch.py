"""Any PyTorch module as a model: one flat vector, its gradient, its measures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core.errors import ConfigError, MissingExtra
from ..core.examples import Examples
from ..core.layout import Array, Layout, Vector
from ..core.metrics import Metrics, total
from ..core.model import Clipping, Gradient
from ..core.rng import Streams

try:
    import torch
    from torch import Tensor
    from torch import nn as nn  # for torch_nets, so that this is the one place that says what is missing
except ModuleNotFoundError as error:
    raise MissingExtra("a torch model needs PyTorch: pip install 'fedloom[torch]'") from error

from .torch_clipped import unclippable
from .torch_device import TorchResident
from .torch_direct import chain, flattens
from .torch_flat import Flat, flatten, to_numpy, values_of
from .torch_objective import Objective, PerExample, inputs_like, seeded, wide
from .torch_opacus import by_opacus, recurrent
from .torch_stacked import TorchStack, unstackable

EVALUATE_BATCH = 1024  # examples


@dataclass(frozen=True, eq=False)
class TorchModel:
    """A PyTorch module behind the `Model` protocol; made by `torch_model`, which says what it accepts.

    One object serves one thread: `load` makes a client resident, and the tensor that it returns *is* the module's
    memory. Any other `x` is visited: copied in, used, and what was resident is put back.
    Pickling or copying it builds it again, with nothing loaded.
    """

    source: nn.Module | Callable[[], nn.Module]
    objective: Objective
    bound: float
    device: str
    flat: Flat
    norms: tuple[nn.Module, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return torch_model, (self.source, self.objective.loss, self.objective.metrics, self.bound, self.device)

    @property
    def module(self) -> nn.Module:
        """The resident module."""
        return self.flat.module

    @property
    def layout(self) -> Layout:
        """Trainable parameters, then floating buffers, by their names in the module."""
        return self.flat.layout

    @property
    def figures(self) -> frozenset[str]:
        """Names of the figures; auc and average_precision of "cross_entropy" only come with two classes."""
        return self.objective.figures

    def init(self, streams: Streams) -> Vector:
        """Return a module's own weights, or those of a new one from the factory, seeded from `streams`."""
        module = self.source if isinstance(self.source, nn.Module) else _build(self.source, streams.integer("init"))
        return self.layout.pack({name: to_numpy(tensor) for name, tensor in values_of(module).items()})

    def load(self, vector: Vector) -> Tensor:
        """Copy `vector` in and return the resident tensor; integer buffers go back to their first values."""
        return self.flat.load(vector)

    def read(self, x: Array) -> Vector:
        """Return `x` as NumPy, sharing memory on the CPU."""
        return to_numpy(x) if isinstance(x, Tensor) else np.asarray(x)

    def grad(self, x: Array, batch: Examples, streams: Streams) -> Gradient:
        """Return the mean gradient in train mode; of no examples, zeros. `streams` seeds torch (dropout).

        A resident `x` takes on the new buffers at once. In a batch of one example, a BatchNorm layer that would see
        one value for each channel uses its running statistics, where PyTorch refuses.
        """
        if self.flat.holds(x):
            return self._grad(batch, streams)
        with self.flat.at(x):
            found = self._grad(batch, streams)
            return replace(found, buffers=found.buffers.clone())

    def evaluate(self, x: Array, data: Examples) -> Metrics:
        """Return sums over all of `data`, in eval mode, `EVALUATE_BATCH` examples at a time."""
        with self.flat.at(x), torch.no_grad():
            self.module.eval()
            return total(self._measure(data.take(rows)) for rows in _slices(data.size))

    def evaluate_many(self, x: Array, data: Sequence[Examples]) -> list[Metrics]:
        """Return the sums over each; their examples go through the module together, up to `EVALUATE_BATCH` of them."""
        with self.flat.at(x), torch.no_grad():
            self.module.eval()
            return [found for some in _together(data) for found in self._measure_many(some)]

    def predict(self, x: Array, inputs: Array) -> Array:
        """Return class probabilities `(n, classes)` or values `(n,)` in float64; with a loss function, raw outputs."""
        with self.flat.at(x), torch.no_grad():
            self.module.eval()
            outputs = [wide(self._forward(self._inputs(inputs[rows]))) for rows in _slices(len(inputs)) or [slice(0)]]
        known = self.objective.known
        return known.predict(np.concatenate(outputs)) if known else np.concatenate(outputs)

    def stack(self) -> TorchStack:
        """Return what trains K clients at once; raises `ConfigError` for what cannot be stacked, by name."""
        why = unstackable(self.module, self.objective)
        if why:
            raise ConfigError(f"this module cannot be vectorised: {why} Take the engine pool.")
        return self._stacked()

    def resident(self) -> TorchResident:
        """Return a stack that keeps rows, vectors and sums on the model's device; refuses what `stack` refuses."""
        return TorchResident(self.stack())

    def clipping(self) -> Clipping:
        """Return what clips gradients by example; raises `ConfigError` for a module that mixes them, by name."""
        why = unclippable(self.module)
        if why:
            raise ConfigError(f"gradients of single examples cannot be had: {why}")
        if recurrent(self.module):
            return by_opacus(self.module, self.objective, self.layout, self.device)
        return self._stacked()

    def _stacked(self) -> TorchStack:
        module, layers = deepcopy(self.module).train(), chain(self.module, self.layout)
        known = isinstance(self.objective.loss, str)
        return TorchStack(module, self.objective, self.layout, layers if known else (), self.device, flattens(module))

    def export(self, vector: Vector) -> dict[str, Array]:
        """Return the whole state dictionary as NumPy: frozen and tied parameters and integer buffers too."""
        with self.flat.at(vector):
            return {name: np.array(to_numpy(value)) for name, value in self.module.state_dict().items()}

    def _grad(self, batch: Examples, streams: Streams) -> Gradient:
        flat, n = self.flat, batch.size
        flat.grads.zero_()
        if n == 0:
            return Gradient(flat.grads, 0.0, flat.buffers)
        seeded(streams.integer("torch"), flat.values)
        if not flat.module.training:
            flat.module.train()
        inputs, targets = self._inputs(batch.inputs), self.objective.targets(batch.targets, flat.values)
        outputs = self._forward(inputs) if n > 1 or not self.norms else self._forward_one(inputs)
        mean = self.objective.mean(outputs, targets)
        mean.backward()  # type: ignore[no-untyped-call]
        flat.settle()
        return Gradient(flat.grads, mean.item() * n, flat.buffers)

    def _measure(self, data: Examples) -> Metrics:
        targets = self.objective.targets(data.targets, self.flat.values)
        return self.objective.measure(self._forward(self._inputs(data.inputs)), targets)

    def _measure_many(self, data: Sequence[Examples]) -> list[Metrics]:
        if len(data) == 1:
            return [total(self._measure(data[0].take(rows)) for rows in _slices(data[0].size))]
        outputs = self._forward(self._inputs(np.concatenate([one.inputs for one in data])))
        parts = zip(torch.split(outputs, [one.size for one in data]), data, strict=True)
        return [
            self.objective.measure(out, self.objective.targets(one.targets, self.flat.values)) for out, one in parts
        ]

    def _inputs(self, inputs: Array) -> Tensor:
        return inputs_like(inputs, self.flat.values)

    def _forward(self, inputs: Tensor) -> Tensor:
        outputs = self.flat.module(inputs)
        if not isinstance(outputs, Tensor):
            raise ConfigError(f"the module's forward must return one tensor, got {type(outputs).__name__}.")
        return outputs

    def _forward_one(self, inputs: Tensor) -> Tensor:
        hooks = [norm.register_forward_pre_hook(_train_on_two_values) for norm in self.norms]
        try:
            return self._forward(inputs)
        finally:
            for hook in hooks:
                hook.remove()
            self.module.train()


def torch_model(
    source: nn.Module | Callable[[], nn.Module],
    loss: str | PerExample = "cross_entropy",
    metrics: Mapping[str, PerExample] | None = None,
    bound: float = 16.0,
    device: str = "cpu",
) -> TorchModel:
    """Return any PyTorch module, whose forward takes one tensor and returns one, as a model.

    Trainable parameters and floating buffers (BatchNorm statistics) travel; tied parameters once; frozen parameters,
    integer and non-persistent buffers stay home. Half precision is refused: deltas are summed exactly in float32.
    A sub-module that must stay in eval mode has to override `train`, since train mode is set on all of it.
    Of a factory, what stays home is drawn with seed 0, alike at all parties.

    Args:
        source: a factory (a function without arguments, or a class), which draws new weights from the run's seed;
            or a module, which is copied and keeps the weights that it came with.
        loss: "cross_entropy", "binary_cross_entropy", "mse", or a function (outputs, targets) to losses `(n,)`.
        metrics: more figures by name: functions (outputs, targets) to one number for each example, `(n,)`.
        bound: largest |weight·δ| that one client may contribute to any element.
        device: "cpu", or a CUDA device such as "cuda:0".

    >>> from fedloom.core.rng import stream
    >>> model = torch_model(lambda: nn.Linear(2, 3))
    >>> x = model.load(model.init(stream(0, "init")))
    >>> found = model.grad(x, Examples(np.ones((4, 2), np.float32), np.array([0, 1, 2, 0])), stream(0, 1))
    >>> tuple(found.vector.shape), [leaf.name for leaf in model.layout.leaves]
    ((9,), ['weight', 'bias'])
    """
    objective = Objective(loss, dict(metrics or {}))
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r}: this machine has no CUDA device that PyTorch can use; use 'cpu'.")
    if isinstance(source, nn.Module):
        source = _copy(source)
    module = _copy(source) if isinstance(source, nn.Module) else _build(source, 0)
    flat = flatten(module.train(), bound, device)
    norms = tuple(part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm))
    return TorchModel(source, objective, bound, device, flat, norms)


def _copy(module: nn.Module) -> nn.Module:
    try:
        return deepcopy(module)
    except RuntimeError as error:
        raise ConfigError(f"{type(module).__name__} cannot be copied; pass a factory instead. {error}") from error


def _build(factory: Callable[[], nn.Module], seed: int) -> nn.Module:
    if not callable(factory):
        raise ConfigError(f"a torch model needs a module or a factory of one, got {type(factory).__name__}.")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = factory()
    if not isinstance(module, nn.Module):
        raise ConfigError(f"the factory must return a torch.nn.Module, got {type(module).__name__}.")
    return module


def _slices(n: int) -> list[slice]:
    return [slice(begin, min(begin + EVALUATE_BATCH, n)) for begin in range(0, n, EVALUATE_BATCH)]


def _together(data: Sequence[Examples]) -> Iterator[list[Examples]]:
    """Yield them in groups of at most `EVALUATE_BATCH` examples; what is empty or larger is a group of its own.

    >>> sizes = (3, 4, 0, 1020, 5, 5000, 1)
    >>> [[one.size for one in some] for some in _together([Examples(np.zeros((n, 1)), np.zeros(n)) for n in sizes])]
    [[3, 4], [0], [1020], [5], [5000], [1]]
    """
    group: list[Examples] = []
    room = 0
    for one in data:
        n = one.size or EVALUATE_BATCH
        if group and n > room:
            yield group
            group = []
        room = (room if group else EVALUATE_BATCH) - n
        group.append(one)
    if group:
        yield group


def _train_on_two_values(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
    norm.training = norm.training and args[0].numel() > args[0].shape[1]
