"""What a site keeps of a run is its own: nobody else on its machine reads updates, or secrets of hidden sums."""

from ssl import SSLCertVerificationError, SSLError

import numpy as np
import pytest
from typer.testing import CliRunner

import fedloom
from enrolled import federation
from fedloom import policyfile
from fedloom.cli import cli
from fedloom.core.errors import ConfigError, RunError, StorageError
from fedloom.core.rng import stream
from fedloom.core.task import Fault, Measure, Prepare, Reply, Task, Train
from fedloom.data.holds import holdings
from fedloom.join import Joining, _enrol, alone, booked, counters, desk, ledger_file
from fedloom.load import Loaded, load
from fedloom.privacy.ledger import Ledger
from fedloom.relay import Relaying, relay
from fedloom.runtime.joining import Token
from fedloom.runtime.policy import Policy
from fedloom.runtime.provisioning import provision
from wired import identities


def at_home(tmp_path):
    """Return what `desk` takes, for a site that has enrolled in this folder."""
    (tmp_path / "pki").symlink_to(identities(("north",))[1]["north"].home / "pki")
    data = fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Iid(2))
    app = fedloom.App(model=fedloom.BuiltIn(name="logistic"), data=data, rounds=1)
    own = next(iter(holdings(data.source.read(), data.partition, data.holdout, stream(0, "partition")).values()))
    return Loaded(app, "app", app.digest), Joining(name="north", home=tmp_path, server=("localhost", 1)), own


class Says:
    """A party that answers all with the same fault."""

    def answer(self, tasks):
        for task in tasks:
            yield Reply((task.number,), (task.party,), Fault(task.party, "train", "MissingExtra", "what", ()), 0.0)


@pytest.mark.parametrize("lost", ["all of it", "its newest pages"])
def test_counters_that_are_lost_give_nothing_back_that_the_ledger_knows_of(tmp_path, lost):
    loaded, joining, own = at_home(tmp_path)
    limits = "smallest_cohort = 1\nlargest_rounds = 2\nlargest_queries = 1\nlargest_runs = 1\n"
    (tmp_path / "policy.toml").write_text(f'approval = "any"\n{limits}')
    train, query, path = Train(1, np.zeros(2), "digest", 1, cohort=5), Measure("mean"), tmp_path / "usage.db"

    def asked(run, body):
        """Return what a process that has just begun says."""
        works = desk(loaded, joining, own, booked(joining, own), run)
        works.party.party = Says()
        (reply,) = works.party.answer([Task(1, "north", body)])
        works.party.usage.close()
        works.notes.close()
        return reply.body.message

    assert asked("run-1", train) == "what"
    older = path.read_bytes()
    assert [asked("run-1", body) for body in (train, query)] == ["what", "what"]
    for run, body, why in (
        ("run-1", train, "answers 2 training tasks of a run at most, and has"),
        ("run-1", query, "answers 1 evaluations and statistics of a run at most, and has"),
        ("run-2", Prepare({}), "takes part in 1 runs of an app at most"),
    ):
        path.unlink() if lost == "all of it" else path.write_bytes(older)
        assert why in asked(run, body)


def test_a_ledger_s_path_begins_at_the_home_wherever_the_command_runs(tmp_path, monkeypatch):
    _, joining, own = at_home(tmp_path)
    (tmp_path / "policy.toml").write_text('ledger = "rows.jsonl"\n')
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        ledger, data = booked(joining, own)
        assert (ledger.chain.path, data) == (tmp_path / "rows.jsonl", 1)
    assert f"ledger = {tmp_path / 'rows.jsonl'}" in policyfile.told(tmp_path, policyfile.read(tmp_path))
    absolute = Policy(ledger=str(tmp_path / "elsewhere.jsonl"))
    assert ledger_file(tmp_path / "here", absolute) == tmp_path / "elsewhere.jsonl"


def test_nobody_else_may_look_into_the_folder_of_a_run(tmp_path):
    loaded, joining, own = at_home(tmp_path)
    made = desk(loaded, joining, own, booked(joining, own), "run-1")
    made.notes.close()
    assert (tmp_path / "runs" / "run-1" / "site.db").exists()
    assert (tmp_path / "runs" / "run-1").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (("south", "site"), "the token is for site 'south', not for site 'north', and stays unused"),
        (("north", "relay"), "the token is for relay 'north', not for site 'north'"),
    ],
)
def test_a_token_of_somebody_else_is_refused_before_anything_is_written(tmp_path, token, words):
    text = Token(token[1], token[0], bytes(32), bytes(32)).text()
    options = ["--server", "localhost:1", "--as", "north", "--home", str(tmp_path / "north"), "--token", text]
    told = CliRunner().invoke(cli, ["join", "demo", *options])
    assert (told.exit_code, words in told.output) == (2, True), told.output
    assert not (tmp_path / "north").exists()


def test_a_folder_of_somebody_else_is_refused_and_its_own_token_is_taken(tmp_path):
    federation(tmp_path, "north")
    token = Token("site", "south", bytes(32), bytes(32)).text()
    home = tmp_path / "north"
    with pytest.raises(ConfigError, match="belongs to site 'north', not to site 'south'"):
        Joining(name="south", home=home, server=("localhost", 1), token=token).check()
    with pytest.raises(ConfigError, match="belongs to site 'north', not to relay 'north'"):
        Joining(name="north", home=home, server=("localhost", 1), role="relay").check()
    Joining(name="south", home=tmp_path / "south", server=("localhost", 1), token=token).check()


def test_a_relay_refuses_a_token_of_a_site_before_anything_is_written(tmp_path):
    provision(tmp_path / "east", ["localhost"])
    text = Token("site", "east", bytes(32), bytes(32)).text()
    loaded = load("demo")
    relaying = Relaying(name="east", home=tmp_path / "east", server=("localhost", 1), sites=1, token=text)
    with pytest.raises(ConfigError, match="the token is for site 'east', not for relay 'east'"):
        relay(loaded, relaying, "127.0.0.1", 0)
    assert {path.name for path in (tmp_path / "east").iterdir()} == {"pki"}


def test_whoever_is_not_there_yet_is_called_again_and_later_each_time(tmp_path, monkeypatch):
    token, said, slept = Token("site", "north", bytes(32), bytes(32)).text(), [], []
    monkeypatch.setattr("fedloom.join.sleep", slept.append)
    answers = iter([ConnectionRefusedError(111, "Connection refused"), TimeoutError("timed out"), None])

    def asked(*_):
        if error := next(answers):
            raise RunError("nobody answers there") from error

    monkeypatch.setattr("fedloom.join._asked", asked)
    joining = Joining(name="north", home=tmp_path / "north", server=("localhost", 1), token=token)
    _enrol(joining, token, lambda event, /, **values: said.append((event, values["said"])))
    assert [event for event, _ in said] == ["away", "away"]
    assert "Connection refused; calling again in" in said[0][1]
    assert 0.25 <= slept[0] <= 0.75 <= 2 * slept[1] <= 3


def test_what_this_machine_s_disk_complains_of_is_no_reason_to_call_again(tmp_path, monkeypatch):
    def asked(*_):
        raise StorageError("the disk is full.") from OSError(28, "No space left on device")

    monkeypatch.setattr("fedloom.join._asked", asked)
    token = Token("site", "north", bytes(32), bytes(32)).text()
    joining = Joining(name="north", home=tmp_path / "north", server=("localhost", 1), token=token)
    with pytest.raises(StorageError, match="the disk is full"):
        _enrol(joining, token, pytest.fail)


def test_a_folder_that_cannot_be_written_in_is_named_and_nobody_is_said_to_join_from_it(tmp_path, read_only):
    read_only()
    with pytest.raises(StorageError, match=r"\.lock cannot be locked: Read-only file system"), alone(tmp_path):
        pass


@pytest.mark.parametrize("cause", [SSLCertVerificationError(1, "certificate verify failed"), SSLError("no TLS"), None])
def test_whoever_is_somebody_else_is_not_called_again(tmp_path, monkeypatch, cause):
    token = Token("site", "north", bytes(32), bytes(32)).text()

    def asked(*_):
        raise RunError("that is not the coordinator") from cause

    monkeypatch.setattr("fedloom.join._asked", asked)
    joining = Joining(name="north", home=tmp_path / "north", server=("localhost", 1), token=token)
    with pytest.raises(RunError, match="that is not the coordinator"):
        _enrol(joining, token, lambda *_: None)


def test_runs_of_other_homes_that_share_a_ledger_count_for_them_alone(tmp_path):
    ledger = Ledger.opened(tmp_path / "rows.jsonl")
    data = ledger.known("digest", 10, [])
    with ledger.chain.held():
        for run in ("run-1", "run-2"):
            at = ledger.place({"kind": "run", "run": run, "app": "app", "name": "app", "mechanism": None, "noise": ""})
            ledger.chain.append({"kind": "answer", "data": data, "run": at, "what": "train"})
    for home, mine in (("a", ["run-1", "run-2"]), ("b", []), ("c", ["run-1"])):
        for run in mine:
            (tmp_path / home / "runs" / run).mkdir(parents=True)
        (tmp_path / home).mkdir(exist_ok=True)
        usage = counters(tmp_path / home, ledger, "app", "run-3")
        assert usage.begin(2) == (len(mine) < 2)
        usage.close()
    (tmp_path / "d").mkdir()
    again = counters(tmp_path / "d", ledger, "app", "run-2")  # the present run, though its folder is not there yet
    assert again.spent("round") == 1
    again.close()
