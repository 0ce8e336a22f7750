"""A party's side of the network: it calls the coordinator, gets its tasks, answers, and calls again when it is cut off.

One thread reads, one writes, one works, and one watches the record, also while the work takes long. What is read passes
who watches before it comes to who works: nothing is begun before the record was checked that was shown before it.
"""

import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from logging import getLogger
from math import inf
from queue import Queue
from secrets import token_hex
from threading import Event, Thread
from time import monotonic
from typing import Any

from ...core.errors import FedloomError, StorageError, WireError
from ...core.task import Fault, Member
from ...store.runs import is_id
from ..identity import Peer, verify
from .calling import pauses
from .codec import TASKS, reply_tree
from .desk import Works
from .inbox import Inbox
from .leases import beating
from .line import CHUNK, CONTROL, NONCE, Line, LineLost
from .offers import Offers
from .reception import PROTOCOL
from .seats import Job, Stream, Words, writing
from .talk import Channel, Chunk, Message, field_of, key_of, keys_of, numbers_of, offset_of
from .telling import Told, tellable, why

log = getLogger(__name__)
ENDS = "This site ends before it loses anything: mend that and join again, and it is asked again."
LOOK_S = 1.0  # so often it is looked whether the certificate is due, and whether what was refused may be answered
RENEW_S = 60.0  # so late it asks again for a certificate that did not come, with the same key
MOST_REASON = 400  # characters of a reason that are said
CONNECT_S = 15.0

Jobs = Queue[Callable[[], None] | None]


@dataclass(frozen=True)
class Ended:
    """How the run ended, as the coordinator says."""

    status: str
    reason: str


@dataclass(eq=False)
class Site:
    """A party that calls a coordinator.

    Args:
        name: its own.
        app: digest of the app.
        members: for whom it answers.
        opened: run -> the desk that does its work.
        address: host and port of the coordinator.
        context: of TLS.
        check: the connection -> who is on its other side; raises for anybody but a coordinator or a relay.
        sign: with its own identity key.
        told: is told what happens: an event, and its values.
        renewal: returns a request for a new certificate when it is due; renewed: is given the answer, and returns
            whether it is the one to the request that is open.
        away_s: gives up when the coordinator was not reached for so long.
        over: is told how the run ended, before the coordinator hears that it is known.
        leaving: leave the run for good: what is open is answered, and between two rounds the coordinator lets it go.
    """

    name: str
    app: str
    members: tuple[Member, ...]
    opened: Callable[[str], Works]
    address: tuple[str, int]
    context: Callable[[], ssl.SSLContext]
    check: Callable[[ssl.SSLSocket], Peer]
    sign: Callable[[bytes], bytes]
    told: Told = lambda event, /, **values: None
    renewal: Callable[[], Mapping[str, Any] | None] = lambda: None
    renewed: Callable[[Mapping[str, Any]], bool] = lambda answer: False
    over: Callable[[Ended], object] = lambda ended: None
    away_s: float = 86_400.0
    leaving: bool = False
    run: str = ""
    ended: Ended | None = None
    failed: Exception | None = None
    process: str = field(default_factory=lambda: token_hex(8))
    stopping: Event = field(default_factory=Event)
    todo: Jobs = field(default_factory=Queue)
    heard: Jobs = field(default_factory=Queue)  # what the record shows, and what is to be done
    _reached: float = 0.0
    _renewing: float = -inf  # since when; so late without an answer, it asks again
    desk: Works = None  # type: ignore[assignment]  # from the first welcome on
    peer: Peer = None  # type: ignore[assignment]  # from the first handshake on
    _jobs: "Queue[Job | None]" = field(default_factory=Queue)
    _inbox: Inbox = field(init=False)
    _offers: Offers = field(init=False)

    def __post_init__(self) -> None:
        many = len(self.members)
        self._inbox = Inbox(lambda: self.desk.incoming, self._say, self._start, lambda: self.desk.independent, many)
        self._offers = Offers(lambda: self.desk.outgoing, self._say, self._send, many)

    def live(self) -> Ended:
        """Call, work and call again until the run has ended; raises `WireError` when it is refused for good."""
        watcher = Thread(target=self._work, args=(self.heard, lambda: None), name="watch", daemon=True)
        worker = Thread(target=self._work, args=(self.todo, self._forget), name="work", daemon=True)
        watcher.start()
        worker.start()
        waits, self._reached = pauses(), monotonic()
        try:
            while self.ended is None and not self.stopping.is_set():
                called = monotonic()
                try:
                    self._call()
                except (LineLost, OSError) as error:
                    waits = pauses() if self._reached > called else waits
                    self._pause(error, next(waits))
        finally:
            self.heard.put(None)
            watcher.join()  # it may have something for the worker
            self.todo.put(None)
        worker.join()
        if self.failed is not None:
            raise self.failed
        return self.ended or Ended("stopped", "join again to go on with the run")

    def stop(self) -> None:
        """Leave: say goodbye, and call no more."""
        self.stopping.set()
        self._say("bye")
        self._jobs.put(None)

    def _pause(self, error: OSError, pause_s: float) -> None:
        if monotonic() - self._reached > self.away_s:
            raise WireError(f"the coordinator could not be reached for {self.away_s:g} s: {error}.") from error
        self.told("away", said=f"{why(error, self.address[0])}; calling again in {pause_s:.1f} s")
        self.stopping.wait(pause_s)

    def _call(self) -> None:
        """Live through one connection."""
        with socket.create_connection(self.address, CONNECT_S) as raw:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with closing(self.context().wrap_socket(raw, server_hostname=self.address[0])) as sock:
                self.peer = self.check(sock)
                key = self.peer.key
                line = Line(sock, allowed=frozenset({NONCE, CONTROL, CHUNK}))
                with closing(line):  # before its socket is: a thread may be writing
                    channel = Channel(line, self.sign, lambda sig, message: verify(key, sig, message), False).open()
                    self._session(channel)

    def _session(self, channel: Channel) -> None:
        members = [[member.name, member.examples] for member in self.members]
        channel.send("hello", protocol=PROTOCOL, app=self.app, members=members, process=self.process)
        welcome = channel.receive(CONNECT_S * 2)
        if not isinstance(welcome, dict) or welcome["kind"] not in ("welcome", "refused"):
            raise WireError("the coordinator did not answer hello with a welcome.")
        if welcome["kind"] == "refused":
            raise WireError(f"the coordinator refuses: {field_of(welcome, 'reason', str)}")
        run, beat_s = _welcomed(welcome)
        if self.run not in ("", run):
            raise WireError(f"the coordinator has begun another run, {run[:80]!r}; join again to take part in it.")
        if not self.run:
            self.run, self.desk = run, self.opened(run)
        if self.desk.witness is not None:
            self.desk.witness.meet(self.peer)
        self._reached, self._renewing = monotonic(), -inf
        self._inbox.begin_anew()
        self._jobs = Queue()
        writer = Thread(target=writing, args=(channel, self._jobs, beat_s), name="to coordinator", daemon=True)
        writer.start()
        self._say("pending", numbers=sorted(self.desk.waiting))
        self.heard.put(self._introduce)
        if self.leaving:
            self._say("leave")
        self.told("connected", server=f"{self.address[0]}:{self.address[1]}", run=self.run)
        looked = -inf
        try:
            while self.ended is None and not self.stopping.is_set():
                if monotonic() - looked >= LOOK_S:
                    looked = monotonic()
                    self._renew()
                    self._let(self._again)
                said = channel.receive(3 * beat_s)
                if said is None:
                    raise LineLost(f"nothing was heard for {3 * beat_s:g} s")
                self._hear(said)
        except LineLost:
            if not self.stopping.is_set() and self.ended is None:
                raise
        finally:
            self._reached = monotonic()
            self._jobs.put(None)
        writer.join(CONNECT_S)  # the goodbye is on its way before the line is closed

    def _hear(self, said: Message | Chunk) -> None:
        if isinstance(said, Chunk):
            self._inbox.chunk(said)
            return
        if said["kind"] not in ("beat", "certificate", "replaced") and field_of(said, "run", str) != self.run:
            raise WireError(f"the coordinator speaks of another run, {str(said['run'])[:80]!r}.")
        match said["kind"]:
            case "task":
                self.told("task", key=key_of(said), attempt=field_of(said, "attempt", int))
                self._inbox.task(said)
            case "cancel":
                keys = keys_of(said)
                self._cancel(keys)
                self._let(lambda: self._say("cancelled", later=True, keys=keys))  # behind what it is at
            case "settle":
                counted, void = (set(numbers_of(said, name)) for name in ("counted", "void"))
                self._let(lambda: self.desk.settle(counted, void))
            case "have":
                self._offers.upload(field_of(said, "digest", str), offset_of(said))
            case "receipt":
                self._offers.receipt(keys_of(said))
            case "watch":
                self.heard.put(self._introduce)
            case "record":
                self.heard.put(lambda: self._watch(said))
            case "certificate":
                self._renewed(field_of(said, "answer", dict))
            case "end":
                ended = Ended(field_of(said, "status", str), field_of(said, "reason", str))
                self._cancel(self._inbox.keys)
                self._let(lambda: self._end(ended))  # after all that was said before
            case "pause":
                self.told("paused", said=f"{field_of(said, 'reason', str)}; calling until the coordinator is back")
            case "replaced":
                raise WireError(
                    f"another process has joined as {self.name!r}, from another folder or machine, so this one ends: "
                    "each would undo the other's work. Keep one of them."
                )
            case "beat":
                pass
            case other:
                raise WireError(f"a message {other[:40]!r} means nothing here.")

    def _again(self) -> None:
        """Ask to be asked again, once what was refused may be answered."""
        if self.desk.again():
            self._say("again")

    def _introduce(self) -> None:
        """Say what this site has seen of the coordinator's record, so that it is shown how that goes on."""
        if self.desk.witness is not None and self.peer.role == "coordinator":
            self._say("witness", **self.desk.witness.introduction())

    def _watch(self, said: Message) -> None:
        """Check what is shown of the record, and co-sign it; a failed check ends this site's part in the run."""
        if self.desk.witness is None:
            return
        try:
            self._say("cosign", later=True, **self.desk.witness.hear(said, self.peer))
        except StorageError:
            raise  # nothing was wrong with what it was shown
        except FedloomError as error:
            self._say("distrust", reason=str(error)[:MOST_REASON])
            raise

    def _cancel(self, keys: Sequence[str]) -> None:
        """Wait no more for these. What the worker is at is finished, since nothing can stop a training function."""
        self._inbox.cancel(keys)
        self._let(lambda: self.desk.cancel(keys))

    def _let(self, job: Callable[[], None]) -> None:
        """Let the worker do this, once what was shown of the record before it was checked."""
        self.heard.put(lambda: self.todo.put(job))

    def _start(self, number: int) -> None:
        self._let(lambda: self._answer(number))

    def _work(self, jobs: Jobs, after: Callable[[], None]) -> None:
        try:
            for job in iter(jobs.get, None):
                if self.failed is None:  # the other thread has not
                    job()
                    after()
        except (StorageError, OSError) as error:
            self._fail(StorageError(f"{str(error).rstrip('.')}. {ENDS}"))
        except Exception as error:  # noqa: BLE001 (whatever it is, the site must not go on without this thread)
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failed = self.failed or error
        self.stop()

    def _forget(self) -> None:
        """Forget what has arrived, behind whatever is done: nobody is woken for it."""
        for digest in self._offers.forget():
            self.desk.received(digest)

    def _answer(self, number: int) -> None:
        message = self._inbox.take(number)
        if message is None:
            return
        key: str = message["key"]
        try:
            self.desk.answer(key, message, self._offers.offer)
            if self.desk.refused:
                self.told("refused", said=f"{self.desk.refused} This site stays, and takes part as soon as it may.")
        except StorageError:
            raise  # no answer, so that the coordinator waits and asks again
        except FedloomError as error:
            self.told("refused", said=str(error))
            fault = Fault(self.name, phase_of(message), type(error).__name__, tellable(error))
            self._offers.offer([key], self.desk.outgoing.put(reply_tree(fault)), 0.0)
        self._inbox.done(number)

    def _renew(self) -> None:
        if monotonic() - self._renewing >= RENEW_S and (request := self.renewal()):
            self._renewing = monotonic()
            self._say("renew", request=request)

    def _renewed(self, answer: Mapping[str, Any]) -> None:
        """Take the next certificate; who asks twice, since the first answer is late, is answered twice."""
        if self._renewing == -inf or not self.renewed(answer):
            self.told("passed over", said="a certificate that answers no open request")
            return
        self._renewing = -inf

    def _end(self, ended: Ended) -> None:
        """Take note of how the run ended, and leave for good."""
        self.over(ended)
        self.ended = ended
        self._say("bye", leaving=True)
        self._jobs.put(None)

    def _send(self, stream: Stream) -> None:
        self._jobs.put(stream)  # of the present connection

    def _say(self, kind: str, *, later: bool = False, **fields: Any) -> None:
        run = {} if kind in ("bye", "leave", "renew") else {"run": self.run}
        self._jobs.put(Words({"kind": kind, **run, **fields}, later))


def _welcomed(welcome: Message) -> tuple[str, float]:
    """Return the run and the seconds between signs of life; raises `WireError` for what cannot be meant."""
    run, beat_s = field_of(welcome, "run", str), field_of(welcome, "beat_s", float)
    if not is_id(run):
        raise WireError(f"{run[:80]!r} is not the id of a run.")
    if not beating(beat_s):
        raise WireError(f"the coordinator cannot mean {beat_s:g} s between signs of life; compare the versions.")
    return run, beat_s


def phase_of(message: Message) -> str:
    """Return what a task asks for, by name; "task" where it does not say so.

    >>> phase_of({"kind": "task", "body": {"task": "train"}}), phase_of({"kind": "task", "body": None})
    ('train', 'task')
    """
    match message.get("body"):
        case {"task": str(name)} if name in TASKS:
            return name
    return "task"
