import re
from dataclasses import replace
from fractions import Fraction
from functools import reduce

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedloom.core.errors import CohortOverflow, LayoutMismatch, NotFinite, OutOfBound, UpdateError
from fedloom.core.layout import Layout, Leaf
from fedloom.core.update import Update, fold, verify, weigh, weigh_many
from small import updates

VALUES = st.floats(-16, 16, width=32)
WEIGHTS = st.floats(2**-10, 1, width=32)
COHORTS = st.lists(st.tuples(st.lists(VALUES, min_size=3, max_size=3), WEIGHTS), min_size=2, max_size=12)


def added(parts):
    return reduce(lambda a, b: a + b, parts)


@settings(max_examples=150)
@given(cohort=COHORTS, data=st.data())
def test_order_and_grouping_do_not_change_a_bit(cohort, data):
    parts = updates([d for d, _ in cohort], [w for _, w in cohort])
    flat = added(parts)
    shuffled = data.draw(st.permutations(parts))
    groups = data.draw(st.lists(st.integers(1, len(parts)), max_size=4))
    tree, rest = [], shuffled
    for size in groups:
        tree, rest = ([*tree, added(rest[:size])] if rest else tree), rest[size:]
    tree = added([*tree, *rest])
    assert tree.vector.tobytes() == flat.vector.tobytes()
    assert tree.count == flat.count == len(parts)
    streamed = None
    for part in shuffled:
        streamed = fold(streamed, part)
    assert streamed.vector.tobytes() == flat.vector.tobytes()


@settings(max_examples=100)
@given(cohort=COHORTS)
@example(cohort=[([-0.0, 0.0, -1e-20], 1.0)] * 2)
def test_weighing_many_is_weighing_and_adding_each(cohort):
    deltas, weights = np.float32([d for d, _ in cohort]), [w for _, w in cohort]
    parts = updates(deltas, weights)
    many = weigh_many(deltas, parts[0].layout, weights)
    assert many.vector.tobytes() == added(parts).vector.tobytes()
    assert many.count == len(cohort)


@settings(max_examples=100)
@given(cohort=COHORTS, bound=st.sampled_from([16.0, 17.5, 100.0]))
def test_the_sum_is_exact(cohort, bound):
    """Against rational numbers: round each float32 product to the grid once, add without rounding."""
    layout = Layout((Leaf("w", (3,), bound=bound),)).weighted(len(cohort))
    step = Fraction(layout.leaves[0].step(len(cohort)))
    total = added([weigh(np.float32(d), layout, w) for d, w in cohort])
    for i in range(3):
        products = [Fraction(float(np.float32(d[i]) * np.float32(w))) for d, w in cohort]
        assert Fraction(float(total.vector[i])) == sum(round(p / step) * step for p in products)
    verify(total, layout)


@settings(max_examples=100)
@given(cohort=st.lists(st.floats(-0.1, 0.1), min_size=1, max_size=30))
def test_a_bound_that_is_no_power_of_two_admits_what_it_admitted_before_the_sum(cohort):
    """What `weigh` lets pass, `verify` lets pass, alone and added, in float64 too."""
    layout = Layout((Leaf("w", (1,), "float64", bound=0.1),)).weighted(len(cohort))
    most = layout.runs[0][2]
    parts = [weigh(np.clip([d], -most, most), layout, 1.0) for d in cohort]
    for part in parts:
        verify(part, layout)
    total = verify(added([*parts]), layout)
    assert Fraction(float(total.vector[0])) == sum(Fraction(float(p.vector[0])) for p in parts)


def test_100_clients_at_a_bound_of_16_live_on_two_to_the_minus_42():
    layout = Layout((Leaf("w", (50,)),)).weighted(100)
    assert layout.runs[0][1] == 2.0**-42
    rng = np.random.default_rng(0)
    parts = [weigh(rng.uniform(-16, 16, 50).astype(np.float32), layout, w) for w in rng.uniform(0.01, 1, 100)]
    total, back = added(parts), added(parts[::-1])
    assert total.vector.tobytes() == back.vector.tobytes()
    whole = total.vector / 2.0**-42
    np.testing.assert_array_equal(whole, np.rint(whole))
    assert np.abs(whole).max() < 2**53


def test_the_worked_example():
    """n = 100, 200, 150 and θ = 0.5, 0.7, 0.6: (50 + 140 + 90)/450 = 0.6222…, as in many an introduction."""
    total = added(updates([[0.5], [0.7], [0.6]], [100 / 256, 200 / 256, 150 / 256]))
    assert total.vector[-1] == 450 / 256
    assert total.vector[0] / total.vector[-1] == pytest.approx(280 / 450, abs=1e-7)


def test_adding_leaves_both_sides_alone_and_folding_writes_into_the_total():
    one, two = updates([[1.0], [2.0]])
    kept = one.vector.copy(), two.vector.copy()
    total = one + two
    assert total.vector.dtype == np.float64
    np.testing.assert_array_equal(one.vector, kept[0])
    np.testing.assert_array_equal(two.vector, kept[1])
    first = fold(None, one)
    assert first.vector is not one.vector
    assert fold(first, two).vector is first.vector


def test_a_cohort_that_is_full_takes_nobody_more_and_keeps_its_sum():
    one, two, three = updates([[1.0], [2.0], [4.0]], cohort=2)
    total = one + two
    kept = total.vector.copy()
    with pytest.raises(CohortOverflow, match="a sum of 3 clients does not fit a layout declared for a cohort of 2"):
        fold(total, three)
    np.testing.assert_array_equal(total.vector, kept)


@pytest.mark.parametrize("count", [0, -1, 4])
def test_a_count_that_cannot_be_is_refused(count):
    (one, *_) = updates([[1.0]], cohort=3)
    with pytest.raises(CohortOverflow):
        fold(None, replace(one, count=count))


def test_updates_of_two_layouts_do_not_add():
    (one,), (other,) = updates([[1.0]], cohort=2), updates([[1.0]], cohort=2, bound=8.0)
    with pytest.raises(LayoutMismatch, match="cannot add updates of two layouts"):
        one + other


def test_side_values_must_be_decoded_first():
    (one,) = updates([[1.0]])
    with pytest.raises(UpdateError, match=re.escape("side values ['scale'] cannot be added; decode it first")):
        fold(None, replace(one, side={"scale": 1.0}))


def test_size_in_bytes_counts_vector_and_side():
    (one,) = updates([[1.0, 2.0]])
    assert one.size_bytes == 12
    assert replace(one, side={"w": 1.0, "s": np.zeros(3)}).size_bytes == 12 + 8 + 24


LAYOUT = Layout((Leaf("a", (2,)), Leaf("b", (2,), bound=1.0))).weighted(4)


@pytest.mark.parametrize(
    ("delta", "error", "text"),
    [
        ([0, 0, np.nan, 0], NotFinite, "leaf 'b' holds nan; lower the learning rate"),
        ([0, np.inf, 0, 0], NotFinite, "leaf 'a' holds inf"),
        ([-np.inf, 0, 0, 0], NotFinite, "leaf 'a' holds -inf"),
        ([0, -16.5, 0, 0], OutOfBound, "leaf 'a' holds -16.5, beyond its bound of 16 for each client"),
        ([0, 0, 0, 1.25], OutOfBound, "leaf 'b' holds 1.25, beyond its bound of 1"),
        ([3e38, 0, 0, 0], OutOfBound, "leaf 'a' holds 3e"),
        ([0, 0, 0], LayoutMismatch, "the delta must have 4 elements"),
        ([[0, 0, 0, 0]], LayoutMismatch, "the delta must have 4 elements"),
    ],
)
def test_weigh_refuses(delta, error, text):
    with pytest.raises(error, match=text):
        weigh(np.array(delta, np.float32), LAYOUT, 1.0)


def test_a_product_that_overflows_float32_is_not_finite():
    with pytest.raises(NotFinite, match="leaf 'a' holds inf"):
        weigh(np.array([1e39, 0, 0, 0]), LAYOUT, 1.0)


@pytest.mark.parametrize("weight", [0.0, -0.5, 1.5, np.nan, np.inf])
def test_weigh_refuses_a_weight(weight):
    with pytest.raises(OutOfBound, match=r"a weight must be in \(0, 1\]"):
        weigh(np.zeros(4, np.float32), LAYOUT, weight)


def test_weigh_leaves_the_delta_alone_and_rounds_to_the_grid():
    delta = np.array([1 + 2.0**-23, 2.0**-80, -0.3, 1.0], np.float32)
    kept = delta.copy()
    update = weigh(delta, LAYOUT, 0.75)
    np.testing.assert_array_equal(delta, kept)
    assert update.vector.dtype == np.float32
    np.testing.assert_array_equal(update.vector[[1, 3, 4]], np.float32([0, 0.75, 0.75]))
    assert verify(update, LAYOUT) is update


def test_verify_takes_a_sum_at_the_bound_of_all_its_clients():
    parts = [weigh(np.float32([16, -16, 1, -1]), LAYOUT, 1.0)] * 4
    assert verify(added(parts), LAYOUT).count == 4


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda v: v.astype(np.float64), LayoutMismatch, "expected a vector of 5 float32, got float64"),
        (lambda v: v[:-1], LayoutMismatch, r"got float32 of shape \(4,\)"),
        (lambda v: v.reshape(1, -1), LayoutMismatch, "expected a vector of 5"),
        (lambda v: v.tolist(), LayoutMismatch, "got list of shape"),
        (lambda v: v.astype(object), LayoutMismatch, "got object"),
        (lambda v: np.float32([np.nan, 0, 0, 0, 1]), NotFinite, "leaf 'a' holds nan"),
        (lambda v: np.float32([0, 0, 0, np.inf, 1]), NotFinite, "leaf 'b' holds inf"),
        (lambda v: np.float32([17, 0, 0, 0, 1]), OutOfBound, "leaf 'a' holds 17"),
        (lambda v: np.float32([0, 0, 0, 0, 1.5]), OutOfBound, "leaf 'weight/weight' holds 1.5"),
        (lambda v: np.float32([0, 0, 0, 0, 0]), OutOfBound, "the summed weight must be positive"),
        (lambda v: np.float32([0, 0, 0, 0, -1]), OutOfBound, "the summed weight must be positive"),
        (lambda v: np.float32([2.0**-60, 0, 0, 0, 1]), UpdateError, r"elements 0 to 2 is not a multiple of"),
    ],
)
def test_verify_refuses(change, error, text):
    vector = change(np.float32([1, 2, 0.5, 0.25, 1]))
    with pytest.raises(error, match=text) as caught:
        verify(Update(vector, LAYOUT), LAYOUT)
    assert type(caught.value) is error


def test_verify_refuses_another_layout_and_a_wrong_count():
    update = weigh(np.zeros(4, np.float32), LAYOUT, 1.0)
    other = replace(LAYOUT, cohort=5)
    with pytest.raises(LayoutMismatch, match="expected an update of layout"):
        verify(update, other)
    with pytest.raises(LayoutMismatch, match="float64"):
        verify(replace(update, count=2), LAYOUT)
    with pytest.raises(CohortOverflow):
        verify(Update(update.vector.astype(np.float64), LAYOUT, 5), LAYOUT)


def test_a_sum_off_the_grid_is_refused():
    total = added([weigh(np.float32([1, 1, 1, 1]), LAYOUT, 1.0)] * 2)
    total.vector[0] += LAYOUT.runs[0][1] / 2
    with pytest.raises(UpdateError, match="is not a multiple of"):
        verify(total, LAYOUT)


def test_counts_are_whole_numbers():
    layout = Layout((Leaf("n", (2,), kind="count", bound=2.0**20),)).weighted(8)
    total = added([weigh(np.array([2.0**20, 3.0]), layout, 1.0)] * 8)
    assert total.vector.tolist() == [2.0**23, 24.0, 8.0]
    with pytest.raises(UpdateError, match=r"is not a multiple of 1\.0"):
        verify(Update(np.array([0.5, 0, 1.0]), layout), layout)
