"""Gradient inversion: an input from the update that it led to, and how much of it can be recognised."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..core.errors import ConfigError
from ..core.layout import Layout, Vector

Images = NDArray[np.float64]


def first_layer(update: Vector, layout: Layout, inputs: int) -> Images:
    """Return one candidate input for each unit of the first linear layer, most moved first, shape `(units, inputs)`.

    A linear layer's gradient is δ_W = g·xᵀ and δ_b = g, so that δ_W[k]/δ_b[k] is x itself, exactly, for one example;
    for several, a mean of those that move unit k. Phong et al., IEEE TIFS 2018; the first layer shows the inputs.

    Args:
        update: δ or a gradient, in the layout; layout: of the model; inputs: numbers in one input.

    Raises `ConfigError` for a model that does not begin with a linear layer on all of its inputs.
    """
    parts = layout.unpack(np.asarray(update, np.float64)[: layout.size])
    named = [(key, array) for key, array in parts.items()]
    weight, bias = named[0][1], named[1][1] if len(named) > 1 else None
    if weight.ndim != 2 or weight.shape[1] != inputs or bias is None or bias.shape != weight.shape[:1]:
        raise ConfigError(
            f"the first leaf, {named[0][0]!r} of shape {weight.shape}, is no linear layer on {inputs} inputs; take the "
            f"attack that matches gradients."
        )
    moved = np.argsort(-np.abs(bias), kind="stable")
    moved = moved[np.abs(bias[moved]) > 0]
    return np.asarray(weight[moved] / bias[moved, None])


def psnr(image: Images, truth: Images, span: float = 1.0) -> float:
    """Return the peak signal-to-noise ratio, 10·log₁₀(span²/mean squared error), in decibels; capped at 100.

    >>> psnr(np.zeros((2, 2)), np.full((2, 2), 0.1))
    20.0
    """
    error = float(np.mean((np.asarray(image) - truth) ** 2))
    return 100.0 if error < 1e-10 * span**2 else round(float(10 * np.log10(span**2 / error)), 6)


def ssim(image: Images, truth: Images, span: float = 1.0, window: int = 7) -> float:
    """Return the structural similarity in [-1, 1], the mean over windows; 1 for equal pictures.

    Wang et al., IEEE TIP 2004, equation 13, with K₁ = 0.01 and K₂ = 0.03. Difference: square windows that weigh all
    pixels alike, no larger than the picture.

    Args:
        image, truth: shape `(height, width)`; span: of the values; window: its side.
    """
    side = min(window, *truth.shape)
    x, y = (sliding_window_view(np.asarray(part, np.float64), (side, side)) for part in (image, truth))
    mx, my = x.mean((-1, -2)), y.mean((-1, -2))
    vx, vy = x.var((-1, -2)), y.var((-1, -2))
    both = (x * y).mean((-1, -2)) - mx * my
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    return float(np.mean((2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))))


def closest(candidates: Images, truth: Images) -> Images:
    """Return the candidate most like the truth, which no attacker knows: what is told is the best that it could do."""
    pictures = np.clip(candidates, 0, 1).reshape(-1, *truth.shape)
    return np.asarray(max(pictures, key=lambda picture: ssim(picture, truth)))
