"""Built-in networks, each a function that returns a factory: what `torch_model` calls to build one."""

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from ..core.errors import ConfigError
from .torch import nn

Factory = Callable[[], nn.Module]


def linear(input_shape: tuple[int, ...], outputs: int) -> Factory:
    """Return the factory of one linear layer on flattened inputs.

    >>> sum(p.numel() for p in linear((8, 8), 10)().parameters())
    650
    """
    return partial(_mlp, _sized(input_shape, outputs), outputs, ())


def mlp(input_shape: tuple[int, ...], outputs: int, hidden: tuple[int, ...] = (200, 200)) -> Factory:
    """Return the factory of fully connected ReLU layers on flattened inputs.

    The default is the "2NN" of McMahan et al., AISTATS 2017 (arXiv 1602.05629v4, section 3); deviations: none.

    Args:
        input_shape: of one example, such as `(28, 28)`.
        outputs: number of logits, or of values.
        hidden: units of each hidden layer.

    >>> sum(p.numel() for p in mlp((28, 28), 10)().parameters())
    199210
    """
    return partial(_mlp, _sized(input_shape, outputs), outputs, tuple(hidden))


def cnn(input_shape: tuple[int, ...], outputs: int) -> Factory:
    """Return the factory of the MNIST CNN of McMahan et al., AISTATS 2017 (arXiv 1602.05629v4, section 3).

    Two 5×5 convolutions with 32 and 64 channels, each followed by 2×2 max pooling, then 512 ReLU units. The paper
    does not say so, but its number of parameters does: convolutions keep the size (padding 2). ReLU follows them too.

    Args:
        input_shape: of one example: `(height, width)`, to which a channel is added, or `(channels, height, width)`.
        outputs: number of logits, or of values.

    >>> sum(p.numel() for p in cnn((28, 28), 10)().parameters())
    1663370
    """
    _sized(input_shape, outputs)
    if len(input_shape) not in (2, 3) or min(input_shape[-2:]) < 4:
        raise ConfigError(
            f"cnn needs images of shape (height, width) or (channels, height, width), 4 pixels or more each way, "
            f"got {tuple(input_shape)}."
        )
    return partial(_cnn, tuple(input_shape), outputs)


def _mlp(inputs: int, outputs: int, hidden: tuple[int, ...]) -> nn.Module:
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for i, (before, after) in enumerate(zip((inputs, *hidden), hidden, strict=False), start=1):
        layers |= {f"hidden{i}": nn.Linear(before, after), f"relu{i}": nn.ReLU()}
    layers["output"] = nn.Linear(hidden[-1] if hidden else inputs, outputs)
    return nn.Sequential(layers)


def _cnn(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    height, width = input_shape[-2:]
    grey = len(input_shape) == 2
    layers: OrderedDict[str, nn.Module] = OrderedDict(channel=nn.Unflatten(1, (1, height))) if grey else OrderedDict()
    for i, (before, after) in enumerate([(1 if grey else input_shape[0], 32), (32, 64)], start=1):
        layers |= {f"conv{i}": nn.Conv2d(before, after, 5, padding=2), f"relu{i}": nn.ReLU()}
        layers[f"pool{i}"] = nn.MaxPool2d(2)
    layers |= {"flatten": nn.Flatten(), "hidden": nn.Linear(64 * (height // 4) * (width // 4), 512)}
    layers |= {"relu3": nn.ReLU(), "output": nn.Linear(512, outputs)}
    return nn.Sequential(layers)


def _sized(input_shape: tuple[int, ...], outputs: int) -> int:
    if outputs < 1 or not input_shape or min(input_shape) < 1:
        raise ConfigError(
            f"a network needs an input shape and outputs of 1 or more, got {tuple(input_shape)} and {outputs}."
        )
    return math.prod(input_shape)
