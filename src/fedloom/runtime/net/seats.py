"""The coordinator's view of one party: who it is, whether it is there, what it was asked, and what it has said."""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from logging import getLogger
from queue import Empty, Queue
from secrets import token_hex
from threading import Thread
from time import monotonic
from typing import Any

from ...core.errors import FedloomError
from ...core.task import Fault, Member, Ready, Reply, Task, Train
from .line import LineLost
from .spool import Body, Spool
from .talk import MOST_TOGETHER, Channel, Message

log = getLogger(__name__)
REPLACED_S = 2.0
CLASSES, OTHER = 20, "other"  # of a party's faults, so many are counted by the names that it gives; all others together
LATER_S = 0.05  # so long what can wait does, to be said together with what comes next


@dataclass(frozen=True, eq=False)
class Words:
    """A message that is to be said.

    Args:
        message: its kind and fields.
        later: may it wait for what is said next, since nobody does?
    """

    message: Message
    later: bool = False


Stream = Callable[[Channel], None]  # sends a body
Job = Words | Stream  # what a connection's writer does, one after another


@dataclass(eq=False)
class Given:
    """A task on its way: its key, the message that asks it, whose ask it belongs to, and how often it was sent."""

    key: str
    task: Task
    ask: int
    message: dict[str, Any]
    since: float
    attempt: int = 0

    def failed(self, phase: str, error: str, why: str) -> Reply:
        """Return the reply that says why there will be none."""
        return Reply((self.task.number,), (self.task.party,), Fault(self.task.party, phase, error, why))


@dataclass(frozen=True, slots=True)
class Offer:
    """A reply that a party has ready: the keys of the tasks that it answers, its body, and how long it took."""

    keys: tuple[str, ...]
    body: Body
    seconds: float


@dataclass(eq=False)
class Seat:
    """A party's place at the coordinator; it stays when the party is away.

    Args:
        name: of the party, as its certificate says.
        process: drawn by the process that is connected, so that a second one of the same party is known for one.
        key: its identity key, as its certificate says; empty until it has called.
        members: for whom it answers: itself, or those behind a relay.
        spool: of the bodies that it sends.
        cut: why this side ended its last connection; empty if it did not, or the party is back.
        left: has it said that it leaves the run for good?
        away: since when it is away, on the federation's clock; None while it is connected.
        settled: does it know which of its replies were counted? Before that, it is asked nothing.
        pushed: bodies that it was sent unasked on this connection.
        late: trainings that nobody waits for any more and that it may still be at: their keys, and whose they are.
        refused: by member: why it does not take part; until it calls again, or says that it may answer now.
    """

    name: str
    members: tuple[Member, ...]
    spool: Spool
    away: float | None = None
    channel: Channel | None = None
    process: str = ""
    key: bytes = b""
    seen: float = 0.0
    cut: str = ""
    left: bool = False
    settled: bool = False
    pushed: set[str] = field(default_factory=set)
    given: dict[str, Given] = field(default_factory=dict)
    late: dict[str, str] = field(default_factory=dict)
    free: float = 0.0  # when it last had done with a training, on the federation's clock
    incoming: list[Offer] = field(default_factory=list)  # whose bodies are on their way
    jobs: "Queue[Job | None]" = field(default_factory=Queue)
    ready: dict[str, Ready] = field(default_factory=dict)  # by member: its numbers of rows, once it is prepared
    refused: dict[str, Fault] = field(default_factory=dict)
    faults: "deque[tuple[float, Fault]]" = field(default_factory=lambda: deque(maxlen=5))  # the last ones, and when
    failed: "Counter[str]" = field(default_factory=Counter)  # all its faults, by class; the first `CLASSES` by name
    seconds: "deque[float]" = field(default_factory=lambda: deque(maxlen=5))  # that its last trainings took
    bytes_in: int = 0
    bytes_out: int = 0
    answered: int = 0

    def say(self, kind: str, *, later: bool = False, **fields: Any) -> None:
        """Send a message as soon as the line is free, or with the next; nothing happens while the party is away."""
        if self.channel is not None:
            self.jobs.put(Words({"kind": kind, **fields}, later))

    def ask(self, givens: Sequence[Given], run: str) -> bool:
        """Send tasks, or send them again; each says which others it came with, and how many they are.

        Returns whether they were sent: not before the party knows what was counted.
        """
        if not self.settled:
            return False
        together = [token_hex(8), len(givens)]
        for given in givens:
            given.attempt += 1
            self.say("task", run=run, key=given.key, attempt=given.attempt, together=together, **given.message)
        return self.channel is not None

    def note(self, fault: Fault, now: float) -> None:
        """Count a fault, and keep it among the last ones."""
        self.faults.append((now, fault))
        known = fault.error in self.failed or len(self.failed) < CLASSES
        self.failed[fault.error if known else OTHER] += 1

    def expect_no_more(self, keys: Collection[str]) -> None:
        """Let go of what has come of the answers to these: another has been offered, or nobody waits any more."""
        for offer in [offer for offer in self.incoming if set(offer.keys) & set(keys)]:
            self.incoming.remove(offer)
            self.spool.drop(offer.body.digest)

    def call_off(self, givens: Sequence[Given], run: str) -> None:
        """Say that nobody waits for these; what has been begun is finished all the same, and then the party says so."""
        if self.channel is not None:
            self.late |= {given.key: given.task.party for given in givens if isinstance(given.task.body, Train)}
        self.say("cancel", run=run, keys=[given.key for given in givens])

    def rests(self, keys: Sequence[str], now: float) -> None:
        """Learn that the party is at these no more."""
        self.late = {key: member for key, member in self.late.items() if key not in keys}
        self.free = now

    @property
    def training(self) -> set[str]:
        """Members that it was asked to train for, and that have not, as far as is known here."""
        asked = {given.task.party for given in self.given.values() if isinstance(given.task.body, Train)}
        return asked | set(self.late.values())

    def replace(self, process: str) -> None:
        """Tell another process of the same party that this one takes its place; it must not call again."""
        before, channel, self.process = self.process, self.channel, process
        if channel is not None and before not in ("", process):
            telling = Thread(target=_told_replaced, args=(channel,), name=f"replaced {self.name}", daemon=True)
            telling.start()
            telling.join(REPLACED_S)  # whoever takes nothing in is cut off unheard

    def begin(self, channel: Channel, now: float) -> "Queue[Job | None]":
        """Take a connection; an older one is closed. Returns what its writer is to do."""
        self.end(now)
        self.channel, self.away, self.seen, self.jobs, self.settled = channel, None, now, Queue(), False
        self.pushed, self.refused, self.cut = set(), {}, ""
        return self.jobs

    def end(self, now: float, channel: Channel | None = None) -> None:
        """Let go of the connection (of that one, if it is still the present one)."""
        if self.channel is None or (channel is not None and channel is not self.channel):
            return
        ended, self.channel, self.away = self.channel, None, now  # first: to close it wakes who else ends it
        self.late = {}  # it may have died
        self.bytes_in += ended.line.received
        self.bytes_out += ended.line.sent
        ended.line.close()
        self.jobs.put(None)

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes that came from the party and went to it, over all its connections."""
        line = self.channel.line if self.channel else None
        return self.bytes_in + (line.received if line else 0), self.bytes_out + (line.sent if line else 0)


def _told_replaced(channel: Channel) -> None:
    with suppress(FedloomError, OSError):
        channel.send("replaced")


def writing(channel: Channel, jobs: "Queue[Job | None]", beat_s: float) -> None:
    """Live as a connection's writer: do what is to be done, one thing after another, and give a sign in between.

    Whatever fails closes the line: the reader finds out, and tells.
    """
    try:
        for words, stream in _gathered(jobs, beat_s):
            if words:
                channel.send_all(words)
            if stream is not None:
                stream(channel)
    except Exception as error:  # noqa: BLE001 (an open line that nobody writes to is never called again)
        if not isinstance(error, LineLost):
            log.warning("not said", extra={"error": type(error).__name__, "said": str(error)})
        channel.line.close()


def _gathered(jobs: "Queue[Job | None]", beat_s: float) -> Iterator[tuple[list[Message], Stream | None]]:
    """Yield what is to be said together, and what is to be done behind it, until there is a None."""
    words: list[Message] = []
    until = 0.0
    while True:
        job: Job | None = None
        try:
            job = jobs.get(timeout=max(0.0, until - monotonic()) if words else beat_s)
        except Empty:
            words = words or [{"kind": "beat"}]
        else:
            if isinstance(job, Words):
                until = until if words else monotonic() + LATER_S
                words.append(job.message)
                if len(words) < MOST_TOGETHER and (job.later or not jobs.empty()):
                    continue
            elif job is None:
                yield words, None
                return
        yield words, None if isinstance(job, Words) else job
        words = []
