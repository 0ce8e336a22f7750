"""What every aggregator must do; a new one joins with one line in AGGREGATORS."""

from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.aggregate import GeometricMedian, Krum, Mean, Median, TrimmedMean
from fedloom.aggregate import clients as shared
from fedloom.core import cores
from fedloom.core.errors import QuorumLost
from small import updates

AGGREGATORS = [Mean(), Median(), TrimmedMean(), Krum(), Krum(2, keep=3), Krum(keep=None), GeometricMedian()]
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
@settings(max_examples=30)
@given(order=st.permutations(range(7)))
def test_the_order_of_clients_does_not_change_a_bit(aggregator, order):
    parts = updates(DELTAS, WEIGHTS)
    assert finished(aggregator, [parts[i] for i in order]).tobytes() == finished(aggregator, parts).tobytes()


def test_equal_deltas_are_their_own_aggregate(aggregator):
    parts = updates([DELTAS[0]] * max(4, aggregator.least))
    np.testing.assert_array_equal(finished(aggregator, parts), DELTAS[0].astype(np.float64))


def test_the_fewest_clients_are_enough_and_one_counts_alone(aggregator):
    found = finished(aggregator, updates(DELTAS[: aggregator.least], [0.25] * aggregator.least))
    assert (found.dtype, found.shape) == (np.float64, (5,))
    if aggregator.least == 1:
        np.testing.assert_array_equal(found, DELTAS[0].astype(np.float64))


@pytest.mark.parametrize("aggregator", [rule for rule in AGGREGATORS if rule.least > 1], ids=repr)
def test_fewer_than_the_fewest_are_refused(aggregator):
    few = aggregator.least - 1
    with pytest.raises(QuorumLost, match=rf"protects from {few + 1} clients on, {few} were counted"):
        finished(aggregator, updates(DELTAS[:few]))


def test_zeros_are_zero(aggregator):
    found = finished(aggregator, updates(np.zeros((max(3, aggregator.least), 5))))
    assert found.tobytes() == np.zeros(5).tobytes()


def test_threads_and_blocks_do_not_change_a_bit(aggregator, monkeypatch):
    deltas = np.random.default_rng(1).normal(size=(7, 1001)).astype(np.float32)
    monkeypatch.setattr(shared, "BLOCK", 70)  # ten coordinates at a time: a hundred blocks, in fifty stretches
    found = []
    for threads in (1, 2, 7):
        monkeypatch.setattr(cores, "THREADS", threads)
        found.append(finished(aggregator, updates(deltas, WEIGHTS)).tobytes())
    assert found == found[:1] * 3
    monkeypatch.setattr(shared, "BLOCK", 1 << 17)
    whole = finished(aggregator, updates(deltas, WEIGHTS))
    np.testing.assert_allclose(np.frombuffer(found[0]), whole, rtol=1e-12, atol=1e-14)


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
