"""`fedloom serve` says which run it begins, and which one it leaves unfinished."""

import json
import logging
from contextlib import closing
from types import SimpleNamespace

import pytest

from apps import TOML, written
from fedloom.commands import serve
from fedloom.load import load
from fedloom.running import begin
from wired import authority

OPTIONS = ("--listen", "127.0.0.1:0", "--least", "1", "--start", "0.2")


@pytest.fixture
def home(tmp_path):
    """Return the folder of a coordinator with a run that was stopped after its first round."""
    authority(tmp_path / "home")
    loaded = load(written(tmp_path, TOML), ["seed=5"])
    recording = begin(
        loaded.app,
        tmp_path / "home" / "runs",
        source=loaded.source,
        overrides=loaded.overrides,
        identity=loaded.identity,
    )
    with closing(recording):
        rounds = recording.rounds()
        next(rounds)
        rounds.close()
    return tmp_path / "home"


def test_a_figure_may_have_any_name(caplog, monkeypatch):
    """It is a party's word: one such as "message" has a meaning in a log."""
    monkeypatch.setattr(serve, "figures", lambda state: {"loss": 0.5, "message": 1.0, "name": 2.0, "round": 9.0})
    caplog.set_level("INFO")
    record = SimpleNamespace(seconds=1.0, faults=())
    serve._told(SimpleNamespace(round=3, record=record), logging.getLogger("fedloom.commands"))
    (line,) = caplog.records
    assert (line.getMessage(), line.round, line.loss) == ("round closed", 3, 0.5)


def served(command, home, *words):
    """Serve for a moment; return the run, and what is said of one that is left unfinished."""
    told = command("serve", home.parent / "app.toml", "--home", home, *OPTIONS, *words)
    lines = [json.loads(line) for line in told.err.splitlines()]
    (run,) = [line["run"] for line in lines if line["event"] == "listening"]
    return run, [line["said"] for line in lines if line["event"] == "unfinished"]


def test_another_version_of_an_unfinished_app_is_told_and_how_the_old_one_goes_on(home, command):
    (before,) = [path.name for path in (home / "runs").iterdir() if path.is_dir()]
    run, said = served(command, home)
    assert run != before
    assert said == [
        f"run {before} of another version of this app is unfinished, after round 1; this begins a new one. "
        f"`fedloom serve {home.parent / 'app.toml'} --set seed=5 --home {home}`, with the app as it was then, goes on "
        "with it"
    ]


def test_an_app_with_nothing_unfinished_is_served_without_a_word(home, command):
    assert served(command, home, "--set", "name=another")[1] == []
