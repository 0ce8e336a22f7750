from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.aggregate import TrimmedMean, clients
from fedloom.core.errors import QuorumLost, StrategyError, UpdateError
from small import updates

NUMBERS = st.sampled_from([0.0, -0.0, 1.5, -1e-30, 1e-7, 16.0, -16.0]) | st.floats(-16, 16, width=32)
CROWDS = st.integers(10, 24).flatmap(lambda n: st.lists(st.tuples(NUMBERS, NUMBERS), min_size=n, max_size=n))


def trimmed(deltas, beta, weights=None):
    return TrimmedMean(beta).finish(updates(np.float32(deltas), weights), len(deltas))


def literal(deltas, beta):
    """Definition 2 in plain loops: drop the ⌊βn⌋ largest and smallest of each coordinate, average the rest exactly."""
    drop, found = floor(Fraction(str(beta)) * len(deltas)), []
    for column in zip(*deltas, strict=True):
        left = list(column)
        for _ in range(drop):
            left.remove(max(left))
            left.remove(min(left))
        found.append(float(sum(map(Fraction, left)) / len(left)))
    return found


@settings(max_examples=100)
@given(deltas=CROWDS, beta=st.sampled_from([0.1, 0.2, 0.25, 0.3, 0.49]))
def test_it_is_the_definition(deltas, beta):
    held = updates(np.float32(deltas))
    values = [[float(x) for x in part.vector[:-1]] for part in held]
    found = TrimmedMean(beta).finish(held, len(held))
    np.testing.assert_allclose(found, literal(values, beta), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("clients", [10, 13, 40])
@pytest.mark.parametrize("beta", [0.1, 0.25, 0.45])
def test_it_is_scipys_whatever_the_weights(clients, beta):
    import scipy.stats as stats

    deltas = np.random.default_rng(clients).normal(size=(clients, 50)).astype(np.float32)
    expected = stats.trim_mean(deltas.astype(np.float64), beta, axis=0)
    np.testing.assert_allclose(trimmed(deltas, beta), expected, rtol=1e-9, atol=1e-11)
    weights = np.random.default_rng(1).uniform(0.1, 1, clients)
    np.testing.assert_allclose(trimmed(deltas, beta, weights), expected, rtol=1e-6, atol=1e-7)


@settings(max_examples=50)
@given(order=st.permutations(range(10)), shift=st.integers(-4, 4))
def test_translation_moves_it_and_permutation_does_not(order, shift):
    deltas = np.random.default_rng(0).integers(-9, 9, size=(10, 4)) / 4
    found = trimmed(deltas, 0.2)
    assert trimmed(deltas[list(order)], 0.2).tobytes() == found.tobytes()
    np.testing.assert_allclose(trimmed(deltas + shift, 0.2), found + shift, rtol=1e-14)


def test_whom_it_drops_may_send_anything():
    deltas = np.random.default_rng(0).normal(size=(10, 4))
    deltas[:2] = [[16], [-16]]
    low, high = deltas[2:].min(axis=0), deltas[2:].max(axis=0)
    found = trimmed(deltas, 0.2)
    assert (low - 1e-6 <= found).all()
    assert (found <= high + 1e-6).all()


def test_nobody_dropped_is_no_protection():
    assert [TrimmedMean(beta).least for beta in (0.1, 0.2, 0.25, 0.3, 0.49)] == [10, 5, 4, 4, 3]
    with pytest.raises(QuorumLost, match=r"TrimmedMean\(beta=0.1\) protects from 10 clients on, 9 were counted"):
        trimmed(np.zeros((9, 1)), 0.1)


@pytest.mark.parametrize("beta", [0.0, 0.5, -0.1, 1.0, float("nan")])
def test_a_fraction_that_cannot_be_is_refused(beta):
    with pytest.raises(StrategyError, match=r"TrimmedMean.beta must be in \(0, 1/2\)"):
        TrimmedMean(beta)


def test_a_value_that_is_no_number_is_not_hidden():
    parts = updates(np.ones((5, 3), np.float32))
    parts[1].vector[2] = np.nan
    np.testing.assert_array_equal(TrimmedMean().finish(parts, 5), [1, 1, np.nan])


def test_a_sum_of_clients_is_refused():
    one, two = updates([[1.0], [2.0]])
    with pytest.raises(UpdateError, match="the trimmed mean needs every client's update, got a sum of 2; do not merge"):
        TrimmedMean().add(None, one + two)


def test_more_clients_than_a_block_holds(monkeypatch):
    monkeypatch.setattr(clients, "BLOCK", 2)
    assert trimmed([[0, 5], [1, 6], [2, 7], [3, 8], [9, 9]], 0.2).tolist() == [2.0, 7.0]
