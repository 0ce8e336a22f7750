"""What every schedule must do; a new one joins with one line in SCHEDULES."""

from dataclasses import FrozenInstanceError, fields, replace
from itertools import islice

import pytest

import fedloom
from fedloom.adapters.numpy import logistic
from fedloom.core.errors import QuorumLost
from fedloom.core.state import State
from fedloom.core.task import Fault, Reply, Train
from fedloom.recipes import fedavg, fedavgm
from fedloom.runtime.traces import Traces
from fedloom.runtime.virtual import Virtual
from fedloom.schedule import Buffered, Sync
from fedloom.store.files import dump, restore
from small import SIZES, classification, same_tree, small

SLOW = Traces(compute="lognormal", mean_s=1.0, sigma=1.0)
SCHEDULES = [
    Sync(),
    Sync(quorum=2),
    Sync(quorum=0, deadline_s=0.7),
    Sync(quorum=3, early=True),
    Buffered(size=1, concurrency=1),
    Buffered(size=2, concurrency=4),
    Buffered(size=2, concurrency=5, mix="models", max_staleness=3, deadline_s=2.5, faults=5),
]
NAMES = [f"site{at}" for at in range(len(SIZES))]


@pytest.fixture(params=SCHEDULES, ids=repr)
def schedule(request):
    return request.param


class Told:
    """A federation in virtual time that notes what it is asked and told, and whose named parties fail."""

    def __init__(self, inner, failing=()):
        self.inner, self.failing, self.tasks, self.settled, self.cancelled = inner, failing, [], [], []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def send(self, tasks, ask=None):
        self.tasks += tasks
        return self.inner.send(tasks, ask)

    def receive(self, ask, timeout_s):
        reply = self.inner.receive(ask, timeout_s)
        if reply is None or not set(reply.parties) & set(self.failing):
            return reply
        return Reply(reply.numbers, reply.parties, Fault(reply.parties[0], "train", "ValueError", "it fails"))

    def settle(self, numbers):
        self.settled.append(tuple(numbers))
        self.inner.settle(numbers)

    def cancel(self, ask):
        self.cancelled.append(ask)
        self.inner.cancel(ask)


def there(schedule, recipe=fedavgm, failing=(), start=None):
    """Return a federation of five sites that differ in speed, and the strategy's next states."""
    select = fedloom.Uniform(clients=1) if schedule.streams else fedloom.Uniform(clients=4)
    strategy = replace(recipe(fedloom.sgd(0.1)), schedule=schedule, select=select)
    found = small(logistic(4), strategy, classification())
    found.federation = Told(Virtual(found.federation, SLOW, seed=3), failing)
    return found, schedule.run(strategy, found.terms, found.federation, found.state if start is None else start)


def test_rounds_are_counted_one_by_one_and_numbers_of_dispatches_never_used_twice(schedule):
    found, states = there(schedule)
    seen = list(islice(states, 6))
    assert [state.round for state in seen] == [1, 2, 3, 4, 5, 6]
    assert [state.record.round for state in seen] == [1, 2, 3, 4, 5, 6]
    numbers = [task.number for task in found.federation.tasks]
    assert len(set(numbers)) == len(numbers)
    assert max(numbers) <= seen[-1].dispatched
    assert all(isinstance(task.body, Train) for task in found.federation.tasks)


def test_what_is_counted_was_asked_answered_and_is_told_once(schedule):
    found, states = there(schedule)
    seen = list(islice(states, 6))
    parties = {task.number: task.party for task in found.federation.tasks}
    counted = [number for state in seen for number in state.record.counted]
    assert len(set(counted)) == len(counted)
    assert [number for told in found.federation.settled for number in told] == counted
    for state in seen:
        assert [parties[number] for number in state.record.counted] == list(state.record.parties)
        faulty = {fault.site for fault in state.record.faults}
        assert set(state.record.parties) | faulty <= set(NAMES)


def test_the_state_alone_decides_how_it_goes_on(schedule):
    """Stored and restored after two rounds, the next two have the bits of the run that went on."""
    _, states = there(schedule)
    whole = list(islice(states, 4))
    _, again = there(schedule)
    kept = list(islice(again, 2))[-1]
    restored = State.of(restore(dump(kept.tree())))
    if schedule.streams:  # whom it has in flight is sent again, with its age: virtual delays follow from numbers
        found, states = there(schedule, start=restored)
        next(states)
        assert {task.number for task in found.federation.tasks} >= {row[0] for row in kept.schedule["flights"]}
        return
    _, states = there(schedule, start=restored)
    for state, other in zip(islice(states, 2), whole[2:], strict=True):
        assert state.vector.tobytes() == other.vector.tobytes()
        assert same_tree(state.optimizer, other.optimizer)


def test_the_seeds_decide(schedule):
    vectors = [[state.vector.tobytes() for state in islice(there(schedule)[1], 3)] for _ in range(2)]
    assert vectors[0] == vectors[1]


def test_states_are_values(schedule):
    found, states = there(schedule)
    before = found.state.vector.copy()
    first = next(states)
    kept = first.vector.copy()
    list(islice(states, 3))
    assert found.state.vector.tobytes() == before.tobytes()
    assert first.vector.tobytes() == kept.tobytes()


def test_who_fails_is_named_and_never_counted(schedule):
    _, states = there(schedule, failing=["site1"])
    bears = schedule.faults if schedule.streams else schedule.quorum != 1
    if not bears:
        with pytest.raises(QuorumLost, match=r"site1 \(train\): ValueError: it fails"):
            list(islice(states, 20))
        return
    seen = list(islice(states, 20))
    assert "site1" not in {party for state in seen for party in state.record.parties}
    said = {fault.message for state in seen for fault in state.record.faults if fault.site == "site1"}
    assert "it fails" in said


def test_nothing_stays_open_when_it_is_closed(schedule):
    found, states = there(schedule)
    next(states)
    states.close()
    assert not found.federation.inner.coming


def test_nobody_who_answers_is_a_quorum_lost_or_an_unmoved_model(schedule):
    found, states = there(schedule, recipe=fedavg, failing=NAMES)
    if getattr(schedule, "quorum", 1) == 0:
        assert next(states).vector.tobytes() == found.state.vector.tobytes()
        return
    with pytest.raises(QuorumLost):
        next(states)


def test_it_is_a_frozen_value(schedule):
    assert schedule == replace(schedule)
    with pytest.raises(FrozenInstanceError):
        setattr(schedule, fields(schedule)[0].name, 1)
