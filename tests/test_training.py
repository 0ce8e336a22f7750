"""Rounds over a federation: who measures what, and when a run may end."""

from contextlib import closing
from dataclasses import replace

from apps import app
from fedloom.core.metrics import total
from fedloom.events import round_event
from fedloom.simulation import simulate
from fedloom.stop import Stop

NAMES = [f"client-{number:03d}" for number in range(3)]


def rounds(busy, **changes):
    """Return the states of a run; each time that it asks who still trains, it is told the next of `busy`."""
    waiting = iter(busy)
    with closing(simulate(app(**changes))) as there:
        training = replace(there, busy=lambda: next(waiting, ()))
        return list(training.rounds(training.first()))


def test_who_still_trains_is_not_waited_for_and_its_last_figures_stand_in():
    idle = rounds([], rounds=4)
    seen = rounds([[], [NAMES[1]], [NAMES[0], NAMES[1]]], rounds=4)  # of the last model everybody is asked
    assert [state.measured_at for state in seen] == [{}, {NAMES[1]: 1}, {NAMES[0]: 2, NAMES[1]: 1}, {}]
    assert [list(state.sites) for state in seen] == [NAMES] * 4
    third = [idle[1].sites[NAMES[0]], idle[0].sites[NAMES[1]], idle[2].sites[NAMES[2]]]
    assert seen[2].metrics.view() == total(third).view()
    assert round_event(seen[2])["measured_at"] == {NAMES[0]: 2, NAMES[1]: 1}
    assert "measured_at" not in round_event(seen[3])
    for state, other in zip(seen, idle, strict=True):
        assert state.vector.tobytes() == other.vector.tobytes()
    assert seen[3].metrics.view() == idle[3].metrics.view()


def test_of_whom_nothing_is_known_yet_is_waited_for():
    first, *_ = rounds([NAMES], rounds=3)
    assert (list(first.sites), first.measured_at) == (NAMES, {})


def test_a_run_does_not_end_on_figures_of_earlier_models():
    """It measures with everybody first, and goes on where these say otherwise."""
    losses = [state.metrics.view()["loss"] for state in rounds([], rounds=4)]
    mixed = rounds([[], [NAMES[0]]], rounds=4)[1].metrics.view()["loss"]
    assert losses[1] < mixed < losses[0]

    reached = rounds([[], [NAMES[0]]], rounds=4, stop=Stop(target={"loss": mixed}))[-1]
    assert (reached.status, reached.round, reached.measured_at) == ("target_reached", 2, {})
    assert reached.metrics.view()["loss"] == losses[1]

    better = losses[0] - (mixed + losses[1]) / 2  # by less, nothing has become better
    on = rounds([[], [NAMES[0]]], rounds=4, stop=Stop(patience=1, min_change=better))[1]
    assert (on.status, on.round, on.measured_at) == ("running", 2, {})
