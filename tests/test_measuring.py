"""Figures of sites as they come: who is waited for, whose last ones stand in, and what comes later."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from fedloom.core.metrics import Metrics
from fedloom.core.task import Ask, Evaluate, Evaluated, Fault, Reply
from fedloom.measuring import Measuring

NAMES = ["a", "b", "c"]
BODY = Evaluate(np.zeros(1, np.float32))


@dataclass
class Answering:
    """A federation in which those who are busy answer when they are let."""

    busy: set = field(default_factory=set)
    asked: list = field(default_factory=list)  # of each ask: its number, and whom
    open: dict = field(default_factory=dict)
    bad: set = field(default_factory=set)

    def send(self, tasks):
        ask = Ask(len(self.asked))
        self.asked.append([task.party for task in tasks])
        self.open[ask.id] = [(ask.id, task) for task in tasks]
        return ask

    def now(self):
        return 0.0

    def receive(self, ask, timeout_s):
        ready = [one for one in self.open.get(ask.id, ()) if one[1].party not in self.busy]
        assert ready or timeout_s == 0.0 or not self.open.get(ask.id), "it would wait for who is busy"
        if not ready:
            return None
        self.open[ask.id].remove(ready[0])
        number, task = ready[0]
        body = Evaluated(Metrics({"examples": 1, "loss": float(number)}))
        if task.party in self.bad:
            body = Fault(task.party, "evaluate", "ValueError", "no")
        return Reply((task.number,), (task.party,), body)

    def cancel(self, ask):
        self.open.pop(ask.id, None)


def made(later=False):
    there = Answering()
    return there, Measuring(there, lambda: set(there.busy), later)


def losses(found):
    """Return which round's model each site's figures are of, and the ask that they came by."""
    return {name: (round, int(metrics.sums["loss"])) for name, (round, metrics) in found.items()}


def test_who_is_busy_is_not_asked_and_stands_in_with_what_is_known():
    there, measuring = made()
    assert losses(measuring.of(NAMES, 1, BODY, False)[0]) == {"a": (1, 0), "b": (1, 0), "c": (1, 0)}
    there.busy = {"b"}
    assert losses(measuring.of(NAMES, 2, BODY, False)[0]) == {"a": (2, 1), "b": (1, 0), "c": (2, 1)}
    assert there.asked[-1] == ["a", "c"]
    there.busy = set()
    found, _ = measuring.of(NAMES, 3, BODY, False)
    assert (list(found), losses(found)["b"]) == (NAMES, (3, 2))


@pytest.mark.parametrize("everybody", [True, False])
def test_everybody_is_waited_for_where_that_is_due_and_whoever_is_new(everybody):
    there, measuring = made()
    if everybody:
        measuring.of(NAMES, 1, BODY, False)
    there.busy = {"b"}
    with pytest.raises(AssertionError, match="it would wait for who is busy"):
        measuring.of(NAMES, 2, BODY, everybody)


def test_where_not_every_round_is_measured_who_is_busy_measures_when_it_has_trained():
    there, measuring = made(later=True)
    measuring.of(NAMES, 10, BODY, False)
    there.busy = {"b", "c"}
    assert losses(measuring.of(NAMES, 20, BODY, False)[0]) == {"a": (20, 1), "b": (10, 0), "c": (10, 0)}
    assert there.asked[-1] == ["b", "c"]  # the third ask, and number 2
    there.busy = {"c"}  # b has trained, and measured what it was asked then
    found, _ = measuring.of(["b", "c"], 30, BODY, False)
    assert losses(found) == {"b": (30, 3), "c": (10, 0)}
    there.busy = {"b", "c"}
    assert losses(measuring.of(NAMES, 40, BODY, False)[0])["b"] == (30, 3)
    there.busy = {"c"}
    assert losses(measuring.of(["c"], 50, BODY, False)[0]) == {"c": (10, 0)}
    assert measuring.known["b"][0] == 40  # it came between
    measuring.close()
    assert there.open == {}


def test_who_fails_is_named_and_its_last_figures_do_not_stand_in():
    there, measuring = made()
    measuring.of(NAMES, 1, BODY, False)
    there.bad = {"b"}
    found, faults = measuring.of(NAMES, 2, BODY, False)
    assert (list(found), [fault.site for fault in faults]) == (["a", "c"], ["b"])
