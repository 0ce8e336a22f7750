import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from postgres import controlled, server
from sqlalchemy import event
from sqlalchemy.exc import DataError, InterfaceError, ProgrammingError

from apps import app
from fedloom.core.errors import ConfigError, RunError, StorageError, UnknownRun
from fedloom.simulation import simulate
from fedloom.store.dispatches import Dispatches
from fedloom.store.files import write_parts
from fedloom.store.journal import Ending, Journal, RunRow, opened_engine, runs_in, transaction
from fedloom.store.runs import found_again, listed
from fedloom.store.runs import journal as journal_of
from small import same_tree

ROW = RunRow(
    run="r1",
    name="demo",
    app="demo",
    digest="d",
    held="h",
    engine="sequential",
    started="2026-01-01T00:00:00.000Z",
    version="0",
    overrides=("rounds=3", "seed=1"),
    seed=1,
    summary={},
)


class DriverError(Exception):
    """What a driver raises."""


MEMORIES = {
    "site-1": {"local": np.array([0.1, -0.0, 3e-45], np.float32), "stages": [None, ("x", 2)], "gather": None},
    "Zürich": {"local": {"home": {"b": np.arange(6.0).reshape(2, 3)}, "steps": 7}},
}


@pytest.fixture
def state():
    return simulate(app()).first()


@pytest.fixture(scope="module")
def postgres():
    with server() as url:
        yield url


@pytest.fixture(params=["sqlite", "sqlite with a folder", pytest.param("postgres", marks=pytest.mark.slow)])
def journal(request, tmp_path):
    if request.param == "postgres":
        url, run = request.getfixturevalue("postgres"), f"20260101-000000-app-{os.urandom(2).hex()}"
        book = Journal(url, run=run)
    else:
        book = Journal(f"sqlite:///{tmp_path / 'journal.db'}", tmp_path if "folder" in request.param else None)
    yield book
    book.close()


def test_a_large_state_lies_beside_the_journal_and_old_ones_go(tmp_path, state, monkeypatch):
    monkeypatch.setattr("fedloom.store.journal.LARGE", 10)
    book = Journal(f"sqlite:///{tmp_path / 'journal.db'}", tmp_path)
    book.begin(ROW, state)
    for number in (1, 2, 3):
        book.save(state.but(vector=state.vector + np.float32(number), round=number), rounds(number), {})
    assert [path.name for path in tmp_path.glob("state-*")] == ["state-3.safetensors"]
    assert same_tree(book.last().tree(), state.but(vector=state.vector + np.float32(3), round=3).tree())
    (tmp_path / "state-3.safetensors").unlink()
    with pytest.raises(RunError, match=r"state-3\.safetensors cannot be read"):
        book.last()
    book.close()


@pytest.mark.parametrize(
    ("change", "writes"),
    [
        pytest.param(lambda state: state.but(epsilon=2.5), 1, id="only figures moved"),
        pytest.param(lambda state: state.but(vector=state.vector + 1), 2, id="the model moved"),
        pytest.param(lambda state: state.but(round=3), 2, id="another round"),
    ],
)
def test_arrays_that_were_written_ahead_are_written_once_and_only_if_they_are_the_ones(
    tmp_path, state, monkeypatch, change, writes
):
    monkeypatch.setattr("fedloom.store.journal.LARGE", 10)
    written = []
    monkeypatch.setattr(
        "fedloom.store.journal.write_parts", lambda *a, **k: written.append(a[0]) or write_parts(*a, **k)
    )
    book = Journal(f"sqlite:///{tmp_path / 'journal.db'}", tmp_path)
    ahead = state.but(round=2)
    book.write_ahead(ahead)
    assert book.last() is None  # not saved yet
    after = change(ahead)
    book.save(after, rounds(2), {})
    assert same_tree(book.last().tree(), after.tree())
    assert len(written) == writes
    assert [path.name for path in tmp_path.glob("state-*")] == [f"state-{after.round}.safetensors"]
    book.close()


def test_an_interrupt_in_the_middle_of_a_transaction_stays_an_interrupt(tmp_path):
    """SQLAlchemy closes a connection that was interrupted; what is told of that must not take the interrupt's place."""
    engine = opened_engine(f"sqlite:///{tmp_path / 'journal.db'}")
    with transaction(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE one (x)")

    def interrupted(durable):
        with transaction(engine, durable=durable) as connection:
            connection.exec_driver_sql("INSERT INTO one VALUES (1)")
            connection.invalidate()
            raise KeyboardInterrupt

    for durable in (False, True):
        with pytest.raises(KeyboardInterrupt):
            interrupted(durable)
    with transaction(engine, durable=True) as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("SELECT count(*) FROM one").scalar() == 0
    with transaction(engine) as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
    engine.dispose()


@pytest.mark.parametrize("opening", [Journal, lambda url: Dispatches(opened_engine(url))])
def test_a_journal_of_another_format_is_refused_in_words(tmp_path, opening, monkeypatch):
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    opening(url), opening(url)
    monkeypatch.setattr("fedloom.store.journal.VERSION", 3)
    with pytest.raises(RunError, match=r"journal\.db is of format 2, and this fedloom reads 3"):
        opening(url)


def test_a_small_state_is_not_written_ahead(tmp_path, state):
    book = Journal(f"sqlite:///{tmp_path / 'journal.db'}", tmp_path)
    book.write_ahead(state)
    assert list(tmp_path.glob("state-*")) == []
    book.close()


@pytest.mark.slow
def test_a_database_holds_several_runs_apart(postgres, state, tmp_path):
    names = [f"20260102-00000{at}-app-00f{at}" for at in (1, 2)]
    (tmp_path / "20260102-000003-app-00f3").mkdir()
    for at, name in enumerate(names):
        (tmp_path / name).mkdir()
        book = journal_of(tmp_path / name, postgres)
        book.begin(replace(ROW, run=name, federation=f"ours {at}"), state.but(round=at))
        book.close()
    assert [row.run for row in listed(tmp_path)] == names
    assert [name for name in runs_in(postgres) if name in names] == names
    shutil.rmtree(tmp_path / names[0])  # the disk that had it has died
    shutil.rmtree(tmp_path / names[1])
    journal_of(tmp_path / "20260102-000003-app-00f3", postgres).close()  # it never began
    shutil.rmtree(tmp_path / "20260102-000003-app-00f3")
    assert [row.run for row in found_again(tmp_path, postgres, "ours 0")] == names[:1]
    assert [path.name for path in tmp_path.iterdir()] == names[:1]  # the others' runs stay theirs
    with closing(journal_of(tmp_path / names[0])) as book:
        assert book.last().round == 0
    assert (tmp_path / names[0] / "journal.url").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("url", "error", "match"),
    [
        ("nonsense", ConfigError, "no database's URL"),
        ("nosuch://a/b", ConfigError, "no database's URL"),
        ("postgresql+pg8000://nobody@localhost:1/none", RunError, "cannot be read or written"),
        (
            "postgresql+asyncpg://nobody@localhost:1/none",
            ConfigError,
            r"write postgresql\+pg8000://…, with the rest as",
        ),
    ],
)
def test_a_database_that_cannot_be_reached_is_refused_in_a_sentence(url, error, match):
    with pytest.raises(error, match=match):
        Journal(url, run="20260101-000000-app-0000")


@pytest.mark.parametrize(
    "url",
    [
        "postgres://fedloom:geheim@db.example/x",
        "postgresql+pg8000://fedloom:geheim@db.example:geheim/x",
        "fedloom:geheim@db.example",
        "postgresql+pg8000://fedloom:geheim@localhost:1/none",
        "postgresql+pg8000://fedloom@localhost:1/none?application_name=geheim",
        "postgresql+pg8000://fedloom:geheim@/none?unix_sock=/nowhere/db.example",
    ],
)
def test_a_refusal_holds_neither_a_password_nor_where_the_database_is(url):
    with pytest.raises((ConfigError, StorageError)) as refused:
        Journal(url, run="20260101-000000-app-0000")
    assert not any(word in str(refused.value) for word in ("geheim", "db.example", "localhost", "nowhere"))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_database_that_was_restarted_between_two_transactions_is_reached_again(mode, state):
    with controlled() as (url, control), closing(Journal(url, run="20260101-000000-app-0000")) as book:
        book.begin(ROW, state)
        control("-m", mode, "stop")
        control("start")
        assert book.row() == ROW
        control("-m", mode, "stop")
        with pytest.raises(StorageError, match=r"the journal's database cannot be read or written: no connection"):
            book.row()
        control("start")
        assert book.row() == ROW


@pytest.mark.slow
def test_a_connection_that_the_server_ends_is_a_matter_of_storage_and_a_wrong_question_is_none(postgres):
    engine = opened_engine(postgres)

    def ended():
        with transaction(engine) as connection:
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    def wrong():
        with transaction(engine) as connection:
            connection.exec_driver_sql("SELECT * FROM nowhere")

    with pytest.raises(StorageError, match=r"database cannot be read or written: network error\."):
        ended()
    with pytest.raises(RunError, match='written: relation "nowhere" does not exist') as refused:
        wrong()
    assert not isinstance(refused.value, StorageError)
    engine.dispose()


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (ProgrammingError("", {}, DriverError({"C": "53100", "M": "No space left on device"})), StorageError),
        (ProgrammingError("", {}, DriverError({"C": "57P03", "M": "starting up"})), StorageError),
        (ProgrammingError("", {}, DriverError({"C": "42P01", "M": "no such relation"})), RunError),
        (ProgrammingError("", {}, DriverError("gone"), connection_invalidated=True), StorageError),
        (InterfaceError("", {}, DriverError("communication error")), StorageError),
        (DataError("", {}, DriverError()), RunError),
        (ConnectionResetError(104, "Connection reset by peer"), StorageError),
    ],
)
def test_what_may_pass_is_a_matter_of_storage(tmp_path, raised, kind):
    engine = opened_engine(f"sqlite:///{tmp_path / 'journal.db'}")
    with pytest.raises(RunError, match=r"journal\.db cannot be read or written") as said, transaction(engine):
        raise raised
    assert type(said.value) is kind
    engine.dispose()


def rounds(*numbers, **more):
    return [{"event": "round", "round": number, **more} for number in numbers]


def test_a_run_comes_back_as_it_was_written(journal, state):
    journal.begin(ROW, state)
    assert journal.row() == ROW


@pytest.mark.parametrize("seed", [2**63 - 1, -(2**63)])
def test_a_seed_of_64_bits_comes_back(journal, state, seed):
    journal.begin(replace(ROW, seed=seed), state)
    assert journal.row().seed == seed


def test_state_and_memories_come_back_with_the_same_bits(journal, state):
    journal.begin(ROW, state)
    moved = state.but(vector=state.vector + np.float32(0.1), round=3, stop={"best": 0.1, "round": 2, "stale": 1})
    journal.save(moved, rounds(1, 2, 3), MEMORIES)
    assert same_tree(journal.last().tree(), moved.tree())
    assert all(same_tree(journal.memory(name), memory) for name, memory in MEMORIES.items())


def test_a_new_run_has_a_state_and_no_rounds(journal, state):
    journal.begin(ROW, state)
    assert (journal.last().round, journal.memory("a"), journal.rounds()) == (0, None, [])


def test_a_journal_without_a_run(journal):
    assert journal.last() is None
    with pytest.raises(UnknownRun, match="never begun; delete it"):
        journal.row()


def test_what_is_written_again_takes_the_place_of_the_old(journal, state):
    journal.begin(ROW, state)
    journal.save(state, rounds(1, 2, seconds=1.0), {"a": {"n": 1}, "b": {"n": 1}})
    journal.save(state, rounds(2, 3, seconds=2.0), {"b": {"n": 2}})
    assert [(event["round"], event["seconds"]) for event in journal.rounds()] == [(1, 1.0), (2, 2.0), (3, 2.0)]
    assert (journal.memory("a"), journal.memory("b")) == ({"n": 1}, {"n": 2})


def test_a_save_that_fails_leaves_nothing_behind(journal, state):
    journal.begin(ROW, state)
    journal.save(state, rounds(1), {"a": {"n": 1}})
    with pytest.raises(TypeError, match="cannot store a set"):
        journal.save(state.but(round=2, stop={1}), rounds(2), {"a": {"n": 2}})
    assert (journal.last().round, journal.memory("a"), len(journal.rounds())) == (0, {"n": 1}, 1)


def test_the_end_is_written_with_the_last_state(journal, state):
    journal.begin(ROW, state)
    ending = Ending("completed", "best loss 0.1", "2026-01-01T00:00:09.000Z", {"event": "end", "rounds": 2})
    with pytest.raises(TypeError):
        journal.save(state.but(stop={1}), rounds(1), {}, ending)
    assert journal.row().status == "running"
    journal.save(state.but(round=2), rounds(1, 2), {}, ending)
    row = journal.row()
    assert (row.status, row.reason, row.summary["rounds"], journal.last().round) == (
        "completed",
        "best loss 0.1",
        2,
        2,
    )


def test_a_run_that_goes_on_has_not_ended(journal, state):
    journal.begin(ROW, state)
    journal.save(state, [], {}, Ending("stopped", "stopped after round 1", "now", {"event": "end"}))
    journal.reopen()
    assert journal.row() == ROW


def test_nan_and_infinity_in_events_become_null(journal, state):
    journal.begin(ROW, state)
    journal.save(state, rounds(1, metrics={"auc": float("nan"), "loss": float("inf"), "n": 3}), {})
    assert journal.rounds()[0]["metrics"] == {"auc": None, "loss": None, "n": 3}


def test_a_damaged_database_is_refused_in_a_sentence(tmp_path):
    path = tmp_path / "journal.db"
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(RunError, match=r"journal\.db cannot be read or written: file is not a database"):
        Journal(f"sqlite:///{path}")


def test_a_database_that_lacks_a_column_is_refused_in_a_sentence(tmp_path):
    path = tmp_path / "journal.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE run (run TEXT)")
    connection.close()
    book = Journal(f"sqlite:///{path}")
    with pytest.raises(RunError, match="no such column"):
        book.row()
    book.close()


@pytest.mark.parametrize("durable", [False, True])
def test_a_state_is_written_through_to_the_disk_where_that_is_asked(tmp_path, state, durable):
    """2 is FULL, 1 is NORMAL; it is as before behind it."""
    levels = []
    with closing(journal_of(tmp_path, durable=durable)) as book:
        book.begin(ROW, state)

        @event.listens_for(book.engine, "commit")
        def committed(connection):
            levels.append(connection.connection.dbapi_connection.execute("PRAGMA synchronous").fetchone()[0])

        book.save(state.but(round=1), [{"round": 1}], {})
        book.reopen()
    assert levels == [2 if durable else 1, 1]
