import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.core.errors import StrategyError
from fedloom.core.task import Member
from fedloom.core.weights import ByExamples, Equal, Given, power_of_two

MEMBERS = [Member("a", 100), Member("b", 200), Member("c", 150)]


@settings(max_examples=100)
@given(st.integers(0, 2**60) | st.floats(0, 2.0**60))
def test_power_of_two_is_the_smallest_that_is_not_below(least):
    found = power_of_two(least)
    assert found.bit_count() == 1
    assert found >= least
    assert found == 1 or found / 2 < least


def test_by_examples_is_exact_and_capped():
    weights = ByExamples()
    cap = weights.cap(MEMBERS)
    assert cap == 256
    assert [weights.weigh(m.name, m.examples, cap) * cap for m in MEMBERS] == [100, 200, 150]
    assert ByExamples(128).cap(MEMBERS) == 128
    assert ByExamples(128).weigh("b", 200, 128) == 1.0
    assert weights.cap([Member("a", 0)]) == 1


@pytest.mark.parametrize(("limit", "near"), [(100, 128), (0, 1), (-4, 1)])
def test_a_limit_is_a_power_of_two(limit, near):
    with pytest.raises(StrategyError, match=f"must be a power of two, got {limit}; take {near}"):
        ByExamples(limit)


def test_equal_says_nothing_about_the_data():
    assert (Equal().cap(MEMBERS), Equal().weigh("a", 5, 1), Equal.private) == (1, 1.0, False)


def test_given_weights_keep_their_ratio():
    weights = Given({"a": 3.0, "b": 1.0, "c": 5.0})
    cap = weights.cap(MEMBERS)
    assert cap == 8
    assert [weights.weigh(name, 1, cap) for name in "abc"] == [3 / 8, 1 / 8, 5 / 8]
    assert Given({"a": 0.5}).cap([Member("a", 1)]) == 1


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_given_weights_are_positive(weight):
    with pytest.raises(StrategyError, match="the weight given for 'a' must be above 0"):
        Given({"a": weight})


def test_every_member_needs_a_given_weight():
    with pytest.raises(StrategyError, match="no weight is given for b, c; name every member"):
        Given({"a": 1.0}).cap(MEMBERS)
