from dataclasses import replace

import numpy as np
import pytest

from fedloom.aggregate import Median
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
