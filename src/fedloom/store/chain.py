"""An append-only file of entries, each bound to all before it by a hash: it can grow, and that is all that it can.

One JSON object a line, each with the SHA-256 of the line before it. An entry is on the disk before `append` returns;
what a crash or a full disk left of a line that was not finished is cut off, since nobody was told of it. Nothing in it
depends on a clock.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..core.errors import RecordError, RunError, StorageError
from .files import synced, write_behind
from .lock import locked

VERSION, PATIENCE_S = 1, 30.0
Entry = dict[str, Any]


@dataclass(frozen=True)
class Mark:
    """What was seen of a chain: how many lines it had, and the last one's SHA-256."""

    size: int
    head: str


@dataclass(eq=False)
class Chain:
    """A file of chained entries.

    Args:
        path: of the file, which `begin` makes.
        name: what it is a chain of, as its first line says.
        looks: it is only read, so nothing is locked: whole lines never change.

    >>> from tempfile import mkdtemp
    >>> chain = Chain(Path(mkdtemp()) / "ledger.jsonl", "ledger")
    >>> with chain.held():
    ...     chain.begin({"key": "00"})
    ...     chain.append({"kind": "run"}).size
    2
    """

    path: Path
    name: str
    looks: bool = False
    entries: list[Entry] = field(default_factory=list)
    _heads: list[str] = field(default_factory=list)
    _end: int = 0
    _lock: Path = field(init=False)

    def __post_init__(self) -> None:
        self._lock = self.path.with_name(f".{self.path.name}.lock")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the file, so that no other process reads or writes beside; what others have added is read first."""
        with ExitStack() as held:
            try:
                held.enter_context(nullcontext() if self.looks else locked(self._lock, PATIENCE_S))
            except TimeoutError as error:
                raise RunError(f"{self.path} cannot be locked: {error}; another process holds it.") from error
            except OSError as error:
                raise StorageError(
                    f"{self._lock} cannot be locked: {error.strerror}; let this user write in its folder."
                ) from error
            self.read()
            yield

    @property
    def mark(self) -> Mark:
        """What is here now; an empty chain has size 0."""
        return Mark(len(self._heads), self._heads[-1] if self._heads else "")

    def has(self, mark: Mark) -> bool:
        """Is what was seen before the beginning of what is here?"""
        return mark.size == 0 or (mark.size <= len(self._heads) and self._heads[mark.size - 1] == mark.head)

    def read(self) -> None:
        """Read what is new; raises `RecordError` for entries that are not in their chain, or that are gone."""
        content = _behind(self.path, self._end)
        if content is None:
            raise RecordError(f"{self.path} is shorter than it was while this process ran; put the newest copy back.")
        *lines, _ = content.split(b"\n")  # the last is empty, or was never finished
        for line in lines:
            self._take(line)

    def begin(self, about: Mapping[str, Any]) -> None:
        """Write the first line of a new chain; nothing happens to one that was begun."""
        if not self._heads:
            self.append({"chain": self.name, "version": VERSION, **about})
            synced(self.path.parent)

    def append(self, entry: Mapping[str, Any]) -> Mark:
        """Write an entry behind all others, on the disk when this returns; the file must be `held`.

        Raises `RunError` if it cannot be written, such as on a full disk; then nothing was added.
        """
        return self.extend([entry])

    def extend(self, entries: Iterable[Mapping[str, Any]]) -> Mark:
        """Write several entries at once, as `append` does one: all of them, or none."""
        assert not self.looks, "nothing is written by whoever looks"
        lines, heads = [], [self.mark.head]
        for entry in entries:
            lines.append(canonical({**entry, "prev": heads[-1]}))
            heads.append(sha256(lines[-1]).hexdigest())
        try:
            self._written(b"".join(line + b"\n" for line in lines))
        except OSError as error:
            why = f"{self.path} cannot be written: {error.strerror}; nothing leaves before it is."
            raise StorageError(why) from error
        for line, head in zip(lines, heads[1:], strict=True):
            self._add(json.loads(line), line, head)
        return self.mark

    def _written(self, line: bytes) -> None:
        """Write behind the last whole line; what is left of another is cut off, before and if this one fails."""
        file = os.open(self.path, os.O_RDWR | (0 if self._end else os.O_CREAT), 0o600)
        try:
            write_behind(file, self._end, line, durable=True)
        finally:
            os.close(file)

    def _take(self, line: bytes) -> None:
        where = f"{self.path.name}, line {len(self._heads) + 1}"
        try:
            entry = json.loads(line)
            before = entry["prev"]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise RecordError(f"{where}: this is no entry; put the file's newest copy back.") from error
        if before != self.mark.head or canonical(entry) != line:
            raise RecordError(
                f"{where}: this entry was not written behind the one before it; put the file's newest copy back."
            )
        if not self._heads and (entry.get("chain"), entry.get("version")) != (self.name, VERSION):
            raise RecordError(f"{where}: this is no {self.name} of version {VERSION}; is it another file?")
        self._add(entry, line, sha256(line).hexdigest())

    def _add(self, entry: Entry, line: bytes, head: str) -> None:
        self.entries.append(entry)
        self._heads.append(head)
        self._end += len(line) + 1


def canonical(entry: Mapping[str, Any]) -> bytes:
    """Return an entry as the one text that it has: JSON, sorted, without spaces, in ASCII.

    >>> canonical({"b": 1, "a": [True]})
    b'{"a":[true],"b":1}'
    """
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _behind(path: Path, end: int) -> bytes | None:
    """Return what a file has behind so many bytes; None if it does not have so many."""
    try:
        if (size := os.stat(path).st_size) <= end:
            return b"" if size == end else None
        with open(path, "rb") as file:
            file.seek(end)
            return file.read()
    except FileNotFoundError:
        return None if end else b""
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from error
