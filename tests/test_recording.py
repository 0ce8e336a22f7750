"""A recorded run: however it is interrupted, it ends with the bits that it would have had."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import pytest

import fedloom
from apps import TOML, app, ended, trained, written
from fedloom.core.errors import ConfigError, DigestMismatch, QuorumLost, StorageError, UnknownRun
from fedloom.local import Scaffold
from fedloom.record import Recorder
from fedloom.recording import MODEL_FILE, Recording
from fedloom.running import begin, resume
from fedloom.store.journal import Journal
from fedloom.store.openings import Openings
from fedloom.store.runs import listed

BATCHES = fedloom.sgd(lr=0.05, batch_size=16)
STRATEGIES = {
    "fedavg": fedloom.fedavg(BATCHES, cohort=2),
    "fedavgm": fedloom.fedavgm(BATCHES),
    "fedadam": fedloom.fedadam(BATCHES),
    "scaffold": fedloom.scaffold(BATCHES, cohort=2),
    "home": fedloom.fedbn(BATCHES, leaves=("bias",)),
    "quantized": replace(fedloom.fedavg(BATCHES), stages=(fedloom.Quantize(bits=4),)),
}


def interrupting(recording, *, phase, number):
    """Let Ctrl-C come while the clients answer for the `number`th time to train or to evaluate."""
    answered = []
    for party in recording.simulation.parties.values():

        def wrapped(task, inner=party._answer):
            if type(task.body).__name__.lower() == phase:
                answered.append(task)
                if len(answered) == number:
                    raise KeyboardInterrupt
            return inner(task)

        party._answer = wrapped
    return recording


def stopped(recording):
    with closing(recording), pytest.raises(KeyboardInterrupt):
        for _ in recording.rounds():
            pass
    return recording


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize(("phase", "number"), [("train", 1), ("train", 5), ("evaluate", 8), ("evaluate", 12)])
def test_ctrl_c_stops_and_resume_gives_the_same_bits(tmp_path, name, phase, number):
    changes = {"strategy": STRATEGIES[name], "rounds": 5}
    whole = trained(tmp_path / "whole", **changes)
    recording = stopped(interrupting(begin(app(**changes), tmp_path / "runs"), phase=phase, number=number))
    assert (recording.summary["status"], recording.summary["reason"]) == (
        "stopped",
        f"after round {recording.summary['rounds']}",
    )
    end = ended(resume(app(**changes), recording.folder))
    assert (end["status"], end["rounds"], end["sha256"]) == ("completed", 5, whole["sha256"])
    assert end["reason"] == whole["reason"]
    assert end["metrics"] == whole["metrics"]


@pytest.mark.parametrize("name", ["scaffold", "home"])
def test_memories_of_clients_survive_with_the_same_bits(tmp_path, name):
    changes = {"strategy": STRATEGIES[name], "rounds": 4}
    with closing(begin(app(**changes))) as whole:
        for _ in whole.rounds():
            pass
    recording = begin(app(**changes), tmp_path)
    rounds = recording.rounds()
    next(rounds), next(rounds)
    rounds.close()
    recording.close()
    with closing(resume(app(**changes), recording.folder)) as again:
        for _ in again.rounds():
            pass
        for site, party in again.simulation.parties.items():
            mine, other = again.deployed(site), whole.deployed(site)
            assert mine.tobytes() == other.tobytes()
            if isinstance(party.strategy.local, Scaffold):
                assert np.any(party.memory["local"])


def test_leaving_the_loop_early_stops_the_run(tmp_path):
    for state in app(rounds=5).run(out=tmp_path):
        if state.round == 2:
            break
    del state
    (row,) = listed(tmp_path)
    assert (row.status, row.reason) == ("stopped", "after round 2")
    end = ended(resume(app(rounds=5), tmp_path / row.run))
    assert end["sha256"] == trained(tmp_path / "whole", rounds=5)["sha256"]


def test_an_error_in_the_users_loop_stops_the_run(tmp_path):
    def loop():
        for _ in app(rounds=5).run(out=tmp_path):
            raise ValueError("in the user's loop")

    with pytest.raises(ValueError, match="in the user's loop"):
        loop()
    assert [row.status for row in listed(tmp_path)] == ["stopped"]


def test_the_same_seed_gives_the_same_model_wherever_it_is_trained(tmp_path):
    one, other = trained(tmp_path / "a", name="a"), trained(tmp_path / "b" / "c", name="b")
    assert one["sha256"] == other["sha256"]
    assert one["run"] != other["run"]
    assert trained(tmp_path / "a", seed=1)["sha256"] != one["sha256"]


@pytest.mark.parametrize("written_at", ["before", "after"])
def test_ctrl_c_while_the_end_is_written(tmp_path, monkeypatch, written_at):
    recording, save = begin(app(), tmp_path), Recording.save

    def interrupted(self, ending=None):
        monkeypatch.undo()
        if written_at == "after":
            save(self, ending)
        raise KeyboardInterrupt

    monkeypatch.setattr(Recording, "save", interrupted)
    stopped(recording)
    (row,) = listed(tmp_path)
    assert (row.status, row.summary["rounds"]) == ("completed", 2)
    assert recording.summary["sha256"] == trained(tmp_path / "whole")["sha256"]


def test_killed_while_the_end_is_written_goes_on_with_the_last_rounds(tmp_path, monkeypatch):
    whole = trained(tmp_path / "whole", rounds=3)

    class Killed(BaseException):
        pass

    def killed(self, ending=None):
        raise Killed

    recording = begin(app(rounds=3), tmp_path / "runs")
    monkeypatch.setattr(Recording, "save", killed)
    with pytest.raises(Killed):
        ended(recording)
    monkeypatch.undo()
    assert [row.status for row in listed(tmp_path / "runs")] == ["interrupted"]
    end = ended(resume(app(rounds=3), recording.folder))
    assert (end["rounds"], end["sha256"], end["reason"]) == (3, whole["sha256"], whole["reason"])


@pytest.mark.parametrize("every_s", [0.0, 1000.0])
def test_how_often_it_saves_changes_no_bit(tmp_path, every_s):
    recording = begin(app(rounds=4, strategy=STRATEGIES["scaffold"]), tmp_path)
    recording.save_every_s = every_s
    assert ended(recording)["sha256"] == trained(tmp_path / "b", rounds=4, strategy=STRATEGIES["scaffold"])["sha256"]
    with closing(resume(app(rounds=4, strategy=STRATEGIES["scaffold"]), recording.folder, ended=True)) as again:
        assert [event["round"] for event in again.journal.rounds()] == [1, 2, 3, 4]
        assert again.state.round == 4


def test_a_fast_run_saves_before_many_rounds_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(fedloom.recording, "MOST", 3)
    recording = begin(app(rounds=8), tmp_path)
    recording.save_every_s = 1000.0
    with closing(recording):
        assert [recording.journal.last().round for _ in recording.rounds()] == [0, 0, 3, 3, 3, 6, 6, 8]


def test_a_state_that_waits_is_saved_when_nothing_else_is_done_or_with_the_next_one(tmp_path):
    recording = begin(app(rounds=5), tmp_path)
    recording.save_every_s, recording.waits = 0.0, True
    with closing(recording):
        saved, rounds = [], recording.rounds()
        for caught_up in (True, False, False, True):
            next(rounds)
            saved.append(recording.journal.last().round)
            if caught_up:
                recording.catch_up()
                recording.catch_up()
                saved.append(recording.journal.last().round)
        assert saved == [0, 1, 1, 3, 3, 4]  # at most two rounds are not saved
    assert ended(resume(app(rounds=5), recording.folder))["rounds"] == 5


def test_what_opens_a_round_is_on_the_disk_before_its_state_is_saved(tmp_path, monkeypatch):
    recording, done = begin(app(), tmp_path), []
    recording.save_every_s = 0.0
    write, keep, save = Openings.write, Recorder.keep, Journal.save
    monkeypatch.setattr(Openings, "write", lambda self, told: done.append("written") or write(self, told))
    monkeypatch.setattr(Recorder, "keep", lambda self: done.append("kept") or keep(self))
    monkeypatch.setattr(Journal, "save", lambda self, *told: done.append("saved") or save(self, *told))
    with closing(recording):
        next(recording.rounds())
    assert done[:3] == ["written", "kept", "saved"]


def test_resume_refuses_another_app_and_another_partition(tmp_path):
    recording = begin(app(), tmp_path)
    recording.close()
    other = fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Iid(4))
    changed = [{"rounds": 5}, {"seed": 2}, {"strategy": fedloom.fedprox()}, {"data": other}]
    changed.append({"model": fedloom.BuiltIn(name="logistic", l2=0.5)})
    for changes in changed:
        with pytest.raises(DigestMismatch, match=r"has changed since the run .* began; restore it"):
            resume(app(**changes), recording.folder)
    resume(app(name="another name"), recording.folder).close()


def test_resume_refuses_what_has_ended(tmp_path):
    end = trained(tmp_path)
    with pytest.raises(UnknownRun, match=r"has ended: completed, best loss .* nothing to resume"):
        resume(app(), tmp_path / end["run"])
    resume(app(), tmp_path / end["run"], ended=True).close()


@pytest.mark.parametrize(("patient", "status"), [(False, "failed"), (True, "stopped")])
def test_a_run_that_failed_or_stopped_can_go_on(tmp_path, patient, status):
    """A lost quorum fails a run, unless those who are missing may come back: then the record is left open too."""
    broken = []

    def train(params, data, config):
        if broken:
            raise OSError("disk full")
        return {name: value + np.float32(0.5) for name, value in params.items()}

    strategy = replace(fedloom.fedavg(), local=fedloom.Custom(function=train))
    whole = trained(tmp_path / "whole", strategy=strategy, rounds=3)
    recording = begin(app(strategy=strategy, rounds=3), tmp_path / "runs")
    recording.patient = patient
    rounds = recording.rounds()
    next(rounds)
    broken.append(True)
    with closing(recording), pytest.raises(QuorumLost, match=r"client-000.*disk full"):
        next(rounds)
    (row,) = listed(tmp_path / "runs")
    assert row.status == recording.state.status == status
    assert "disk full" in row.reason
    broken.clear()
    assert ended(resume(app(strategy=strategy, rounds=3), recording.folder))["sha256"] == whole["sha256"]


def test_a_disk_that_is_full_stops_a_run_which_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    whole = trained(tmp_path / "whole", rounds=3)
    recording = begin(app(rounds=3), tmp_path / "runs")
    recording.save_every_s = 0.0

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with closing(recording), monkeypatch.context() as there:
        rounds = recording.rounds()
        next(rounds)
        there.setattr(os, "fsync", full)
        with pytest.raises(
            StorageError, match=r"stopped after round 2, since .*No space left on device.*; nothing is lost"
        ):
            next(rounds)
    assert ended(resume(app(rounds=3), recording.folder))["sha256"] == whole["sha256"]


def test_a_file_that_a_model_cannot_open_is_no_matter_of_the_disk(tmp_path, monkeypatch):
    with closing(begin(app(), tmp_path / "runs")) as recording:

        def rounds(*_):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", "vocabulary.txt")
            yield

        monkeypatch.setattr(type(recording.simulation), "rounds", rounds)
        with pytest.raises(FileNotFoundError, match="vocabulary"):
            next(recording.rounds())
    (row,) = listed(tmp_path / "runs")
    assert row.status == "failed"
    assert row.reason == "FileNotFoundError: [Errno 2] No such file or directory: 'vocabulary.txt'"


def test_patience_and_best_survive_a_stop(tmp_path):
    changes = {"stop": fedloom.Stop(patience=3, min_change=5.0), "rounds": 30}
    whole = trained(tmp_path / "whole", **changes)
    assert (whole["status"], whole["rounds"]) == ("converged", 4)
    recording = begin(app(**changes), tmp_path / "runs")
    rounds = recording.rounds()
    next(rounds), next(rounds)
    rounds.close()
    recording.close()
    end = ended(resume(app(**changes), recording.folder))
    assert (end["status"], end["rounds"], end["reason"]) == ("converged", 4, whole["reason"])


def test_best_is_of_all_rounds():
    changes = {"strategy": fedloom.fedavg(fedloom.sgd(lr=3.0)), "rounds": 6}
    seen, state = {}, None
    for state in app(**changes, stop=fedloom.Stop(watch="loss")).run():
        seen[state.round] = state.metrics.view()["loss"]
    best = min(seen, key=seen.get)
    assert best != 6
    assert state.reason == f"best loss {seen[best]:.4f} in round {best}"


def test_nothing_is_recorded_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    *_, last = app().run()
    assert (last.status, os.listdir()) == ("completed", [])


def test_nothing_is_written_before_everything_was_checked(tmp_path):
    with pytest.raises(ConfigError):
        begin(app(stop=fedloom.Stop(target={"r2": 0.9})), tmp_path / "runs")
    with pytest.raises(ConfigError):
        begin(app(), tmp_path / "runs", start=tmp_path / "none")
    assert os.listdir(tmp_path) == []


def test_the_model_file_loads_into_plain_torch(tmp_path):
    import torch
    from safetensors.torch import load_file

    end = trained(tmp_path, model=fedloom.BuiltIn(name="mlp", hidden=(5,)))
    module = torch.nn.Sequential()
    for name, layer in (
        ("hidden1", torch.nn.Linear(30, 5)),
        ("relu", torch.nn.ReLU()),
        ("output", torch.nn.Linear(5, 2)),
    ):
        module.add_module(name, layer)
    assert module.load_state_dict(load_file(end["model"]), strict=True)
    end = trained(tmp_path)
    assert torch.nn.Linear(30, 1).load_state_dict(load_file(end["model"]), strict=True)


def test_leaves_that_stay_home_are_not_in_the_model_file(tmp_path):
    from safetensors.numpy import load_file

    recording = begin(app(strategy=STRATEGIES["home"]), tmp_path)
    ended(recording)
    assert set(load_file(recording.folder / MODEL_FILE)) == {"weight"}
    with pytest.raises(ConfigError, match="name the site whose model to use: client-000, client-001, client-002"):
        recording.deployed()
    with pytest.raises(ConfigError, match="there is no site 'oslo'; there are client-000"):
        recording.deployed("oslo")
    assert len({recording.deployed(site)[-1] for site in recording.simulation.parties}) == 3


def test_start_from_another_file(tmp_path):
    first = trained(tmp_path, rounds=3)
    recording = begin(app(), tmp_path, start=first["model"])
    assert np.any(recording.state.vector)
    recording.close()
    other = trained(tmp_path, data=fedloom.Data(source=fedloom.SklearnSet("wine"), partition=fedloom.Iid(3)))
    with pytest.raises(
        ConfigError, match=r"expected 'weight' of shape \(1, 30\), got shape \(3, 13\); is it this model"
    ):
        begin(app(), tmp_path, start=other["model"])


SLOW = """\
import dataclasses
import time
import fedloom


def train(params, data, config):
    time.sleep(0.02)
    return {name: value + 0.5 for name, value in params.items()}


app = fedloom.App(
    model=fedloom.BuiltIn(name="logistic"),
    data=fedloom.Data(source=fedloom.SklearnSet("wine"), partition=fedloom.Iid(3)),
    strategy=dataclasses.replace(fedloom.fedavg(), local=fedloom.Custom(function=train)),
    rounds=12,
)
"""


@pytest.mark.slow
def test_ctrl_c_in_a_terminal(tmp_path):
    path = written(tmp_path, SLOW, "slow.py")
    fedloom_ = [sys.executable, "-c", "from fedloom.cli import main; main()"]
    process = subprocess.Popen(
        [*fedloom_, "run", path, "--json"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert '"status": "stopped"' in out
    (row,) = listed(tmp_path / "runs")
    assert row.status == "stopped"
    done = subprocess.run(
        [*fedloom_, "resume", "last", "--json"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    whole = subprocess.run(
        [*fedloom_, "run", path, "--json", "--out", "whole"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    shas = [line.rpartition('"sha256": ')[2] for line in (done.stdout.splitlines()[-1], whole.stdout.splitlines()[-1])]
    assert shas[0] == shas[1]


def test_ctrl_c_says_how_to_go_on(command, tmp_path, monkeypatch):
    original = fedloom.simulation.Simulation.rounds
    monkeypatch.setattr(
        fedloom.simulation.Simulation, "rounds", lambda self, state, closed=None: once(original(self, state))
    )
    told = command("run", written(tmp_path, TOML), "--out", "here")
    assert told.code == 130
    (run,) = os.listdir("here")
    assert f"stopped: after round 1\n`fedloom resume {run} --out here` goes on from here" in told.err


def once(states):
    yield next(states)
    raise KeyboardInterrupt


@pytest.mark.parametrize("engine", ["pool", "vectorized"])
def test_what_is_refused_late_leaves_no_process_behind(tmp_path, engine):
    before = set(multiprocessing.active_children())
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot make the folder"):
        begin(app(), tmp_path / "file", engine=engine)
    assert set(multiprocessing.active_children()) <= before


def test_an_error_of_any_kind_gives_the_run_a_status(tmp_path):
    @dataclass(frozen=True)
    class Broken(fedloom.Everyone):
        def pick(self, members, round, streams):
            return members if round < 2 else members[0].missing

    recording = begin(app(strategy=replace(fedloom.fedavg(), select=Broken())), tmp_path)
    with closing(recording), pytest.raises(AttributeError):
        list(recording.rounds())
    (row,) = listed(tmp_path)
    assert (row.status, row.summary["rounds"]) == ("failed", 1)
    assert "AttributeError: 'Member' object has no attribute" in row.reason


def test_an_ended_run_is_looked_at_on_a_machine_that_could_not_train_it(tmp_path):
    recording = begin(app(), tmp_path)
    ended(recording)
    large = app(needs=fedloom.Needs(cpus=5000))
    with closing(resume(large, recording.folder, ended=True)) as again:
        assert again.deployed().tobytes() == recording.deployed().tobytes()
        assert again.simulation.app.needs.cpus == 5000


def test_a_run_in_virtual_time_is_resumed_in_virtual_time(tmp_path):
    """Interrupted after two of six steps, with clients in flight: the same model, staleness and seconds."""
    strategy, slow = fedloom.fedbuff(size=2, concurrency=3), fedloom.Traces(mean_s=30.0, sigma=1.5)
    buffered = app(strategy=strategy, rounds=6)
    whole = [(s.vector.tobytes(), s.record.staleness) for s in fedloom.run(buffered, traces=slow)]
    with closing(begin(buffered, tmp_path, traces=slow)) as first:
        rounds = first.rounds()
        next(rounds), next(rounds)
        rounds.close()
    with closing(resume(buffered, first.folder)) as second:
        later = [(s.vector.tobytes(), s.record.staleness) for s in second.rounds()]
    assert later == whole[2:]
