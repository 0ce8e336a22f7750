"""Noise on prefix sums at equal privacy: independent, a tree, the banded inverse square root, and an optimised band.

    python benchmarks/bands.py                                # without the last, or with it where jax-privacy is

Root mean square of the noise on the sums over rounds 1 to t, t = 1 … n, in clips, at a noise multiplier of one for all
parts of a client (once in `every` rounds). jax-privacy 2.0.0 optimises a banded C, for one part of each client.
"""

import importlib.util
import math
from typing import Any

import numpy as np

from fedloom.stages.band_noise import column, roots, sensitivity

CASES = ((128, 16, 8), (512, 16, 16), (512, 32, 16), (512, 32, 32))


def independent(n: int, every: int) -> float:
    return math.sqrt((n + 1) / 2) * math.sqrt(math.ceil(n / every))


def tree(n: int, every: int) -> float:
    """Trees of `every` rounds: one part in each, and nodes of finished trees stay."""
    nodes = [(t // every) * every.bit_count() + (t % every).bit_count() for t in range(1, n + 1)]
    return math.sqrt(float(np.mean(nodes))) * math.sqrt(every.bit_length() * math.ceil(n / every))


def bands(n: int, every: int, width: int) -> float:
    rows = np.cumsum(np.cumsum(np.r_[roots(width), np.zeros(n - width)]) ** 2)
    return math.sqrt(float(rows.mean())) * sensitivity(width, every, n)


def optimised(n: int, every: int, width: int) -> float:
    import jax

    jax.config.update("jax_enable_x64", True)
    from jax_privacy.matrix_factorization import toeplitz

    c: Any = toeplitz.optimize_banded_toeplitz(n, width)
    error = float(np.mean(np.asarray(toeplitz.per_query_error(strategy_coef=c, n=n))))
    return math.sqrt(error * float(toeplitz.minsep_sensitivity_squared(c, every, None, n)))


def main() -> None:
    there = importlib.util.find_spec("jax_privacy") is not None
    print("| rounds | once in | bands | independent | tree | banded inverse square root | jax-privacy, banded C |")
    print("|---|---|---|---|---|---|---|")
    for n, every, width in CASES:
        assert column(width, n).min() >= 0
        last = f"{optimised(n, every, width):.1f}" if there else "-"
        row = f"{independent(n, every):.1f} | {tree(n, every):.1f} | {bands(n, every, width):.1f} | {last}"
        print(f"| {n} | {every} | {width} | {row} |", flush=True)


if __name__ == "__main__":
    main()
