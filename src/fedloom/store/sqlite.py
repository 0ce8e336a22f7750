"""A file that is an SQLite database, over one connection that stays open: what a site writes before anything leaves."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Lock, local
from typing import Any

from ..core.errors import OtherFormat, RunError, StorageError

PATIENCE_S = 30.0  # for another process that is writing
Row = tuple[Any, ...]


class _Mine(local):
    """Where a thread is with a database: inside of a transaction, which began, and then is durable at its end."""

    inside, holds, durable = False, False, True


class Database:
    """A database of a few small tables; threads and processes may share it, and write one after the other.

    Args:
        path: of the file; it is made where it is missing, its folder is not.
        what: it is called in errors, before its path.
        tables: that it has, by name: what stands between the parentheses of CREATE TABLE.
        version: of the tables; raises `OtherFormat` for a file of another one.

    >>> from tempfile import mkdtemp
    >>> database = Database(Path(mkdtemp()) / "some.db", "the file", {"seen": "number INTEGER PRIMARY KEY"})
    >>> with database.together():
    ...     database.execute("INSERT INTO seen VALUES (?)", [3])
    ...     database.execute("SELECT number FROM seen")
    []
    [(3,)]
    >>> database.close()
    """

    def __init__(self, path: Path, what: str, tables: dict[str, str], version: int = 1) -> None:
        self.path, self._name, self._lock, self._mine = path, f"{what} {path}", Lock(), _Mine()
        with _said(self._name):
            self._connection = sqlite3.connect(path, PATIENCE_S, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._through(True)
        with self.together():
            self._is_of(version)
            for name, columns in tables.items():
                self.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")

    @contextmanager
    def together(self, *, durable: bool = True) -> Iterator[None]:
        """Make one transaction of all that this thread executes within; all or none is kept.

        It begins with the first of it, or with `begin`: until then others may write. At the end of a `durable` one it
        is on the disk, with all that was written before. Another one outlives the process, and a power cut once a
        durable one has followed. What is opened within another one is part of that.
        """
        mine = self._mine
        if mine.inside:
            yield
            return
        mine.inside, mine.durable = True, durable
        try:
            yield
            self._end("COMMIT")
        except BaseException:
            self._end("ROLLBACK")
            raise
        finally:
            mine.inside = False
            if mine.holds:
                mine.holds = False
                self._lock.release()

    def begin(self) -> None:
        """Let the transaction that this thread is in begin: no other thread writes before its end."""
        assert self._mine.inside, "within `together`"
        if not self._mine.holds:
            self._lock.acquire()
            self._mine.holds = True

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Do this, and return its rows; by itself it is a transaction."""
        with self.together():
            self.begin()
            return self._done(statement, values)

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def _is_of(self, version: int) -> None:
        ((found,),) = self.execute("PRAGMA user_version")
        if found not in (0, version):  # 0: it is new
            raise other_format(self._name, found, version)
        self.execute(f"PRAGMA user_version={version}")

    def _done(self, statement: str, values: Sequence[Any]) -> list[Row]:
        try:
            if not self._connection.in_transaction:
                if self._mine.durable != self._writes_through:
                    self._through(self._mine.durable)
                self._connection.execute("BEGIN IMMEDIATE")  # nobody writes between what is read here and written
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise _complaint(self._name, error) from error

    def _through(self, durable: bool) -> None:
        """Write through to the disk at every end of a transaction, or not; this cannot be changed within one."""
        self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        self._writes_through = durable

    def _end(self, how: str) -> None:
        try:
            if self._mine.holds and self._connection.in_transaction:
                self._connection.execute(how)
        except sqlite3.DatabaseError as error:
            raise _complaint(self._name, error) from error


def look(path: Path, what: str, statement: str, values: Sequence[Any] = ()) -> list[Row]:
    """Return the rows of a question to a database that another process may have open; nothing is written.

    One that was closed can be looked at where nothing can be written at all, such as in a copy for somebody else.
    """
    with _said(f"{what} {path}"):
        try:
            return _rows(path, "mode=ro", statement, values)
        except sqlite3.OperationalError:  # SQLite keeps a file beside one that can change
            if not path.is_file() or path.with_name(f"{path.name}-wal").exists():
                raise
            return _rows(path, "immutable=1", statement, values)


def _rows(path: Path, how: str, statement: str, values: Sequence[Any]) -> list[Row]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", PATIENCE_S, uri=True)) as connection:
        return connection.execute(statement, values).fetchall()


@contextmanager
def _said(name: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _complaint(name, error) from error


def _complaint(name: str, error: sqlite3.DatabaseError) -> RunError:
    """Return what a database complains of: the disk that it cannot reach, or the file that is damaged."""
    kind = StorageError if isinstance(error, sqlite3.OperationalError) else RunError
    return kind(f"{name} cannot be read or written: {error}.")


def other_format(name: str, found: int, version: int) -> OtherFormat:
    """Return what is said of something stored by another fedloom."""
    return OtherFormat(
        f"{name} is of format {found}, and this fedloom reads {version}; take the fedloom that wrote it."
    )
