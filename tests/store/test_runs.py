import subprocess
import sys
from contextlib import closing

import pytest

from apps import app, of_format, trained
from fedloom.core.errors import ConfigError, OtherFormat, RunError, StorageError, UnknownRun
from fedloom.running import begin, resume
from fedloom.store.runs import ELSEWHERE, JOURNAL, create, found_again, is_id, listed, locked, opened


def test_runs_are_listed_newest_last(tmp_path):
    made = [trained(tmp_path, rounds=1, name=name)["run"] for name in ("zebra", "ape", "ape", "mouse")]
    assert [row.run for row in listed(tmp_path)] == made
    folder, journal = opened(tmp_path, "last")
    journal.close()
    assert folder.name == made[-1]


def test_a_run_that_nobody_runs_was_interrupted(tmp_path):
    recording = begin(app(), tmp_path)
    assert [row.status for row in listed(tmp_path)] == ["running"]
    recording.close()  # as the lock goes with a process that is killed
    assert [row.status for row in listed(tmp_path)] == ["interrupted"]


def test_a_stopped_run_that_goes_on_is_running(tmp_path):
    recording = begin(app(rounds=3), tmp_path)
    rounds = recording.rounds()
    next(rounds)
    rounds.close()
    recording.close()
    assert [row.status for row in listed(tmp_path)] == ["stopped"]
    with closing(resume(app(rounds=3), recording.folder)) as again:
        rounds = again.rounds()
        next(rounds)
        assert [row.status for row in listed(tmp_path)] == ["running"]
        rounds.close()


def test_a_run_is_held_once(tmp_path):
    with locked(tmp_path), pytest.raises(RunError, match="running in another process; wait for it, or stop it"):
        locked(tmp_path).__enter__()
    with locked(tmp_path):
        pass


def test_a_run_is_held_against_another_process(tmp_path):
    code = (
        f"from pathlib import Path; from fedloom.store.runs import locked; locked(Path({str(tmp_path)!r})).__enter__()"
    )
    with locked(tmp_path):
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "is running in another process" in other.stderr


def test_unknown_runs_name_those_that_there_are(tmp_path):
    with pytest.raises(UnknownRun, match=r"there is no run 'x' in .*; there are none\."):
        opened(tmp_path, "x")
    with pytest.raises(UnknownRun, match="there is no run 'last'"):
        opened(tmp_path / "nowhere", "last")
    made = trained(tmp_path, rounds=1)["run"]
    with pytest.raises(UnknownRun, match=f"the newest are {made}"):
        opened(tmp_path, "x")


def test_a_damaged_run_does_not_hide_the_others(tmp_path):
    made = trained(tmp_path, rounds=1)["run"]
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / JOURNAL).write_bytes(b"no database" * 99)
    assert [row.run for row in listed(tmp_path)] == [made]
    with pytest.raises(RunError, match="cannot be read or written"):
        opened(tmp_path, "broken")


DOWN = "postgresql+pg8000://me:secret@127.0.0.1:1/fedloom"


def test_a_database_that_is_down_does_not_look_like_no_runs(tmp_path):
    down = tmp_path / "29990101-000000-app-0000"
    down.mkdir()
    (down / ELSEWHERE).write_text(DOWN)
    for run in ("last", down.name):
        with pytest.raises(StorageError, match=r"the journal's database cannot be read or written: no connection"):
            opened(tmp_path, run)
    with pytest.raises(StorageError):
        listed(tmp_path)
    made = trained(tmp_path, rounds=1)["run"]
    unreached = {}
    assert [row.run for row in listed(tmp_path, unreached)] == [made]
    assert list(unreached) == [down.name]
    folder, book = opened(tmp_path, made)  # what can be read is not hidden
    book.close()
    assert folder.name == made
    with pytest.raises(StorageError):
        opened(tmp_path, "last")
    down.rename(tmp_path / "20000101-000000-app-0000")
    folder, book = opened(tmp_path, "last")
    book.close()
    assert folder.name == made


def test_a_run_of_another_format_does_not_look_like_no_run(tmp_path):
    old = trained(tmp_path, rounds=1)["run"]
    of_format(1, tmp_path / old)
    for run in ("last", old):
        with pytest.raises(OtherFormat, match="is of format 1, and this fedloom reads 2; take the fedloom that wrote"):
            opened(tmp_path, run)
    with pytest.raises(OtherFormat):
        listed(tmp_path)
    with pytest.raises(UnknownRun, match=f"the newest are {old}"):
        opened(tmp_path, "x")
    (tmp_path / old).rename(tmp_path / "20000101-000000-app-0000")
    made, unread = trained(tmp_path, rounds=1)["run"], {}
    assert [row.run for row in listed(tmp_path, unread)] == [made]
    assert list(unread) == ["20000101-000000-app-0000"]
    folder, book = opened(tmp_path, "last")
    book.close()
    assert folder.name == made


def test_a_run_of_another_format_in_a_database_is_logged(tmp_path, monkeypatch, caplog):
    def other(database, run):
        raise OtherFormat("it is of format 1.")

    monkeypatch.setattr("fedloom.store.runs.runs_in", lambda database: ["20000101-000000-app-0000"])
    monkeypatch.setattr("fedloom.store.runs.Journal", other)
    assert found_again(tmp_path, DOWN, "ours") == []
    (said,) = caplog.records
    assert (said.run, said.said) == ("20000101-000000-app-0000", "it is of format 1.")


def test_a_folder_of_a_run_that_was_never_begun(tmp_path):
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / JOURNAL).touch()
    assert listed(tmp_path) == []
    with pytest.raises(UnknownRun, match="never begun; delete it"):
        opened(tmp_path, "early")


def test_ids_are_fit_for_a_folder(tmp_path):
    assert create(tmp_path, "../Zürich / No. 1!").name[16:-5] == "zürich---no--1"
    assert create(tmp_path, "!!!").name[16:-5] == "app"
    for name in ("../Zürich / No. 1!", "long" * 100, "\U00020000" * 100, "!!!"):
        assert is_id(create(tmp_path, name).name)


@pytest.mark.parametrize("run", ["", ".", "..", "a/b", "a b", "x" * 201, "\U00020000" * 51, "\ud800", "a\n", "a\0"])
def test_what_is_no_name_of_a_folder_is_no_id(run):
    assert not is_id(run)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot make the folder .*; choose another with --out\."):
        create(tmp_path / "file", "a")
