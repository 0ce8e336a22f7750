import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard as matrix

from fedloom.core.errors import StrategyError
from fedloom.core.layout import Layout, Leaf
from fedloom.core.update import Update, fold
from fedloom.stages import Rotate
from fedloom.stages.rotate import hadamard, rotated


@pytest.mark.parametrize("size", [1, 2, 8, 64])
def test_the_transform_is_the_matrix(size):
    values = np.random.default_rng(0).normal(size=size)
    np.testing.assert_allclose(hadamard(values), matrix(size) @ values / np.sqrt(size), atol=1e-12)


@settings(max_examples=20)
@given(size=st.integers(1, 70), seed=st.integers(0, 99))
def test_it_is_orthogonal_and_undone(size, seed):
    signs = Rotate(seed)._signs(size)
    dense = np.stack([rotated(row, signs) for row in np.eye(size)])
    np.testing.assert_allclose(dense @ dense.T, np.eye(size), atol=1e-12)
    np.testing.assert_allclose([rotated(row, signs, back=True) for row in dense], np.eye(size), atol=1e-12)


@pytest.mark.parametrize("size", [4096, 7850])
def test_whatever_the_delta_no_coordinate_stands_out(size):
    for spike in (np.eye(1, size)[0], np.full(size, size**-0.5), np.eye(1, size, size - 1)[0]):
        flat = rotated(spike, Rotate()._signs(size))
        assert np.linalg.norm(flat) == pytest.approx(1.0)
        assert np.abs(flat).max() <= np.sqrt(2 * np.log(2 * size) / (size / 2))


def test_the_sum_is_turned_back_but_for_the_weight():
    layout = Layout((Leaf("w", (5,)), Leaf("b")))
    deltas = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
    total = None
    for delta in deltas:
        sent, _ = Rotate().encode(Update(delta, layout), None, None, None)
        total = fold(total, Update(np.append(sent.vector, 1.0), layout.weighted(3)))
    back, _ = Rotate().finish(total, None, None)
    np.testing.assert_allclose(back.vector, [*deltas.sum(axis=0), 3.0], atol=1e-5)


def test_what_is_no_parameter_is_refused():
    with pytest.raises(StrategyError, match="'n' is a buffer and not a parameter, which Rotate cannot protect"):
        Rotate().payload(Layout((Leaf("w"), Leaf("n", kind="buffer"))))
