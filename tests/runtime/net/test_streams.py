"""A buffered run behind its log: killed before any write, it takes the course that it had taken, to the same bits."""

from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import event

from fedloom.adapters.numpy import linear
from fedloom.core.errors import QuorumLost
from fedloom.core.state import State
from fedloom.core.task import Fault
from fedloom.recipes import fedbuff, sgd
from fedloom.runtime.net.codec import reply_tree
from fedloom.runtime.net.hall import Hall
from fedloom.runtime.net.kept import Kept
from fedloom.runtime.net.leases import Leases
from fedloom.runtime.net.spool import Spool
from fedloom.schedule import Buffered
from fedloom.select import Steady, Uniform
from fedloom.store.dispatches import Dispatches, Joined
from fedloom.store.files import dump, restore
from fedloom.store.journal import opened_engine
from posts import Office
from small import regression, small

STEPS = 4
FAULT = reply_tree(Fault("", "train", "MemoryError", "full"))


class Killed(BaseException):
    """The coordinator was."""


@dataclass
class Federation:
    """Sites that answer while the schedule waits, in an order, some with faults; the coordinator dies and comes back.

    Args:
        folder: of the log and the bodies.
        strategy: of the run.
        failing: dispatches that fail.
        order: of the answers; drawn, and noted, where it has none.
        kill: before which commit the coordinator dies.
        many: how many answers come at once.
        behind: by how many steps what is saved lags behind.
    """

    folder: Path
    strategy: object
    failing: set = field(default_factory=set)
    order: list = field(default_factory=list)
    kill: int | None = None
    many: int = 1
    behind: int = 0
    told: list = field(default_factory=list)
    answered: list = field(default_factory=list)
    commits: int = 0

    def __post_init__(self):
        self.made = small(linear(3), self.strategy, regression())
        self.saved = dump(self.made.state.tree())
        self.drawn = Random(3)

    def start(self):
        """Begin a process, from the state that was saved and the log."""
        members, terms = self.made.federation.members(), self.made.terms
        self.engine = opened_engine(f"sqlite:///{self.folder / 'log.db'}")
        self.log = Dispatches(self.engine)
        if not self.log.seats():
            self.log.join([Joined(member, member.name, 0) for member in members])
        event.listen(self.engine, "commit", self._commit)
        state = State.of(restore(self.saved))
        layouts = {layout.digest: layout for layout in (terms.total, terms.payload)}
        roster = [one.member for one in self.log.joined(state.round)]
        self.hall = Hall("run", layouts, Leases(), terms.total.cohort, roster=roster)
        for member in members:
            self.hall.take_seat(
                member.name, (member,), partial(Spool, self.folder / member.name, 1 << 20, claimed=True)
            )
        tell, self.hall.tell = self.hall.tell, lambda counted, void: (self._tell(counted, void), tell(counted, void))
        self.kept = Kept(self.hall, self.log, keep_bodies=True, closed=self._closed, idle=self._idle, streams=True)
        self.unsaved, self.here = [], set()
        schedule = self.made.strategy.schedule
        return schedule.run(self.made.strategy, self.made.terms, self.kept, state)

    def run(self, steps=STEPS):
        """Return the states of all steps, by step; whoever is killed is started again."""
        states = {}
        while len(states) < steps or max(states) < steps:
            try:
                for state in islice(self.start(), steps - State.of(restore(self.saved)).round):
                    states[state.round] = state
                    self.unsaved.append(state)
                break
            except Killed:
                self.kill = None
            finally:
                self.engine.dispose()
        return states

    def _closed(self, round):
        self.hall.roster = [one.member for one in self.log.joined(round)]

    def _commit(self, connection):
        if self.kill == self.commits:
            raise Killed
        self.commits += 1

    def _tell(self, counted, void):
        self.told += [(number, True) for number in counted] + [(number, False) for number in void]

    def _idle(self):
        """Save what has been reached, as a recording does, and let sites answer."""
        if len(self.unsaved) > self.behind:
            self.saved = dump(self.unsaved[-1 - self.behind].tree())
        before = len(self.here)
        for _ in range(self.many):
            awaited = {given.task.number: seat for seat in self.hall.seats.values() for given in seat.given.values()}
            done = {*self.here, *(row.numbers[0] for row in self.log.answers(range(1000)))}
            left = [number for number in self.order if number not in done]
            if awaited and (not left or left[0] in awaited):
                number = left[0] if left else self.drawn.choice(sorted(awaited))
                self._answer(awaited[number], number)
        assert len(self.here) > before, "nobody whose turn it is was asked"

    def _answer(self, seat, number):
        given = seat.given[f"train/{number}"]
        (reply,) = self.made.parties[seat.name].answer([given.task])
        tree = FAULT if number in self.failing else reply_tree(reply.body)
        self.answered.append(number)
        self.here.add(number)
        Office.offer(self, seat.name, [given.key], tree)


def strategy(**settings):
    given = {"size": 3, "concurrency": 3, "faults": 3} | settings
    return replace(fedbuff(sgd(0.1, batch_size=4)), schedule=Buffered(**given))


CASES = {
    "faults": (strategy(), {1, 4, 6, 13}),
    "and what is too stale": (strategy(size=1, concurrency=4, max_staleness=0, faults=5), {2, 7, 8}),
    "and who answers more readily": (replace(strategy(), select=Steady(1)), {2, 5, 6, 9, 14}),
    "and models": (strategy(mix="models"), {3, 4, 10}),
}


@pytest.mark.parametrize(("many", "behind"), [(1, 0), (3, 0), (1, 1)])
@pytest.mark.parametrize("case", CASES)
def test_killed_before_any_write_it_has_the_same_bits_and_nobody_is_told_what_is_not_so(case, many, behind, tmp_path):
    chosen, failing = CASES[case]
    (tmp_path / "whole").mkdir()
    whole = Federation(tmp_path / "whole", chosen, failing, many=many)
    expected, told = whole.run(), dict(whole.told)
    assert any(state.record.faults for state in expected.values())
    assert {number for number, counted in told.items() if counted} == {
        number for state in expected.values() for number in state.record.counted
    }
    for instant in range(len(case) % 7, whole.commits, 7):
        (tmp_path / str(instant)).mkdir()
        there = Federation(tmp_path / str(instant), chosen, failing, whole.answered, instant, many, behind)
        found = there.run()
        assert [found[at].record.counted for at in found] == [expected[at].record.counted for at in expected], instant
        assert [found[at].record.parties for at in found] == [expected[at].record.parties for at in expected]
        assert all(found[at].vector.tobytes() == expected[at].vector.tobytes() for at in expected)
        assert set(there.told) <= set(told.items())


def test_a_run_that_stopped_for_its_faults_asks_again_whose_was_the_last(tmp_path):
    """What followed from the others stays as it was, and the one too many does not stop it again once it is mended."""
    there = Federation(tmp_path, strategy(faults=1), {1, 2}, order=[1, 4, 2])
    with pytest.raises(QuorumLost, match="2 clients failed, and 1 may"):
        there.run()
    asked = {number: there.log.asked(number) for number in range(1, 6)}
    there.failing.clear()
    states = there.run()
    first = states[1].record
    assert (first.counted[0], [fault.error for fault in first.faults]) == (4, ["MemoryError"])
    assert 2 in {number for state in states.values() for number in state.record.counted}
    assert {number: there.log.asked(number) for number in asked if asked[number]} == {
        n: p for n, p in asked.items() if p
    }
    assert (1, False) in there.told
    assert len(dict(there.told)) == len(set(there.told))


def test_a_stop_forgets_a_fault_that_had_come_together_with_what_was_received_before(tmp_path):
    there = Federation(tmp_path, strategy(faults=0), {2}, order=[1, 2, 3], many=3)
    with pytest.raises(QuorumLost):
        there.run()
    there.failing.clear()
    assert set(there.run()) == set(range(1, STEPS + 1))


def test_who_is_mended_while_the_coordinator_is_down_does_not_change_who_was_asked(tmp_path):
    """Its fault was received, and another asked in its place: it is told so, and its later answer is nobody's."""
    there = Federation(tmp_path, strategy(size=2, concurrency=2), {1}, order=[1, 3, 2])
    expected = there.run(1)[1]
    there.failing.clear()
    again = there.run(1)[1]
    assert (again.record.counted, again.record.parties) == (expected.record.counted, expected.record.parties)
    assert again.vector.tobytes() == expected.vector.tobytes()
    assert there.answered == [1, 3, 2]


class Otherwise(Uniform):
    """Draws others than `Uniform` does."""

    def pick(self, members, round, streams):
        return super().pick(members, round, streams.child("otherwise"))


def test_whom_the_log_has_under_a_number_is_asked_again_whoever_would_be_drawn_now(tmp_path):
    """A selector may look at standings, and sees those of today."""
    there = Federation(tmp_path, strategy(size=2, concurrency=2), {1}, order=[1, 3, 2])
    expected = there.run(1)[1]
    there.made.strategy = replace(there.made.strategy, select=Otherwise(clients=1))
    again = there.run(1)[1]
    assert again.record.parties == expected.record.parties
    assert again.vector.tobytes() == expected.vector.tobytes()


def test_what_was_not_counted_leaves_no_slot_taken_for_ever(tmp_path):
    there = Federation(tmp_path, strategy(size=2, concurrency=2), {1})
    there.run(1)
    for state in there.run(5).values():
        assert len(state.schedule["flights"]) == 1
