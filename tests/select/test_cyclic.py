from collections import Counter

import pytest

from fedloom.core.errors import StrategyError
from fedloom.core.task import Member
from fedloom.select import Cyclic

MEMBERS = [Member(f"client-{i:03d}", 1) for i in range(200)]


@pytest.mark.parametrize("every", [1, 2, 7])
def test_each_member_is_asked_once_in_any_so_many_rounds(every):
    asked = [{m.name for m in Cyclic(every).pick(MEMBERS, round, None)} for round in range(1, 4 * every + 1)]
    for begin in range(len(asked) - every + 1):
        counts = Counter(name for names in asked[begin : begin + every] for name in names)
        assert set(counts.values()) == {1}
        assert len(counts) == 200


def test_members_that_come_and_go_do_not_bring_anybody_nearer():
    turns = {}
    for round in range(1, 31):
        there = MEMBERS[round : 100 + 3 * round]
        for member in Cyclic(5).pick(there, round, None):
            assert round - turns.get(member.name, -9) >= 5
            turns[member.name] = round


def test_groups_are_about_alike():
    sizes = [len(Cyclic(4).pick(MEMBERS, round, None)) for round in range(1, 5)]
    assert min(sizes) > 30


def test_nothing_is_no_distance():
    with pytest.raises(StrategyError, match=r"Cyclic\.every must be at least 1 round, got 0"):
        Cyclic(0)
