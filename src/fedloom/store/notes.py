"""What a site must not forget: replies that may have to be sent again, its memory, and what it has seen of others.

A reply is written down before it is offered, and taken out when its round is closed, together with the memory that
moved: after a crash the same bytes are sent again, nothing is trained twice, and only what was counted moves memory.
Beside them lie a few named values: how far the site's ledger and the coordinator's record were seen.
"""

import json
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import RunError
from ..core.tree import Tree, holds_something
from .files import dump, restore
from .sqlite import Database, Row, look

FILE, WHAT = "site.db", "the site's journal"  # in the folder of a run
_REPLIES = """number INTEGER PRIMARY KEY, party TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
    seconds REAL NOT NULL, memory BLOB NOT NULL"""
_TABLES = {
    "replies": _REPLIES,
    "memory": "member TEXT PRIMARY KEY, tree BLOB NOT NULL",
    "named": "name TEXT PRIMARY KEY, value TEXT NOT NULL",
}
_NAMED = "SELECT value FROM named WHERE name = ?"


@dataclass(frozen=True)
class Answered:
    """A reply that waits for its round to close: whose it is, where its body lies, and the memory that may move."""

    number: int
    party: str
    digest: str
    size: int
    seconds: float
    memory: Tree


class Notes:
    """The site's journal; every method is one transaction that is on the disk when it returns.

    Args:
        path: of its file.

    >>> from tempfile import mkdtemp
    >>> notes = Notes(Path(mkdtemp()) / FILE)
    >>> with notes.together():
    ...     notes.keep("seen", {"size": 3})
    ...     notes.keep("mark", [])
    >>> notes.kept("seen")
    {'size': 3}
    >>> notes.close()
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, WHAT, _TABLES)

    def together(self, *, durable: bool = True) -> AbstractContextManager[None]:
        """Make one transaction of all that is written within; see `Database.together`."""
        return self._database.together(durable=durable)

    def begin(self) -> None:
        """Let the transaction that this thread is in begin; see `Database.begin`."""
        self._database.begin()

    def waiting(self) -> list[Answered]:
        """Return the replies whose round is open, in order."""
        rows = self._database.execute("SELECT * FROM replies ORDER BY number")
        return [
            Answered(number, party, digest, size, seconds, restore(memory))
            for number, party, digest, size, seconds, memory in rows
        ]

    def answer(self, answered: Answered) -> None:
        """Write a reply down."""
        row = {**vars(answered), "memory": dump(answered.memory)}
        self._database.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?)", list(row.values()))

    def settle(self, numbers: Collection[int], memories: dict[str, Tree]) -> None:
        """Take out the replies of closed rounds, and keep the memories that moved."""
        kept = {name: dump(tree) if holds_something(tree) else None for name, tree in memories.items()}
        with self.together():
            for number in numbers:
                self._database.execute("DELETE FROM replies WHERE number = ?", [number])
            for name, tree in kept.items():
                if tree is None:
                    self._database.execute("DELETE FROM memory WHERE member = ?", [name])
                else:
                    self._database.execute("INSERT OR REPLACE INTO memory VALUES (?, ?)", [name, tree])

    def memories(self) -> dict[str, Tree]:
        """Return what is remembered, by member."""
        return {member: restore(tree) for member, tree in self._database.execute("SELECT member, tree FROM memory")}

    def keep(self, name: str, value: Any) -> None:
        """Keep plain values under a name, in the place of those before."""
        self._database.execute("INSERT OR REPLACE INTO named VALUES (?, ?)", [name, json.dumps(value)])

    def kept(self, name: str) -> Any:
        """Return what is kept under a name; None if nothing is."""
        return _value(self._database.path, name, self._database.execute(_NAMED, [name]))

    def close(self) -> None:
        """Give the connection back."""
        self._database.close()


def kept_in(path: Path, name: str) -> Any:
    """Return what a site's journal keeps under a name, also while its process has it open; None if nothing is."""
    if not look(path, WHAT, "SELECT name FROM sqlite_master WHERE name = 'named'"):
        return None  # its process ended before it had made the tables
    return _value(path, name, look(path, WHAT, _NAMED, [name]))


def _value(path: Path, name: str, rows: list[Row]) -> Any:
    try:
        return json.loads(rows[0][0]) if rows else None
    except (ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{WHAT} {path} is damaged at {name!r}: {error}; put its newest copy back.") from error
