"""`fedloom budget` says what was spent, on what, against whom, and what is left."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import fedloom
from fedloom.cli import cli
from fedloom.core.budget import Budget
from fedloom.core.errors import ConfigError, RecordError
from fedloom.core.task import Evaluate, Train
from fedloom.privacy.account import Account
from fedloom.privacy.compose import composed
from fedloom.privacy.ledger import FILE, Ledger, run_of
from fedloom.store.notes import Notes

PRIVATE = fedloom.dp_fedavg(rate=0.5, noise_multiplier=4.0, delta=1e-5)
COST = composed([(PRIVATE.mechanism, 4)], 1e-5).epsilon
POLICY = "[budget]\nepsilon = 3.0\ndelta = 1e-5\n"


def answered(home, strategy, run, bodies, budget):
    ledger = Ledger.opened(home / FILE)
    described = run_of(strategy, run=run, app="digest", name="heart", rounds=5)
    (home / "runs" / run).mkdir(parents=True)
    data = ledger.known("ab" * 32, 100, ["01"])
    account = Account.opened(ledger, data, described, budget, Notes(home / "runs" / run / "site.db"))
    assert [account.spend(body) for body in bodies] == [""] * len(bodies)


def said(home, *words):
    done = CliRunner().invoke(cli, ["budget", "--home", str(home), *words], env={"COLUMNS": "400"})
    if done.exception:
        raise done.exception
    return done.stdout


def test_a_budget_is_shown_with_what_it_means(tmp_path):
    (tmp_path / "policy.toml").write_text(POLICY)
    for run in ("one", "two"):
        answered(tmp_path, PRIVATE, run, [Train(1, np.zeros(2), "d", 1)] * 2, Budget(epsilon=3.0, delta=1e-5))
    text = said(tmp_path)
    for part in (
        "1 data set; budget of each data set: ε = 3 at δ = 1e-05 for one client",
        "data set abababababab, 100 rows",
        "two (heart): 2 train; one: gaussian",
        "noise added by the coordinator, as it promises; ε = 1.356 alone",
        f"spent together: ε = {COST:.4g} at δ = 1e-05 (dp-accounting 0.6.0, one Gaussian)",
        f"left: {3 - COST:.4g} of ε = 3 at δ = 1e-05 for one client",
        "zero-out: one client's whole contribution",
        "against whoever sees the shared models, if the coordinator adds the noise that it promises; not the coordina",
    ):
        assert part in text
    (found,) = json.loads(said(tmp_path, "--json"))["data"]
    assert (found["epsilon"], found["left"]) == (pytest.approx(COST, abs=1e-6), 3 - COST)
    assert [run["answers"] for run in found["runs"]] == [{"train": 2}] * 2
    assert found["budget"] == {"epsilon": 3.0, "delta": 1e-5, "unit": "client"}


def test_without_a_budget_it_says_that_nothing_is_enforced(tmp_path):
    bodies = [Train(1, np.zeros(2), "d", 1), Evaluate(np.zeros(2))]
    answered(tmp_path, fedloom.fedavg(), "one", bodies, None)
    text = said(tmp_path)
    assert "no budget: nothing is enforced" in text
    assert "one (heart): 1 train, 1 evaluate; one: none; ε = ∞ alone" in text
    assert "against nobody: some of what was released is not differentially private" in text
    (found,) = json.loads(said(tmp_path, "--json"))["data"]
    assert (found["epsilon"], found["left"], found["budget"]) == ("infinity", None, None)


def test_no_ledger_and_a_lost_one_are_told_apart(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no ledger .*; the first `fedloom join` of this site begins it"):
        said(tmp_path)
    answered(tmp_path, fedloom.fedavg(), "one", [Evaluate(np.zeros(2))], None)
    (tmp_path / FILE).unlink()
    with pytest.raises(RecordError, match="has 0 lines, and the run one has seen line 4"):
        said(tmp_path)


def test_a_ledger_on_a_disk_that_is_read_only_is_shown(tmp_path, read_only):
    answered(tmp_path, fedloom.fedavg(), "one", [Evaluate(np.zeros(2))], None)
    before = sorted(path.name for path in tmp_path.iterdir())
    (tmp_path / f".{FILE}.lock").unlink()
    read_only()
    assert "one (heart): 1 evaluate" in said(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({*before} - {f".{FILE}.lock"})
