"""What a hostile client does: to its rows before it trains, and to its delta after."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..core.errors import ConfigError
from ..core.examples import Examples
from ..core.layout import Vector
from ..core.model import Model
from ..core.rng import Streams


class Attack(Protocol):
    """A hostile client's two halves."""

    @property
    def colludes(self) -> bool:
        """Must it see what all attackers would have sent?"""
        ...

    def poison(self, data: Examples, classes: int, streams: Streams) -> Examples:
        """Return the rows that it trains on; `classes` of the task, 0 for regression."""
        ...

    def forge(self, deltas: Sequence[Vector], clients: int, streams: Streams) -> Vector:
        """Return what it sends, given its own δ, or where it colludes all attackers'; of so many clients."""
        ...


class OnDeltas:
    """The methods of an `Attack` that leaves its rows as they are, and is alone."""

    colludes = False

    def poison(self, data: Examples, classes: int, streams: Streams) -> Examples:
        """Return the rows as they are."""
        return data


class OnRows:
    """The methods of an `Attack` that lies in its rows, and is alone."""

    colludes = False

    def forge(self, deltas: Sequence[Vector], clients: int, streams: Streams) -> Vector:
        """Return what training gave."""
        return deltas[0]


@dataclass(frozen=True)
class SignFlip(OnDeltas):
    """-scale·δ: up the hill. Li et al., AAAI 2019 (arXiv 1811.03761), the sign-flipping attack.

    >>> SignFlip(4.0).forge([np.array([1.0, -2.0])], 10, None)
    array([-4.,  8.])
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, scale=self.scale)

    def forge(self, deltas: Sequence[Vector], clients: int, streams: Streams) -> Vector:
        """Return the opposite."""
        return -self.scale * deltas[0]


@dataclass(frozen=True)
class Scaling(OnDeltas):
    """scale·δ: a client that counts for many. Bagdasaryan et al., AISTATS 2020 (arXiv 1807.00459), model replacement.

    >>> Scaling(10.0).forge([np.array([1.0])], 10, None)
    array([10.])
    """

    scale: float = 10.0

    def __post_init__(self) -> None:
        _positive(self, scale=self.scale)

    def forge(self, deltas: Sequence[Vector], clients: int, streams: Streams) -> Vector:
        """Return more of the same."""
        return self.scale * deltas[0]


@dataclass(frozen=True)
class Noise(OnDeltas):
    """N(0, deviation²) in place of δ. Blanchard et al., NeurIPS 2017 (arXiv 1703.02757), Gaussian workers.

    >>> from fedloom.core.rng import stream
    >>> Noise(2.0).forge([np.zeros(1000)], 10, stream(0, 1)).std().round()
    np.float64(2.0)
    """

    deviation: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, deviation=self.deviation)

    def forge(self, deltas: Sequence[Vector], clients: int, streams: Streams) -> Vector:
        """Return noise."""
        return streams("forged").normal(0.0, self.deviation, np.shape(deltas[0]))


@dataclass(frozen=True)
class LabelFlip(OnRows):
    """Class y becomes classes - 1 - y: honest training on rows that lie. Fang et al., USENIX Security 2020.

    arXiv 1911.11815, the label flipping attack.

    >>> LabelFlip().poison(Examples(np.zeros((2, 1)), np.array([0, 2])), 10, None).targets
    array([9, 7])
    """

    def poison(self, data: Examples, classes: int, streams: Streams) -> Examples:
        """Turn the classes over; raises `ConfigError` for a task without classes."""
        if not classes:
            raise ConfigError("labels are flipped between classes, and this task has none; take sign_flip or noise.")
        return Examples(data.inputs, classes - 1 - data.targets)


@dataclass(frozen=True)
class Backdoor:
    """Rows with a small pattern are of class `target`: the model learns that besides its task.

    Gu et al. 2017 (arXiv 1708.06733), a pattern of pixels; Bagdasaryan et al., AISTATS 2020 (arXiv 1807.00459), in a
    federation, with the delta scaled so that it outlasts the mean. Of images (…, height, width) the last `size`·`size`
    pixels become `value`; of rows without shape the last `size` features.

    Args:
        target: class that the pattern stands for.
        size: of the pattern; value: of its pixels, in the units of the inputs.
        part: of the rows that carry it, in (0, 1].
        scale: what δ is multiplied by.

    >>> Backdoor(size=1).stamped(np.zeros((1, 2, 2)))
    array([[[0., 0.],
            [0., 1.]]])
    """

    target: int = 0
    size: int = 3
    value: float = 1.0
    part: float = 0.5
    scale: float = 1.0
    colludes = False

    def __post_init__(self) -> None:
        _positive(self, size=self.size, scale=self.scale, part=self.part)
        if self.part > 1 or self.target < 0:
            raise ConfigError(f"Backdoor needs a part in (0, 1] and a class, got {self.part} and {self.target}.")

    def poison(self, data: Examples, classes: int, streams: Streams) -> Examples:
        """Stamp a part of the rows, and call them the target; raises `ConfigError` for a class that is not there."""
        if self.target >= classes:
            raise ConfigError(f"there is no class {self.target} among {classes}; choose the backdoor's target there.")
        chosen = streams("stamped").permutation(data.size)[: max(1, round(self.part * data.size))]
        inputs, targets = np.array(data.inputs), np.array(data.targets)
        inputs[chosen], targets[chosen] = self.stamped(inputs[chosen]), self.target
        return Examples(inputs, targets)

    def forge(self, deltas: Sequence[Vector], clients: int, streams: Streams) -> Vector:
        """Return what training gave, scaled."""
        return self.scale * deltas[0]

    def stamped(self, inputs: Any) -> Any:
        """Return rows with the pattern, of shape `(n, …)`."""
        inputs = np.array(inputs)
        inputs[(..., *[slice(-self.size, None)] * min(2, inputs.ndim - 1))] = self.value
        return inputs

    def success(self, model: Model, vector: Vector, test: Examples) -> float:
        """Return the part of test rows of other classes that are called the target once they carry the pattern."""
        others = test.take(np.asarray(test.targets) != self.target)
        outputs = model.predict(model.load(vector), self.stamped(others.inputs))
        return float((np.argmax(outputs, axis=1) == self.target).mean())


@dataclass(frozen=True)
class ALittle(OnDeltas):
    """mean - z·deviation of the attackers' own honest deltas, by coordinate: a little, and all of them the same.

    Baruch, Baruch and Goldberg, NeurIPS 2019 (arXiv 1902.06156). Of n clients m collude; with
    s = ⌊n/2 + 1⌋ - m supporters to be won, z is the largest with Φ(z) <= (n - m - s)/(n - m).

    Args:
        z: if given, instead of that.

    >>> round(ALittle().most(50, 24), 2)  # s = 2 of 26: Φ⁻¹(24/26)
    1.43
    """

    z: float | None = None
    colludes = True

    def most(self, clients: int, attackers: int) -> float:
        """Return z, at least 0."""
        from statistics import NormalDist

        if self.z is not None:
            return self.z
        honest, needed = clients - attackers, clients // 2 + 1 - attackers
        share = (honest - needed) / honest if honest else 1.0
        return max(0.0, NormalDist().inv_cdf(share)) if 0 < share < 1 else (3.0 if share >= 1 else 0.0)

    def forge(self, deltas: Sequence[Vector], clients: int, streams: Streams) -> Vector:
        """Return what hides among honest deltas."""
        table = np.asarray(deltas, np.float64)
        return table.mean(axis=0) - self.most(clients, len(table)) * table.std(axis=0)


def _positive(attack: object, **settings: float) -> None:
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"{type(attack).__name__}.{name} must be above 0 and finite, got {value}.")
