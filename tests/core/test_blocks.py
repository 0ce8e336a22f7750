"""Blocks cover a stretch once, and what is computed in blocks has the bits and the refusals of the whole vector."""

from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.core import cores
from fedloom.core import update as module
from fedloom.core.blocks import BLOCK, blocks
from fedloom.core.errors import CohortOverflow, LayoutMismatch, NotFinite, OutOfBound, UpdateError
from fedloom.core.layout import Layout, Leaf
from fedloom.core.update import Update, fold, verify, weigh, weigh_many

LEAVES = {
    "one": lambda n: (Leaf("w", (n,)),),
    "joined to the weight": lambda n: (Leaf("w", (n,), bound=1.0),),
    "two bounds": lambda n: (Leaf("a", (n // 2,)), Leaf("b", (n - n // 2,), bound=3.0)),
    "float64": lambda n: (Leaf("a", (n // 3,), "float64"), Leaf("b", (n - n // 3,), bound=0.1)),
    "counts": lambda n: (Leaf("a", (n - n // 4,)), Leaf("n", (n // 4,), kind="count", bound=2.0**20)),
}


@contextmanager
def in_blocks_of(size, threads=1):
    """Let `update` work in small blocks, so that small vectors have many, shared out among so many threads."""
    with (
        patch.object(module, "blocks", lambda where, named=None: blocks(where, size)),
        patch.object(cores, "LONG", 2 if threads > 1 else cores.LONG),
        patch.object(cores, "THREADS", threads),
    ):
        yield


def whole(delta, layout, weight):
    """Weigh as it is defined, on the whole vector."""
    vector = np.empty(layout.size, layout.dtype)
    vector[:-1], vector[-1] = delta * layout.dtype.type(weight), weight
    for where, step, _ in layout.runs:
        vector[where] = np.rint(vector[where] * layout.dtype.type(1 / step)) * layout.dtype.type(step)
    return vector


def drawn(kind, size, cohort, seed=0):
    """Return a layout, deltas (with zeros of both signs and values at the bounds) and weights."""
    layout = Layout(LEAVES[kind](size)).weighted(cohort)
    rng = np.random.default_rng(seed)
    deltas = rng.uniform(-1, 1, (cohort, size))
    for where, _, bound in layout.runs:
        deltas[:, where] *= bound
    deltas[rng.uniform(size=deltas.shape) < 0.2] *= 0
    return layout, deltas.astype(layout.dtype), rng.choice([1.0, 0.5, 0.3, 2.0**-9], cohort).tolist()


@given(begin=st.integers(0, 50), length=st.integers(0, 200), size=st.integers(1, 60))
def test_blocks_are_the_stretch(begin, length, size):
    found = list(blocks(slice(begin, begin + length), size))
    assert [i for block in found for i in range(block.start, block.stop)] == list(range(begin, begin + length))
    assert all(block.stop - block.start == size for block in found[:-1])


@settings(max_examples=200)
@given(
    kind=st.sampled_from(sorted(LEAVES)),
    size=st.integers(1, 40),
    cohort=st.integers(2, 6),
    block=st.integers(1, 41),
    threads=st.sampled_from([1, 1, 2, 5]),
    seed=st.integers(0, 2**32),
)
def test_blocks_change_no_bit(kind, size, cohort, block, threads, seed):
    layout, deltas, weights = drawn(kind, size, cohort, seed)
    expected = [whole(delta, layout, weight) for delta, weight in zip(deltas, weights, strict=True)]
    added = expected[0].astype(np.float64)
    for vector in expected[1:]:
        added = added + vector
    with in_blocks_of(block, threads):
        parts = [weigh(delta, layout, weight) for delta, weight in zip(deltas, weights, strict=True)]
        streamed = None
        for part in parts:
            streamed = fold(streamed, verify(part, layout))
        many = weigh_many(deltas, layout, weights)
        at_once = fold(None, *parts)
        verify(at_once, layout)
    assert [part.vector.tobytes() for part in parts] == [vector.tobytes() for vector in expected]
    assert {total.vector.tobytes() for total in (streamed, many, at_once)} == {added.tobytes()}
    assert {total.count for total in (streamed, many, at_once)} == {cohort}


@pytest.mark.parametrize("kind", sorted(LEAVES))
@pytest.mark.parametrize("size", [BLOCK - 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
def test_blocks_as_they_are_change_no_bit(kind, size):
    layout, deltas, weights = drawn(kind, size, 2)
    expected = [whole(delta, layout, weight) for delta, weight in zip(deltas, weights, strict=True)]
    parts = [verify(weigh(delta, layout, weight), layout) for delta, weight in zip(deltas, weights, strict=True)]
    added = (expected[0].astype(np.float64) + expected[1]).tobytes()
    assert [part.vector.tobytes() for part in parts] == [vector.tobytes() for vector in expected]
    assert fold(fold(None, parts[0]), parts[1]).vector.tobytes() == added
    assert fold(None, *parts).vector.tobytes() == weigh_many(deltas, layout, weights).vector.tobytes() == added


LAYOUT = Layout((Leaf("a", (8,)), Leaf("b", (8,), bound=1.0))).weighted(4)


def refused(work, *arguments):
    with pytest.raises(UpdateError) as caught:
        work(*arguments)
    return type(caught.value), str(caught.value)


@settings(max_examples=200)
@given(
    bad=st.dictionaries(
        st.integers(0, 15), st.sampled_from([np.nan, np.inf, -np.inf, 17.0, -18.0, 1e30]), min_size=1, max_size=3
    ),
    block=st.integers(1, 17),
    threads=st.sampled_from([1, 3]),
)
def test_refusals_do_not_depend_on_the_blocks(bad, block, threads):
    """The leaf and the value named: the first not finite of the first stretch that breaks its bound, or its largest."""
    delta = np.zeros(16, np.float32)
    delta[list(bad)] = list(bad.values())
    vector = np.append(delta, np.float32(1))
    expected = refused(weigh, delta, LAYOUT, 1.0)
    assert expected == refused(verify, Update(vector, LAYOUT), LAYOUT)
    half = slice(0, 8) if np.abs(np.nan_to_num(delta[:8], nan=99)).max() > 16 else slice(8, 16)
    wrong = delta[half][~np.isfinite(delta[half])]
    value = wrong[0] if len(wrong) else delta[half][np.argmax(np.abs(delta[half]))]
    error, text = (NotFinite, f"{value}") if len(wrong) else (OutOfBound, f"{value:g}, beyond")
    assert expected[0] is error
    assert expected[1].startswith(f"leaf {'a' if half.start == 0 else 'b'!r} holds {text}")
    with in_blocks_of(block, threads):
        assert refused(weigh, delta, LAYOUT, 1.0) == expected
        assert refused(verify, Update(vector, LAYOUT), LAYOUT) == expected
        assert refused(weigh_many, np.stack([np.zeros_like(delta), delta]), LAYOUT, [1.0, 1.0]) == expected


@pytest.mark.parametrize("at", [0, BLOCK - 1, BLOCK, 2 * BLOCK - 1, 2 * BLOCK])
@pytest.mark.parametrize(("value", "error"), [(np.nan, NotFinite), (np.inf, NotFinite), (-16.5, OutOfBound)])
def test_a_bad_value_at_the_edge_of_a_block_is_found(at, value, error):
    layout = Layout((Leaf("w", (2 * BLOCK + 1,)),)).weighted(2)
    vector = np.zeros(layout.size, np.float32)
    vector[-1], vector[at] = 1, value
    assert refused(weigh, vector[:-1], layout, 1.0)[0] is error
    assert refused(verify, Update(vector, layout), layout)[0] is error
    assert refused(weigh_many, vector[None, :-1], layout, [1.0])[0] is error


@pytest.mark.parametrize("at", [0, BLOCK - 1, BLOCK, 2 * BLOCK - 1, 2 * BLOCK])
def test_a_value_off_the_grid_at_the_edge_of_a_block_is_found(at):
    layout = Layout((Leaf("w", (2 * BLOCK + 1,)),)).weighted(2)
    vector = np.zeros(layout.size)
    vector[-1], vector[at] = 2, layout.runs[0][1] / 2
    begin, end = at // 2**15 * 2**15, min(at // 2**15 * 2**15 + 2**15, layout.size - 1)
    text = f"a value in elements {begin} to {end} is not a multiple of {layout.runs[0][1]}."
    assert refused(verify, Update(vector, layout, 2), layout) == (UpdateError, text)


def test_a_value_beyond_its_bound_is_said_before_one_off_the_grid():
    vector = np.zeros(17, np.float32)
    vector[[0, 15, 16]] = 2.0**-70, np.nan, 1
    with in_blocks_of(2):
        assert refused(verify, Update(vector, LAYOUT), LAYOUT)[0] is NotFinite


def test_of_several_clients_the_first_is_refused():
    deltas = np.zeros((3, 16), np.float32)
    deltas[1, 15], deltas[2, 0] = 5, np.nan
    with in_blocks_of(4):
        assert refused(weigh_many, deltas, LAYOUT, [1.0] * 3) == refused(weigh, deltas[1], LAYOUT, 1.0)


def test_of_several_updates_none_is_added_if_one_cannot_be():
    parts = [weigh(np.ones(16, np.float32), LAYOUT, 1.0) for _ in range(4)]
    total = fold(None, parts[0])
    other = weigh(np.ones(16, np.float32), Layout(LAYOUT.leaves, 5), 1.0)
    for bad, error in (
        (other, LayoutMismatch),
        (Update(parts[0].vector[:1], LAYOUT), LayoutMismatch),
        (Update(parts[0].vector, LAYOUT, 0), CohortOverflow),
        (Update(parts[0].vector, LAYOUT, side={"scale": 1.0}), UpdateError),
    ):
        assert refused(fold, total, parts[1], bad)[0] is error
    assert refused(fold, total, *parts)[0] is CohortOverflow
    assert total.vector.tobytes() == parts[0].vector.astype(np.float64).tobytes()
