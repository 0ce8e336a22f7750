"""How much a site has answered: counters on its own disk, which only grow and know of no clock.

A count is on the disk before the answer that it counts may leave, so that neither a crash nor a restart gives any of
it back: an answer that was counted and then lost stays counted.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    create_engine,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DatabaseError, OperationalError

from ..core.errors import RunError, StorageError

_META = MetaData()
_RUNS = Table("runs", _META, Column("app", String, primary_key=True), Column("run", String, primary_key=True))
_SPENT = Table(
    "spent",
    _META,
    *(Column(name, String, primary_key=True) for name in ("app", "run", "kind")),
    Column("count", Integer, nullable=False),
)
_MINE = [_SPENT.c[name] == bindparam(f"my_{name}") for name in ("app", "run", "kind")]
_LOOK = select(func.coalesce(func.sum(_SPENT.c.count), 0)).where(*_MINE)
_COUNT = update(_SPENT).where(*_MINE).values(count=bindparam("total"))


class Usage:
    """What a site has answered in one run of an app; every method is one transaction, written through to the disk.

    Args:
        path: of the site's file with counters, of all apps and runs; it is made where it is missing.
        app: digest of the site's own copy.
        run: as the coordinator names it.

    >>> from tempfile import mkdtemp
    >>> usage = Usage(Path(mkdtemp()) / "usage.db", "the app's digest", "run 1")
    >>> usage.spend("round", most=2), usage.spend("round", most=2), usage.spend("round", most=2)
    (True, True, False)
    >>> usage.close()
    """

    def __init__(self, path: Path, app: str, run: str) -> None:
        self._engine, self._path = _engine(path), path
        self._run, self._begun = {"app": app, "run": run}, False
        with self._begin() as connection:
            _META.create_all(connection)

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        """Open a transaction that no other process can write beside; what the database complains of is a `RunError`."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except DatabaseError as error:
            kind = StorageError if isinstance(error, OperationalError) else RunError  # a full disk, or a damaged file
            raise kind(f"the counters in {self._path} cannot be read or written: {error.orig}.") from error

    def spent(self, kind: str) -> int:
        """Return how much of a kind has been counted in this run."""
        with self._begin() as connection:
            return self._spent(connection, kind)

    def spend(self, kind: str, number: int = 1, most: int | None = None) -> bool:
        """Count so many more, unless that were more than `most`; when it returns, the count survives a power cut."""
        with self._begin() as connection:
            mine, before = {**self._run, "kind": kind}, self._spent(connection, kind)
            if most is not None and before + number > most:
                return False
            if before:
                connection.execute(_COUNT, {**_bound(mine), "total": before + number})
            else:
                connection.execute(insert(_SPENT), {**mine, "count": number})
            return True

    def begin(self, most: int | None = None) -> bool:
        """Count this run among those of its app, unless it is new and there were `most` already."""
        self._begun = self._begun or self._counted(most)  # what was counted stays so
        return self._begun

    def _counted(self, most: int | None) -> bool:
        with self._begin() as connection:
            runs = set(connection.execute(select(_RUNS.c.run).where(_RUNS.c.app == self._run["app"])).scalars())
            if self._run["run"] in runs:
                return True
            if most is not None and len(runs) >= most:
                return False
            connection.execute(insert(_RUNS), self._run)
            return True

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def _spent(self, connection: Connection, kind: str) -> int:
        return int(connection.execute(_LOOK, _bound({**self._run, "kind": kind})).scalar_one())


def _bound(mine: Mapping[str, str]) -> dict[str, Any]:
    return {f"my_{name}": value for name, value in mine.items()}


def _engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def durable(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin below, not where the driver thinks fit
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def alone(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
