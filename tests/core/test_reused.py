"""Memory is used again once nobody looks at it, and never before."""

import gc
from threading import Thread

import numpy as np
import pytest

from fedloom.core import reused

SIZE = reused.LARGE // 4


@pytest.fixture(autouse=True)
def nothing_spare():
    reused._SPARE.clear()


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_that_nobody_looks_at_is_used_again():
    one = reused.empty(SIZE, np.float32)
    place = address(one)
    del one
    assert address(reused.empty(SIZE // 2, np.float64)) == place


@pytest.mark.parametrize(
    "view",
    [lambda a: a[5:9], lambda a: a.view(np.uint8).data, lambda a: memoryview(a)[3:], lambda a: a.reshape(2, -1).T],
)
def test_a_view_keeps_its_memory(view):
    one = reused.empty(SIZE, np.float32)
    one.fill(7)
    seen = view(one)
    before = np.asarray(seen).copy()
    del one
    gc.collect()
    reused.empty(SIZE, np.float32).fill(1)
    assert np.array_equal(np.asarray(seen), before)


def test_memory_of_another_size_is_left_for_who_needs_it():
    one = reused.empty(SIZE, np.float32)
    place = address(one)
    del one
    other = reused.empty(2 * SIZE, np.float32)
    assert other.size == 2 * SIZE
    assert address(reused.empty(SIZE, np.float32)) == place


def test_no_more_than_a_few_pieces_wait():
    some = [reused.empty(SIZE, np.float32) for _ in range(reused.KEPT + 3)]
    del some
    assert len(reused._SPARE) == reused.KEPT


def test_a_small_array_is_numpys_own():
    assert reused.empty(3, np.float32).base is None


@pytest.mark.parametrize("dtype", [None, np.float64])
def test_a_copy_has_the_values_the_shape_and_its_own_memory(dtype):
    array = np.arange(2 * SIZE, dtype=np.float32).reshape(2, -1)[:, ::2]
    copy = reused.copied(array, dtype)
    assert copy.dtype == (dtype or np.float32)
    assert np.array_equal(copy, array)
    assert not np.shares_memory(copy, array)


def test_threads_never_share_memory():
    wrong = []

    def use(value):
        for _ in range(50):
            one = reused.empty(SIZE, np.uint8 if value % 2 else np.int8)
            one.fill(value)
            wrong.extend([value] * bool((one[:: 1 << 12] != value).any()))

    threads = [Thread(target=use, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
