"""Rounds over a federation: who measures what, and when a run may end."""

from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import ref

from apps import app
from fedloom.core.metrics import total
from fedloom.core.task import Evaluated
from fedloom.events import round_event
from fedloom.simulation import simulate
from fedloom.stop import Stop

NAMES = [f"client-{number:03d}" for number in range(3)]


@dataclass
class Holding:
    """A federation in which those who train measure when they have."""

    inner: Any
    turns: list
    busy: set = field(default_factory=set)
    held: dict = field(default_factory=dict)

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def turn(self):
        """Return who trains when a round is measured: each time the next of `turns`."""
        self.busy = set(self.turns.pop(0)) if self.turns else set()
        return self.busy

    def receive(self, ask, timeout_s):
        held = self.held.setdefault(ask.id, [])
        while (reply := self.inner.receive(ask, timeout_s)) is not None:
            held.append(reply)
        ready = [one for one in held if not (isinstance(one.body, Evaluated) and set(one.parties) & self.busy)]
        for one in ready[:1]:
            held.remove(one)
            return one
        return None


def rounds(turns, **changes):
    """Return the states of a run in which those of `turns` still train when a round is measured."""
    with closing(simulate(app(**changes))) as there:
        holding = Holding(there.federation, list(turns))
        training = replace(there, federation=holding, busy=holding.turn, patience_s=0.01)
        return list(training.rounds(training.first()))


def losses(states):
    return [state.metrics.view()["loss"] for state in states]


def test_who_still_trains_is_not_waited_for_and_its_last_figures_stand_in():
    idle = rounds([], rounds=4)
    seen = rounds([[], [NAMES[1]], [NAMES[0], NAMES[1]]], rounds=4)
    assert [state.measured_at for state in seen[:3]] == [{}, {NAMES[1]: 1}, {NAMES[0]: 2, NAMES[1]: 1}]
    assert [list(state.sites) for state in seen] == [NAMES] * 4
    third = [idle[1].sites[NAMES[0]], idle[0].sites[NAMES[1]], idle[2].sites[NAMES[2]]]
    assert seen[2].metrics.view() == total(third).view()
    assert round_event(seen[2])["measured_at"] == {NAMES[0]: 2, NAMES[1]: 1}
    assert "measured_at" not in round_event(seen[3])
    for state, other in zip(seen, idle, strict=True):
        assert state.vector.tobytes() == other.vector.tobytes()
    assert losses(seen)[3] == losses(idle)[3]


def test_nothing_is_judged_before_all_who_train_are_known():
    """The others reach the target from the first round on."""
    easy = max(metrics.view()["loss"] for metrics in rounds([], rounds=1)[0].sites.values()) + 1.0
    seen = rounds([[NAMES[0]], [NAMES[0]], []], rounds=5, stop=Stop(target={"loss": easy}))
    assert [list(state.sites) for state in seen] == [NAMES[1:], NAMES[1:], NAMES]
    assert [state.status for state in seen] == ["running", "running", "target_reached"]


def test_before_a_run_ends_on_figures_of_earlier_models_everybody_measures():
    """And it goes on where these say otherwise."""
    fresh, stale = losses(rounds([], rounds=4)), losses(rounds([[], [NAMES[0]]], rounds=4))
    assert fresh[1] < stale[1] < fresh[0]

    reached = rounds([[], [NAMES[0]]], rounds=4, stop=Stop(target={"loss": stale[1]}))[-1]
    assert (reached.status, reached.round, reached.measured_at) == ("target_reached", 2, {})
    assert losses([reached]) == [fresh[1]]

    better = fresh[0] - (stale[1] + fresh[1]) / 2  # by less, nothing has become better
    on = rounds([[], [NAMES[0]]], rounds=4, stop=Stop(patience=1, min_change=better))[1]
    assert (on.status, on.round, on.measured_at) == ("running", 2, {})


def test_who_trains_for_longer_than_a_while_holds_up_no_end_and_is_told():
    stale = losses(rounds([[], [NAMES[0]]], rounds=4))
    for stop, round in ((Stop(target={"loss": stale[1]}), 2), (Stop(), 4)):
        busy = [[], *[[NAMES[0]]] * 9]
        end = rounds(busy, rounds=4, stop=stop)[-1]
        assert (end.round, end.measured_at, list(end.sites)) == (round, {NAMES[0]: 1}, NAMES)


def test_what_a_run_began_with_is_kept_by_nobody():
    """It is as large as a model."""
    with closing(simulate(app(rounds=4))) as there:
        first = there.first()
        began, states = ref(first), there.rounds(first)
        del first
        for _ in range(2):
            next(states)
        assert began() is None
