"""What fits the ring comes back whole: sums modulo 2^32 are the sums that `fold` makes."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.core.errors import ConfigError, OutOfBound, UpdateError
from fedloom.core.layout import Layout, Leaf
from fedloom.core.metrics import Metrics, total
from fedloom.core.update import Update, weigh
from fedloom.gather.secure import ring
from fedloom.stages import FixedPoint
from hidden import layout, plain_sum, updates


@given(st.integers(2, 300), st.integers(0, 2**31), st.sampled_from([2.0**-9, 0.3, 1.0, 16.0, 1e6]))
@settings(max_examples=50)
def test_a_sum_in_the_ring_is_the_sum(count, seed, bound):
    one = list(updates(count, size=7, seed=seed, bound=bound).values())
    summed = np.zeros(8, np.uint32)
    for update in one:
        summed += ring.encoded(update)
    np.testing.assert_array_equal(ring.decoded(summed, one[0].layout), plain_sum(one).vector)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("cohort", [1, 2, 3, 64, 100, 1024, 32768])
def test_the_largest_sum_of_the_cohort_does_not_overflow(sign, cohort):
    there = layout(1, cohort, bound=16.0)
    one = weigh(np.float32([sign * 16.0]), there, 1.0)
    summed = ring.encoded(one) * np.uint32(cohort)
    assert ring.decoded(summed, there).tolist() == [sign * 16.0 * cohort, 1.0 * cohort]


def test_blocks_counts_and_float64_keep_their_own_steps():
    model = Layout((Leaf("w", (2,), "float64", bound=0.5), Leaf("mean", (1,), kind="buffer", bound=1024.0)))
    both = model.plus("control", model, bound=64.0)
    counts = Layout((*both.leaves, Leaf("n", (2,), kind="count", bound=1000.0, block="counts")))
    there = FixedPoint().payload(counts).weighted(9)
    vector = np.array([0.5, -0.5, 1024.0, 64.0, -64.0, -64.0, 1000.0, 3.0])
    one = weigh(vector, there, 1.0)
    np.testing.assert_array_equal(ring.decoded(ring.encoded(one), there), [*vector, 1.0])


def test_a_sum_that_could_overflow_is_refused():
    with pytest.raises(ConfigError, match="hidden sum is a sum of whole numbers of 32 bits"):
        ring.encoded(Update(np.zeros(3), Layout((Leaf("w", (2,)),)).weighted(3)))
    with pytest.raises(ConfigError, match="no room for 32769 clients of 15 bits"):
        layout(1, 32769)
    with pytest.raises(ConfigError, match=r"count's bound times the cohort of 100 is beyond 2\^30"):
        layout(1, 100, kind="count", bound=2.0**24)


sums = st.floats(-(2.0**42), 2.0**42) | st.integers(-(2**42), 2**42)


@given(st.lists(st.fixed_dictionaries({"examples": st.integers(0, 2**40), "loss": sums}), min_size=1, max_size=40))
def test_metrics_are_summed_to_their_step(told):
    limbs, names = np.zeros(8, np.uint32), b""
    for one in told:
        some, names = ring.told(Metrics(one))
        limbs += some
    heard, expected = ring.heard(limbs, names, len(told)).sums, total(Metrics(one) for one in told).sums
    assert heard["examples"] == expected["examples"]
    assert heard["loss"] == pytest.approx(expected["loss"], rel=1e-12, abs=len(told) * ring.STEP / 2)
    assert json.loads(names) == ["examples", "loss"]


@pytest.mark.parametrize("loss", [np.inf, -np.inf, np.nan, 2.0**42 * 1.01])
def test_metrics_that_do_not_fit_are_refused(loss):
    with pytest.raises(OutOfBound, match="'loss' is"):
        ring.told(Metrics({"examples": 1, "loss": loss}))


def test_metrics_that_are_no_numbers_are_refused():
    with pytest.raises(UpdateError, match="'scores' is an array"):
        ring.told(Metrics({"examples": 1, "scores": np.zeros(3)}))
    with pytest.raises(UpdateError, match="at most 64"):
        ring.told(Metrics({str(n): n for n in range(65)}))


def test_an_update_off_the_grid_of_its_sum_is_not_made():
    """What is encoded was made by `weigh`; a layout of another cohort has other steps, and another digest."""
    one = next(iter(updates(3).values()))
    other = replace(one.layout, cohort=300)
    assert other.digest != one.layout.digest
    assert other.runs[0][1] > one.layout.runs[0][1]
