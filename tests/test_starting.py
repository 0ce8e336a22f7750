"""How a run begins, on a clock that tests set: one site is named and waited for, and ends the run for nobody."""

from dataclasses import replace
from threading import Thread

import numpy as np
import pytest

from fedloom.core.errors import QuorumLost
from fedloom.core.task import Fault, Ready
from fedloom.core.update import Update
from fedloom.data.schema import Column, Schema
from fedloom.data.standardise import layout_of, measure, statistics
from fedloom.runtime.net.codec import reply_tree
from fedloom.starting import Start
from posts import Office

SCHEMA = Schema((Column("age", missing="mean"),), "sick", classes=("no", "yes"))
AGES = {"a": [40.0, 60.0], "b": [50.0], "c": [10.0, 20.0, 30.0]}
NOBODY = "nobody has approved this app at this site; `fedloom approve APP` does, on its machine."


class Play:
    """Three sites that answer a start; those in `refusing` refuse what they name."""

    def __init__(self, folder, **options):
        self.office, self.asked, self.told, self.result, self.error = Office(folder), [], [], None, None
        self.office.hall.roster = []
        for what in ("mean", "variance"):
            layout = layout_of(what, ("age",))
            self.office.hall.layouts[layout.digest] = layout
        self.refusing, self.bad = {}, {}
        options = {"sites": 3, "least": 3, "until": 100.0} | options
        self.start = Start(self.office.hall, **options, patience_s=10.0, told=self.told.append)
        self.thread = Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            self.result = self.start.agreed(SCHEMA)
        except QuorumLost as error:
            self.error = error

    def begin(self, *names):
        self.office.come(*names)
        self.thread.start()
        return self

    def pass_to(self, seconds):
        with self.office.hall.changed:
            self.office.clock.now = seconds
            self.office.hall.changed.notify_all()

    def again(self, name):
        self.office.hall.hear(self.office.hall.seats[name], {"kind": "again", "run": "run"})

    def answer(self, name):
        """Answer what a site was asked since the last look."""
        for said in self.office.said(name):
            if said["kind"] != "task":
                continue
            body = said["body"]
            what = body["what"] if body["task"] == "measure" else body["task"]
            self.asked.append((name, what))
            self.office.offer(name, [said["key"]], self._reply(name, what, body))

    def _reply(self, name, what, body):
        if what in self.refusing.get(name, ()):
            return reply_tree(Fault(name, "policy", "PolicyRefused", NOBODY))
        if what == "prepare":
            return reply_tree(Ready(len(AGES[name]), 1))
        found = measure({"age": np.array(AGES[name])}, what, body["known"])
        return reply_tree(self.bad[name](found) if name in self.bad else found)

    def until(self, true):
        """Let all that are connected answer until something is true, which may take as many looks as it may."""
        for _ in range(5000):
            for name in self.office.posts:
                self.answer(name)
            if true():
                return self
            self.thread.join(0.002)
        raise AssertionError((self.asked, self.told, self.error))

    def over(self):
        self.until(lambda: not self.thread.is_alive())
        return [member.name for member in self.result.members] if self.result else self.error


@pytest.fixture
def play(tmp_path):
    made = []

    def new(**options):
        made.append(Play(tmp_path, **options))
        return made[-1]

    yield new
    for each in made:
        each.pass_to(1e9)
        each.office.close()


def expected(*names):
    return statistics(lambda body: [measure({"age": np.array(AGES[n])}, body.what, body.known) for n in names], SCHEMA)


def test_all_that_answer_begin(play):
    there = play().begin("a", "b", "c")
    assert there.over() == ["a", "b", "c"]
    assert there.result.found == expected("a", "b", "c")
    assert there.result.ready == [Ready(2, 1), Ready(1, 1), Ready(3, 1)]
    assert there.office.hall.waits == ""


def test_one_that_refuses_is_named_and_waited_for_and_nobody_else_is_asked_twice(play):
    there = play()
    there.refusing["b"] = {"mean"}
    there.begin("a", "b", "c").until(lambda: NOBODY.rstrip(".") in str(there.told))
    assert there.told[-1] == f"2 of 3 sites are here: a, c; b does not answer yet: {NOBODY.rstrip('.')}"
    assert there.office.hall.waits == there.told[-1]
    there.refusing.clear()
    there.again("b")
    assert there.over() == ["a", "b", "c"]
    assert there.result.found == expected("a", "b", "c")
    assert sorted(there.asked) == sorted(
        [("b", "mean"), *[(name, what) for name in "abc" for what in ("mean", "variance", "prepare")]]
    )


@pytest.mark.parametrize("what", ["mean", "variance", "prepare"])
def test_one_that_calls_again_is_asked_again(play, what):
    there = play()
    there.refusing["c"] = {what}
    there.begin("a", "b", "c").until(lambda: "c does not answer yet" in str(there.told))
    there.refusing.clear()
    there.office.go("c")
    there.office.come("c")
    assert there.over() == ["a", "b", "c"]
    assert there.result.found == expected("a", "b", "c")


def test_when_the_time_is_over_it_begins_without_those_who_refuse(play):
    there = play(least=2)
    there.refusing["a"] = {"mean"}
    there.begin("a", "b", "c").until(lambda: "a does not answer yet" in str(there.told))
    assert there.thread.is_alive()
    there.pass_to(101.0)
    assert there.over() == ["b", "c"]
    assert there.result.found == expected("b", "c")


@pytest.mark.parametrize("what", ["variance", "prepare"])
def test_one_that_refuses_in_the_middle_is_in_no_statistic(play, what):
    there = play(sites=2, least=2)
    there.refusing["a"] = {what}
    assert there.begin("a", "b", "c").over() == ["b", "c"]
    assert there.result.found == expected("b", "c")


def test_too_few_in_time_end_with_a_reason_that_names_who_is_awaited(play):
    there = play(least=2)
    there.refusing = {"a": {"mean"}, "b": {"mean"}}
    there.begin("a", "b", "c").until(lambda: "b does not answer yet" in str(there.told))
    there.pass_to(101.0)
    error = there.over()
    assert isinstance(error, QuorumLost)
    assert "the run has not begun in time, and 2 are needed: 1 of 3 sites are here: c;" in str(error)
    assert f"a does not answer yet: {NOBODY.rstrip('.')}" in str(error)


def test_who_is_silent_is_left_out_when_the_time_is_over(play):
    there = play(least=2).begin("a", "b", "c")
    del there.office.posts["b"]  # nobody answers for it
    both, ready = {("a", "mean"), ("c", "mean")}, there.office.hall._ready
    there.until(lambda: both <= set(there.asked) and not any(ready.values()))  # and what they said was taken in
    there.pass_to(100.5)
    assert there.over() == ["a", "c"]
    assert "no reply in" in there.office.hall.seats["b"].refused["b"].message


def negative(update):
    if update.layout.leaves[0].name == "mean of age":
        return update  # a mean may be negative
    vector = update.vector.copy()
    vector[:10] = -abs(vector[:10]) - 1
    return replace(update, vector=vector)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (lambda update: Update(update.vector[:-1], update.layout), "expected a vector"),
        (lambda update: replace(update, vector=update.vector + 0.5), "beyond its bound"),
        (negative, "squared deviations is negative"),
    ],
)
def test_what_is_no_measurement_is_the_fault_of_whoever_sent_it(play, bad, said):
    there = play(least=2)
    there.bad["b"] = bad
    there.begin("a", "b", "c").until(lambda: "b does not answer yet" in str(there.told))
    assert said in there.office.hall.seats["b"].refused["b"].message
    there.pass_to(101.0)
    assert there.over() == ["a", "c"]
    assert there.result.found == expected("a", "c")


def test_who_is_away_is_said_to_be(play):
    there = play().begin("a", "b")
    there.until(lambda: there.told)
    assert there.told[-1] == "2 of 3 sites are here: a, b; c is away"
