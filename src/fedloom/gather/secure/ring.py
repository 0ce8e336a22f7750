"""Updates and metrics as whole numbers of Z_2^32, and sums of them back; nothing here is rounded.

A layout of 30 bits or fewer promises that no sum of its cohort leaves (-2^31, 2^31), so a sum modulo 2^32 is the sum.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.blocks import blocks
from ...core.errors import ConfigError, OutOfBound, UpdateError
from ...core.layout import RING, Layout
from ...core.metrics import Metrics
from ...core.update import Update

Ring = NDArray[np.uint32]
LIMBS, LIMB = 4, 16  # a figure is four numbers of 16 bits, each of which is summed by itself
STEP = 2.0**-20  # of a figure
_SHIFT = 1 << 62  # makes a figure positive
MOST_NAMES = 64


def fitting(layout: Layout) -> Layout:
    """Return the layout; raises `ConfigError` for one whose sums do not fit 32 bits."""
    if layout.bits > RING:
        raise ConfigError(
            "a hidden sum is a sum of whole numbers of 32 bits; add FixedPoint() to the strategy's stages, "
            "such as stages=(Clip(1.0), FixedPoint())."
        )
    return layout


def encoded(update: Update) -> Ring:
    """Return whole steps modulo 2^32: of an update that `weigh` made by a layout of 30 bits."""
    layout, whole = fitting(update.layout), np.empty(update.layout.size, np.int32)
    for where, step, _ in layout.runs:
        for block in blocks(where):
            np.multiply(update.vector[block], 1 / step, out=whole[block], casting="unsafe")
    return whole.view(np.uint32)


def decoded(total: Ring, layout: Layout) -> NDArray[np.float64]:
    """Return the values of a sum, float64."""
    vector, whole = np.empty(layout.size), total.view(np.int32)
    for where, step, _ in layout.runs:
        np.multiply(whole[where], step, out=vector[where])
    return vector


def told(metrics: Metrics) -> tuple[Ring, bytes]:
    """Return the sums of one client, rounded to steps of 2^-20, as limbs; and their names.

    Raises `OutOfBound` for a sum that is not finite or beyond 2^42, `UpdateError` for one that is no number.

    >>> limbs, names = told(Metrics({"examples": 3, "loss": -0.5}))
    >>> heard(limbs + limbs, names, count=2).sums
    {'examples': 6, 'loss': -1.0}
    """
    names = sorted(metrics.sums)
    if len(names) > MOST_NAMES:
        raise UpdateError(f"a hidden sum carries at most {MOST_NAMES} training metrics, got {len(names)}.")
    limbs = [limb for name in names for limb in _limbs(name, metrics.sums[name])]
    return np.array(limbs, np.uint32), json.dumps(names).encode()


def _limbs(name: str, value: Any) -> list[int]:
    if np.ndim(value):
        raise UpdateError(f"the training metric {name!r} is an array; a hidden sum carries numbers.")
    if not math.isfinite(value) or abs(value) > 2.0**42:
        raise OutOfBound(f"the training metric {name!r} is {value}; a hidden sum carries what is within 2^42.")
    shifted = round(value / STEP) + _SHIFT
    return [(shifted >> LIMB * at) & 0xFFFF for at in range(LIMBS)]


def heard(limbs: Ring, names: bytes, count: int) -> Metrics:
    """Return the sums of so many clients."""
    known: Sequence[str] = json.loads(names)
    rows = limbs.reshape(len(known), LIMBS).tolist()
    whole = [sum(limb << LIMB * at for at, limb in enumerate(row)) - count * _SHIFT for row in rows]
    return Metrics({n: round(v * STEP) if n == "examples" else v * STEP for n, v in zip(known, whole, strict=True)})
