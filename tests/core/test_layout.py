import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedloom.core.errors import ConfigError, LayoutMismatch
from fedloom.core.layout import MODEL, WEIGHT, Layout, Leaf

LAYOUT = Layout(
    (Leaf("w", (2, 3)), Leaf("b", (3,)), Leaf("scale"), Leaf("none", (0, 4)), Leaf("mean", (3,), kind="buffer"))
)


def tree(layout=LAYOUT):
    rng = np.random.default_rng(0)
    return {key: rng.normal(size=leaf.shape).astype(np.float32) for key, leaf in layout.named()}


def test_pack_lays_leaves_out_in_order():
    given_ = tree()
    vector = LAYOUT.pack(given_)
    assert (vector.shape, vector.dtype) == ((13,), np.float32)
    np.testing.assert_array_equal(vector, np.concatenate([given_[leaf.name].ravel() for leaf in LAYOUT.leaves]))


def test_pack_into_a_given_vector_and_leave_the_tree_alone():
    given_, out = tree(), np.full(13, np.nan, np.float32)
    kept = {name: array.copy() for name, array in given_.items()}
    assert LAYOUT.pack(given_, out) is out
    assert np.isfinite(out).all()
    for name in kept:
        np.testing.assert_array_equal(given_[name], kept[name])


def test_unpack_copies_nothing():
    vector = np.arange(13, dtype=np.float32)
    views = LAYOUT.unpack(vector)
    for leaf in LAYOUT.leaves:
        assert views[leaf.name].shape == leaf.shape
        assert leaf.size == 0 or np.shares_memory(views[leaf.name], vector)
    views["scale"][...] = -1
    assert vector[9] == -1


def test_pack_undoes_unpack_in_float64_too():
    wide = Layout((Leaf("w", (4,), "float64"), Leaf("b")))
    vector = np.random.default_rng(0).normal(size=5)
    assert wide.dtype == np.float64
    assert wide.pack(wide.unpack(vector)).tobytes() == vector.tobytes()
    assert Layout((Leaf("n", kind="count"),)).dtype == np.float64


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t | {"w": t["w"].T}, r"leaf 'w' must have shape \(2, 3\), got \(3, 2\)"),
        (lambda t: t | {"scale": np.zeros(1)}, r"leaf 'scale' must have shape \(\), got \(1,\)"),
        (lambda t: {k: v for k, v in t.items() if k != "b"}, r"missing \['b'\]"),
        (lambda t: t | {"extra": np.zeros(1)}, r"not known \['extra'\]"),
    ],
)
def test_pack_refuses_another_tree(change, text):
    with pytest.raises(LayoutMismatch, match=text):
        LAYOUT.pack(change(tree()))


@pytest.mark.parametrize("shape", [(12,), (14,), (13, 1), ()])
def test_unpack_refuses_another_shape(shape):
    with pytest.raises(LayoutMismatch, match="has 13 elements"):
        LAYOUT.unpack(np.zeros(shape))


def test_take_leaves_the_rest_out():
    shared = LAYOUT.take(lambda leaf: leaf.kind == "parameter")
    assert [leaf.name for leaf in shared.leaves] == ["w", "b", "scale", "none"]
    assert (shared.size, len(LAYOUT.leaves)) == (10, 5)


def test_matching_takes_patterns_and_refuses_one_without_a_match():
    assert [leaf.name for leaf in LAYOUT.matching(("s*", "b")).leaves] == ["b", "scale"]
    with pytest.raises(ConfigError, match=r"no leaf is called 'head\.\*'; the layout has w, b"):
        LAYOUT.matching(("head.*",))


def test_blocks_lie_one_behind_the_other():
    both = LAYOUT.plus("control", LAYOUT.take(lambda leaf: leaf.kind == "parameter"), bound=4.0)
    assert both.blocks == (MODEL, "control")
    assert (both.block(MODEL), both.block("control")) == (slice(0, 13), slice(13, 23))
    assert (both.block(MODEL, "parameter"), both.block(MODEL, "buffer")) == (slice(0, 10), slice(10, 13))
    assert both.block("control", "buffer") == slice(13, 13)
    assert {leaf.bound for leaf in both.leaves} == {16.0, 4.0}
    assert both.only("control").leaves[0] == replace(LAYOUT.leaves[0], bound=4.0)
    assert list(both.unpack(np.zeros(23)))[5:7] == ["control/w", "control/b"]
    with pytest.raises(ConfigError, match="there is a block 'control' already"):
        both.plus("control", LAYOUT)
    with pytest.raises(LayoutMismatch, match="there is no block 'kontrol'; the layout has model, control"):
        both.block("kontrol")


def test_the_weight_is_the_last_block():
    total = LAYOUT.weighted(cohort=7)
    assert (total.block(WEIGHT), total.cohort, total.size) == (slice(13, 14), 7, 14)
    assert total.take(lambda leaf: leaf.block != WEIGHT).leaves == LAYOUT.leaves


@pytest.mark.parametrize(
    ("leaves", "cohort", "text"),
    [
        ((Leaf("w"), Leaf("w")), 1, "leaf 'w' appears twice in block 'model'"),
        ((Leaf("w"), Leaf("c", block="x"), Leaf("b")), 1, "must lie side by side"),
        ((Leaf("w"),), 0, "cohort must be at least 1, got 0"),
        ((Leaf("n", kind="count", bound=2.0**50),), 16, r"beyond 2\^53"),
        ((Leaf("w", bound=0.0),), 1, "the bound of leaf 'w' must be"),
        ((Leaf("w", bound=-1.0),), 1, "the bound of leaf 'w' must be"),
        ((Leaf("w", bound=math.inf),), 1, "the bound of leaf 'w' must be"),
        ((Leaf("w", bound=math.nan),), 1, "the bound of leaf 'w' must be"),
        ((Leaf("w", bound=1e-30),), 1, "the bound of leaf 'w' must be"),
    ],
)
def test_a_layout_that_means_nothing_is_refused(leaves, cohort, text):
    with pytest.raises(ConfigError, match=text):
        Layout(leaves, cohort)


def test_kinds_that_are_mixed_up_have_no_slice():
    mixed = Layout((Leaf("w"), Leaf("mean", kind="buffer"), Leaf("b")))
    with pytest.raises(ConfigError, match="do not lie side by side"):
        mixed.block(MODEL, "parameter")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "v"},
        {"shape": (3, 2)},
        {"dtype": "float64"},
        {"kind": "buffer"},
        {"bound": 8.0},
        {"block": "other"},
    ],
)
def test_every_field_is_in_the_digest(change):
    leaf = Leaf("w", (2, 3))
    assert Layout((leaf,)).digest != Layout((replace(leaf, **change),)).digest
    assert Layout((leaf,)).digest != Layout((leaf,), 2).digest
    assert Layout((leaf,)).digest == Layout((Leaf("w", (2, 3)),)).digest


def test_the_step_of_the_design():
    assert Leaf("w", bound=16.0).step(100) == 2.0**-42
    assert Leaf("n", kind="count", bound=2.0**20).step(100) == 1.0
    assert Leaf("w", bound=1.0).step(1) == 2.0**-53


@settings(max_examples=300)
@given(bound=st.floats(2.0**-60, 2.0**60), cohort=st.integers(1, 2**40))
@example(bound=1024 * (1 + 2.0**-52), cohort=1)
@example(bound=0.1, cohort=10)
def test_the_step_is_the_finest_power_of_two_that_stays_exact(bound, cohort):
    """With rational numbers: bound·cohort/step ≤ 2^53 < 2·bound·cohort/step."""
    step = Leaf("w", bound=bound).step(cohort)
    steps = Fraction(bound) * cohort / Fraction(step)
    assert math.frexp(step)[0] == 0.5
    assert steps <= 2**53 < 2 * steps


@settings(max_examples=100)
@given(bound=st.floats(2.0**-60, 2.0**60), cohort=st.integers(1, 10**6))
def test_a_whole_cohort_at_its_bound_is_on_the_grid(bound, cohort):
    """What one client may at most contribute, in steps, is a whole number, and a cohort of them at most 2^53."""
    ((_, step, most),) = Layout((Leaf("w", bound=bound),), cohort).runs
    steps = Fraction(most) / Fraction(step)
    assert steps.denominator == 1
    assert steps * cohort <= 2**53
    assert 0 <= Fraction(bound) - Fraction(most) < Fraction(step)


def test_runs_join_leaves_of_one_step_and_name_leaves_by_place():
    layout = Layout((Leaf("a", (2,)), Leaf("b", (3,)), Leaf("c", (4,), bound=1.0)), 4)
    assert [run[0] for run in layout.runs] == [slice(0, 5), slice(5, 9)]
    assert [layout.leaf_at(i) for i in (0, 1, 2, 4, 5, 8)] == ["a", "a", "b", "b", "c", "c"]
    assert LAYOUT.leaf_at(10) == "mean"
