"""Frames on one TLS connection, whole or not at all, and never larger than was agreed.

A frame is a header of 12 bytes (magic, kind, length), then its content. What is too long or of no known kind is refused
by the header alone. Two threads may use a line at once, one to read and one to write: OpenSSL's object is only ever
touched under a lock, and nobody waits for the network while holding it.
"""

import select
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from threading import Lock
from time import monotonic

from ...core.errors import WireError

MAGIC = b"FLM1"
NONCE, ENROL, CONTROL, CHUNK = 0, 1, 2, 3
CLOSED = "the connection was closed"  # on this side
CHUNK_BYTES = 1 << 20
LIMITS = {NONCE: 32, ENROL: 16 << 10, CONTROL: 1 << 20, CHUNK: CHUNK_BYTES + 40}
RECORD = (1 << 14) - 12  # bytes of content that fit into a record of TLS, behind the header
STALL_S = 60.0  # a frame that has begun must not stand still for longer
_HEADER = struct.Struct(">4sB3xI")


class LineLost(ConnectionError):
    """The connection has ended, or is silent for too long."""


@dataclass(eq=False)
class Line:
    """One connection.

    Args:
        sock: after the handshake.
        stall_s: how long a frame may stand still.
        allowed: kinds of frames that are taken in.
        whole_s: how long a frame may take in all, once it has begun.
    """

    sock: ssl.SSLSocket
    stall_s: float = STALL_S
    allowed: frozenset[int] = frozenset(LIMITS)
    whole_s: float = inf
    moved: float = field(default_factory=monotonic)  # when the last byte came in
    received: int = 0
    sent: int = 0
    _tls: Lock = field(default_factory=Lock)
    _whole: Lock = field(default_factory=Lock)
    _pieces: memoryview = memoryview(b"")  # where pieces of bodies are put, one after the other

    def __post_init__(self) -> None:
        self.sock.setblocking(False)

    def send(self, kind: int, *parts: bytes | memoryview) -> None:
        """Send a frame; raises `LineLost`, or `WireError` if it is too long."""
        size = sum(len(part) for part in parts)
        if size > LIMITS[kind]:
            raise WireError(f"a frame of kind {kind} has at most {LIMITS[kind]} bytes, got {size}.")
        whole = [b"".join(parts)] if size <= RECORD else parts  # what fits into one record of TLS goes as one
        head, *rest = whole
        with self._whole:
            self._write(memoryview(_HEADER.pack(MAGIC, kind, size) + bytes(head)))
            for part in rest:
                self._write(memoryview(part))

    def receive(self, timeout_s: float) -> tuple[int, memoryview] | None:
        """Return the next frame's kind and content; None if none has begun in so many seconds.

        The content of a chunk is only lent: the next one is written over it.
        """
        head = memoryview(bytearray(_HEADER.size))
        if not self._begun(head, timeout_s):
            return None
        magic, kind, size = _HEADER.unpack(head)
        if magic != MAGIC or kind not in self.allowed or size > LIMITS[kind]:
            raise WireError(f"this is no frame that is taken in here: {bytes(head).hex()}.")
        content = self._lent(size) if kind == CHUNK else memoryview(bytearray(size))
        self._fill(content)
        return kind, content

    def _lent(self, size: int) -> memoryview:
        if len(self._pieces) < size:  # most connections never see a whole one
            self._pieces = memoryview(bytearray(size))
        return self._pieces[:size]

    def close(self) -> None:
        """End the connection; whoever waits on it is told."""
        with self._tls:  # a closing SSLSocket is a plain one for an instant: nobody may write or read in it
            with suppress(OSError):
                self.sock.shutdown(2)
            with suppress(OSError):
                self.sock.close()

    def _begun(self, head: memoryview, timeout_s: float) -> bool:
        got = self._read(head, monotonic() + timeout_s)
        if got:
            self._fill(head[got:])
        return got > 0

    def _fill(self, view: memoryview) -> None:
        at, last = 0, monotonic() + self.whole_s
        while at < len(view):
            got = self._read(view[at:], min(last, monotonic() + self.stall_s))
            if not got or monotonic() > last:
                raise LineLost(f"a frame stood still for {self.stall_s:g} s, or took longer than {self.whole_s:g} s")
            at += got

    def _read(self, view: memoryview, until: float) -> int:
        """Return how many bytes came in, as many as are there; 0 when it got too late."""
        while True:
            got, event, gone = self._move(view, self._take)
            if got:
                self.moved, self.received = monotonic(), self.received + got
                return got
            if gone is not None:
                raise gone
            if not self._wait(event, until):
                return 0

    def _write(self, view: memoryview) -> None:
        until = monotonic() + self.stall_s
        while len(view):
            put, event, gone = self._move(view, self._give)
            if put:
                view, self.sent, until = view[put:], self.sent + put, monotonic() + self.stall_s
            if gone is not None:
                raise gone
            if len(view) and not self._wait(event, until):
                raise LineLost(f"the other side took nothing in for {self.stall_s:g} s")

    def _move(self, view: memoryview, move: Callable[[memoryview], int]) -> tuple[int, int, LineLost | None]:
        """Move records until none can be; return how many bytes that were, what to wait for, or what ended the line."""
        at = 0
        try:
            with self._tls:
                while at < len(view):
                    at += move(view[at:])
        except ssl.SSLWantReadError:
            return at, select.POLLIN, None
        except ssl.SSLWantWriteError:
            return at, select.POLLOUT, None
        except (OSError, ValueError) as error:
            why = CLOSED if self.sock.fileno() < 0 else f"{type(error).__name__}: {error}"
            return at, 0, error if isinstance(error, LineLost) else LineLost(why)
        return at, 0, None

    def _take(self, view: memoryview) -> int:
        got = self.sock.recv_into(view)
        if not got:
            raise LineLost("the other side has closed the connection")
        return got

    def _give(self, view: memoryview) -> int:
        return self.sock.send(view)

    def _wait(self, event: int, until: float) -> bool:
        left = until - monotonic()
        descriptor = self.sock.fileno()
        if descriptor < 0:
            raise LineLost(CLOSED)
        poll = select.poll()
        poll.register(descriptor, event)
        return left > 0 and bool(poll.poll(left * 1000))
