"""`kill -9` at any instant, start again, and the run ends with the bits that it would have had."""

import json
import random
import signal
import subprocess
import sys
from contextlib import closing

import pytest

from apps import written
from fedloom.store.runs import listed, opened

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-c", "from fedloom.cli import main; main()"]
KILLS = 12
APP = """\
import dataclasses
import time

import fedloom
import fedloom.recording

fedloom.recording.Recording.save_every_s = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slow(fedloom.Scaffold):
    def train(self, *args, **kwargs):
        time.sleep(0.004)
        return super().train(*args, **kwargs)


app = fedloom.App(
    model=fedloom.BuiltIn(name="logistic"),
    data=fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Iid(5)),
    strategy=dataclasses.replace(
        fedloom.scaffold(cohort=3), local=Slow(sgd=fedloom.sgd(0.05)), stages=(fedloom.Quantize(bits=8),)
    ),
    rounds=150,
)
"""


def last(text):
    return json.loads(text.splitlines()[-1])


def command(folder, *words):
    return subprocess.run([*COMMAND, *words], cwd=folder, capture_output=True, text=True, check=True).stdout


def killed(folder, words, patience_s):
    """Run a command and kill it so many seconds after its first event; return what it had said."""
    process = subprocess.Popen([*COMMAND, *words], cwd=folder, stdout=subprocess.PIPE, text=True)
    first = process.stdout.readline()
    try:
        rest, _ = process.communicate(timeout=patience_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
    return (first + rest).splitlines()


def recorded(out):
    """Return status and rounds of the only run there."""
    (row,) = listed(out)
    _, journal = opened(out, row.run)
    with closing(journal):
        return row.status, [event["round"] for event in journal.rounds()]


@pytest.mark.parametrize("engine", ["sequential", "pool"])
def test_a_run_survives_kill_at_any_instant(tmp_path, engine):
    path = written(tmp_path, APP, "slow.py")
    whole = last(command(tmp_path, "run", path, "--json", "--out", "whole", "--engine", "sequential"))
    drawn, kills, rounds = random.Random(5), 0, []
    words = ["run", path, "--json", "--engine", engine]
    while kills < KILLS:
        said = killed(tmp_path, words, drawn.uniform(0, 0.25))
        if '"event": "end"' in said[-1]:
            break
        kills += 1
        status, shown = recorded(tmp_path / "runs")
        assert status == "interrupted"
        assert shown == list(range(1, len(shown) + 1))
        rounds.append(len(shown))
        words = ["resume", "last", "--json"]
    assert kills >= 10
    assert rounds == sorted(rounds)
    end = last(command(tmp_path, *words)) if kills == KILLS else json.loads(said[-1])
    assert (end["status"], end["rounds"], end["sha256"]) == ("completed", 150, whole["sha256"])
    assert end["metrics"] == whole["metrics"]
    (row,) = [json.loads(line) for line in command(tmp_path, "runs", "--json").splitlines()]
    assert (row["status"], row["rounds"]) == ("completed", 150)
    events = [json.loads(line) for line in command(tmp_path, "show", "last", "--json").splitlines()]
    assert [event["round"] for event in events[:-1]] == list(range(1, 151))


@pytest.mark.parametrize("engine", ["sequential", "pool"])
def test_sigterm_stops_a_run_as_ctrl_c_does(tmp_path, engine):
    path = written(tmp_path, APP, "slow.py")
    words = [*COMMAND, "run", path, "--json", "--engine", engine]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.terminate()
        said, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert last(said)["status"] == "stopped"
    status, rounds = recorded(tmp_path / "runs")
    assert (status, rounds) == ("stopped", list(range(1, last(said)["rounds"] + 1)))
