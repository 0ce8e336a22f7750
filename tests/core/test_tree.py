import json
from weakref import ref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedloom.core.errors import RunError, WireError
from fedloom.core.tree import copied, join, split
from fedloom.store.files import dump, restore
from small import same_tree

DTYPES = st.sampled_from([np.bool_, np.uint8, np.int32, np.int64, np.float32, np.float64])
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)
KEYS = st.text(max_size=5).filter(lambda key: key not in ("$array", "$tuple"))
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=150)
@given(tree=TREES)
def test_join_undoes_split_and_restore_undoes_dump(tree):
    skeleton, arrays = split(tree)
    assert same_tree(join(json.loads(json.dumps(skeleton)), arrays), tree)
    assert same_tree(restore(dump(tree)), tree)
    assert same_tree(copied(tree), tree)


@pytest.mark.parametrize("array", [np.array(2.5), np.zeros((0, 3)), np.arange(6.0).reshape(2, 3).T])
def test_shapes_survive(array):
    for back in (copied({"a": array})["a"], restore(dump({"a": array}))["a"]):
        assert back.shape == array.shape
        np.testing.assert_array_equal(back, array)


def test_scalars_of_numpy_become_pythons():
    assert split([np.int64(3), np.float32(0.5), np.bool_(True)])[0] == [3, 0.5, True]


@pytest.mark.parametrize("tree", [{1: 2}, {"$array": 1}, {"$tuple": []}, {3}, object(), {"a": [b"bytes"]}, 1j])
def test_what_is_not_in_the_closed_set_is_refused(tree):
    with pytest.raises(TypeError, match="cannot store a"):
        split(tree)


def nested(levels):
    value = 1
    for _ in range(levels):
        value = {"a": [value]}
    return value


@pytest.mark.parametrize(
    "skeleton",
    [
        {"$array": "9"},
        {"$array": []},
        {"$array": 0},
        {"$array": "0", "more": 1},
        {"$tuple": 5},
        {"$tuple": "ab"},
        {"$tuple": {}},
        {"a": [{"$tuple": [{"$array": None}]}]},
        {3},
        nested(5000),
    ],
)
def test_a_skeleton_that_split_never_writes_is_refused(skeleton):
    with pytest.raises(WireError):
        join(skeleton, {"0": np.zeros(1)})


@pytest.mark.parametrize("content", [b"", b"not a file", dump({"a": np.zeros(3)})[:-4], dump({})[:9]])
def test_damaged_bytes_are_refused(content):
    with pytest.raises(RunError, match="not a stored value, or it is damaged"):
        restore(content)


def test_copies_share_nothing():
    tree = {"a": [np.zeros(2)], "b": (np.zeros(1), 3)}
    lent = copied(tree)
    lent["a"][0] += 1
    lent["b"][0][...] = 1
    assert not tree["a"][0].any()
    assert not tree["b"][0].any()


def test_an_array_is_gone_with_the_last_who_has_it_before_anybody_collects_garbage():
    array = np.zeros(3)
    gone = ref(array)
    skeleton, arrays = split({"deep": [array]})
    del array, skeleton, arrays
    assert gone() is None
