"""What every gather must do; a new one joins with one line in GATHERS."""

from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest

from fedloom.adapters.numpy import logistic
from fedloom.core.rng import stream
from fedloom.core.task import Fault, Train, Trained
from fedloom.core.update import fold, verify
from fedloom.gather import Encrypted, Plain, SecAgg
from fedloom.gather.secure.registry import Registry
from fedloom.recipes import fedavg
from fedloom.schedule.sync import _tasks
from fedloom.stages import FixedPoint
from small import classification, small

GATHERS = [Plain(), SecAgg(), SecAgg(fraction=0.5), Encrypted(), Encrypted(checks=1)]


@pytest.fixture(params=GATHERS, ids=repr)
def made(request):
    there = small(logistic(4), replace(fedavg(), stages=(FixedPoint(bits=24),), gather=request.param), classification())
    shared = request.param.fresh() if isinstance(request.param, Encrypted) else b""
    registry = Registry(list(there.parties), shared=shared)
    for name, party in there.parties.items():
        party.identity = registry.identity(name)
    return there


def asked(made):
    return _tasks(made.strategy, made.terms, made.state, made.federation.members(), 5, stream(0, "round 1"))[0]


def collected(made, close=lambda: None, least=0):
    return list(made.strategy.gather.collect(made.federation, asked(made), close, least))


def test_it_is_a_value(made):
    gather = made.strategy.gather
    assert isinstance(type(gather).hides, bool)
    for field in fields(gather):
        with pytest.raises(FrozenInstanceError):
            setattr(gather, field.name, 1)


def test_its_replies_answer_every_task_once_and_add_up_to_the_same_sum(made):
    replies = collected(made)
    assert sorted(number for reply in replies for number in reply.numbers) == [1, 2, 3, 4, 5]
    names = [name for reply in replies for name in reply.parties]
    assert sorted(names) == sorted(made.parties)
    total = fold(None, *(verify(reply.body.update, made.terms.total) for reply in replies))
    assert total.count == 5
    singles = small(logistic(4), replace(made.strategy, gather=Plain()), classification())
    expected = fold(None, *(reply.body.update for reply in collected(singles)))
    assert total.vector.tobytes() == expected.vector.tobytes()


def test_it_leaves_no_ask_open(made):
    collected(made)
    assert made.federation.waiting == {}


def test_it_leaves_no_ask_open_when_its_reader_leaves(made):
    replies = made.strategy.gather.collect(made.federation, asked(made), lambda: None)
    next(replies)
    replies.close()
    assert made.federation.waiting == {}


def test_it_stops_when_there_is_no_time_left(made):
    left = iter([1.0, 1.0, 1.0])
    replies = collected(made, lambda: next(left, 0.0))
    assert made.federation.waiting == {}
    assert not any(isinstance(reply.body, Trained) and reply.body.update.count == 5 for reply in replies)


def test_a_party_that_fails_is_a_fault_in_its_own_name(made):
    made.parties["site1"].holding = None
    made.parties["site1"].split = None
    replies = collected(made)
    faults = [reply for reply in replies if isinstance(reply.body, Fault)]
    assert [(reply.parties, reply.body.site) for reply in faults] == [(("site1",), "site1")]
    assert sum(reply.body.update.count for reply in replies if isinstance(reply.body, Trained)) == 4


@pytest.mark.parametrize("least", [4, 5])
def test_a_sum_of_fewer_than_count_is_not_opened(made, least):
    """With it, one that is whole would show by the difference who was missing."""
    made.parties["site1"].holding = None
    made.parties["site1"].split = None
    replies = collected(made, least=least)
    sums = [reply for reply in replies if isinstance(reply.body, Trained)]
    assert bool(sums) == (least == 4 or not made.strategy.gather.hides)
    assert sorted(number for reply in replies for number in reply.numbers) == [1, 2, 3, 4, 5]


def test_it_does_not_write_into_the_shared_vector(made):
    kept = made.state.vector.copy()
    made.state.vector.flags.writeable = False
    collected(made)
    np.testing.assert_array_equal(made.state.vector, kept)


def test_nobody_asked_is_nothing_gathered(made):
    assert list(made.strategy.gather.collect(made.federation, [], lambda: None)) == []


def test_every_training_is_the_same_for_all(made):
    seen = []
    send = made.federation.send
    made.federation.send = lambda tasks, ask=None: (seen.extend(tasks), send(tasks, ask))[1]
    collected(made)
    assert len({id(task.body) for task in seen if isinstance(task.body, Train)}) == 1
