import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.store.memories import Memories
from small import same_tree


def tree(n):
    return {"local": np.full(n, n, np.float32), "stages": [None], "gather": None}


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 3000)), max_size=60), st.integers(1, 30_000))
def test_it_is_a_dict_whatever_fits_at_hand(moves, budget):
    memories, plain = Memories(budget), {}
    for name, n in moves:
        memories[name] = plain[name] = tree(n)
        assert same_tree(memories[name], plain[name])
    assert set(memories) == set(plain)
    assert len(memories) == len(plain)
    assert all(same_tree(memories[name], plain[name]) for name in plain)
    memories.close()


def test_memory_is_bounded_and_the_file_does_not_grow_when_sizes_stay():
    memories = Memories(budget=100_000)
    for turn in range(5):
        for at in range(100):
            memories[f"c{at}"] = {"local": np.full(2000, turn, np.float32)}
            assert memories.used <= 100_000
    assert memories._end < 100 * 8600
    assert [memories[f"c{at}"]["local"][0] for at in (0, 50, 99)] == [4, 4, 4]
    memories.close()


def test_nothing_needs_no_place_but_replaces_something():
    memories = Memories(earlier=lambda name: tree(3) if name == "old" else None)
    memories["new"] = {"local": None, "stages": [None], "gather": None}
    assert "new" not in memories
    assert len(memories) == 0
    assert memories["old"]["local"].size == 3
    memories["old"] = {"local": None, "stages": [None], "gather": None}
    assert memories["old"]["local"] is None


def test_what_was_never_there():
    memories = Memories()
    with pytest.raises(KeyError):
        memories["a"]
    with pytest.raises(KeyError):
        del memories["a"]
    memories["a"] = tree(2)
    del memories["a"]
    assert memories.get("a") is None
    assert memories.used == 0
