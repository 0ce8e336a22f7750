"""Apps small enough to run in a test, and the command line in this process."""

import json
import os
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass

import pytest

import fedloom
from fedloom import cli
from fedloom.data import data_folder
from fedloom.running import begin


def app(**changes):
    """Return an app on data that scikit-learn ships: three clients, two rounds, a few milliseconds."""
    data = fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Iid(3))
    return fedloom.App(**{"model": fedloom.BuiltIn(name="logistic"), "data": data, "rounds": 2} | changes)


def ended(recording):
    """Run a recording to its end; return its last event."""
    with closing(recording):
        for _ in recording.rounds():
            pass
    return recording.summary


def trained(out, **changes):
    """Begin a recorded run of such an app, run it to its end, and return its last event."""
    return ended(begin(app(**changes), out))


TOML = """\
data = "breast_cancer"
clients = 3
rounds = 2
"""


def of_format(version, folder):
    """Let a run's journal say that a fedloom of another format wrote it."""
    with closing(sqlite3.connect(folder / "journal.db")) as database, database:
        database.execute("UPDATE format SET version = ?", [version])


def written(folder, text=TOML, name="app.toml"):
    """Write an app's file and return its path as text."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


@dataclass(frozen=True)
class Told:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def events(self):
        return [json.loads(line) for line in self.out.splitlines()]


class Terminal:
    """Runs commands in this process, as the shell would."""

    def __init__(self, capsys, monkeypatch):
        self.capsys, self.monkeypatch = capsys, monkeypatch

    def __call__(self, *words):
        self.monkeypatch.setattr(sys, "argv", ["fedloom", *(str(word) for word in words)])
        self.capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        told = self.capsys.readouterr()
        return Told(code, told.out, told.err)


def there():
    """Return what lies in the present folder, but for what test tools and Python itself keep there."""
    return sorted(name for name in os.listdir() if not name.startswith(".") and name != "__pycache__")


def refused(command, *words, code=2):
    """Run a command that must be refused in one sentence, with nothing left behind; return the sentence."""
    before = there()
    told = command(*words)
    assert (told.code, told.out) == (code, "")
    assert there() == before
    lines = told.err.splitlines()
    assert len(lines) == 1, told.err
    assert lines[0].startswith("error FL")
    return lines[0]


def no_data():
    """Return why the data sets are not here; nothing if they are."""
    try:
        data_folder()
    except fedloom.DataError as error:
        return str(error)
    return ""


needs_data = pytest.mark.skipif(bool(no_data()), reason=no_data())
