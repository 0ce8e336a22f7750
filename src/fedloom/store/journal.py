"""The journal of one run: what was decided, round by round, and the state to go on from.

In process, the state, the rounds since the last one and the memories of their clients are written in one transaction
every few seconds: after a crash the run goes on from there, and the rounds that were open are run again to the same
bits. SQLite in WAL mode by default; any database that SQLAlchemy reaches by URL.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.schema import CreateSchema

from ..core.errors import ConfigError, MissingExtra, RunError, UnknownRun
from ..core.state import State
from ..core.tree import Tree, join, split
from .files import dump, pieces, restore, write_parts
from .gone import called, unusable
from .reused import Files
from .sqlite import other_format

DRIVER = "pg8000"
VERSION = 2  # of the tables here and of those in `dispatches`
LARGE, STATE, _BESIDE = 1 << 16, "state-", b"beside:"
_NONE: tuple[int, Mapping[str, Any]] = (-1, {})  # no arrays have been written ahead
_RUN_ID = re.compile(r"\d{8}-\d{6}-.+-[0-9a-f]{4}")
WHOLE = BigInteger().with_variant(Integer(), "sqlite")  # of 64 bits everywhere; in SQLite only this numbers rows itself
_META = MetaData()
_RUN = Table(
    "run",
    _META,
    Column("run", String, primary_key=True),
    *(
        Column(name, String, nullable=False)
        for name in ("name", "app", "digest", "held", "engine", "started", "version")
    ),
    *(Column(name, String, nullable=False, default="") for name in ("ended", "status", "reason", "federation")),
    Column("overrides", JSON, nullable=False),
    Column("seed", WHOLE, nullable=False),
    Column("summary", JSON, nullable=False),
    Column("preparation", JSON, nullable=False),
)
_ROUNDS = Table("rounds", _META, Column("round", WHOLE, primary_key=True), Column("event", JSON, nullable=False))
_MEMORY = Table(
    "memory", _META, Column("member", String, primary_key=True), Column("tree", LargeBinary, nullable=False)
)
_FORMAT = Table("format", MetaData(), Column("version", Integer, primary_key=True))
_STATE = Table("state", _META, Column("round", WHOLE, primary_key=True), Column("tree", LargeBinary, nullable=False))
_NO_STATE, _NEW_STATE = delete(_STATE), insert(_STATE)  # statements that are said each round are built once
_REPLACED = {
    table: (delete(table).where(table.c[key] == bindparam("old")), insert(table), key)
    for table, key in ((_ROUNDS, "round"), (_MEMORY, "member"))
}


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run, as `fedloom runs` lists it.

    Args:
        run: its id; name: the app's; app: the path it was read from, or "demo"; overrides: of `--set`, in order.
        digest: of the app; held: of who holds what, which is not part of the app.
        status: "running" while it does, then how it ended; reason: a sentence.
        summary: the run's last event, empty until then.
        preparation: what the parties computed together before round 1.
        federation: digest of the root certificate of those who train; empty in one process.
    """

    run: str
    name: str
    app: str
    digest: str
    held: str
    engine: str
    started: str
    version: str
    overrides: tuple[str, ...]
    seed: int
    ended: str = ""
    status: str = "running"
    reason: str = ""
    summary: Mapping[str, Any]
    preparation: Mapping[str, Any] = field(default_factory=dict)
    federation: str = ""


@dataclass(frozen=True)
class Ending:
    """How and when a run ended: its status, a sentence, the time in UTC, and its last event."""

    status: str
    reason: str
    ended: str
    summary: Mapping[str, Any]


class Journal:
    """Reads and writes the journal of one run; every method is one transaction.

    Args:
        url: of the database.
        folder: where a state of more than `LARGE` bytes lies as a file; None keeps all of it in the database.
        run: of a database that holds several; each has a schema of its own.
        durable: is what was saved to outlive a power cut, as soon as it was?
    """

    def __init__(self, url: str, folder: Path | None = None, run: str | None = None, *, durable: bool = False) -> None:
        self.durable = durable
        self.engine = opened_engine(url, run=run)
        self._files = None if folder is None else Files(folder)
        self._ahead: tuple[int, Mapping[str, Any]] = _NONE
        formed(self.engine, _META)

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        """Open a transaction; what the database complains of becomes a `RunError`."""
        with transaction(self.engine) as connection:
            yield connection

    def begin(self, row: RunRow, state: State) -> None:
        """Write the run's first entry, and the state that it begins with."""
        with self._begin() as connection:
            connection.execute(insert(_RUN), asdict(row) | {"overrides": list(row.overrides)})
            connection.execute(insert(_STATE), {"round": state.round, "tree": self._stored(state)})

    def row(self) -> RunRow:
        """Return the run; raises `UnknownRun` if it was never begun."""
        with self._begin() as connection:
            found = connection.execute(select(_RUN)).mappings().first()
        if found is None:
            raise UnknownRun("this folder holds a run that was never begun; delete it.")
        return RunRow(**{**found, "overrides": tuple(found["overrides"])})

    def save(
        self,
        state: State,
        rounds: Sequence[Mapping[str, Any]],
        memories: Mapping[str, Tree],
        ending: Ending | None = None,
    ) -> None:
        """Write the state to go on from, the rounds closed since the last one, and the clients' memories that moved.

        With `ending` also how the run ended: there is no instant at which only one of the two is written.
        """
        content = self._stored(state)
        with transaction(self.engine, durable=self.durable) as connection:
            _replace(connection, _ROUNDS, [{"round": r["round"], "event": _finite(r)} for r in rounds])
            _replace(connection, _MEMORY, [{"member": m, "tree": dump(t)} for m, t in memories.items()])
            connection.execute(_NO_STATE)
            connection.execute(_NEW_STATE, {"round": state.round, "tree": content})
            if ending is not None:
                connection.execute(update(_RUN), asdict(ending) | {"summary": _finite(ending.summary)})
        self._tidy(content)

    def sync(self) -> None:
        """Wait until what was written would outlive a power cut; other databases than SQLite do so by themselves."""
        if not self.durable and self.engine.dialect.name == "sqlite":
            with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(FULL)").all()

    def last(self) -> State | None:
        """Return the last state; None if nothing was saved."""
        with self._begin() as connection:
            content = connection.execute(select(_STATE.c.tree)).scalar()
        if content is not None and content.startswith(_BESIDE):
            name, _, skeleton = content[len(_BESIDE) :].partition(b"\n")
            return State.of(join(json.loads(skeleton), restore(self._read(name.decode()))))
        return None if content is None else State.of(restore(content))

    def write_ahead(self, state: State) -> None:
        """Write the arrays of a large state to their file; `save` then writes the rest of it, and names the file."""
        _, arrays = split(state.tree())
        if self._files is not None and sum(array.nbytes for array in arrays.values()) > LARGE:
            self._beside(state.round, arrays)
            self._ahead = (state.round, arrays)

    def _stored(self, state: State) -> bytes:
        """Return what the database keeps of a state: all of it, or, of a large one, all but the arrays in a file."""
        tree, (round, ahead) = state.tree(), self._ahead
        skeleton, arrays = split(tree)
        if self._files is None or sum(array.nbytes for array in arrays.values()) <= LARGE:
            return dump(tree)
        name = _name(state.round)
        if (round, list(map(id, ahead.values()))) != (state.round, list(map(id, arrays.values()))):
            self._beside(state.round, arrays)
        self._ahead = _NONE
        return b"".join((_BESIDE, name.encode(), b"\n", json.dumps(skeleton).encode()))

    def _beside(self, round: int, arrays: Mapping[str, Any]) -> None:
        assert self._files is not None, "asked only where there is a folder"
        write_parts(self._files.folder / _name(round), pieces(dict(arrays)), files=self._files)

    def _read(self, name: str) -> memoryview:
        if self._files is None or not re.fullmatch(rf"{STATE}\d+\.safetensors", name):
            raise RunError(f"{called(self.engine)} names the state {name!r}, which cannot lie beside it.")
        try:
            return self._files.read(self._files.folder / name)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise RunError(f"the state {self._files.folder / name} cannot be read: {error}.") from error

    def _tidy(self, kept: bytes) -> None:
        """Delete the states that an earlier transaction named, once another one does."""
        if self._files is not None:
            for path in self._files.folder.glob(_name("*")):
                if not kept.startswith(_BESIDE + path.name.encode() + b"\n"):
                    self._files.drop(path)

    def memory(self, member: str) -> Tree:
        """Return what a client remembered when the last state was saved; None if that is nothing."""
        with self._begin() as connection:
            content = connection.execute(select(_MEMORY.c.tree).where(_MEMORY.c.member == member)).scalar()
        return None if content is None else restore(content)

    def rounds(self) -> list[dict[str, Any]]:
        """Return the events of the closed rounds, in order."""
        with self._begin() as connection:
            return list(connection.execute(select(_ROUNDS.c.event).order_by(_ROUNDS.c.round)).scalars())

    def reopen(self) -> None:
        """Write that the run goes on: what its end said is no longer so."""
        with self._begin() as connection:
            connection.execute(update(_RUN), {"status": "running", "reason": "", "ended": "", "summary": {}})

    def close(self) -> None:
        """Give the connections back, and the file that the next state would have been written over."""
        self.engine.dispose()
        if self._files is not None:
            self._files.close()


def _name(round: int | str) -> str:
    return f"{STATE}{round}.safetensors"


def formed(engine: Engine, tables: MetaData) -> None:
    """Make tables where they are missing; raises `OtherFormat` for a journal whose tables are another version."""
    with transaction(engine) as connection:
        _FORMAT.create(connection, checkfirst=True)
        found = connection.execute(select(_FORMAT.c.version)).scalar()
        if found is None:
            connection.execute(insert(_FORMAT), {"version": VERSION})
        elif found != VERSION:
            raise other_format(called(engine), found, VERSION)
        tables.create_all(connection)


@contextmanager
def transaction(engine: Engine, *, durable: bool = False) -> Iterator[Connection]:
    """Open a transaction; what the database complains of becomes a `RunError`.

    When a `durable` one has been committed, it and all before it outlive a power cut. SQLite writes through to the disk
    once for all of them; other databases than SQLite always do.
    """
    try:
        with engine.connect() as connection, _written_through(connection, durable), connection.begin():
            yield connection
    except (DBAPIError, OSError) as error:  # pg8000 lets some of a socket's errors through
        raise unusable(engine, error) from error


@contextmanager
def _written_through(connection: Connection, durable: bool) -> Iterator[None]:
    raw = connection.connection.dbapi_connection if durable and connection.dialect.name == "sqlite" else None
    if raw is None:
        yield
        return
    pragma = "PRAGMA synchronous"
    (before,) = raw.execute(pragma).fetchone()
    raw.execute(f"{pragma}=FULL")
    try:
        yield
    except BaseException:
        with suppress(Exception):  # an interrupt has closed the connection; it is not used again
            raw.execute(f"{pragma}={before}")
        raise
    raw.execute(f"{pragma}={before}")


def opened_engine(url: str, synchronous: str = "NORMAL", run: str | None = None) -> Engine:
    """Return the database at a URL: SQLite in WAL mode, where "FULL" also outlives a power cut, or a run's schema."""
    try:
        engine = create_engine(url, **({} if url.startswith("sqlite") else {"pool_pre_ping": True}))
    except (ArgumentError, NoSuchModuleError, ValueError) as error:  # its own words may hold a password
        why = str(error) if isinstance(error, NoSuchModuleError) else "it cannot be taken apart"
        raise ConfigError(
            f"what is given is no database's URL: {why}; one is such as postgresql+pg8000://USER@HOST/NAME."
        ) from None
    except ModuleNotFoundError as error:
        if error.name == DRIVER:
            raise MissingExtra(f"this database needs the package {DRIVER}: pip install 'fedloom[postgres]'") from error
        raise ConfigError(
            f"this URL needs the package {error.name}, which fedloom does not use; write postgresql+{DRIVER}://…, with "
            "the rest as it is."
        ) from error
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def pragmas(connection: Any, _record: Any) -> None:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={synchronous}")

    if run is None:
        return engine
    with transaction(engine) as connection:
        connection.execute(CreateSchema(run, if_not_exists=True))
    return engine.execution_options(schema_translate_map={None: run})


def runs_in(url: str) -> list[str]:
    """Return the runs that a database holds, oldest first."""
    engine = opened_engine(url)
    with transaction(engine):
        names = inspect(engine).get_schema_names()
    engine.dispose()
    return sorted(name for name in names if _RUN_ID.fullmatch(name))


def _replace(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        old, new, key = _REPLACED[table]
        connection.execute(old, [{"old": row[key]} for row in rows])  # one by one: databases limit a list's length
        connection.execute(new, list(rows))


def _finite(value: Mapping[str, Any]) -> Any:
    """Return the value as strict JSON has it: NaN and infinity become null."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)
