"""What every selector must do; a new one joins with one line in SELECTORS."""

from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest

from fedloom.core.event import NOT_PRIVATE, DpEvent
from fedloom.core.rng import stream
from fedloom.core.task import Member
from fedloom.select import Cyclic, Everyone, Poisson, Steady, Uniform

SELECTORS = [
    Everyone(),
    *(Cyclic(1), Cyclic(4)),
    Steady(4),
    Uniform(clients=4),
    Uniform(fraction=0.4),
    Poisson(0.4),
    Poisson(0.4, cap=3),
    Poisson(1.0),
]
MEMBERS = [Member(f"m{i}", i) for i in range(9)]


@pytest.fixture(params=SELECTORS, ids=repr)
def selector(request):
    return request.param


def pick(selector, round, seed=0):
    return list(selector.pick(MEMBERS, round, stream(seed, f"round {round}").child("select")))


def test_members_are_asked_once_and_in_their_order(selector):
    for round in range(1, 60):
        cohort = pick(selector, round)
        places = [MEMBERS.index(member) for member in cohort]
        assert places == sorted(set(places))


def test_the_streams_alone_decide(selector):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert [pick(selector, round) for round in range(1, 20)] == [pick(selector, round) for round in range(1, 20)]
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_rounds_and_seeds_differ_unless_everybody_is_asked(selector):
    if all(len(pick(selector, round)) == len(MEMBERS) for round in range(1, 4)):
        return
    assert len({tuple(m.name for m in pick(selector, round)) for round in range(1, 30)}) > 1
    turns = isinstance(selector, Cyclic)  # whose turn it is follows from nothing but the round
    assert ([pick(selector, 1, seed) for seed in range(30)] == [pick(selector, 1)] * 30) == turns


def test_never_more_than_the_most(selector):
    assert max(len(pick(selector, round)) for round in range(1, 60)) <= selector.most(len(MEMBERS)) <= len(MEMBERS)


def test_the_members_stay_as_they_are(selector):
    kept = list(MEMBERS)
    pick(selector, 1)
    assert kept == MEMBERS


def test_every_member_is_asked_some_time(selector):
    assert {m.name for round in range(1, 60) for m in pick(selector, round)} == {m.name for m in MEMBERS}


def test_it_describes_its_sampling(selector):
    assert isinstance(selector.event(NOT_PRIVATE), DpEvent)


def test_it_is_a_frozen_record(selector):
    for field in fields(selector):
        with pytest.raises(FrozenInstanceError):
            setattr(selector, field.name, 0)
