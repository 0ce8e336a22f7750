"""The command line as a person meets it: what it says, what it refuses, and with which exit code."""

import json
import os
from pathlib import Path

import pytest

from apps import TOML, app, no_data, of_format, refused, trained, written
from fedloom.load import load
from fedloom.running import begin

END = ("run", "status", "rounds", "metrics", "model", "sha256")
FAILS = """\
import dataclasses
import fedloom


def train(params, data, config):
    raise OSError("the disk is full")


app = fedloom.App(
    model=fedloom.BuiltIn(name="logistic"),
    data=fedloom.Data(source=fedloom.SklearnSet("wine"), partition=fedloom.Iid(3)),
    strategy=dataclasses.replace(fedloom.fedavg(), local=fedloom.Custom(function=train)),
    rounds=2,
)
"""
CSV = """\
[data]
source = "csv"
path = "rows.csv"
label = { column = "y", classes = ["0", "1"] }
columns = { age = {} }
"""
COMMANDS = {
    "demo": "Train on a medical data set",
    "run": "Train an app on this machine",
    "resume": "Go on with a run that was stopped or killed",
    "runs": "List the runs in a folder, newest last",
    "show": "Show a run",
    "report": "Write a run's report again",
    "predict": "Apply a run's model to new rows",
    "new": "Write a commented TOML app for your own CSV file",
}
LONG = ("serve", "join", "relay", "try")


def only_run(folder="runs"):
    (name,) = os.listdir(folder)
    return name


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_a_command_does(command, name):
    told = command(name, "--help")
    assert told.code == 0
    assert COMMANDS[name] in " ".join(told.out.replace("│", " ").split())


@pytest.mark.parametrize("words", ["provision coordinator", *(f"{name} app.toml" for name in LONG)])
def test_help_of_what_needs_many_words_shows_them(command, words):
    assert f"fedloom {words} --" in " ".join(command(words.split()[0], "--help").out.split())


def test_help_names_every_command(command):
    assert all(name in command("--help").out for name in COMMANDS)


def test_demo(command):
    told = command("demo", "--no-compare")
    assert told.code == 0
    assert "model   runs/" in told.out
    assert "report  runs/" in told.out
    assert "differentially private here (ε = ∞)" in " ".join(told.err.split())
    run = only_run()
    assert sorted(os.listdir(f"runs/{run}")) == [
        ".lock",
        "journal.db",
        "model.safetensors",
        "preparation.json",
        "record",
        "report.html",
    ]


def test_run_ends_with_the_comparison(command, tmp_path):
    told = command("run", written(tmp_path))
    assert told.code == 0
    assert "alone" in told.out
    assert "pooled" in told.out
    assert "completed: best loss 0." in told.err
    assert "after round" not in told.err


def test_json_is_all_there_is_on_stdout(command, tmp_path):
    told = command("run", written(tmp_path), "--json", "--set", "rounds=3")
    assert (told.code, told.err) == (0, "")
    *rounds, end = told.events
    assert [event["round"] for event in rounds] == [1, 2, 3]
    for event in rounds:
        assert event["event"] == "round"
        assert set(event["sites"]) == {"client-000", "client-001", "client-002"}
        assert event["metrics"]["accuracy"] > 0.5
        assert event["bytes_up"] > 0
        assert event["bytes_down"] > 0
        assert event["seconds"] >= 0
    assert end["event"] == "end"
    assert set(END) <= set(end)
    assert (end["run"], end["status"], end["rounds"]) == (only_run(), "completed", 3)
    assert os.path.isfile(end["model"])
    assert end["metrics"] == rounds[-1]["metrics"]


def test_runs_newest_last(command, tmp_path):
    path = written(tmp_path)
    ids = [command("run", path, "--json", "--set", f"name={name}").events[-1]["run"] for name in ("z", "a", "m")]
    told = command("runs", "--json")
    assert [row["run"] for row in told.events] == ids
    assert [row["app"] for row in told.events] == ["z", "a", "m"]
    assert {row["status"] for row in told.events} == {"completed"}
    listed = command("runs").out
    assert all(run in listed for run in ids)  # whole, so that it can be given to other commands
    assert command("show", "last", "--json").events[-1]["run"] == ids[-1]


def test_runs_of_another_format_are_named(command, tmp_path):
    path = written(tmp_path)
    old = command("run", path, "--json").events[-1]["run"]
    of_format(1, Path("runs", old))
    told = command("runs")
    assert (told.code, told.out) == (0, "")
    assert told.err == f"runs/{old} is of another format, so it is not listed; the fedloom that wrote it reads it\n"
    for name in ("show", "resume", "report"):
        assert "is of format 1, and this fedloom reads 2" in command(name, "last").err
    new = command("run", path, "--json").events[-1]["run"]
    assert [row["run"] for row in command("runs", "--json").events] == [new]


def test_no_runs(command):
    told = command("runs")
    assert (told.code, told.out) == (0, "")
    assert told.err == "no runs in runs; `fedloom demo` makes one\n"
    assert command("runs", "--json").out == ""


def test_show(command, tmp_path):
    said = command("run", written(tmp_path), "--json").events
    assert command("show", "last", "--json").events == said
    told = command("show", only_run())
    assert f"{only_run()}  app: completed, best loss 0." in told.out
    assert "average" in told.out
    assert "…" not in told.out


def test_report_is_written_again(command, tmp_path):
    command("run", written(tmp_path), "--json")
    told = command("report", "last")
    assert told.code == 0
    page = Path(told.out.strip()).read_text()
    assert "alone" in page
    assert only_run() in page


def test_a_target_that_is_missed_is_no_failure(command, tmp_path):
    told = command("run", written(tmp_path), "--set", "target.accuracy=0.9999", "--no-compare")
    assert told.code == 0
    assert "completed: accuracy 0.9999 not reached, best accuracy 0.9" in told.err


def test_a_target_that_is_reached_says_when(command, tmp_path):
    words = ("run", written(tmp_path), "--set", "target.accuracy=0.8", "--set", "rounds=9")
    told = command(*words, "--no-compare")
    assert "target_reached: accuracy 0.8 reached in round 1" in told.err
    end = command(*words, "--json").events[-1]
    assert (end["status"], end["reason"], end["rounds"]) == (
        "target_reached",
        "accuracy 0.8 reached in round 1",
        1,
    )


def test_patience(command, tmp_path):
    stop = ("--set", "stop.patience=2", "--set", "stop.min_change=5", "--set", "rounds=50")
    end = command("run", written(tmp_path), "--json", *stop).events[-1]
    assert (end["status"], end["rounds"]) == ("converged", 3)
    assert end["reason"].startswith("loss has not improved for 2 evaluations; best ")


def test_a_client_that_fails(command, tmp_path):
    path = written(tmp_path, FAILS, "fails.py")
    told = command("run", path, "--json")
    assert told.code == 1
    (end,) = told.events
    assert (end["event"], end["status"], end["rounds"]) == ("end", "failed", 0)
    for text in (end["reason"], told.err):
        assert "client-000" in text
        assert "the disk is full" in text
    (row,) = command("runs", "--json").events
    assert row["status"] == "failed"
    told = command("run", path)
    assert told.code == 1
    assert "error FL410: round 1: 0 of 3 clients counted, 3 are needed" in told.err
    assert "fedloom resume" in told.err
    assert "Traceback" not in told.err


REFUSED = {
    "a wrong key": (TOML + "roundz = 3", "unknown key 'roundz'; did you mean 'rounds'?"),
    "no TOML": ("rounds = = 3", "app.toml is not TOML"),
    "a quorum larger than the federation": (
        TOML + "strategy = { quorum = 4 }",
        "a quorum of 4 cannot be reached by a cohort of 3; ask for at most 3.",
    ),
    "an unknown recipe": (TOML + 'strategy = "fedaverage"', "no recipe 'fedaverage'; did you mean 'fedavg'?"),
    "a cohort larger than the federation": (
        TOML + 'strategy = { name = "fedavg", cohort = 100 }',
        "100",
    ),
    "a target that the loss does not lead to": (
        'data = "diabetes"\nmodel = "linear"\nloss = "mse"\ntarget = { accuracy = 0.9 }',
        "'accuracy' cannot be a target with this loss",
    ),
    "the same without a loss": (
        'data = "diabetes"\nmodel = "linear"\ntarget = { accuracy = 0.9 }',
        "'accuracy' cannot be a target with this loss",
    ),
    "a model for another label": ('data = "diabetes"', "a logistic model needs classes"),
    "a loss for another label": ('data = "wine"\nmodel = "mlp"\nloss = "mse"', "does not fit a label of 3 classes"),
    "a missing file": (
        CSV.replace("rows.csv", "none.csv"),
        "none.csv: there is no such file",
    ),
    "a missing column": (
        CSV.replace("age", "ages"),
        "there is no column 'ages'; did you mean 'age'?",
    ),
    "nothing held out": ('data = { source = "iris", holdout = 0.0 }', "there is nothing to measure on"),
    "leaves that are not there": (TOML + 'strategy = { name = "fedbn", leaves = ["x*"] }', "no leaf is called 'x*'"),
    "no batch normalisation": (TOML + 'strategy = "fedbn"', ""),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(command, tmp_path, case):
    text, sentence = REFUSED[case]
    (tmp_path / "rows.csv").write_text("age,y\n1,0\n2,1\n")
    assert sentence in refused(command, "run", written(tmp_path, text))
    assert not os.path.exists("runs")
    assert sentence in refused(command, "run", "app.toml", "--json")


def test_files_that_are_no_apps(command, tmp_path):
    assert "there is no file 'none.toml'" in refused(command, "run", "none.toml")
    assert "SyntaxError" in refused(command, "run", written(tmp_path, "def f(:", "bad.py"))
    assert "did you mean 'rounds'" in refused(command, "run", written(tmp_path), "--set", "roudns=3")


def test_a_folder_that_cannot_be_written(command, tmp_path):
    (tmp_path / "file").touch()
    sentence = refused(command, "run", written(tmp_path), "--out", "file")
    assert "cannot make the folder file/" in sentence
    assert "choose another with --out" in sentence


@pytest.mark.parametrize("name", ["resume", "show", "report"])
def test_an_unknown_run(command, name):
    assert "there is no run 'x' in runs; there are none." in refused(command, name, "x")
    assert "there is no run 'last' in runs" in refused(command, name, "last")


def test_an_ended_run_cannot_be_resumed(command, tmp_path):
    command("run", written(tmp_path), "--json")
    assert "has ended: completed, best loss " in refused(command, "resume", "last")


def test_a_run_that_is_held_cannot_be_resumed(command, tmp_path):
    loaded = load(written(tmp_path))
    recording = begin(loaded.app, tmp_path / "runs", source=loaded.source, identity=loaded.identity)
    assert "is running in another process" in refused(command, "resume", "last")
    recording.close()


def test_resume_from_the_command_line(command, tmp_path):
    loaded = load(written(tmp_path), ["rounds=3"])
    whole = command("run", "app.toml", "--set", "rounds=3", "--json", "--out", "whole").events[-1]
    recording = begin(
        loaded.app, tmp_path / "runs", source=loaded.source, overrides=["rounds=3"], identity=loaded.identity
    )
    rounds = recording.rounds()
    next(rounds)
    rounds.close()
    recording.close()
    told = command("show", "last")
    assert "app: stopped, after round 1\n" in told.out
    assert f"`fedloom resume {only_run()}` goes on from here\n" in told.err
    told = command("resume", "last", "--json")
    assert [event.get("round") for event in told.events] == [2, 3, None]
    assert told.events[-1]["sha256"] == whole["sha256"]
    assert command("show", "last", "--json").events[-1] == told.events[-1]


def test_resume_refuses_a_changed_app(command, tmp_path):
    loaded = load(written(tmp_path))
    begin(loaded.app, tmp_path / "runs", source=loaded.source, identity=loaded.identity).close()
    written(tmp_path, TOML.replace("rounds = 2", "rounds = 5"))
    assert "has changed since the run" in refused(command, "resume", "last")
    written(tmp_path, TOML.replace("clients = 3", "clients = 4"))
    assert "has changed since the run" in refused(command, "resume", "last")
    os.remove("app.toml")
    assert "there is no file" in refused(command, "resume", "last")


def test_a_run_of_python_is_resumed_in_python(command, tmp_path):
    begin(app(), tmp_path / "runs").close()
    assert "was begun in Python" in refused(command, "resume", "last")
    assert command("show", "last").code == 0


def test_report_of_a_run_without_rounds(command, tmp_path):
    loaded = load(written(tmp_path))
    begin(loaded.app, tmp_path / "runs", source=loaded.source, identity=loaded.identity).close()
    assert command("report", "last").code == 0
    assert "interrupted" in command("show", "last").out


def test_ctrl_c_while_the_report_is_made(command, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("fedloom.publish.publish", interrupted)
    told = command("run", written(tmp_path))
    assert told.code == 130
    assert f"there is no report yet; `fedloom report {only_run()}` writes it" in told.err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert command("report", "last").code == 0


def test_names_are_not_markup(command, tmp_path):
    folder = tmp_path / "[red]out[/red]"
    told = command("run", written(tmp_path, TOML + 'name = "[bold]x[/]"'), "--out", folder, "--no-compare")
    assert told.code == 0
    assert f"report  {folder}/" in told.out
    assert "[bold]x[/]: 31 shared parameters" in told.err


def test_start_from(command, tmp_path):
    first = command("run", written(tmp_path), "--json").events[-1]
    again = command("run", "app.toml", "--json", "--start-from", first["model"]).events
    assert again[0]["training"]["loss"] < first["metrics"]["loss"] + 0.1
    both = command("run", "app.toml", "--json", "--set", "rounds=4").events
    assert again[0]["training"]["loss"] == pytest.approx(both[2]["training"]["loss"], rel=0.05)
    other = command("run", "app.toml", "--json", "--set", "model=mlp", "--set", "model.hidden=[4]").events[-1]["model"]
    runs = len(os.listdir("runs"))
    assert "is it this model?" in refused(command, "run", "app.toml", "--start-from", other)
    assert "cannot be read as a model file" in refused(command, "run", "app.toml", "--start-from", "app.toml")
    assert "cannot be read as a model file" in refused(command, "run", "app.toml", "--start-from", "none")
    assert len(os.listdir("runs")) == runs


def test_wrong_options_are_refused(command):
    for words in (["run"], ["run", "a", "b"], ["run", "demo", "--no-such"], ["nothing"], ["predict", "last"]):
        told = command(*words)
        assert (told.code, told.out) == (2, "")
        assert "Usage" in told.err


def test_without_the_data_sets_it_says_where_they_should_be(command, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLOOM_DATA", str(tmp_path / "nowhere"))
    sentence = refused(command, "run", written(tmp_path, 'data = "heart_disease"'))
    assert "set the environment variable FEDLOOM_DATA" in sentence
    assert "FEDLOOM_DATA" in no_data()


def test_a_recorded_end_is_json_that_everybody_reads(tmp_path):
    end = trained(tmp_path)
    assert json.loads(json.dumps(end, allow_nan=False)) == end


def test_the_version(command):
    from fedloom.version import __version__

    told = command("--version")
    assert (told.code, told.out) == (0, f"fedloom {__version__}\n")


def test_of_many_clients_only_the_first_are_listed(command, tmp_path):
    told = command("run", written(tmp_path), "--no-compare", "--set", "clients=30", "--set", "rounds=1")
    assert "client-004" in told.err
    assert "client-005" not in told.err
    assert "… and 25 more clients; the report shows them all" in told.err


def test_the_list_of_runs_is_brief_about_a_failed_one(command, tmp_path):
    command("run", written(tmp_path, FAILS, "fails.py"))
    told = command("runs")
    assert "0 of 3 clients counted, 3 are needed …" in " ".join(told.out.split())
    assert "client-001" not in told.out


def test_an_address_of_ray_wants_the_engine_ray(command, tmp_path):
    told = command("run", written(tmp_path), "--ray-address", "auto")
    assert told.code == 2
    assert "--ray-address goes with --engine ray, got --engine auto" in " ".join(told.err.split())
    told = command("run", written(tmp_path), "--engine", "ray", "--ray-address", "nowhere")
    assert told.code == 2
    assert "the engine 'ray@nowhere' needs an address" in " ".join(told.err.split())
