"""Noise and chances from the operating system's randomness, or, for tests, from a stream."""

import os
from collections.abc import Callable
from hashlib import shake_256
from itertools import count

import numpy as np
from numpy.typing import NDArray

from .blocks import BLOCK, blocks
from .rng import Streams

Values = NDArray[np.float64]
_ULP = 2.0**-53


def uniform(size: int, streams: Streams | None) -> Values:
    """Return independent numbers, uniform on the multiples of 2^-53 in [0, 1), shape `(size,)`; drawn as `gaussian` is.

    >>> 0 <= uniform(1, None)[0] < 1
    np.True_
    """
    if streams is not None:
        return streams("uniform").random(size)
    return (np.frombuffer(os.urandom(8 * size), np.uint64) >> np.uint64(11)).astype(np.float64) * _ULP


def gaussian(size: int, streams: Streams | None) -> Values:
    """Return independent standard normals of shape `(size,)`: from the operating system, or from `streams` if given.

    From the operating system each is (g₁ + g₂ + g₃ + g₄)/2 of four normals by Box and Muller (1958): sums of several
    leave no trace of which floating-point numbers one transform can reach (Holohan and Braghin, ESORICS 2021, arXiv
    2107.10138). Uniforms have 106 bits near zero, so the tails reach to 12 standard deviations.

    >>> from fedloom.core.rng import stream
    >>> gaussian(3, stream(0, 1)).shape, len(set(gaussian(1000, None).tolist()))
    ((3,), 1000)
    """
    if streams is not None:
        return streams("gaussian").standard_normal(size)
    return _summed(size, os.urandom)


def gaussian_of(size: int, key: bytes) -> Values:
    """Return the standard normals of a secret key, as `gaussian` makes them: the same for the same key.

    Bytes come from SHAKE-256(key, block), an extendable output function (FIPS 202).

    >>> bool((gaussian_of(3, bytes(32)) == gaussian_of(3, bytes(32))).all())
    True
    """
    counted = count()
    return _summed(size, lambda size_bytes: shake_256(key + next(counted).to_bytes(8, "big")).digest(size_bytes))


def _summed(size: int, read: Callable[[int], bytes]) -> Values:
    out = np.empty(size)
    for block in blocks(slice(0, size), BLOCK):
        length = block.stop - block.start
        out[block] = _normals(4 * length, read).reshape(4, length).sum(axis=0) / 2
    return out


def laplace(size: int, streams: Streams | None) -> Values:
    """Return independent Laplace variables of scale 1, shape `(size,)`, as `gaussian` draws: (g₁² + g₂² - g₃² - g₄²)/2.

    >>> laplace(3, None).shape
    (3,)
    """
    if streams is not None:
        return streams("laplace").laplace(size=size)
    squares = np.square(gaussian(4 * size, None)).reshape(4, size)
    return np.asarray((squares[0] + squares[1] - squares[2] - squares[3]) / 2)


def _normals(size: int, read: Callable[[int], bytes]) -> Values:
    """Return normals of one transform each."""
    pairs = -(-size // 2)
    bits = np.frombuffer(read(24 * pairs), np.uint64).reshape(3, pairs) >> np.uint64(11)
    high, low, turn = bits.astype(np.float64)
    radius = np.sqrt(-2 * np.log((high + (low + 0.5) * _ULP) * _ULP))
    angle = turn * (2 * np.pi * _ULP)
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]
