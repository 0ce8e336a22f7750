"""A site's ledger: what counts, what is refused, and that neither crash, clock, copy nor a second process helps."""

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import fedloom
from fedloom.core.budget import Budget
from fedloom.core.errors import RecordError, RunError
from fedloom.core.event import DpEvent
from fedloom.core.task import Evaluate, Measure, Prepare, Train
from fedloom.privacy.account import Account
from fedloom.privacy.compose import composed
from fedloom.privacy.ledger import COORDINATOR, FILE, MARK, SITE, TOGETHER, Ledger, marks, run_of
from fedloom.privacy.standing import standings
from fedloom.store.notes import Notes

DELTA = 1e-5
PRIVATE = fedloom.dp_fedavg(rate=0.5, noise_multiplier=4.0, delta=DELTA)
TRAIN, EVALUATE, MEASURE = Train(1, np.zeros(2), "digest", 1), Evaluate(np.zeros(2)), Measure("mean")
DATA, OTHER, BOTH = ("a" * 64, 2, ["01", "02"]), ("b" * 64, 2, ["03", "04"]), ("c" * 64, 2, ["02", "03"])


def costs(answers, z=4.0):
    return composed([(DpEvent("gaussian", {"noise_multiplier": z}), answers)], DELTA).epsilon


BUDGET = Budget(epsilon=(costs(3) + costs(4)) / 2, delta=DELTA)  # room for three answers


def account(home, *, run="run-1", data=DATA, budget=BUDGET, strategy=PRIVATE, rounds=10):
    """Return a data set's account in a run, as a process that has just begun finds it."""
    (home / "runs" / run).mkdir(parents=True, exist_ok=True)
    ledger = Ledger.opened(home / FILE, marks(home / "runs"))
    described = run_of(strategy, run=run, app="digest", name="app", rounds=rounds)
    return Account.opened(ledger, ledger.known(*data), described, budget, Notes(home / "runs" / run / "site.db"))


def answered(account, body=TRAIN):
    """Answer once, as the guard does; return whether it left."""
    return not account.objection(body) and not account.spend(body)


def standing(home, budget=BUDGET):
    return standings(Ledger.opened(home / FILE), budget, DELTA)


def test_answers_are_counted_until_the_budget_is_spent_and_then_no_run_is_answered(tmp_path):
    first = account(tmp_path)
    assert [answered(first) for _ in range(5)] == [True, True, True, False, False]
    assert first.objection(TRAIN) == (
        f"this data set has spent ε = {costs(3):.4g} of this site's budget of {BUDGET}, over all runs, and one answer "
        f"more would bring it to {costs(4):.4g}; this site answers no further."
    )
    for run in ("run-1", "run-2"):
        assert not answered(account(tmp_path, run=run))
    (found,) = standing(tmp_path)
    assert (found.total.epsilon, found.left) == (costs(3), BUDGET.epsilon - costs(3))
    assert [run.answers for run in found.runs] == [{"train": 3}]


def test_runs_of_different_noise_are_composed(tmp_path):
    louder = fedloom.dp_fedavg(rate=0.5, noise_multiplier=8.0, delta=DELTA)
    wide = Budget(epsilon=10.0, delta=DELTA)
    assert answered(account(tmp_path, budget=wide))
    assert answered(account(tmp_path, run="run-2", strategy=louder, budget=wide))
    (found,) = standing(tmp_path, wide)
    assert found.total.epsilon == pytest.approx(costs(1, z=(1 / 16 + 1 / 64) ** -0.5), rel=1e-6)
    assert found.total.epsilon < costs(1) + costs(1, z=8.0)


def test_what_the_coordinator_says_of_rounds_changes_nothing(tmp_path):
    one = account(tmp_path)
    assert [answered(one, replace(TRAIN, round=round)) for round in (7, 7, 1, 1)] == [True, True, True, False]


def test_an_app_that_is_not_private_is_refused_where_there_is_a_budget(tmp_path):
    plain = account(tmp_path, strategy=fedloom.fedavg())
    assert plain.objection(TRAIN) == (
        f"this site's policy sets a budget of {BUDGET}, and its updates are not differentially private (ε = ∞); take "
        f"an app that is, such as dp_fedavg, with data.holdout = 0, nothing to standardise and `serve --test`."
    )
    seeded = fedloom.dp_fedavg(rate=0.5, noise_multiplier=4.0, delta=DELTA, seeded=True)
    assert "(ε = ∞)" in account(tmp_path, run="run-2", strategy=seeded).objection(TRAIN)
    assert "figures of held-out rows are not" in account(tmp_path).objection(EVALUATE)
    assert "sums of columns are not" in account(tmp_path).spend(MEASURE)
    assert standing(tmp_path)[0].runs == ()


def test_without_a_budget_everything_is_written_down_and_nothing_refused(tmp_path):
    one = account(tmp_path, budget=None, strategy=fedloom.fedavg())
    assert all(answered(one, body) for body in (MEASURE, Prepare({}), TRAIN, EVALUATE, TRAIN))
    (found,) = standing(tmp_path, None)
    assert found.runs[0].answers == {"measure": 1, "train": 2, "evaluate": 1}
    assert (found.total.epsilon, found.left) == (math.inf, None)
    assert not answered(account(tmp_path, run="run-2"))  # a budget comes too late for these rows


def test_who_adds_the_noise_is_told_apart():
    assert run_of(PRIVATE, run="r", app="a", name="n", rounds=1).noise == COORDINATOR
    assert run_of(fedloom.fedavg(), run="r", app="a", name="n", rounds=1).noise == ""
    assert run_of(fedloom.dp_secagg_fedavg(), run="r", app="a", name="n", rounds=1).noise == TOGETHER
    assert run_of(fedloom.local_dp_fedavg(), run="r", app="a", name="n", rounds=1).noise == SITE
    local = replace(fedloom.fedavg(), local=Noised(), weights=fedloom.Equal())
    found = run_of(local, run="r", app="a", name="n", rounds=1)
    assert (found.noise, found.mechanism.kind) == (SITE, "gaussian")


class Noised(fedloom.Sgd):
    """Local work with a claim of its own."""

    def event(self):
        return DpEvent("gaussian", {"noise_multiplier": 4.0, "delta": DELTA})


# -- which data set


def test_another_data_set_has_a_budget_of_its_own_and_one_that_shares_rows_has_not(tmp_path):
    assert [answered(account(tmp_path)) for _ in range(3)] == [True] * 3
    assert answered(account(tmp_path, data=OTHER))
    assert not answered(account(tmp_path, data=BOTH))  # has a row that has spent it all
    found = {each.digest[0]: each for each in standing(tmp_path)}
    assert found["c"].shares == ("a" * 64, "b" * 64)
    assert [found[name].total.epsilon for name in "abc"] == [costs(3), costs(1), costs(4)]


def test_what_shares_rows_is_charged_to_both(tmp_path):
    assert answered(account(tmp_path, data=BOTH))
    assert [answered(account(tmp_path, data=each)) for each in (DATA, DATA, DATA, OTHER)] == [True, True, False, True]


def test_homes_that_share_a_ledger_share_the_budget(tmp_path):
    one, two = (tmp_path / name for name in ("one", "two"))
    shared = Ledger.opened(tmp_path / FILE)
    described = run_of(PRIVATE, run="run", app="digest", name="app", rounds=10)
    for home in (one, two):
        home.mkdir()
    accounts = [
        Account.opened(ledger, ledger.known(*DATA), described, BUDGET, Notes(home / "site.db"))
        for ledger, home in ((shared, one), (Ledger.opened(tmp_path / FILE), two))
    ]
    assert [answered(each) for each in accounts * 3] == [True, True, True, False, False, False]


# -- kinds that are not composed


def test_a_unit_that_the_budget_is_not_for_is_refused(tmp_path):
    budget = replace(BUDGET, unit="example")
    assert account(tmp_path, budget=budget).objection(TRAIN) == (
        "this site's budget is for one example, and this app protects one client; change one."
    )


def test_mixed_adjacencies_in_one_ledger_are_refused(tmp_path, monkeypatch):
    import fedloom.privacy.account as pen
    import fedloom.privacy.standing as told
    from fedloom.privacy.compose import Kind

    known = pen.kind_of

    def by_noise(event):
        return Kind("add or remove", "client") if event.values.get("noise_multiplier") == 9.0 else known(event)

    for each in (pen, told):
        monkeypatch.setattr(each, "kind_of", by_noise)
    assert answered(account(tmp_path))
    other = account(tmp_path, run="run-2", strategy=fedloom.dp_fedavg(rate=0.5, noise_multiplier=9.0, delta=DELTA))
    assert "this data set has spent privacy of another kind" in other.objection(TRAIN)
    free = account(tmp_path, run="run-2", strategy=fedloom.dp_fedavg(rate=0.5, noise_multiplier=9.0, delta=DELTA))
    free.budget = None
    assert answered(free)
    (found,) = standing(tmp_path)
    assert (found.total, len(found.kinds), found.left) == (None, 2, 0.0)


# -- crash, clock, copies, other processes, full disk


def test_after_a_restart_what_was_spent_is_spent(tmp_path):
    assert [answered(account(tmp_path)) for _ in range(4)] == [True, True, True, False]


DIES = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from test_ledger import TRAIN, account

one = account(Path(sys.argv[2]))
with one.notes.together():  # as a reply is written down
    assert not one.objection(TRAIN) and not one.spend(TRAIN)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_kill_9_between_ledger_and_reply_counts_as_spent_and_the_mark_lags(tmp_path):
    here = str(__file__).rsplit("/", 1)[0]
    for number in (1, 2):
        done = subprocess.run([sys.executable, "-c", DIES, here, str(tmp_path)], check=False)
        assert done.returncode == -signal.SIGKILL
        assert standing(tmp_path)[0].runs[0].answers == {"train": number}
        assert marks(tmp_path / "runs") == {}
    assert [answered(one := account(tmp_path)) for _ in range(2)] == [True, False]
    assert marks(tmp_path / "runs") == {"run-1": one.ledger.chain.mark}


def test_a_mark_that_is_ahead_of_the_ledger_or_none_is_refused(tmp_path):
    one = account(tmp_path)
    one.notes.keep(MARK, {"size": 11, "head": "00"})
    with pytest.raises(RecordError, match="has 3 lines, and the run run-1 has seen line 11 of this site's ledger: an"):
        account(tmp_path)
    one.notes.keep(MARK, {"size": 1})
    with pytest.raises(RecordError, match="has no mark of a ledger where one should be"):
        account(tmp_path)


def test_a_clock_that_is_set_back_gives_nothing_back(tmp_path, monkeypatch):
    assert [answered(account(tmp_path)) for _ in range(3)] == [True] * 3
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert not answered(account(tmp_path))
    lines = (tmp_path / FILE).read_text().splitlines()
    assert not any(word in json.loads(line) for line in lines for word in ("time", "when", "at"))


def test_an_older_copy_of_the_ledger_is_refused(tmp_path):
    one = account(tmp_path)
    assert answered(one)
    shutil.copy(tmp_path / FILE, tmp_path / "older")
    assert answered(one)
    shutil.copy(tmp_path / FILE, tmp_path / "newest")
    shutil.copy(tmp_path / "older", tmp_path / FILE)
    with pytest.raises(RecordError, match=r"has 4 lines, and the run run-1 has seen line 5 of this site's ledger: an"):
        account(tmp_path)
    with pytest.raises(RecordError, match="is shorter than it was while this process ran"):
        one.spend(TRAIN)
    (tmp_path / FILE).unlink()
    with pytest.raises(RecordError, match="has 0 lines"):
        account(tmp_path, run="run-2")
    shutil.copy(tmp_path / "newest", tmp_path / FILE)
    assert answered(account(tmp_path))


def test_another_sites_ledger_in_its_place_is_refused(tmp_path):
    for name in ("north", "south"):
        assert [answered(account(tmp_path / name)) for _ in range(2)] == [True, True]
    shutil.copy(tmp_path / "south" / FILE, tmp_path / "north" / FILE)
    with pytest.raises(RecordError, match="an older copy, or another ledger, lies in its place"):
        account(tmp_path / "north")


RACES = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from test_ledger import TRAIN, account

one = account(Path(sys.argv[2]), run=sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
print(sum(not one.spend(TRAIN) for _ in range(3)), flush=True)
"""


@pytest.mark.slow
def test_two_processes_with_one_data_set_do_not_spend_more_than_there_is(tmp_path):
    here = str(__file__).rsplit("/", 1)[0]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    words = [[sys.executable, "-c", RACES, here, str(tmp_path), run] for run in ("run-1", "run-2")]
    processes = [subprocess.Popen(each, **pipes) for each in words]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    assert sum(int(process.communicate()[0]) for process in processes) == 3


def test_a_full_disk_lets_nothing_leave(tmp_path, monkeypatch):
    import os

    one = account(tmp_path)
    assert answered(one)

    def full(file, content, at):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(RunError, match="No space left on device; nothing leaves before it is"):
        one.spend(TRAIN)
    monkeypatch.undo()
    assert standing(tmp_path)[0].runs[0].answers == {"train": 1}
    assert [answered(account(tmp_path)) for _ in range(3)] == [True, True, False]


def test_answers_are_found_by_app_and_run_whatever_data_set_they_were_on(tmp_path):
    for data in (DATA, OTHER):
        assert answered(account(tmp_path, data=data))
    assert answered(account(tmp_path, run="run-2", budget=None), EVALUATE)
    account(tmp_path, run="run-3")
    found = Ledger.opened(tmp_path / FILE)
    assert found.answered("digest") == {"run-1": {"train": 2}, "run-2": {"evaluate": 1}}
    assert found.answered("another") == {}
