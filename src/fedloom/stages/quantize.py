"""Stochastic quantisation to b bits: unbiased, decoded one client at a time."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..core.errors import LayoutMismatch, NotFinite, StrategyError
from ..core.layout import Layout
from ..core.rng import Streams
from ..core.update import Update
from .stateless import Stateless

_SCALES = "quantize.scales"


@dataclass(frozen=True)
class Quantize(Stateless):
    """Each value becomes one of 2s + 1 levels, s = 2^(bits - 1) - 1, between ± the largest magnitude of its leaf.

    code = ⌊s·δ/scale + u⌋ with u uniform in [0, 1); decoded δ̂ = scale·code/s, so E[δ̂] = δ and |δ̂ - δ| < scale/s.
    Alistarh et al., "QSGD", NeurIPS 2017 (arXiv 1610.02132v4), equation in section 3.1 with the maximum norm of
    section 4 in place of the L2 norm, one scale for each leaf in place of fixed-size buckets, and codes of fixed width.

    Args:
        bits: 2 to 16, on the road for each value; 32/bits is the compression.

    >>> import numpy as np
    >>> from fedloom.core.layout import Leaf
    >>> from fedloom.core.rng import stream
    >>> delta = Update(np.float32([1.0, -0.5, 0.0, 0.3]), Layout((Leaf("w", (4,)),)))
    >>> sent, _ = Quantize(bits=4).encode(delta, None, None, stream(0, 1))
    >>> sent.vector.nbytes, float(abs(Quantize(bits=4).decode(sent).vector - delta.vector).max()) < 1 / 7
    (2, True)
    """

    each: ClassVar[bool] = True
    sums: ClassVar[bool] = False
    bits: int = 8

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise StrategyError(f"Quantize.bits must be 2 to 16, got {self.bits}.")

    def encode(self, update: Update, memory: None, public: None, streams: Streams) -> tuple[Update, None]:
        """Draw the codes and pack them; raises `NotFinite` for NaN or infinity."""
        leaves, delta, s = _leaves(update.layout), update.vector, self._levels
        scales = np.maximum.reduceat(np.abs(delta), [begin for begin, _ in leaves]) if leaves else np.zeros(0)
        if not np.isfinite(scales).all():
            raise NotFinite("the delta holds NaN or infinity; lower the learning rate, or look at the data.")
        scaled = delta * np.repeat(s / np.where(scales > 0, scales, 1).astype(np.float64), [size for _, size in leaves])
        codes = np.floor(scaled + streams("quantize").random(len(delta))).clip(-s, s) + s
        side = {**update.side, _SCALES: scales.astype(update.layout.dtype)}
        return replace(update, vector=_pack(codes.astype(np.uint16), self.bits), side=side), None

    def decode(self, update: Update) -> Update:
        """Return δ̂; raises `LayoutMismatch` if codes or scales are not what `encode` makes, `NotFinite` for a scale."""
        leaves, packed, s = _leaves(update.layout), update.vector, self._levels
        scales: Any = update.side.get(_SCALES)
        size_bytes = -(-update.layout.size * self.bits // 8)
        if not _is(packed, np.dtype(np.uint8), size_bytes):
            received = f"{getattr(packed, 'dtype', type(packed).__name__)} of shape {np.shape(packed)}"
            raise LayoutMismatch(f"expected {size_bytes} bytes with codes of {self.bits} bits, got {received}.")
        if not _is(scales, update.layout.dtype, len(leaves)):
            raise LayoutMismatch(f"expected a scale for each of {len(leaves)} leaves, got {scales!r:.60}.")
        if not np.isfinite(scales).all():
            raise NotFinite("a scale is NaN or infinite; the update is refused.")
        codes = _unpack(packed, self.bits, update.layout.size).astype(np.float64) - s
        if codes.max(initial=-s) > s:
            raise LayoutMismatch(f"expected codes of 0 to {2 * s}, got {codes.max() + s:g}.")
        delta = codes * np.repeat(scales.astype(np.float64) / s, [size for _, size in leaves])
        side = {key: value for key, value in update.side.items() if key != _SCALES}
        return replace(update, vector=delta.astype(update.layout.dtype), side=side)

    @property
    def _levels(self) -> int:
        return int(2 ** (self.bits - 1) - 1)


def _is(array: Any, dtype: np.dtype[Any], size: int) -> bool:
    return isinstance(array, np.ndarray) and array.dtype == dtype and array.shape == (size,)


def _leaves(layout: Layout) -> list[tuple[int, int]]:
    pairs = zip(layout.offsets, layout.leaves, strict=False)
    return [(begin, leaf.size) for begin, leaf in pairs if leaf.size]


def _pack(codes: NDArray[np.uint16], bits: int) -> NDArray[np.uint8]:
    wide = np.unpackbits(codes.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)
    return np.packbits(wide[:, 16 - bits :])


def _unpack(packed: NDArray[np.uint8], bits: int, size: int) -> NDArray[Any]:
    wide = np.zeros((size, 16), np.uint8)
    wide[:, 16 - bits :] = np.unpackbits(packed, count=size * bits).reshape(size, bits)
    return np.packbits(wide, axis=1).view(">u2").reshape(-1)
