"""A database over one connection: what is together, what is on the disk when, and what it says of a disk and a file."""

import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from fedloom.core.errors import RunError, StorageError
from fedloom.store.sqlite import Database, look

TABLES = {"kept": "number INTEGER PRIMARY KEY, text TEXT"}
FULL, NORMAL = 2, 1


@pytest.fixture
def opened(tmp_path):
    """Return the database over a connection of its own."""
    held = []

    def again():
        held.append(Database(tmp_path / "some.db", "the file", TABLES))
        return held[-1]

    yield again
    for database in held:
        database.close()


def put(database, *numbers):
    for number in numbers:
        database.execute("INSERT INTO kept VALUES (?, 'x')", [number])


def numbers(database):
    return [number for (number,) in database.execute("SELECT number FROM kept ORDER BY number")]


def pragmas(database):
    return [database._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")]


def fails(database):
    put(database, 1)
    with database.together():
        put(database, 2)
    put(database, 1)


def test_all_that_is_together_is_kept_or_none(opened):
    database = opened()
    with pytest.raises(RunError, match=r"the file .*some.db cannot be read or written: UNIQUE"), database.together():
        fails(database)
    assert numbers(opened()) == []
    with database.together():
        put(database, 1)
        with database.together():
            put(database, 2)
        assert look(database.path, "the file", "SELECT * FROM kept") == []  # nobody sees a part of it
    assert numbers(opened()) == [1, 2]


def test_what_is_not_durable_by_itself_is_followed_by_what_is(opened):
    """Both go through one log, in order, so the second write through takes the first one along."""
    database = opened()
    put(database, 1)
    assert pragmas(database) == [FULL, "wal"]
    with database.together(durable=False):
        put(database, 2)
    assert pragmas(database) == [NORMAL, "wal"]
    with database.together():
        put(database, 3)
        with database.together(durable=False):
            put(database, 4)
        assert pragmas(database) == [FULL, "wal"]


def test_a_file_of_another_format_is_refused_in_words(opened, tmp_path):
    opened().execute("INSERT INTO kept VALUES (1, 'a')")
    assert opened().execute("SELECT number FROM kept") == [(1,)]
    with pytest.raises(
        RunError, match=r"some\.db is of format 1, and this fedloom reads 2; take the fedloom that wrote"
    ):
        Database(tmp_path / "some.db", "the file", TABLES, version=2)


def test_threads_wait_for_one_another(opened):
    database = opened()

    def pair(number):
        with database.together():
            put(database, 2 * number)
            found = len(numbers(database))
            put(database, 2 * number + 1)
            return found

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(pair, range(20))) == list(range(1, 41, 2))


def test_a_full_disk_and_a_damaged_file_are_told_apart(opened, tmp_path):
    database = opened()
    database._connection.execute("PRAGMA max_page_count=6")
    with pytest.raises(StorageError, match=r"some.db cannot be read or written: database or disk is full"):
        database.execute("INSERT INTO kept VALUES (1, ?)", ["x" * 100_000])
    put(database, 1)
    other = tmp_path / "other.db"
    other.write_text("no database at all, but a text that is long enough" * 50)
    with pytest.raises(RunError, match="cannot be read or written: file is not a database") as caught:
        Database(other, "the file", TABLES)
    assert not isinstance(caught.value, StorageError)
    with pytest.raises(StorageError, match="unable to open database file"):
        look(tmp_path / "nowhere.db", "the file", "SELECT 1")
    assert not (tmp_path / "nowhere.db").exists()


def test_one_that_was_closed_is_looked_at_where_nothing_can_be_written(opened, tmp_path, monkeypatch):
    """Tried on a folder that was mounted read-only; here SQLite is made to refuse as it did there."""
    database, connect = opened(), sqlite3.connect
    put(database, 1)
    database.close()

    def refused(name, *words, **options):
        if name.endswith("?mode=ro"):
            raise sqlite3.OperationalError("unable to open database file")
        return connect(name, *words, **options)

    monkeypatch.setattr(sqlite3, "connect", refused)
    assert look(tmp_path / "some.db", "the file", "SELECT number FROM kept") == [(1,)]
    (tmp_path / "some.db-wal").touch()  # somebody has it open, or had when it was copied
    with pytest.raises(StorageError, match="unable to open database file"):
        look(tmp_path / "some.db", "the file", "SELECT number FROM kept")


DIES = """
import os, signal, sys
from pathlib import Path
from fedloom.store.sqlite import Database

database = Database(Path(sys.argv[1]), "the file", {"kept": "number INTEGER PRIMARY KEY, text TEXT"})
with database.together(durable=False):
    database.execute("INSERT INTO kept VALUES (1, 'x')")
with database.together():
    database.execute("INSERT INTO kept VALUES (2, 'x')")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_takes_what_was_not_finished_and_nothing_before(opened, tmp_path):
    path = tmp_path / "some.db"
    done = subprocess.run([sys.executable, "-c", DIES, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert look(path, "the file", "SELECT number FROM kept") == [(1,)]
    assert numbers(opened()) == [1]


def test_what_is_together_keeps_no_other_thread_waiting_before_it_begins(opened):
    database = opened()

    def other():
        with database.together():
            database.begin()
            put(database, 1)
            return numbers(database)

    with ThreadPoolExecutor(1) as thread, database.together():
        assert thread.submit(other).result(60) == [1]
        put(database, 2)
        waits = thread.submit(put, database, 3)
        assert numbers(database) == [1, 2]
        assert not waits.done()
    assert waits.exception() is None
    assert numbers(opened()) == [1, 2, 3]


def test_a_thread_whose_transaction_fails_undoes_its_own_alone(opened):
    database = opened()
    with ThreadPoolExecutor(1) as thread, database.together():
        put(database, 1)
        failed = thread.submit(fails, database)
    with pytest.raises(RunError):
        failed.result(60)
    assert numbers(opened()) == [1]
