"""Bodies in a folder, named by their BLAKE3 hash, and those that are still arriving.

A body that arrives is checked as it comes and can go on where the connection broke off, also in another process: a
number behind its last byte says how many of them are here.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from stat import S_ISREG
from threading import Lock
from typing import Any, BinaryIO

from blake3 import blake3

from ...core.errors import WireError
from ...core.tree import Tree
from ...store.files import passing, pieces, restore, writing
from ...store.reused import Files
from .line import CHUNK_BYTES

PART = ".part"
_digest = re.compile("[0-9a-f]{64}").fullmatch
COUNT = 8  # bytes of the number behind a body that arrives


@dataclass(frozen=True, slots=True)
class Body:
    """A body's name and size in bytes."""

    digest: str
    size: int


@dataclass(eq=False)
class Arriving:
    """A body on its way: the hash of what is here, how many bytes that is, and its file, once the first are written."""

    seen: Any
    here: int
    file: BinaryIO | None = None

    def close(self) -> None:
        """Let go of the file; it goes on in another process, or when the body is asked for again."""
        if self.file is not None:
            self.file.close()

    __del__ = close


@dataclass(eq=False)
class Spool:
    """Bodies in a folder; several threads may use it.

    Args:
        folder: where they lie.
        most: no body that arrives may have more bytes.
        light: a body that arrives in one piece lies in memory alone, since nobody needs it after a crash; otherwise it
            lies there until it is read for the first time, and in a file.
        claimed: nothing is taken in but what somebody has claimed.
    """

    folder: Path
    most: int
    light: bool = False
    claimed: bool = False
    _held: dict[str, bytes] = field(default_factory=dict)  # in memory: those that came in one piece
    _arriving: dict[str, Arriving] = field(default_factory=dict)  # by digest
    _claims: Counter[str] = field(default_factory=Counter)  # how many need it, where anybody has said so
    _lock: Lock = field(default_factory=Lock)
    _files: Files = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._files = Files(self.folder)

    def put(self, tree: Tree) -> Body:
        """Keep a value; return its name. Raises `StorageError` where it cannot be written."""
        partial, parts, seen = self.folder / f"{token_hex(8)}.new", pieces(tree), blake3()
        size = sum(map(len, parts))
        with writing(partial, "; nothing is lost"), passing(partial):
            self._files.make(partial, size, size)
            with open(partial, "r+b") as file:
                for part in chunks(parts):  # hashed and written while it is in the cache
                    seen.update(part)
                    file.write(part)
            os.replace(partial, self.path(seen.hexdigest()))
        return Body(seen.hexdigest(), size)

    def path(self, digest: str) -> Path:
        """Return where a body lies; raises `WireError` for what is no digest."""
        if not _digest(digest):
            raise WireError(f"{digest[:80]!r} is not a digest of 64 hexadecimal digits.")
        return self.folder / digest

    def has(self, body: Body) -> bool:
        """Is it here, whole?"""
        if (content := self._held.get(body.digest)) is not None:
            return len(content) == body.size
        try:
            found = self.path(body.digest).stat()  # once: somebody may drop it meanwhile
        except FileNotFoundError:
            return False
        return S_ISREG(found.st_mode) and found.st_size == body.size

    def intact(self, body: Body) -> bool:
        """Is it here, and still what it is called? One that was damaged, as by a power cut, is dropped."""
        if not self.has(body):
            return False
        seen = blake3()
        for _, data in self.pieces(body.digest, 0):
            seen.update(data)
        if seen.hexdigest() != body.digest:
            with self._lock:
                self._remove(body.digest)
            return False
        return True

    def get(self, body: Body) -> Tree:
        """Return the value, its arrays read-only views of the file, or of where it lies."""
        content = self._content(body.digest)
        if not self.light:
            self._held.pop(body.digest, None)
        return restore(content)

    def pieces(self, digest: str, offset: int) -> Iterator[tuple[int, memoryview]]:
        """Yield a body from an offset on, in chunks, with their offsets."""
        content = self._content(digest)
        for at in range(offset, len(content), CHUNK_BYTES):
            yield at, content[at : at + CHUNK_BYTES]

    def arrived(self, body: Body) -> int:
        """Return how many of its bytes are here: where to go on."""
        if body.size > self.most:
            raise WireError(f"a body has at most {self.most:,} bytes here, got {body.size:,}; is it this model?")
        if self.has(body):
            return body.size
        with self._lock:
            return self._state(body).here

    def take(self, body: Body, offset: int, data: memoryview) -> bool:
        """Add a chunk; return whether the body is whole now. One that is here, or that nobody wants, is passed over.

        Raises `WireError` for a gap, for too many bytes, and for a whole body that is not the one that was named: then
        nothing of it is kept; and `StorageError` where it cannot be written.
        """
        with self._lock:
            if self.claimed and not self._claims[body.digest]:
                return False
            if body.digest not in self._arriving and self.has(body):
                return False
            state = self._state(body)
            here = state.here
            if offset + len(data) <= here:
                return False
            if offset > here or offset + len(data) > body.size:
                raise WireError(f"expected {body.digest[:12]} from byte {here:,} on, got {offset:,}.")
            with writing(self._part(body.digest), "; it is sent again"):
                if not here and len(data) == body.size:
                    return self._at_once(body, state, data)
                self._write(body, state, data[here - offset :])
                return state.here == body.size and self._whole(body, state)

    def claim(self, digest: str) -> None:
        """Need a body, which may be on its way: it stays until as many drop it as have claimed it."""
        with self._lock:
            self._claims[digest] += 1

    def drop(self, digest: str) -> None:
        """Need a body no longer; the last one who does forgets it, whole or in parts."""
        with self._lock:
            self._claims[digest] -= 1
            if self._claims[digest] <= 0:
                del self._claims[digest]
                self._remove(digest)

    def names(self) -> set[str]:
        """Return the digests of all that is here, whole or in parts."""
        return {path.stem for path in self.folder.iterdir() if _digest(path.stem)} | {*self._held, *self._arriving}

    def keep_only(self, digests: set[str]) -> None:
        """Forget all bodies but these, whole or in parts."""
        with self._lock:
            for digest in self.names() - digests:
                self._remove(digest)

    def _remove(self, digest: str) -> None:
        if (state := self._arriving.pop(digest, None)) is not None:
            state.close()
        self._held.pop(digest, None)
        self._files.drop(self.path(digest))
        self._files.drop(self._part(digest))

    def _content(self, digest: str) -> memoryview:
        content = self._held.get(digest)
        return self._files.read(self.path(digest)) if content is None else memoryview(content)

    def _part(self, digest: str) -> Path:
        return self.path(digest).with_name(digest + PART)

    def _write(self, body: Body, state: Arriving, data: memoryview) -> None:
        if state.file is None:
            part = self._part(body.digest)
            if not state.here:
                self._files.make(part, body.size + COUNT, body.size)
            state.file = part.open("r+b", buffering=0)
        _write_at(state.file, state.here, data)
        state.seen.update(data)
        state.here += len(data)
        _write_at(state.file, body.size, state.here.to_bytes(COUNT, "big"))  # last: whatever is counted is there

    def _state(self, body: Body) -> Arriving:
        if body.digest not in self._arriving:
            part, seen, here = self._part(body.digest), blake3(), 0
            if part.exists() and part.stat().st_size == body.size + COUNT:
                content = self._files.read(part)
                here = int.from_bytes(content[body.size :], "big")
                for chunk in chunks([content[:here]]):
                    seen.update(chunk)
            self._arriving[body.digest] = Arriving(seen, here)
        return self._arriving[body.digest]

    def _whole(self, body: Body, state: Arriving) -> bool:
        del self._arriving[body.digest]
        state.close()
        part = self._part(body.digest)
        if state.seen.hexdigest() != body.digest:
            part.unlink()
            raise _another(body)
        os.truncate(part, body.size)
        part.replace(self.path(body.digest))
        return True

    def _at_once(self, body: Body, state: Arriving, data: memoryview) -> bool:
        """Keep a body that has arrived in one piece."""
        state.seen.update(data)
        del self._arriving[body.digest]
        if state.seen.hexdigest() != body.digest:
            raise _another(body)
        if not self.light:
            part = self._part(body.digest)
            self._files.make(part, body.size, body.size)
            with open(part, "r+b", buffering=0) as file:
                _write_at(file, 0, data)
            os.replace(part, self.path(body.digest))
        self._held[body.digest] = bytes(data)
        return True


def most_bytes(values: int) -> int:
    """Return how many bytes a body may have where a vector has so many values: room for codes, sides and metrics.

    >>> most_bytes(0), most_bytes(1_000_000)
    (1048576, 25048576)
    """
    return 24 * values + (1 << 20)


def _another(body: Body) -> WireError:
    return WireError(f"what arrived as {body.digest[:12]} is something else; it is not kept.")


def _write_at(file: BinaryIO, offset: int, data: bytes | memoryview) -> None:
    """Write all of it there: a file without a buffer may take less at a time."""
    file.seek(offset)
    while len(data):
        data = data[file.write(data) :]


def chunks(parts: Iterable[bytes | memoryview]) -> Iterator[memoryview]:
    """Yield parts in order, none of them larger than a chunk.

    >>> [len(chunk) for chunk in chunks([bytes(3), bytes(CHUNK_BYTES + 1)])]
    [3, 1048576, 1]
    """
    for part in parts:
        for at in range(0, len(part), CHUNK_BYTES):
            yield memoryview(part)[at : at + CHUNK_BYTES]
