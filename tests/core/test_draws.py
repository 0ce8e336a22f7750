import os

import numpy as np
import pytest
from scipy.stats import kstest

from fedloom.core.blocks import BLOCK
from fedloom.core.draws import _normals, gaussian, gaussian_of, laplace, uniform


def test_the_same_bytes_give_the_textbooks_transform(monkeypatch):
    """Box and Muller 1958, with the uniforms that the bytes are."""
    words = np.random.default_rng(0).integers(0, 2**64, (3, 5), np.uint64)
    monkeypatch.setattr(os, "urandom", lambda size: words.tobytes())
    high, low, turn = (words >> np.uint64(11)).astype(np.float64) / 2.0**53
    radius = np.sqrt(-2 * np.log(high + low * 2.0**-53))
    expected = [*(radius * np.cos(2 * np.pi * turn)), *(radius * np.sin(2 * np.pi * turn))]
    np.testing.assert_allclose(_normals(9, os.urandom), expected[:9], rtol=1e-12)


@pytest.mark.parametrize(("byte", "least", "most"), [(b"\x00", 12.0, 12.3), (b"\xff", 0.0, 1e-7)])
def test_no_bytes_give_infinity_and_tails_are_long(monkeypatch, byte, least, most):
    monkeypatch.setattr(os, "urandom", lambda size: byte * size)
    size = np.abs(_normals(2, os.urandom)).max()
    assert least <= size <= most


@pytest.mark.parametrize("size", [0, 1, 2, BLOCK - 1, BLOCK + 3])
def test_any_number_can_be_drawn(size):
    drawn = gaussian(size, None)
    assert drawn.shape == (size,)
    assert np.isfinite(drawn).all()
    assert len(np.unique(drawn)) == size


def test_laplace_variables_have_their_moments():
    drawn = laplace(100_000, None)
    assert abs(drawn.mean()) < 0.03
    assert np.abs(drawn).mean() == pytest.approx(1.0, abs=0.03)
    assert (drawn**4).mean() == pytest.approx(24, rel=0.3)


def test_chances_are_uniform_in_the_unit_interval(monkeypatch):
    drawn = uniform(100_000, None)
    assert abs(drawn.mean() - 0.5) < 0.01
    assert (drawn**2).mean() == pytest.approx(1 / 3, abs=0.01)
    monkeypatch.setattr(os, "urandom", lambda size: b"\xff" * size)
    assert uniform(2, None).tolist() == [1 - 2.0**-53] * 2  # never 1, so that a rate of 1 draws everybody
    monkeypatch.setattr(os, "urandom", lambda size: b"\x00" * size)
    assert uniform(1, None).tolist() == [0.0]


def test_a_key_gives_the_same_normals_and_another_key_others():
    one, same, other = (gaussian_of(200_000, key) for key in (bytes(32), bytes(32), bytes(31) + b"1"))
    assert np.array_equal(one, same)
    assert not np.any(one == other)
    assert kstest(one, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(one[:100_000], one[100_000:])[0, 1]) < 0.02
