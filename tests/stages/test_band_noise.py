from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from scipy.linalg import toeplitz
from test_tree_noise import SIZE, rounds, scale

from fedloom.core.draws import gaussian_of
from fedloom.core.errors import StrategyError
from fedloom.core.layout import Layout, Leaf
from fedloom.stages import BandNoise
from fedloom.stages.band_noise import column, roots, sensitivity

STAGE = BandNoise(clip=1.0, noise_multiplier=2.0, delta=1e-5, every=3, bands=4)


def dense(bands, count):
    """Return C⁻¹ as a matrix."""
    first = np.zeros(count)
    first[: min(bands, count)] = roots(bands)[:count]
    return np.tril(toeplitz(first))


@pytest.mark.parametrize("bands", [1, 2, 4, 40])
def test_the_noise_on_all_rounds_is_that_of_the_factorisation(bands):
    """A·C⁻¹·z, with A the lower triangle of ones, as dense matrices; z from the keys in the server's memories."""
    stage, keys, left = replace(STAGE, bands=max(2, bands)), [], []
    for noise, server in rounds(stage, 12):
        keys.append(bytes(server["keys"][0]))
        left.append(noise)
    z = np.stack([gaussian_of(SIZE, key) for key in keys])
    expected = scale(stage) * np.tril(np.ones((12, 12))) @ dense(stage.bands, 12) @ z
    np.testing.assert_allclose(np.cumsum(left, axis=0), expected, atol=1e-9)


def test_one_band_is_independent_noise_and_keeps_no_key():
    for _, server in rounds(replace(STAGE, bands=1), 3):
        assert server["keys"].shape == (0, 32)


def test_older_keys_are_forgotten():
    assert [len(server["keys"]) for _, server in rounds(STAGE, 6)] == [1, 2, 3, 3, 3, 3]


@pytest.mark.parametrize("bands", [1, 2, 5, 64])
def test_c_is_the_inverse_and_its_columns_fall(bands):
    np.testing.assert_allclose(np.linalg.inv(dense(bands, 90))[:, 0], column(bands, 90), atol=1e-12)
    falling = column(bands, 2000)
    assert falling.min() >= 0
    assert np.diff(falling).max() <= 1e-15


@pytest.mark.parametrize("bands", [1, 2, 3, 8])
@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_the_sensitivity_is_the_largest_of_all_ways_to_take_part(bands, every):
    """By brute force: every set of rounds that are far enough apart, and all parts in one direction."""
    c = np.linalg.inv(dense(bands, 9))
    longest = 0.0
    for count in range(1, 10):
        for taken in combinations(range(9), count):
            if all(b - a >= every for a, b in pairwise(taken)):
                longest = max(longest, np.linalg.norm(c[:, list(taken)].sum(axis=1)))
    assert sensitivity(bands, every, 9) == pytest.approx(longest, rel=1e-12)


def test_parts_in_other_directions_are_never_longer():
    draws, c = np.random.default_rng(0), np.linalg.inv(dense(4, 20))
    for _ in range(200):
        parts = draws.normal(size=(7, 5))
        parts /= np.linalg.norm(parts, axis=1, keepdims=True)
        assert np.linalg.norm(c[:, ::3] @ parts) <= sensitivity(4, 3, 20) * (1 + 1e-12)


# jax-privacy 2.0.0, matrix_factorization.toeplitz.minsep_sensitivity_squared of the same columns
REFERENCE = [
    (2, 3, 50, 28.59863946),
    (4, 8, 100, 25.21893404),
    (8, 16, 512, 74.38210709),
    (16, 16, 512, 121.88833227),
    (32, 100, 1000, 25.01580089),
]


@pytest.mark.parametrize(("bands", "every", "count", "squared"), REFERENCE)
def test_the_sensitivity_is_that_of_the_reference(bands, every, count, squared):
    assert sensitivity(bands, every, count) ** 2 == pytest.approx(squared, rel=1e-8)


def test_it_is_worth_it():
    """Noise on the last sum at equal privacy, over independent noise: 512 rounds, each client once in 32."""
    last = np.linalg.norm(np.cumsum(np.r_[roots(16), np.zeros(512 - 16)]))
    assert last * sensitivity(16, 32, 512) / (np.sqrt(512) * sensitivity(1, 32, 512)) < 0.3


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"clip": 0.0}, "clip must be above 0"),
        ({"every": 0}, "every must be at least 1 round, got 0"),
        ({"bands": 0}, "bands must be 1 to 64, got 0"),
        ({"bands": 65}, "bands must be 1 to 64, got 65"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, text):
    with pytest.raises(StrategyError, match=f"BandNoise.{text}"):
        replace(STAGE, **changes)


def test_what_is_no_parameter_is_refused():
    with pytest.raises(StrategyError, match="'n' is a buffer and not a parameter"):
        STAGE.payload(Layout((Leaf("w"), Leaf("n", kind="buffer"))))
