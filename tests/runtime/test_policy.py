"""A site's policy: every refusal with its sentence, and what a fault may say on its way out."""

import logging
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.adapters.numpy import logistic
from fedloom.core.errors import ConfigError, DataError, DigestMismatch, QuorumLost
from fedloom.core.layout import Layout, Leaf
from fedloom.core.metrics import Metrics
from fedloom.core.task import Evaluate, Evaluated, Fault, Measure, Prepare, Ready, Reply, Task, Train, Trained
from fedloom.core.update import Update
from fedloom.local import Custom
from fedloom.recipes import fedavg
from fedloom.runtime.policy import DAYS, SILENT, Guarded, Policy, redacted
from fedloom.stages import Clip, Quantize
from fedloom.stages.stateless import Stateless
from fedloom.store.usage import Usage
from small import classification, small

NOON = datetime(2026, 1, 2, 12, 0)  # a Friday
SPLITS = classification()
TRAIN = Train(1, np.zeros(2, np.float32), "digest", 1, cohort=5)
WEIGHTED = Layout((Leaf("body.w"), Leaf("head.w"))).weighted(5)
ANSWERS = {
    Train: Trained(Update(np.zeros(3, np.float32), WEIGHTED), Metrics({"examples": 1})),
    Evaluate: Evaluated(Metrics({"examples": 1})),
    Measure: Update(np.zeros(1), Layout((Leaf("n"),))),
    Prepare: Ready(8, 2),
}
TASKS = {Train: TRAIN, Evaluate: Evaluate(np.zeros(2)), Measure: Measure("mean"), Prepare: Prepare({})}


@dataclass(eq=False)
class Site:
    """A party that answers as it is told to, and remembers what reached it."""

    answers: dict
    asked: list
    settled: list

    def answer(self, tasks):
        for task in tasks:
            self.asked.append(type(task.body))
            yield Reply((task.number,), (task.party,), self.answers[type(task.body)], 1.5)

    def settle(self, numbers):
        self.settled.append(numbers)


@pytest.fixture
def usages(tmp_path):
    """Return what opens the counters of a run; called again, as after a restart."""
    opened = []

    def usage(run="run 1", app="app"):
        opened.append(Usage(tmp_path / "usage.db", app, run))
        return opened[-1]

    yield usage
    for one in opened:
        one.close()


@pytest.fixture
def guarded(usages):
    def made(policy, *, party=None, usage=None, now=NOON, strategy=None, approved=True, answers=ANSWERS):
        clock = now if callable(now) else lambda: now
        site = party or Site(answers, [], [])
        yes = approved if callable(approved) else lambda: approved
        return Guarded(site, policy, usage or usages(), clock, strategy or fedavg(), 9, yes)

    return made


def asked(guard, kind=Train, **changes):
    """Return the body of the one answer."""
    task = Task(7, "oslo", replace(TASKS[kind], **changes))
    (reply,) = guard.answer([task])
    assert (reply.numbers, reply.parties) == ((7,), ("oslo",))
    return reply.body


def refused(guard, kind=Train, **changes):
    """Return the sentence of a refusal that never reached the party."""
    before = len(guard.party.asked)
    body = asked(guard, kind, **changes)
    assert isinstance(body, Fault), body
    assert (body.site, body.phase, body.error, body.trace) == ("oslo", "policy", "PolicyRefused", ())
    assert len(guard.party.asked) == before
    return body.message


@pytest.mark.parametrize("kind", ANSWERS)
def test_what_the_policy_allows_passes_as_it_is(guarded, kind):
    assert asked(guarded(Policy()), kind) is ANSWERS[kind]


def test_what_was_counted_is_passed_on(guarded):
    guard = guarded(Policy())
    guard.settle([3, 4])
    assert guard.party.settled == [[3, 4]]


@pytest.mark.parametrize("kind", ANSWERS)
def test_nothing_is_answered_before_somebody_has_approved(guarded, kind):
    said = refused(guarded(Policy(), approved=False), kind)
    assert said == "nobody has approved this app at this site; `fedloom approve APP` does, on its machine."
    assert asked(guarded(Policy(approval="any"), approved=False), kind) is ANSWERS[kind]


def test_a_revoked_app_ends_at_once(guarded):
    word = iter([True, False])
    guard = guarded(Policy(), approved=lambda: next(word))
    assert asked(guard) is ANSWERS[Train]
    assert "nobody has approved" in refused(guard)


@pytest.mark.parametrize("round", [-1, 0, 10, 1001])
def test_a_round_that_the_sites_own_copy_does_not_have(guarded, round):
    said = "this site's copy of the app has rounds 1 to 9, got {}; a longer run is another app, to be approved there."
    guard = guarded(Policy())
    assert refused(guard, round=round) == said.format(round)
    assert asked(guard, round=9) is ANSWERS[Train]
    assert asked(guard, round=9) is ANSWERS[Train]  # how often, is for `largest_rounds`


def test_a_small_cohort(guarded):
    guard = guarded(Policy(smallest_cohort=3))
    assert refused(guard, cohort=2) == "this site trains in cohorts of 3 clients or more, got 2; ask more."
    assert asked(guard, cohort=3) is ANSWERS[Train]


def test_a_task_that_says_nothing_of_its_cohort_is_refused_by_default(guarded):
    guard = guarded(Policy())
    (reply,) = guard.answer([Task(7, "oslo", Train(1, np.zeros(2, np.float32), "digest", 1))])
    assert reply.body.message == "this site trains in cohorts of 2 clients or more, got 1; ask more."


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_protection_that_the_sites_own_copy_lacks(guarded, kind):
    policy = Policy(protections=("clip", "quantize"))
    said = refused(guarded(policy, strategy=replace(fedavg(), stages=(Clip(1.0),))), kind)
    assert said == "this site's policy asks for quantize, which its copy of the app does not have; add it to the app."
    both = replace(fedavg(), stages=(Clip(1.0), Quantize(8)))
    assert asked(guarded(policy, strategy=both), kind) is ANSWERS[kind]


def test_a_gather_is_a_protection_too():
    assert Policy(protections=("Plain", "clip")).lacking(fedavg()) == ["clip"]


def test_a_class_of_the_apps_own_with_a_protections_name_does_not_count():
    own = type("Clip", (Stateless,), {"each": False, "sums": False})
    assert Policy(protections=("clip",)).lacking(replace(fedavg(), stages=(own(),))) == ["clip"]


def test_a_tensor_that_may_not_leave(guarded):
    guard = guarded(Policy(tensors=("head.*",)))
    body = asked(guard)
    assert (body.phase, body.error) == ("policy", "PolicyRefused")
    assert body.message == ("this site's policy keeps body.w at home; what may leave is head.*: share that alone.")
    assert asked(guarded(Policy(tensors=("head.*", "body.*")))) is ANSWERS[Train]


def test_a_block_beside_the_model_needs_its_own_pattern():
    layout = Layout((Leaf("w"),)).plus("control", Layout((Leaf("w"),)))
    assert Policy(tensors=("w",)).kept(layout) == ["control/w"]
    assert Policy(tensors=("w", "control/*")).kept(layout) == []


def test_objections_are_known_before_anything_is_trained():
    payload = Layout((Leaf("body.w"), Leaf("head.w")))
    assert Policy().objections(fedavg(), payload) == []
    found = Policy(protections=("clip",), tensors=("head.*",)).objections(fedavg(), payload)
    assert [said.split(",")[0] for said in found] == [
        "this site's policy asks for clip",
        "this site's policy keeps body.w at home; what may leave is head.*: share that alone.",
    ]


def test_trainings_of_a_run_are_limited_also_after_a_restart(guarded, usages):
    policy = Policy(largest_rounds=2)
    assert asked(guarded(policy)) is ANSWERS[Train]
    guard = guarded(policy, usage=usages())
    assert asked(guard) is ANSWERS[Train]
    for again in (guard, guarded(policy, usage=usages())):
        assert refused(again) == "this site answers 2 training tasks of a run at most, and has; end the run here."
    assert asked(guard, Evaluate) is ANSWERS[Evaluate]


def test_evaluations_and_statistics_count_together_and_preparing_does_not(guarded):
    guard = guarded(Policy(largest_queries=2))
    assert asked(guard, Prepare) is ANSWERS[Prepare]
    assert asked(guard, Measure) is ANSWERS[Measure]
    assert asked(guard, Evaluate) is ANSWERS[Evaluate]
    expected = "this site answers 2 evaluations and statistics of a run at most, and has; end the run here."
    assert refused(guard, Evaluate) == refused(guard, Measure) == expected
    assert asked(guard, Prepare) is ANSWERS[Prepare]
    assert asked(guard) is ANSWERS[Train]


def test_a_coordinator_cannot_begin_runs_to_count_anew(guarded, usages):
    policy = Policy(largest_runs=2)
    for run in ("a", "b", "a"):
        assert asked(guarded(policy, usage=usages(run))) is ANSWERS[Train]
    said = refused(guarded(policy, usage=usages("c")))
    assert said == "this site takes part in 2 runs of an app at most, and has; ask there for more."
    assert asked(guarded(policy, usage=usages("c", app="another"))) is ANSWERS[Train]


def test_a_fault_counts_too_and_a_refusal_does_not(guarded, usages):
    fault = Fault("oslo", "train", "ValueError", "x")
    guard = guarded(Policy(largest_rounds=1), answers={**ANSWERS, Train: fault})
    refused(guard, cohort=1)
    assert usages().spent("round") == 0
    assert asked(guard).phase == "train"
    assert "1 training tasks" in refused(guard)


def test_the_same_fault_to_the_same_question_is_counted_once(guarded, usages):
    """As where a coordinator is started again and again over a site that fails; all that is new is counted."""
    answers = {**ANSWERS, Train: Fault("oslo", "train", "ValueError", "x")}
    guard, usage = guarded(Policy(), answers=answers), usages()

    def counted(**changes):
        before = usage.spent("round")
        asked(guard, **changes)
        return usage.spent("round") - before

    assert [counted() for _ in range(4)] == [1, 0, 0, 0]
    assert [counted(start=TRAIN.start + 1), counted(round=9), counted(start=TRAIN.start + 1)] == [1, 1, 0]
    answers[Train] = Fault("oslo", "train", "ValueError", "y")
    assert [counted(), counted()] == [1, 0]
    answers[Train] = ANSWERS[Train]
    assert [counted(), counted()] == [1, 1]


def test_a_fault_that_was_not_counted_is_not_known(guarded, usages):
    answers = {**ANSWERS, Train: Fault("oslo", "train", "ValueError", "x")}
    guard = guarded(Policy(largest_rounds=1), answers=answers)
    guard.usage.spend("round")
    guard._left = lambda kind: 1  # another process has counted it in between
    assert [asked(guard).phase for _ in range(2)] == ["policy", "policy"]


def test_an_answer_is_counted_before_it_leaves(guarded, usages):
    replies = guarded(Policy()).answer([Task(7, "oslo", TRAIN)])
    assert usages().spent("round") == 0
    next(replies)
    assert usages().spent("round") == 1


def test_of_two_answers_at_once_only_as_many_leave_as_may(guarded, usages):
    """The second is admitted while the first is at work: the count before leaving decides."""
    policy, late = Policy(largest_rounds=1), []

    class Slow(Site):
        def answer(self, tasks):
            late.extend(guarded(policy, usage=usages()).answer([Task(8, "oslo", TRAIN)]))
            yield from super().answer(tasks)

    (reply,) = guarded(policy, party=Slow(ANSWERS, [], [])).answer([Task(7, "oslo", TRAIN)])
    assert late[0].body is ANSWERS[Train]
    assert (reply.body.phase, reply.seconds) == ("policy", 1.5)


def test_a_clock_that_is_set_back_gives_nothing_back(guarded):
    times = iter([NOON, NOON - timedelta(days=400)])
    guard = guarded(Policy(largest_rounds=1), now=lambda: next(times))
    assert asked(guard) is ANSWERS[Train]
    assert "1 training tasks" in refused(guard)


@pytest.mark.parametrize("kind", ANSWERS)
def test_hours_and_days(guarded, kind):
    policy = Policy(hours="22:00-06:00", days=("fri", "sat"))
    said = refused(guarded(policy), kind)
    assert said == "this site answers from 22:00 to 06:00 on fri, sat, local time; ask again then."
    assert asked(guarded(policy, now=datetime(2026, 1, 2, 23)), kind) is ANSWERS[kind]


OPEN = {
    ("08:00-17:00", DAYS, datetime(2026, 1, 2, 8, 0)): True,
    ("08:00-17:00", DAYS, datetime(2026, 1, 2, 7, 59, 59)): False,
    ("08:00-17:00", DAYS, datetime(2026, 1, 2, 17, 0)): False,
    ("22:00-06:00", DAYS, datetime(2026, 1, 2, 22, 0)): True,
    ("22:00-06:00", DAYS, datetime(2026, 1, 2, 0, 0)): True,
    ("22:00-06:00", DAYS, datetime(2026, 1, 2, 6, 0)): False,
    ("22:00-06:00", ("fri",), datetime(2026, 1, 2, 5, 0)): False,  # Thursday's night
    ("22:00-06:00", ("fri",), datetime(2026, 1, 3, 5, 0)): True,  # Friday's night, on Saturday morning
    ("22:00-06:00", ("fri",), datetime(2026, 1, 3, 22, 0)): False,
    ("22:00-06:00", ("sun",), datetime(2026, 1, 5, 5, 0)): True,  # Monday morning
    ("18:00-24:00", DAYS, datetime(2026, 1, 2, 23, 59, 59)): True,
    ("18:00-24:00", DAYS, datetime(2026, 1, 2, 0, 0)): False,
    ("18:00-00:00", DAYS, datetime(2026, 1, 2, 23, 59)): True,
    (None, ("sat",), datetime(2026, 1, 3, 12)): True,
    (None, ("sat",), datetime(2026, 1, 4, 12)): False,
}


@pytest.mark.parametrize(("hours", "days", "when"), OPEN)
def test_when_it_is_open(hours, days, when):
    assert Policy(hours=hours, days=days).open(when) is OPEN[hours, days, when]


TIMES = st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)).map(lambda t: t.replace(microsecond=0))
CLOCK = st.tuples(st.integers(0, 23), st.integers(0, 59)).map(lambda t: f"{t[0]:02}:{t[1]:02}")


@given(CLOCK, CLOCK, st.sets(st.sampled_from(DAYS), min_size=1), TIMES)
def test_it_is_open_if_walking_back_to_the_last_opening_meets_no_closing(begin, end, days, when):
    """Oracle: go back minute by minute until the clock shows the beginning (open) or the end (closed)."""
    if begin == end:
        return
    minute, clock = when.replace(second=0), ""
    while (clock := minute.strftime("%H:%M")) not in (begin, end):
        minute -= timedelta(minutes=1)
    expected = clock == begin and DAYS[minute.weekday()] in days
    assert Policy(hours=f"{begin}-{end}", days=tuple(days)).open(when) is expected


WRONG = {
    "approval": "yes",
    "smallest_cohort": 0,
    "largest_rounds": 0,
    "largest_queries": 0,
    "largest_runs": -1,
    "hours": "22:00",
    "days": ("Friday",),
    "tensors": (),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_setting_that_cannot_be_meant(name):
    with pytest.raises(ConfigError, match=f"^Policy.{name} must .*, got"):
        Policy(**{name: WRONG[name]})


@pytest.mark.parametrize("hours", ["22:00-22:00", "24:00-06:00", "22:60-06:00", "9:00-17:00", "22:00-06:00 ", "a-b"])
def test_hours_that_are_none(hours):
    with pytest.raises(ConfigError, match="two times such as"):
        Policy(hours=hours)


def test_no_days_are_no_policy():
    with pytest.raises(ConfigError, match="got none"):
        Policy(days=())


def test_a_task_that_the_policy_does_not_know(guarded):
    @dataclass(frozen=True)
    class Dump:
        pass

    guard = guarded(Policy())
    (reply,) = guard.answer([Task(7, "oslo", Dump())])
    assert reply.body.message == "this site's policy does not know a task of type Dump; update fedloom there."
    assert guard.party.asked == []


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_of_another_kind_does_not_leave(guarded, kind):
    other = ANSWERS[Measure if kind is not Measure else Evaluate]
    body = asked(guarded(Policy(), answers={kind: other}), kind)
    assert body.phase == "policy"
    assert f"does not answer a task of type {kind.__name__}" in body.message


def test_what_cannot_be_checked_is_refused(guarded, caplog):
    def damaged():
        raise ConfigError("the approval /home/oslo/x.json cannot be read")

    said = refused(guarded(Policy(), approved=damaged))
    assert said == "this site cannot check its policy, and answers nothing until it can; its log says what is wrong."
    assert "/home/oslo/x.json" in caplog.records[0].said


def test_without_counters_nothing_leaves(guarded, usages, tmp_path):
    guard = guarded(Policy(), usage=(usage := usages()))
    usage.close()
    for path in tmp_path.glob("usage.db*"):
        path.unlink()
    (tmp_path / "usage.db").write_bytes(b"this is no database, and long enough to be seen as none" * 100)
    assert "cannot check its policy" in refused(guard)


# What faults say


def test_a_fault_without_its_text_says_where_and_what(guarded, caplog):
    error = DataError("site.csv, line 3, column 'diagnosis': unknown category 'HIV+'")
    fault = Fault("oslo", "prepare", type(error).__name__, str(error), ("table.py:185 read", "app.py:3 <lambda>"))
    with caplog.at_level(logging.WARNING, "fedloom.policy"):
        said = asked(guarded(Policy(), answers={Prepare: fault}), Prepare)
    assert said == Fault("oslo", "prepare", "DataError", SILENT, fault.trace)
    assert "HIV+" in caplog.records[0].said


def test_a_policy_may_let_texts_leave(guarded):
    fault = Fault("oslo", "train", "ValueError", "could not convert 'old'")
    assert asked(guarded(Policy(fault_text=True), answers={Train: fault})) is fault


def test_what_speaks_of_digests_alone_is_told():
    error = DigestMismatch("the task is for layout 0a1b, this party has 2c3d; compare the apps.")
    said = redacted(Task(1, "oslo", TRAIN), Fault("oslo", "train", "DigestMismatch", str(error)))
    assert said.message == str(error)


def test_nothing_of_a_fault_is_a_way_around():
    """Class, place, phase and site are also texts, which code that is not ours may have chosen."""
    fault = Fault("HIV+", "HIV+", "HIV+", "HIV+", ("HIV+", "table.py:1 read", "HIV+.py:1 f", "/data/HIV/a.py:1 f"))
    said = redacted(Task(1, "oslo", TRAIN), fault)
    assert "HIV" not in repr(said)
    assert (said.site, said.phase, said.error) == ("oslo", "train", "Exception")
    assert said.trace == ("…", "table.py:1 read", "…", "…")


def test_a_cell_in_an_exception_of_the_users_code_stays_at_the_site(guarded):
    """Through the real party: the function quotes a value of its rows, and the message does not leave."""

    def quoting(params, data, config):
        raise ValueError(f"cannot use the row {data.inputs[0].tolist()}")

    there = small(logistic(4), replace(fedavg(), local=Custom(function=quoting)), SPLITS)
    body = Train(1, there.state.vector, there.terms.total.digest, there.terms.cap, cohort=5)
    task, value = Task(1, "site0", body), str(SPLITS["site0"].train.inputs[0].tolist())
    (bare,) = there.parties["site0"].answer([task])
    assert value in bare.body.message  # the oracle: unguarded it would leave
    (reply,) = guarded(Policy(), party=there.parties["site0"]).answer([task])
    assert value not in repr(reply.body)
    assert (reply.body.error, reply.body.message) == ("ValueError", SILENT)
    assert any("quoting" in place for place in reply.body.trace)


def test_the_guard_changes_no_bit_of_a_run(guarded, usages):
    """A federation of guarded parties ends where the same one without guards does."""
    plain = small(logistic(4), fedavg(), SPLITS)
    behind = small(logistic(4), fedavg(), SPLITS)
    parties = {
        name: guarded(Policy(smallest_cohort=5), party=party, usage=usages(name))
        for name, party in behind.parties.items()
    }
    behind.federation.parties = parties
    assert behind.run(3)[-1].vector.tobytes() == plain.run(3)[-1].vector.tobytes()
    assert [usages(name).spent("round") for name in parties] == [3] * len(parties)


def test_a_cohort_that_is_smaller_than_a_site_wants_ends_the_round_with_its_sentence(guarded, usages):
    there = small(logistic(4), fedavg(), SPLITS)
    policies = {name: Policy(smallest_cohort=6 if name == "site2" else 5) for name in there.parties}
    there.federation.parties = {
        name: guarded(policies[name], party=party, usage=usages(name)) for name, party in there.parties.items()
    }
    with pytest.raises(QuorumLost, match=r"site2 \(policy\): PolicyRefused: this site trains in cohorts of 6"):
        there.run(1)


SPENDER = """\
import sys
from pathlib import Path
from fedloom.store.usage import Usage
usage = Usage(Path(sys.argv[1]), "app", "run 1")
while True:
    usage.spend("round")
    print(usage.spent("round"), flush=True)
"""


@pytest.mark.slow
def test_a_killed_site_has_counted_all_that_left(tmp_path):
    path = tmp_path / "usage.db"
    process = subprocess.Popen([sys.executable, "-c", SPENDER, str(path)], stdout=subprocess.PIPE, text=True)
    with process:
        told = [int(process.stdout.readline()) for _ in range(20)]
        process.kill()
        told += [int(line) for line in process.stdout if line.endswith("\n")]
    usage = Usage(path, "app", "run 1")
    assert told == list(range(1, len(told) + 1))
    assert usage.spent("round") in (len(told), len(told) + 1)  # counted, and killed before it was told
    usage.close()
