"""Whole-number noise from the operating system's randomness, or, for tests, from a stream."""

import math
import os

import numpy as np
from numpy.typing import NDArray

from ..core.blocks import BLOCK, blocks
from ..core.rng import Streams

Values = NDArray[np.float64]
LEAST = 64.0  # smallest mean that is drawn here: below, noise is about as coarse as its grid
_LOG = np.array([math.lgamma(k + 1) - (k + 0.5) * math.log(max(k, 1)) + k for k in range(32)])


def skellam(size: int, variance: float, streams: Streams | None) -> Values:
    """Return independent Skellam variables, differences of two Poisson variables of mean variance/2, shape `(size,)`.

    Whole numbers, as float64. The mean is rounded up to a whole number, so the variance may be larger by less than 2.

    >>> from fedloom.core.rng import stream
    >>> bool(skellam(1000, 1e6, None).std() > 800)
    True
    """
    mean = float(math.ceil(variance / 2))
    if streams is not None:
        draws = streams("skellam")
        return np.asarray(draws.poisson(mean, size) - draws.poisson(mean, size), np.float64)
    out = np.empty(size)
    for block in blocks(slice(0, size), BLOCK):
        length = block.stop - block.start
        out[block] = offsets(length, mean) - offsets(length, mean)
    return out


def offsets(size: int, mean: float) -> Values:
    """Return Poisson variables less their mean, a whole number of at least 64, shape `(size,)`.

    Hörmann, "The transformed rejection method for generating Poisson random variables", Insurance: Mathematics and
    Economics 12, 1993, algorithm PTRS. What differs: uniforms come from the operating system; probabilities are
    compared by `log_likelihood`, in which nothing large cancels, so that each is right to 10^-10 of itself; what is
    added to the mean is rounded down before it is added, for the same reason.
    """
    if not (mean >= LEAST and mean == math.floor(mean)):
        raise ValueError(f"the mean must be a whole number of at least {LEAST:g}, got {mean}")
    b = 0.931 + 2.53 * math.sqrt(mean)
    a = -0.059 + 0.02483 * b
    inverse, ratio = 1.1239 + 1.1328 / (b - 3.4), 0.9277 - 3.6224 / (b - 2)
    out, todo = np.empty(size), np.arange(size)
    while len(todo):
        u, v = uniforms(len(todo)) - 0.5, uniforms(len(todo))
        side = 0.5 - np.abs(u)
        k = np.floor((2 * a / side + b) * u + 0.43)
        quick = (side >= 0.07) & (v <= ratio)
        possible = (k >= -mean) & ~((side < 0.013) & (v > side)) & ~quick
        left = np.log(v * inverse / (a / side**2 + b))
        taken = quick | (possible & (left <= log_likelihood(np.where(possible, k, 0.0), mean)))
        out[todo[taken]] = k[taken]
        todo = todo[~taken]
    return out


def log_likelihood(offset: Values, mean: float) -> Values:
    """Return ln P(X = mean + offset) of a Poisson variable X.

    -δ(k) - mean·D((k - mean)/mean) - ln(2πk)/2 for k > 0: Loader, "Fast and accurate computation of binomial
    probabilities", 2000. δ is the rest of Stirling's series; D is summed as a series near the mean.

    >>> round(float(log_likelihood(np.zeros(1), 100.0)[0]), 9), round(100 * math.log(100) - 100 - math.lgamma(101), 9)
    (-3.222356957, -3.222356957)
    """
    k = offset + mean
    inside = np.maximum(k, 1.0)
    value = -_stirling(inside) - _deviance(inside, offset, mean) - 0.5 * np.log(2 * np.pi * inside)
    return np.where(k > 0, value, -mean)


def _stirling(k: Values) -> Values:
    """Return ln k! - (k + 1/2)·ln k + k - ln(2π)/2."""
    square = k * k
    series = (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680) / square) / square) / square) / k
    small = k < len(_LOG)
    exact = _LOG[np.where(small, k, 0).astype(np.int64)] - 0.5 * math.log(2 * math.pi)
    return np.where(small, exact, series)


def _deviance(k: Values, offset: Values, mean: float) -> Values:
    """Return k·ln(k/mean) + mean - k without the difference of large numbers where k is near the mean."""
    far = k * np.log(k / mean) - offset
    ratio = offset / (k + mean)
    near, power, square = offset * ratio, 2 * k * ratio, ratio * ratio
    for odd in range(3, 41, 2):
        power = power * square
        near = near + power / odd
    return np.where(np.abs(ratio) < 0.1, near, far)


def uniforms(size: int) -> Values:
    """Return uniforms in (0, 1), the middles of 2^53 parts."""
    whole = np.frombuffer(os.urandom(8 * size), np.uint64) >> np.uint64(11)
    return (whole.astype(np.float64) + 0.5) * 2.0**-53


def tail(variance: float, nats: float) -> float:
    """Return a t for which P(X >= t) <= exp(-nats) of a Skellam variable X with this variance (Chernoff).

    ln E exp(θX) = V·(cosh θ - 1), and the best θ is asinh(t/V), so the exponent is √(V² + t²) - V - t·asinh(t/V).

    >>> 11.7 < tail(1e8, 100 * math.log(2)) / 1e4 < 11.8
    True
    """

    def spent(t: float) -> float:
        return t * math.asinh(t / variance) - t * t / (math.hypot(variance, t) + variance)

    high = math.sqrt(2 * nats * variance) + nats
    while spent(high) < nats:
        high *= 2
    low = 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) < nats else (low, middle)
    return high
