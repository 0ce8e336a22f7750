"""Signed messages and chunks of bodies on a line.

A message is a JSON object, and those that are said together lie in one frame, as a list, below one signature. Before
they are parsed, their size and signature have been checked. The signature covers both sides' fresh nonces, the
direction and a counter, so nothing that was ever sent can be sent again: not on this connection, not on another one,
not to somebody else. Which run, round and attempt it is about is in what is signed.
"""

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from math import isfinite
from os import urandom
from threading import Lock
from typing import Any

from ...core.errors import FedloomError, WireError
from .line import CHUNK, CHUNK_BYTES, CONTROL, LIMITS, NONCE, Line

DOMAIN = b"fedloom message 1\0"
SIGNATURE = 64
PATIENCE_S = 30.0  # for the other side's nonce
MOST_TOGETHER = 64  # messages in a frame
DEEPEST = 100  # levels of a frame: more than any message has, and far from where a thread's stack ends
MOST_NUMBER = 2**63 - 1  # of a dispatch: what journals hold
MOST_KEY = 200  # characters
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)

Message = dict[str, Any]
Verify = Callable[[bytes, bytes], None]  # (signature, message): raises a FedloomError if it is not the peer's


@dataclass(frozen=True, eq=False)
class Chunk:
    """A piece of a body: its digest, where the piece begins, and the bytes."""

    digest: str
    offset: int
    data: memoryview


@dataclass(eq=False)
class Channel:
    """A line between two that know each other's keys.

    Args:
        line: between them.
        sign: message -> signature, with one's own identity key.
        verify: refuses a signature that is not the other's.
        serving: is this the side that was called?
    """

    line: Line
    sign: Callable[[bytes], bytes]
    verify: Verify
    serving: bool
    _session: bytes = b""
    _out: int = 0
    _in: int = 0
    _order: Lock = field(default_factory=Lock)
    _heard: deque[Message] = field(default_factory=deque)  # of the last frame, and not returned yet

    def open(self) -> "Channel":
        """Exchange nonces; returns itself."""
        mine = urandom(32)
        self.line.send(NONCE, mine)
        frame = self.line.receive(PATIENCE_S)
        if frame is None or frame[0] != NONCE or len(frame[1]) != 32:
            raise WireError("the other side did not begin with a nonce.")
        theirs = bytes(frame[1])
        first, second = (mine, theirs) if self.serving else (theirs, mine)
        self._session = sha256(DOMAIN + first + second).digest()
        return self

    def send(self, kind: str, /, **fields: Any) -> None:
        """Sign and send a message."""
        self.send_all([{"kind": kind, **fields}])

    def send_all(self, messages: Sequence[Message]) -> None:
        """Sign and send messages: in one frame, or, if that were too long, each in its own."""
        payload = _ENCODER.encode(messages).encode()
        if len(payload) + SIGNATURE > LIMITS[CONTROL]:
            if len(messages) == 1:
                kind = messages[0]["kind"]
                raise WireError(f"a message {kind!r} of {len(payload)} bytes is too long; it must go as a body.")
            for message in messages:
                self.send_all([message])
            return
        with self._order:  # the counter and the wire must agree
            signature = self.sign(self._signed(self.serving, self._out, payload))
            self._out += 1
            self.line.send(CONTROL, signature, payload)

    def send_chunk(self, digest: str, offset: int, data: bytes | memoryview) -> None:
        """Send a piece of a body of at most `CHUNK_BYTES`."""
        self.line.send(CHUNK, bytes.fromhex(digest) + offset.to_bytes(8, "big"), data)

    def receive(self, timeout_s: float) -> Message | Chunk | None:
        """Return what comes next, checked; None after so many seconds. Raises `WireError` for what must be refused."""
        if self._heard:
            return self._heard.popleft()
        frame = self.line.receive(timeout_s)
        if frame is None:
            return None
        kind, content = frame
        if kind == CHUNK:
            return _chunk(content)
        if kind != CONTROL or len(content) <= SIGNATURE:
            raise WireError(f"expected a signed message or a chunk, got a frame of kind {kind}.")
        signature, payload = bytes(content[:SIGNATURE]), bytes(content[SIGNATURE:])
        try:
            self.verify(signature, self._signed(not self.serving, self._in, payload))
        except FedloomError as error:
            raise WireError(
                "a message is unsigned, signed by somebody else, or out of its order; it is not read."
            ) from error
        self._in += 1
        self._heard.extend(parsed(payload))
        return self._heard.popleft()

    def _signed(self, by_server: bool, number: int, payload: bytes) -> bytes:
        return b"".join([DOMAIN, self._session, bytes([by_server]), number.to_bytes(8, "big"), payload])


def parsed(payload: bytes) -> list[Message]:
    """Return the messages of a frame; raises `WireError` for anything but JSON objects, each with a kind, in a list."""
    try:
        messages = json.loads(payload, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise WireError("a frame of messages is not JSON.") from error
    if payload.count(b"[") + payload.count(b"{") > DEEPEST and _deeper(messages, DEEPEST):
        raise WireError(f"a frame of messages is nested deeper than {DEEPEST} levels.")
    if not isinstance(messages, list) or not 0 < len(messages) <= MOST_TOGETHER:
        raise WireError(f"a frame of messages is not a list of 1 to {MOST_TOGETHER}.")
    if not all(isinstance(message, dict) and isinstance(message.get("kind"), str) for message in messages):
        raise WireError("a message is not a JSON object with a kind.")
    return messages


def _deeper(value: Any, levels: int) -> bool:
    """Has a value of JSON more levels than so many?"""
    level = [value]
    for _ in range(levels):
        inner = [part for part in level if type(part) is dict or type(part) is list]
        level = [each for part in inner for each in (part.values() if type(part) is dict else part)]
    return any(type(part) is dict or type(part) is list for part in level)


def _once(pairs: list[tuple[str, Any]]) -> Message:
    """Return an object whose names stand in it once; two readers could disagree about any other."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return found


def field_of(message: Mapping[str, Any], name: str, kind: type, default: Any = ...) -> Any:
    """Return a message's field; raises `WireError` if it is missing or of another type.

    >>> field_of({"kind": "task", "number": 3}, "number", int)
    3
    """
    value = message.get(name, default)
    if value is default and default is not ...:
        return default
    if type(value) is not kind or (isinstance(value, float) and not isfinite(value)):
        raise WireError(f"message {message.get('kind')!r}: {name} must be of type {kind.__name__}, and finite.")
    return value


def number_of(message: Mapping[str, Any]) -> int:
    """Return a task's dispatch number; raises `WireError` for anything else."""
    number: int = field_of(message, "number", int)
    if not 0 < number <= MOST_NUMBER:
        raise WireError(f"message {message.get('kind')!r}: number must be from 1 to {MOST_NUMBER:,}.")
    return number


def key_of(message: Mapping[str, Any]) -> str:
    """Return the key that a task is known by; raises `WireError` for anything else."""
    key: str = field_of(message, "key", str)
    if not 0 < len(key) <= MOST_KEY:
        raise WireError(f"message {message.get('kind')!r}: key must be a text of at most {MOST_KEY} characters.")
    return key


def keys_of(message: Mapping[str, Any]) -> list[str]:
    """Return a message's list of keys; raises `WireError` for anything else."""
    keys: list[str] = field_of(message, "keys", list)
    if not all(type(key) is str for key in keys):
        raise WireError(f"message {message.get('kind')!r}: keys must be texts.")
    return keys


def offset_of(message: Mapping[str, Any]) -> int:
    """Return from which byte on a body is asked for; raises `WireError` for anything else."""
    offset: int = field_of(message, "offset", int)
    if not 0 <= offset <= MOST_NUMBER:
        raise WireError(f"message {message.get('kind')!r}: a body begins at byte 0, got {offset}.")
    return offset


def numbers_of(message: Mapping[str, Any], name: str, most: int = 100_000) -> list[int]:
    """Return a message's list of dispatch numbers; raises `WireError` for anything else."""
    found: list[int] = field_of(message, name, list)
    if len(found) > most or any(type(number) is not int or not 0 < number <= MOST_NUMBER for number in found):
        raise WireError(f"message {message.get('kind')!r}: {name} must be at most {most:,} dispatch numbers.")
    return found


def _chunk(content: memoryview) -> Chunk:
    if not 40 < len(content) <= CHUNK_BYTES + 40:
        raise WireError("a chunk holds at least one byte and at most a mebibyte.")
    digest, offset = bytes(content[:32]).hex(), int.from_bytes(content[32:40], "big")
    return Chunk(digest, offset, content[40:])
