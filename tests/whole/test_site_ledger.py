"""A site's budget over real sockets: killed and started again, in a second run, with a second process."""

import subprocess

import pytest

from fedloom.core.budget import Budget
from fedloom.core.event import DpEvent
from fedloom.privacy.compose import composed
from fedloom.privacy.ledger import FILE, Ledger
from fedloom.privacy.standing import standings
from wired import COMMAND, Federated, clients, surroundings

pytestmark = pytest.mark.slow

DELTA, ROOM = 1e-3, 12
APP = """\
import dataclasses
import time

import numpy as np

import fedloom


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slow(fedloom.Sgd):
    def train(self, *args, **kwargs):
        time.sleep(0.05)
        return super().train(*args, **kwargs)


inputs, targets = np.eye(40, dtype=np.float32), np.arange(40) % 2
app = fedloom.App(
    model=fedloom.BuiltIn(name="logistic"),
    data=fedloom.Data(
        source=fedloom.Arrays(inputs, targets, classes=2, test_part=(inputs[:6], targets[:6])),
        partition=fedloom.Iid(2),
        holdout=0.0,
    ),
    strategy=dataclasses.replace(
        fedloom.dp_fedavg(Slow(), rate=1.0, noise_multiplier=8.0, delta=1e-3), select=fedloom.Everyone()
    ),
    rounds=20,
)
"""


def test_a_site_whose_budget_is_spent_answers_no_run_any_more(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    event = DpEvent("gaussian", {"noise_multiplier": 8.0})
    costs = [composed([(event, answers)], DELTA).epsilon for answers in (ROOM, ROOM + 1)]
    first, second = clients(2)
    with Federated(tmp_path, tmp_path / "app.py", clients(2), ("--test",)) as there:
        policy = f'approval = "any"\n[budget]\nepsilon = {sum(costs) / 2}\ndelta = {DELTA}\n'
        (tmp_path / first / "policy.toml").write_text(policy)
        there.start().until(lambda: there.rounds() >= 2)
        for _ in range(3):
            seen = there.rounds()
            assert there.kill(first)
            there.until(lambda seen=seen: there.rounds() > seen)
        words = [*COMMAND, *there._join(first)]
        beside = subprocess.run(words, capture_output=True, text=True, env=surroundings(), cwd=tmp_path, check=False)
        assert "another process joins from" in beside.stderr
        there.ended()
        faults = [fault for event in there.events() for fault in event["faults"]]
        counted = sum(row.parties == (first,) for row in there.log().accepted(range(10_000_000)))
        assert {(fault["site"], fault["error"]) for fault in faults} == {(first, "PolicyRefused")}
        assert "of this site's budget of" in faults[0]["message"]
    (found,) = standings(Ledger.opened(tmp_path / first / FILE), Budget(epsilon=1.0, delta=DELTA))
    (run,) = found.runs
    assert 9 <= counted <= run.answers["train"] == ROOM  # what was cut off by a kill is spent
    (free,) = standings(Ledger.opened(tmp_path / second / FILE), None)
    assert free.runs[0].answers["train"] >= 20
