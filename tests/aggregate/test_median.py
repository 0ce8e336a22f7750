from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.aggregate import Median
from fedloom.aggregate import clients as module
from fedloom.core.blocks import BLOCK
from fedloom.core.errors import UpdateError
from small import updates


def median(parts):
    total = None
    for part in parts:
        total = Median().add(total, part)
    return Median().finish(total, len(parts))


@pytest.mark.parametrize("clients", [1, 2, 5, 8])
def test_it_is_numpys_median_whatever_the_weights(clients):
    rng = np.random.default_rng(clients)
    deltas = rng.normal(size=(clients, 6)).astype(np.float32)
    expected = np.median(deltas.astype(np.float64), axis=0)
    np.testing.assert_array_equal(median(updates(deltas)), expected)
    weights = 2.0 ** -rng.integers(0, 6, clients)
    np.testing.assert_array_equal(median(updates(deltas, weights)), expected)
    np.testing.assert_allclose(median(updates(deltas, rng.uniform(0.1, 1, clients))), expected, rtol=1e-6)


def test_one_client_in_three_cannot_move_it_far():
    assert median(updates([[1.0], [2.0], [16.0]])).tolist() == [2.0]
    assert median(updates([[1.0], [2.0], [-16.0]])).tolist() == [1.0]


def test_a_sum_of_clients_is_refused():
    one, two = updates([[1.0], [2.0]])
    with pytest.raises(UpdateError, match="needs every client's update, got a sum of 2; do not merge"):
        Median().add(None, one + two)


def test_adding_leaves_the_total_alone():
    one, two = updates([[1.0], [2.0]])
    total = Median().add(None, one)
    Median().add(total, replace(two))
    assert len(total) == 1


def stacked(parts):
    """The median as it is defined, with all clients in one array."""
    deltas = np.stack([part.vector[:-1] / np.float64(part.vector[-1]) for part in parts])
    return np.median(deltas, axis=0)


@settings(max_examples=150)
@given(
    clients=st.lists(
        st.tuples(
            st.lists(
                st.sampled_from([0.0, -0.0, 1.5, -1e-30, 1e-7]) | st.floats(-16, 16, width=32), min_size=3, max_size=3
            ),
            st.sampled_from([1.0, 0.5, 0.3, 1 / 3, 2.0**-9]),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_it_has_the_bits_of_numpys_median_of_the_stack(clients):
    parts = updates([delta for delta, _ in clients], [weight for _, weight in clients])
    assert median(parts).tobytes() == stacked(parts).tobytes()


@pytest.mark.parametrize("clients", [1, 2, 3, 20])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_it_has_those_bits_at_the_edges_of_its_blocks(clients, more):
    rng = np.random.default_rng(clients)
    deltas = rng.normal(size=(clients, 2 * (BLOCK // clients) + more)).astype(np.float32)
    parts = updates(deltas, rng.uniform(0.1, 1, clients))
    assert median(parts).tobytes() == stacked(parts).tobytes()


def test_a_value_that_is_no_number_is_not_hidden():
    parts = updates(np.ones((3, 4), np.float32))
    parts[1].vector[2] = np.nan
    np.testing.assert_array_equal(median(parts), [1, 1, np.nan, 1])


def test_more_clients_than_a_block_holds():
    parts = updates(np.arange(6, dtype=np.float32).reshape(3, 2))
    with patch.object(module, "BLOCK", 2):
        assert median(parts).tolist() == [2.0, 3.0]
