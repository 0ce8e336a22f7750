"""Tasks on their way to a party: what was asked, which bodies are missing for it, and what the worker has of it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from threading import Lock

from .asked import bodies_of
from .outbox import pushed
from .spool import Body, Spool
from .talk import Chunk, Message, field_of


@dataclass(eq=False)
class Inbox:
    """Tasks that wait for their bodies, and those that the worker has.

    Args:
        spool: of bodies that arrive.
        say: says a message: a kind, and its fields.
        start: is given a task, its key and its message, once its bodies are here.
        begun: those that the worker has, or will have.
    """

    spool: Callable[[], Spool]
    say: Callable[..., None]
    start: Callable[[str, Message], None]
    begun: list[Message] = field(default_factory=list)
    _asked: dict[str, Message] = field(default_factory=dict)
    _missing: dict[str, Body] = field(default_factory=dict)
    _cut: set[str] | None = None  # bodies that were on their way when a line dropped, or an earlier process ended
    _pushed: set[str] = field(default_factory=set)  # bodies that come, or came, unasked on this connection
    _unwanted: set[str] = field(default_factory=set)  # keys of those begun that nobody waits for any more
    _lock: Lock = field(default_factory=Lock)

    @property
    def keys(self) -> list[str]:
        """Keys of all that was asked and is not answered."""
        return [message["key"] for message in (*self.begun, *self._asked.values())]

    def begin_anew(self) -> None:
        """Forget what was asked on an earlier connection: it is asked again, and its bodies go on where they were."""
        self._cut = self.spool().names() if self._cut is None else _digests(self._asked.values()) or self._cut
        self._missing.clear()
        self._pushed.clear()
        self._asked.clear()

    def task(self, message: Message) -> None:
        """Take a task, and ask for the bodies that it needs and that do not come by themselves."""
        key = field_of(message, "key", str)
        self._unwanted.discard(key)
        self._asked[key] = message
        with self._lock:  # nothing is tidied away between looking and asking
            for body in bodies_of(message).values():
                comes = pushed(body) and body.digest not in self._pushed
                self._pushed.update([body.digest] if comes else [])
                if not self.spool().has(body) and body.digest not in self._missing:
                    at = self.spool().arrived(body)
                    self._missing[body.digest] = body
                    self.spool().keep_only(self._needed())  # what a cancelled task left stays until here
                    if not comes:
                        self.say("get", digest=body.digest, offset=at)
        self._start_what_is_here()

    def cancel(self, keys: Sequence[str]) -> None:
        """Wait no more for these; a body that nobody else needs is asked for anew if it is named again."""
        with self._lock:
            self._unwanted |= {message["key"] for message in self.begun} & set(keys)
            for key in keys:
                self._asked.pop(key, None)
            needed = _digests(self._asked.values())
            self._missing = {digest: body for digest, body in self._missing.items() if digest in needed}

    def chunk(self, chunk: Chunk) -> None:
        """Take a piece of a body in; one of a task that was cancelled, or of a stream that was cut, is passed over."""
        body = self._missing.get(chunk.digest)
        if body is None or chunk.offset > self.spool().arrived(body):
            return
        if self.spool().take(body, chunk.offset, chunk.data):
            del self._missing[chunk.digest]
            if not pushed(body):
                self._cut = set()  # all that is still needed has been asked for again
            self._start_what_is_here()

    def unwanted(self, key: str) -> bool:
        """Has nobody waited for it any more since the worker got it?"""
        return key in self._unwanted

    def done(self, key: str, message: Message) -> None:
        """Forget a task; its bodies stay until the next one, since they are likely to be asked about again."""
        with self._lock:
            needed = self._needed()
            self.begun.remove(message)
            self._unwanted.discard(key)
            self.spool().keep_only(needed)

    def _needed(self) -> set[str]:
        return _digests([*self.begun, *self._asked.values()]) | (self._cut or set())

    def _start_what_is_here(self) -> None:
        for key, message in list(self._asked.items()):
            if not any(digest in self._missing for digest, _ in message["arrays"].values()):
                with self._lock:
                    self.begun.append(self._asked.pop(key))
                self.start(key, message)


def _digests(messages: Iterable[Message]) -> set[str]:
    return {body.digest for message in messages for body in bodies_of(message).values()}
