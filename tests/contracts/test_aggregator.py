"""What every aggregator must do; a new one joins with one line in AGGREGATORS."""

from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.aggregate import Mean, Median
from small import updates

AGGREGATORS = [Mean(), Median()]
DELTAS = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
WEIGHTS = [1.0, 0.5, 0.25, 1.0, 0.125, 0.75, 0.3]


@pytest.fixture(params=AGGREGATORS, ids=repr)
def aggregator(request):
    return request.param


def finished(aggregator, parts):
    total = None
    for part in parts:
        total = aggregator.add(total, part)
    return aggregator.finish(total, len(parts))


def test_it_says_what_it_needs(aggregator):
    assert isinstance(type(aggregator).each, bool)
    assert isinstance(aggregator.population, frozenset)
    for field in fields(aggregator):
        with pytest.raises(FrozenInstanceError):
            setattr(aggregator, field.name, 1)


@pytest.mark.parametrize("aggregator", AGGREGATORS, ids=repr)
@settings(deadline=None, max_examples=30)
@given(order=st.permutations(range(7)))
def test_the_order_of_clients_does_not_change_a_bit(aggregator, order):
    parts = updates(DELTAS, WEIGHTS)
    assert finished(aggregator, [parts[i] for i in order]).tobytes() == finished(aggregator, parts).tobytes()


def test_equal_deltas_are_their_own_aggregate(aggregator):
    parts = updates([DELTAS[0]] * 4)
    np.testing.assert_array_equal(finished(aggregator, parts), DELTAS[0].astype(np.float64))


def test_one_client_counts_alone(aggregator):
    (part,) = updates(DELTAS[:1], [0.25])
    found = finished(aggregator, [part])
    assert (found.dtype, found.shape) == (np.float64, (5,))
    np.testing.assert_array_equal(found, DELTAS[0].astype(np.float64))


def test_zeros_are_zero(aggregator):
    assert not finished(aggregator, updates(np.zeros((3, 5)))).any()


def test_it_lies_between_the_clients(aggregator):
    found = finished(aggregator, updates(DELTAS, WEIGHTS))
    assert (DELTAS.min(axis=0) - 1e-6 <= found).all()
    assert (found <= DELTAS.max(axis=0) + 1e-6).all()


def test_updates_are_left_alone(aggregator):
    parts = updates(DELTAS, WEIGHTS)
    kept = [part.vector.copy() for part in parts]
    for part in parts:
        part.vector.flags.writeable = False
    finished(aggregator, parts)
    for part, vector in zip(parts, kept, strict=True):
        np.testing.assert_array_equal(part.vector, vector)
