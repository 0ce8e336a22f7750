"""`fedloom serve` says which run it begins, and which one it leaves unfinished."""

import json
import logging
from contextlib import closing
from types import SimpleNamespace

import pytest

from apps import TOML, written
from fedloom.commands.serve import _told
from fedloom.core.metrics import Metrics
from fedloom.load import load
from fedloom.running import begin
from wired import authority, slow

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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--database", "sqlite:///foo.db"), "--database is one of PostgreSQL, got one of sqlite: it is postgresql+"),
        (("--database", "mysql://me:secret@there/fl"), "--database is one of PostgreSQL, got one of mysql: it is"),
        (("--database", "foo.db"), "--database is no URL: it is postgresql+pg8000://USER@HOST/NAME"),
        (("--database", "postgresql+pg8000://there/fl"), "--database names no user"),
        (("--listen", "localhost:99999"), "a port is 0 to 65535, got 99999 in 'localhost:99999'."),
        (("--listen", "192.0.2.1:0"), "it is no address of this machine; 0.0.0.0 is all of them."),
        (
            ("--sites", "2", "--least", "3"),
            "the least that a run begins with is 1 to its 2 sites, got 3; change --least or --sites.",
        ),
        (("--sites", "3", "--capacity", "2"), "a federation that begins with 3 sites has no capacity of 2."),
        (
            ("--least", "1", "--start", "0"),
            "Serving.start_s (--start) must be above 0 s and at most 31,536,000 s, a year, got 0",
        ),
    ],
)
def test_a_wrong_option_is_refused_in_a_sentence_before_anything_is_served(tmp_path, command, words, said):
    authority(tmp_path / "home")
    told = command("serve", written(tmp_path, TOML), "--home", tmp_path / "home", *words)
    (line,) = [json.loads(line) for line in told.err.splitlines()]
    assert (told.code, line["level"]) == (2, "error")
    assert said in line["said"]
    assert "secret" not in told.err
    assert not list((tmp_path / "home").glob("runs/*/journal.url"))


def test_an_app_that_cannot_be_with_so_many_is_refused_before_the_port_is_open(tmp_path, command):
    authority(tmp_path / "home")
    made = written(tmp_path, TOML + '[strategy]\nname = "fedbuff"\nsize = 2\nconcurrency = 4\n')
    told = command("serve", made, "--home", tmp_path / "home", "--sites", "3", "--listen", "127.0.0.1:0")
    (line,) = [json.loads(line) for line in told.err.splitlines()]
    assert (told.code, line["event"], line["code"]) == (2, "error", "FL110")
    assert "4 clients cannot train at a time where there are 3" in line["said"]


def test_a_site_that_names_its_figures_after_a_log_s_own_parts_changes_no_line(caplog):
    sums = Metrics({"examples": 2, "loss": 1.0, "message": 4.0, "name": 4.0, "level": 4.0, "round": 4.0})
    state = SimpleNamespace(round=7, record=SimpleNamespace(seconds=1.5, faults=()), metrics=sums)
    with caplog.at_level(logging.INFO, "fedloom.commands"):
        _told(state, logging.getLogger("fedloom.commands"))
    (line,) = [record for record in caplog.records if record.msg == "round closed"]
    assert (line.round, line.loss, line.name, hasattr(line, "level")) == (7, 0.5, "fedloom.commands", False)


def test_a_sum_that_so_few_sites_cannot_have_is_refused_before_anybody_is_waited_for(tmp_path, command):
    authority(tmp_path / "home")
    hidden = "local=Slow(), stages=(fedloom.FixedPoint(),), gather=fedloom.SecAgg()"
    app = slow(tmp_path, kind="Sgd", recipe="fedavg", changes=hidden)
    told = command("serve", app, "--home", tmp_path / "home", "--listen", "127.0.0.1:0", "--sites", "2")
    assert told.code == 2
    assert "SecAgg needs a cohort of 3 clients or more, got 2" in told.err
    assert '"event": "waiting"' not in told.err


def test_an_app_that_nobody_could_measure_is_refused_before_the_port_is_open(tmp_path, command):
    authority(tmp_path / "home")
    made = written(tmp_path, 'data = {source = "breast_cancer", holdout = 0.0}\nclients = 3\nrounds = 2\n')
    told = command("serve", made, "--home", tmp_path / "home", "--sites", "3", "--listen", "127.0.0.1:0")
    (line,) = [json.loads(line) for line in told.err.splitlines()]
    assert (told.code, line["event"]) == (2, "error")
    assert "data.holdout is 0; raise data.holdout, or let the coordinator measure" in line["said"]
