"""Figures of sites as they come: who is waited for, whose last ones stand in, and what comes later."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from fedloom.core.metrics import Metrics
from fedloom.core.task import Ask, Evaluate, Evaluated, Fault, Reply
from fedloom.measuring import Measuring

NAMES = ["a", "b", "c"]
BODY = Evaluate(np.zeros(1, np.float32))
PATIENCE_S = 120.0


@dataclass
class Answering:
    """A federation in which those who are busy answer when they are let; its clock moves while it is waited for."""

    busy: set = field(default_factory=set)
    asked: list = field(default_factory=list)  # of each ask: its number, and whom
    open: dict = field(default_factory=dict)
    bad: set = field(default_factory=set)
    clock: float = 0.0

    def send(self, tasks):
        ask = Ask(len(self.asked))
        self.asked.append([task.party for task in tasks])
        self.open[ask.id] = list(tasks)
        return ask

    def now(self):
        return self.clock

    def receive(self, ask, timeout_s):
        ready = [task for task in self.open.get(ask.id, ()) if task.party not in self.busy]
        if not ready:
            assert timeout_s is not None or not self.open.get(ask.id), "it would wait for who is busy without end"
            self.clock += timeout_s or 0.0
            return None
        self.open[ask.id].remove(ready[0])
        task = ready[0]
        body = Evaluated(Metrics({"examples": 1, "loss": float(ask.id)}))
        if task.party in self.bad:
            body = Fault(task.party, "evaluate", "ValueError", "no")
        return Reply((task.number,), (task.party,), body)

    def cancel(self, ask):
        self.open.pop(ask.id, None)


@pytest.fixture
def there():
    return Answering()


@pytest.fixture
def measuring(there):
    return Measuring(there, lambda: set(there.busy), PATIENCE_S)


def of(measuring, round, names=NAMES, everybody=False):
    """Return which round's model each site's figures are of, and the ask that they came by; and the rest."""
    seen = measuring.of(names, round, BODY, everybody)
    found = {name: (of, int(metrics.sums["loss"])) for name, (of, metrics) in seen.figures.items()}
    return found, [fault.site for fault in seen.faults], seen.whole


def test_who_is_busy_is_not_waited_for_and_stands_in_with_what_is_known(there, measuring):
    assert of(measuring, 1) == ({"a": (1, 0), "b": (1, 0), "c": (1, 0)}, [], True)
    there.busy = {"b"}
    assert of(measuring, 2) == ({"a": (2, 1), "b": (1, 0), "c": (2, 1)}, [], True)
    there.busy = set()
    found, _, _ = of(measuring, 3)
    assert (list(found), found["b"]) == (NAMES, (3, 2))
    assert there.clock == 0.0


def test_who_is_busy_measures_when_it_has_trained_and_is_asked_once_at_a_time(there, measuring):
    of(measuring, 1)
    there.busy = {"b"}
    for round in (2, 3, 4):
        assert of(measuring, round)[0]["b"] == (1, 0)
    assert there.asked[1:] == [NAMES, ["a", "c"], ["a", "c"]]


def test_figures_that_come_later_are_of_the_model_that_was_asked_about(there, measuring):
    of(measuring, 10)
    there.busy = {"b"}
    of(measuring, 20)
    there.busy = set()
    assert measuring._take_late() == []
    there.busy = {"b"}
    assert of(measuring, 30)[0]["b"] == (20, 1)
    assert there.asked[-1] == NAMES  # it trains again, and is asked again


def test_of_whom_nothing_is_known_is_not_waited_for_and_nothing_is_whole_before(there, measuring):
    there.busy = {"b"}
    for round in (1, 2):
        assert of(measuring, round) == ({"a": (round, round - 1), "c": (round, round - 1)}, [], False)
    there.busy = set()
    assert of(measuring, 3)[2]


def test_where_everybody_is_due_the_busy_are_waited_for_a_while(there, measuring):
    of(measuring, 1)
    there.busy = {"b"}
    of(measuring, 2)
    assert of(measuring, 3, everybody=True) == ({"a": (3, 2), "b": (1, 0), "c": (3, 2)}, [], True)
    assert (there.clock, there.open) == (PATIENCE_S, {})


def test_who_fails_is_named_and_its_last_figures_do_not_stand_in(there, measuring):
    of(measuring, 1)
    there.bad = {"b"}
    assert of(measuring, 2)[:2] == ({"a": (2, 1), "c": (2, 1)}, ["b"])
    there.bad, there.busy = {"c"}, {"c"}
    of(measuring, 3)
    there.busy = set()
    assert of(measuring, 4, ["a"])[1] == ["c"]  # what it was asked before, and failed at


def test_nothing_stays_open_at_the_end(there, measuring):
    there.busy = {"b"}
    of(measuring, 1)
    measuring.close()
    assert there.open == {}
