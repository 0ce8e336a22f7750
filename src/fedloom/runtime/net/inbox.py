"""Tasks on their way to a party: what was asked, which bodies are missing for it, and what the worker has of it."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from threading import Lock

from ...core.errors import WireError
from .asked import bodies_of
from .bounds import MODELS, TASKS
from .outbox import pushed
from .spool import Body, Spool
from .talk import Chunk, Message, key_of


@dataclass(eq=False)
class Inbox:
    """Tasks that wait for their bodies, and those that the worker has.

    Args:
        spool: of bodies that arrive.
        say: says a message: a kind, and its fields.
        start: lets the worker do a task, by its number here, once its bodies are here.
        independent: is each task answered by itself, so that one may be left out?
        members: how many are asked here; see `bounds`.
        begun: those that the worker has, or will have.
    """

    spool: Callable[[], Spool]
    say: Callable[..., None]
    start: Callable[[int], None]
    independent: Callable[[], bool]
    members: int = 1
    begun: dict[int, Message] = field(default_factory=dict)
    _at: int | None = None  # what the worker is at
    _numbers: Iterator[int] = field(default_factory=count)
    _asked: dict[str, Message] = field(default_factory=dict)
    _missing: dict[str, Body] = field(default_factory=dict)
    _cut: set[str] | None = None  # bodies that were on their way when a line dropped, or an earlier process ended
    _pushed: set[str] = field(default_factory=set)  # bodies that come, or came, unasked on this connection
    _lock: Lock = field(default_factory=Lock)

    @property
    def keys(self) -> list[str]:
        """Keys of all that was asked and is not answered."""
        return [message["key"] for message in (*self.begun.values(), *self._asked.values())]

    def begin_anew(self) -> None:
        """Forget what was asked on an earlier connection: it is asked again, and its bodies go on where they were."""
        with self._lock:
            left = self._leave_out({message["key"] for message in self.begun.values()})
            cut = set(_bodies([*self._asked.values(), *left]))
            self._cut = self.spool().names() if self._cut is None else cut or self._cut
        self._missing.clear()
        self._pushed.clear()
        self._asked.clear()

    def task(self, message: Message) -> None:
        """Take a task, and ask for the bodies that it needs and that do not come by themselves.

        Raises `WireError` for what is none, and where more is asked than any run needs.
        """
        key, bodies = key_of(message), bodies_of(message)
        with self._lock:  # nothing is tidied away between looking and asking
            self._leave_out({key})
            self._asked[key] = message
            self._refuse_too_many()
            for body in bodies.values():
                comes = pushed(body) and body.digest not in self._pushed
                self._pushed.update([body.digest] if comes else [])
                if not self.spool().has(body) and body.digest not in self._missing:
                    self._refuse_too_large()
                    at = self.spool().arrived(body)
                    self._missing[body.digest] = body
                    self.spool().keep_only(self._needed())  # what a cancelled task left stays until here
                    if not comes:
                        self.say("get", digest=body.digest, offset=at)
        self._start_what_is_here()

    def cancel(self, keys: Sequence[str]) -> None:
        """Wait no more for these; a body that nobody else needs is asked for anew if it is named again."""
        with self._lock:
            self._leave_out(keys)
            for key in keys:
                self._asked.pop(key, None)
            needed = _bodies(self._asked.values())
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

    def take(self, number: int) -> Message | None:
        """Let the worker be at a task; return it, or None if nobody waits for it any more."""
        with self._lock:
            self._at = number
            return self.begun.get(number)

    def done(self, number: int) -> None:
        """Forget a task; its bodies stay until the next one, since they are likely to be asked about again."""
        with self._lock:
            needed = self._needed()
            del self.begun[number]
            self._at = None
            self.spool().keep_only(needed)

    def _leave_out(self, keys: Collection[str]) -> list[Message]:
        """Let the worker not begin these, where tasks are answered one by one; return what it does not."""
        if not self.independent():
            return []
        left = [number for number, each in self.begun.items() if each["key"] in keys and number != self._at]
        return [self.begun.pop(number) for number in left]

    def _refuse_too_many(self) -> None:
        """Raise `WireError` where more is asked than any run needs."""
        if len(self.begun) + len(self._asked) > TASKS * self.members:
            raise WireError(f"more than {TASKS} tasks wait for each member here, and no run asks so much at a time.")

    def _refuse_too_large(self) -> None:
        most = MODELS * self.members * self.spool().most
        if sum(_bodies([*self.begun.values(), *self._asked.values()]).values()) > most:
            raise WireError(f"tasks that wait here name more than {most:,} bytes, and no run needs so much at a time.")

    def _needed(self) -> set[str]:
        return _bodies([*self.begun.values(), *self._asked.values()]).keys() | (self._cut or set())

    def _start_what_is_here(self) -> None:
        for key, message in list(self._asked.items()):
            if not any(digest in self._missing for digest, _ in message["arrays"].values()):
                with self._lock:
                    self.begun[number := next(self._numbers)] = self._asked.pop(key)
                self.start(number)


def _bodies(messages: Iterable[Message]) -> dict[str, int]:
    """Return the sizes of the bodies that tasks name, by digest."""
    found: dict[str, int] = {}
    for message in messages:
        for body in bodies_of(message).values():
            found[body.digest] = max(body.size, found.get(body.digest, 0))
    return found
