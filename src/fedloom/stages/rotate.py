"""A rotation that makes a delta flat: no coordinate is much larger than the others, whatever the delta was."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..core.draws import Values
from ..core.event import NOT_PRIVATE, DpEvent
from ..core.layout import WEIGHT, Layout
from ..core.rng import Streams, stream
from ..core.update import Update
from .noise import parameters
from .stateless import Stateless


@dataclass(frozen=True)
class Rotate(Stateless):
    """δ ← R·δ on the client, Σ ← Rᵀ·Σ on the server: R is a randomised Hadamard transform, R·Rᵀ = 1.

    Kairouz, Liu and Steinke, ICML 2021 (arXiv 2102.06387), flattening: of a vector of length C and dimension d, few
    coordinates are then above C·√(2·ln(2d)/d). What differs: a vector whose length is no power of two is not padded to
    one; the transform of 2^⌊log2 d⌋ is applied to its first coordinates, and then, with other signs, to its last.
    Lengths do not change, so a clip behind it is the same clip.

    Args:
        seed: of the signs; public.

    >>> from fedloom.core.layout import Leaf
    >>> spike = Update(np.float32([8, 0, 0, 0]), Layout((Leaf("w", (4,)),)))
    >>> np.abs(Rotate().encode(spike, None, None, None)[0].vector)
    array([4., 4., 4., 4.], dtype=float32)
    """

    each: ClassVar[bool] = False
    sums: ClassVar[bool] = True
    seed: int = 0

    def payload(self, layout: Layout) -> Layout:
        """Return the layout; refuses what is no parameter, since a rotation mixes all of it."""
        return parameters(self, layout)

    def encode(self, update: Update, memory: None, public: None, streams: Streams) -> tuple[Update, None]:
        """Rotate."""
        vector = rotated(update.vector, self._signs(len(update.vector)))
        return replace(update, vector=vector.astype(update.vector.dtype)), None

    def decode(self, update: Update) -> Update:
        """Nothing to undo for one client: the sum is turned back."""
        return update

    def finish(self, update: Update, server: None, streams: Streams) -> tuple[Update, None]:
        """Turn the sum back, but for the summed weight."""
        vector, last = update.vector.astype(np.float64), update.layout.block(WEIGHT).start
        vector[:last] = rotated(vector[:last], self._signs(last), back=True)
        return replace(update, vector=vector), None

    def event(self) -> DpEvent:
        """Not private: the signs are public."""
        return NOT_PRIVATE

    def _signs(self, size: int) -> Values:
        """Return signs for the two transforms, `(2, 2^⌊log2 size⌋)`."""
        draws = stream(self.seed, "rotate")("signs")
        return draws.choice(np.array([-1.0, 1.0]), (2, 1 << max(0, size.bit_length() - 1)))


def rotated(vector: Values, signs: Values, *, back: bool = False) -> Values:
    """Return R·vector in float64, or with `back` Rᵀ·vector.

    >>> signs = np.ones((2, 2))
    >>> rotated(rotated(np.array([1.0, 2.0, 3.0]), signs), signs, back=True).round(12)
    array([1., 2., 3.])
    """
    out, size = vector.astype(np.float64), signs.shape[1]
    if not len(out):
        return out
    parts = [out[:size], out[-size:]] if size < len(out) else [out]
    steps = list(zip(parts, signs, strict=False))
    for part, sign in reversed(steps) if back else steps:
        part[:] = hadamard(part) * sign if back else hadamard(part * sign)
    return out


def hadamard(values: Values) -> Values:
    """Return the Walsh-Hadamard transform, of length 1: its own inverse; the size is a power of two.

    >>> hadamard(np.array([1.0, 0.0, 0.0, 0.0]))
    array([0.5, 0.5, 0.5, 0.5])
    """
    out, half = values.copy(), 1
    while half < len(out):
        pairs = out.reshape(-1, 2, half)
        out = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(-1)
        half *= 2
    out /= np.sqrt(len(out))
    return out
