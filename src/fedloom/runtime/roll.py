"""The roll of a federation: who is invited, who is enrolled, who was taken off, and every certificate that was issued.

One SQLite file that `serve` and `provision` may use at once. What is written here is on disk before a certificate
leaves, so a killed coordinator has forgotten nothing that somebody else holds.
"""

import hmac
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Column, Integer, MetaData, String, Table, create_engine, delete, event, insert, select
from sqlalchemy import update as change
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool

from ..core.errors import AccessDenied, RunError
from .identity import Subject

MISSES = 5  # requests that do not fit an invitation, until it is closed
_META = MetaData()
_INVITED = Table(
    "invited",
    _META,
    Column("number", Integer, primary_key=True),
    *(Column(name, String, nullable=False) for name in ("digest", "name", "role", "expires")),
    Column("hosts", JSON, nullable=False),
    Column("misses", Integer, nullable=False, default=0),
    Column("used", String, nullable=False, default=""),  # the digest of the keys that it was used for
    Column("closed", String, nullable=False, default=""),  # why, if it is
)
_ENROLLED = Table(
    "enrolled",
    _META,
    Column("name", String, primary_key=True),
    *(Column(name, String, nullable=False) for name in ("role", "key")),
    Column("hosts", JSON, nullable=False),
)
_RETIRED = Table(
    "retired",
    _META,
    *(Column(name, String, primary_key=True) for name in ("name", "key")),
)
_ISSUED = Table(
    "issued",
    _META,
    Column("serial", String, primary_key=True),
    *(Column(name, String, nullable=False) for name in ("name", "role", "key", "issued", "expires")),
)


@dataclass(frozen=True)
class Invitation:
    """A place on the roll that is kept for somebody.

    Args:
        number: of the invitation; name, role, hosts: whom it is for, and where that party may listen.
        expires: when it does; used: the digest of the keys it was used for, or ""; closed: why, or "".
    """

    number: int
    name: str
    role: str
    hosts: tuple[str, ...]
    expires: datetime
    used: str
    closed: str


@dataclass(frozen=True)
class Entry:
    """A party on the roll: who it is, and where it may listen."""

    subject: Subject
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Issued:
    """One certificate: its serial number, and from when to when it is good."""

    serial: int
    issued: datetime
    expires: datetime


def digest(secret: bytes) -> str:
    """Return what is stored of a secret."""
    return sha256(secret).hexdigest()


class Roll:
    """Reads and writes the roll; every method is one transaction, and writers wait for one another."""

    def __init__(self, path: Path) -> None:
        self._engine, self._path = _engine(path), path
        with self._begin() as connection:
            _META.create_all(connection)

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except DatabaseError as error:
            raise RunError(f"the roll {self._path} cannot be read or written: {error.orig}.") from error

    def invite(self, name: str, role: str, hosts: Sequence[str], secret: bytes, expires: datetime) -> None:
        """Keep a place for a party; earlier invitations of that name are closed."""
        row = {"name": name, "role": role, "hosts": list(hosts), "digest": digest(secret), "expires": expires}
        with self._begin() as connection:
            older = change(_INVITED).where(_INVITED.c.name == name, _INVITED.c.closed == "")
            connection.execute(older.values(closed="a newer invitation took its place"))
            connection.execute(insert(_INVITED), row | {"expires": expires.isoformat()})

    def invitation(self, secret: bytes) -> Invitation:
        """Return what a secret is for; raises `AccessDenied` for an unknown one. Compares in constant time."""
        with self._begin() as connection:
            rows = connection.execute(select(_INVITED)).mappings().all()
        found = [row for row in rows if hmac.compare_digest(row["digest"], digest(secret))]
        if not found:
            raise AccessDenied("nobody was invited with this token; ask the coordinator for one, and copy all of it.")
        row = found[0]
        kept = {name: row[name] for name in ("number", "name", "role", "used", "closed")}
        return Invitation(**kept, hosts=tuple(row["hosts"]), expires=datetime.fromisoformat(row["expires"]))

    def knows(self, name: str) -> bool:
        """Return whether somebody of that name was ever invited."""
        with self._begin() as connection:
            return connection.execute(select(_INVITED.c.number).where(_INVITED.c.name == name)).first() is not None

    def missed(self, invitation: Invitation) -> None:
        """Count a request that did not fit an invitation; after `MISSES` of them it is closed."""
        here = _INVITED.c.number == invitation.number
        with self._begin() as connection:
            connection.execute(change(_INVITED).where(here).values(misses=_INVITED.c.misses + 1))
            spent = change(_INVITED).where(here, _INVITED.c.misses >= MISSES, _INVITED.c.closed == "")
            connection.execute(spent.values(closed=f"{MISSES} requests did not fit it"))

    def admit(self, invitation: Invitation, keys: str, entry: Entry, issued: Issued) -> None:
        """Use an invitation for these keys, and no others: of two that race for it, one is refused.

        Args:
            invitation: that is used; keys: their digest. The same keys may come again: an answer can be lost.
            entry: who is on the roll from now on, in place of who had the name before.
            issued: the certificate.

        Raises:
            AccessDenied: the invitation is not free, or the identity was taken off the roll; then it is not used.
        """
        free = (_INVITED.c.closed == "") & _INVITED.c.used.in_(["", keys])
        with self._begin() as connection:
            _refuse_retired(connection, entry.subject)
            taken = change(_INVITED).where(_INVITED.c.number == invitation.number, free).values(used=keys)
            if connection.execute(taken).rowcount != 1:
                raise AccessDenied("this token has been used with other keys, or was closed; ask for a new one.")
            connection.execute(delete(_ENROLLED).where(_ENROLLED.c.name == entry.subject.name))
            connection.execute(insert(_ENROLLED), _row(entry))
            connection.execute(insert(_ISSUED), _journaled(entry, issued))

    def retire(self, name: str) -> None:
        """Take a party off the roll, and close its invitations: its identity is never taken in again."""
        with self._begin() as connection:
            for (key,) in connection.execute(select(_ENROLLED.c.key).where(_ENROLLED.c.name == name)).all():
                connection.execute(insert(_RETIRED), {"name": name, "key": key})
            connection.execute(delete(_ENROLLED).where(_ENROLLED.c.name == name))
            still = change(_INVITED).where(_INVITED.c.name == name, _INVITED.c.closed == "")
            connection.execute(still.values(closed="its party was denied since"))

    def issued(self, entry: Entry, issued: Issued) -> None:
        """Write down a certificate that takes the place of an earlier one."""
        with self._begin() as connection:
            connection.execute(insert(_ISSUED), _journaled(entry, issued))

    def entry(self, name: str) -> Entry | None:
        """Return who is enrolled under a name; None if nobody is."""
        with self._begin() as connection:
            row = connection.execute(select(_ENROLLED).where(_ENROLLED.c.name == name)).mappings().first()
        return None if row is None else _entry(row)

    def entries(self) -> list[Entry]:
        """Return who is enrolled, by name."""
        with self._begin() as connection:
            rows = connection.execute(select(_ENROLLED).order_by(_ENROLLED.c.name)).mappings().all()
        return [_entry(row) for row in rows]


def _refuse_retired(connection: Connection, subject: Subject) -> None:
    there = select(_RETIRED.c.name).where(_RETIRED.c.key == subject.key.hex())
    if connection.execute(there).first() is not None:
        raise AccessDenied(
            f"{subject} was denied, and its old keys are not taken again; there, delete pki in its folder (a relay's: "
            "above/pki), and come back with the same token: that makes new ones."
        )


def _entry(row: Any) -> Entry:
    return Entry(Subject(row["role"], row["name"], bytes.fromhex(row["key"])), tuple(row["hosts"]))


def _row(entry: Entry) -> dict[str, Any]:
    subject = entry.subject
    return {"name": subject.name, "role": subject.role, "key": subject.key.hex(), "hosts": list(entry.hosts)}


def _journaled(entry: Entry, issued: Issued) -> dict[str, str]:
    kept = {"serial": f"{issued.serial:x}", "issued": issued.issued.isoformat(), "expires": issued.expires.isoformat()}
    return kept | {name: value for name, value in _row(entry).items() if name != "hosts"}


def _engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)  # no file stays open: a fork or a copy may come

    @event.listens_for(engine, "connect")
    def settings(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver begins no transaction by itself
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
