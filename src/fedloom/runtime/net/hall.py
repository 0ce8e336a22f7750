"""The coordinator's side of the network: a federation whose parties call in, are asked, and answer in their own time.

Nothing is polled: a task is written to the party's connection when it is asked, and a reply wakes whoever waits. A
party that is away keeps its seat and its tasks; it is asked again when it is back, and a lease says how long it may be.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from logging import getLogger
from secrets import token_hex
from threading import Condition
from time import monotonic
from typing import Any

from ...core.errors import RunError, StorageError, WireError
from ...core.hidden import Backing
from ...core.layout import Layout, Vector
from ...core.task import (
    Ask,
    Fault,
    Measure,
    Member,
    Prepare,
    Ready,
    Reply,
    Task,
    TaskBody,
    Train,
    Trained,
)
from .arrivals import Arrivals
from .awaited import Awaited
from .leases import Leases
from .outbox import Outbox, bodies_in
from .seats import Given, Seat
from .spool import Body, Spool
from .talk import Chunk, Message, field_of, keys_of, offset_of

log = getLogger(__name__)
GREETING = -1  # the ask of those who come
MOST_NOTED = 10_000  # faults; most belong to no round that closes


@dataclass(eq=False)
class Hall:
    """A federation over the network; what is on the wire is in `docs/network.md`.

    Args:
        run: id of the run; every message names it.
        app: digest of the app, which parties sign for in hidden sums.
        layouts: by digest: those that an update may be packed by.
        leases: how long it waits.
        room: cohort that a sum has room for; known once the members are.
        greeting: what a party is asked first when it comes (back), before anything else.
        waits: who is awaited before the run begins, and why: a sentence without a stop; empty once it has begun.
        renewed: has anybody come, or said that it may answer what it refused, since this was last looked at?
        watched: acts on what a party says of the record.
        now: the clock, in seconds.
        closed: number of the last closed round.
        refused: who called last in vain, by name: when, and why.
    """

    run: str
    layouts: dict[str, Layout] = field(default_factory=dict)
    leases: Leases = Leases()
    room: int = 0
    greeting: TaskBody | None = None
    waits: str = ""
    renewed: bool = False
    watched: Callable[[Seat, Message], None] = lambda seat, said: None
    now: Callable[[], float] = monotonic
    app: str = ""
    seats: dict[str, Seat] = field(default_factory=dict)
    roster: list[Member] = field(default_factory=list)
    changed: Condition = field(default_factory=Condition)
    broken: StorageError | None = None  # this machine's disk, which ends what waits here
    closed: int = 0
    refused: dict[str, tuple[float, str]] = field(default_factory=dict)
    began: float = field(init=False)
    born: str = field(default_factory=lambda: token_hex(4))  # what was asked by an earlier process is not asked by this
    _of: dict[str, str] = field(default_factory=dict)  # member -> seat
    _ready: dict[int, deque[Reply]] = field(default_factory=dict)
    _awaited: Awaited = field(default_factory=Awaited)
    _asked: dict[int, str] = field(default_factory=dict)  # open dispatches, and the member that was asked
    _ids: Iterator[int] = field(default_factory=count)
    _outbox: Outbox = field(default_factory=Outbox)
    _arrivals: Arrivals = field(init=False)
    _noted: dict[int, Fault] = field(default_factory=dict)  # by identity: answers that a round may close with

    def __post_init__(self) -> None:
        self.began = self.now()
        self._arrivals = Arrivals(self.run, self.layouts, self.changed, self._answer)

    # -- what a schedule calls: the protocol Federation

    def members(self) -> Sequence[Member]:
        """Return the roster, which only changes between rounds."""
        return self.roster

    def send(self, tasks: Sequence[Task], ask: Ask | None = None) -> Ask:
        """Ask those parties, now or when they are back; with `ask`, more of what is asked already."""
        if ask is not None and ask.id not in self._ready:
            raise RunError("tasks cannot join an ask that is not open.")
        messages = [self._outbox.message(task, self.room) for task in tasks]
        with self.changed:
            ticket = Ask(next(self._ids)) if ask is None else ask
            self._ready.setdefault(ticket.id, deque())
            unknown = [task.party for task in tasks if task.party not in self._of]
            if unknown:
                raise RunError(f"there is no party called {unknown[0]!r}.")
            asked: dict[str, list[Given]] = {}
            for task, message in zip(tasks, messages, strict=True):
                seat = self.seat_of(task.party)
                asked.setdefault(seat.name, []).append(self._give(seat, ticket.id, task, message))
            for name, givens in asked.items():
                self._outbox.ask(self.seats[name], givens, self.run)
        return ticket

    def receive(self, ask: Ask, timeout_s: float | None) -> Reply | None:
        """Return the next reply of this ask; None after the timeout, or when nothing more will come."""
        until = None if timeout_s is None else self.now() + timeout_s
        with self.changed:
            while True:
                ready = self._ready.get(ask.id)
                if ready:
                    return ready.popleft()
                if self.broken is not None:
                    raise self.broken
                waits = list(self._lapses(ask.id))
                if ready is None or not waits:
                    return None
                lapse, why, seat, given = min(waits, key=lambda wait: wait[0])
                left = lapse - self.now()
                if left <= 0:
                    self._give_up(seat, given, why)
                    continue
                if until is not None and until - self.now() <= 0:
                    return None
                self.changed.wait(left if until is None else min(left, until - self.now()))

    def ready(self, ask: Ask) -> list[Reply]:
        """Return the replies of this ask that are there already, all of them."""
        with self.changed:
            found = self._ready.get(ask.id, deque())
            replies = list(found)
            found.clear()
            return replies

    def cancel(self, ask: Ask) -> None:
        """Tell everybody who has not answered that there is no need to."""
        with self.changed:
            for reply in self._ready.pop(ask.id, ()):
                if isinstance(reply.body, Trained):  # it came too late to be received
                    self.seat_of(reply.parties[0]).spool.drop(self.source(reply)[0].digest)
            for seat, givens in self._awaited.end(ask.id).items():
                seat.call_off(givens, self.run)
            self._outbox.tidy([given for seat in self.seats.values() for given in seat.given.values()])

    def give_up(self, ask: Ask, numbers: Collection[int]) -> None:
        """Tell who has not answered these that there is no need to."""
        with self.changed:
            for seat, given in self._awaited.of(ask.id):
                if given.task.number in numbers:
                    self._awaited.remove(seat, given)
                    seat.call_off([given], self.run)

    def busy(self) -> set[str]:
        """Return who trains at the moment: what else they are asked, they answer when they have."""
        with self.changed:
            return {member for seat in self.seats.values() for member in seat.training}

    def asked(self, number: int) -> None:
        """Nobody has been, as far as it knows: `Kept` remembers."""

    def settle(self, numbers: Collection[int]) -> None:
        """Tell everybody which dispatches were counted in a closed round."""
        self.tell(numbers, ())

    def backing(self) -> Backing:
        """Return whose key is whose, as certificates say; what must outlive this process, `Kept` keeps."""
        return Backing(run=f"{self.run} {self.app}", directory={s.name: s.key for s in self.everybody if s.key})

    def tell(self, counted: Collection[int], void: Collection[int]) -> None:
        """Tell everybody which dispatches were counted, and which will never be."""
        with self.changed:
            whose = {number: self._asked.pop(number, "") for number in {*counted, *void}}
            everybody = sorted(number for number, member in whose.items() if member not in self._of)
            by_seat: dict[str, set[int]] = {name: set(everybody) for name in self.seats if everybody}
            for number in whose.keys() - set(everybody):
                by_seat.setdefault(self._of[whose[number]], set()).add(number)
            for name, numbers in by_seat.items():
                mine, lost = sorted(numbers & set(counted)), sorted(numbers & set(void))
                self.seats[name].say("settle", later=True, run=self.run, counted=mine, void=lost)

    def expect(self, parties: Mapping[int, str]) -> None:
        """Learn who was asked under which number: nobody else has to hear what becomes of it."""
        with self.changed:
            self._asked |= parties

    def fail(self, error: StorageError) -> None:
        """Let whoever waits for replies know that they cannot be kept here."""
        with self.changed:
            self.broken = self.broken or error
            self.changed.notify_all()

    def close(self, round: int, faults: Sequence[Fault]) -> None:
        """Learn that a round is closed, and count those of its faults that nobody has answered: missed deadlines."""
        with self.changed:
            self.closed = round
            for fault in faults:
                member = fault.site if fault.site in self._of else fault.site.split(", ")[0]
                if self._noted.pop(id(fault), None) is None and member in self._of:
                    self._fault(self.seat_of(member), fault, fault.site)

    def pause(self, reason: str) -> None:
        """Tell everybody why the coordinator leaves, and that it has not ended: they are to call again."""
        for seat in self.everybody:
            seat.say("pause", run=self.run, reason=reason)

    def emptied(self, patience_s: float) -> bool:
        """Wait until everybody has left, so long for each at most; who is away has been waited for since it is.

        Who comes and goes meanwhile is waited for no longer for that.
        """
        with self.changed:
            since = {name: self.now() if seat.away is None else seat.away for name, seat in self.seats.items()}
            while True:
                there = [since.get(seat.name, 0.0) for seat in self.seats.values() if not seat.left]
                left = max(there, default=0.0) + patience_s - self.now()
                if not there or left <= 0:
                    return not there
                self.changed.wait(left)

    @property
    def everybody(self) -> list[Seat]:
        """All seats, also for whoever does not hold the lock: somebody may come meanwhile."""
        return list(self.seats.values())

    def seat_of(self, member: str) -> Seat:
        """Return the seat of whoever answers for a member."""
        return self.seats[self._of[member]]

    def answered_by(self, seat: Seat) -> set[str]:
        """Return all for whom a party answers, or did before."""
        return {member for member, name in list(self._of.items()) if name == seat.name}

    def named(self, vector: Vector) -> str:
        """Return the digest of a vector, as the body that parties will be sent; nobody may change it from now on."""
        return self._outbox.shelf.put(vector).digest

    def source(self, reply: Reply) -> tuple[Body, float]:
        """Return the body and the seconds of an update that was received."""
        return self._arrivals.source(reply)

    # -- what a connection calls

    def take_seat(
        self, name: str, members: tuple[Member, ...], spool: Callable[[], Spool], late_s: float = 0.0
    ) -> Seat:
        """Return the party's seat, a new one when it comes for the first time.

        One that was here in an earlier process counts as away only after `late_s`: it may be between two calls.
        """
        with self.changed:
            for member in members:
                if self._of.get(member.name, name) != name:
                    raise WireError(f"the member {member.name!r} sits with {self._of[member.name]!r} already.")
            seat = self.seats.get(name) or Seat(name, members, spool(), away=self.now() + late_s)
            self.seats[name], seat.members, seat.left = seat, members, False
            self._of.update({member.name: name for member in members})
            self.changed.notify_all()
            return seat

    def hear(self, seat: Seat, said: Message | Chunk) -> None:
        """Act on what a party says; raises `WireError` for what must be refused."""
        seat.seen = self.now()
        if isinstance(said, Chunk):
            self._arrivals.chunk(seat, said)
            return
        if said["kind"] != "beat" and field_of(said, "run", str) != self.run:
            raise WireError(f"a message is about the run {str(said['run'])[:80]!r}, and this is {self.run!r}.")
        match said["kind"]:
            case "beat":
                return
            case "get":
                self._serve(seat, field_of(said, "digest", str), offset_of(said))
            case "offer":
                self._arrivals.offered(seat, said)
            case "again":
                self._again(seat)
            case "cancelled":
                with self.changed:
                    seat.rests(keys_of(said), self.now())
            case "witness" | "cosign" | "distrust":
                self.watched(seat, said)
            case other:
                raise WireError(f"a message {other[:40]!r} means nothing here.")

    def come_in(self, seat: Seat, channel: Any = None) -> None:
        """Ask a party that comes, or is back: to prepare itself, then whatever it has not answered."""
        with self.changed:
            if channel is not None and seat.channel is not channel:
                return  # it has called again, and has not been told on that connection what was counted
            seat.settled = self.renewed = True
            asked, seat.given = seat.given, {}
            for greeted in self._greetings(seat):
                self._give(seat, GREETING, *greeted)
            seat.given.update({key: given for key, given in asked.items() if key not in seat.given})
            for ask in dict.fromkeys(given.ask for given in seat.given.values()):
                self._outbox.ask(seat, [given for given in seat.given.values() if given.ask == ask], self.run)
            self.changed.notify_all()

    def greet(self, seat: Seat) -> None:
        """Ask those of a party's members to prepare themselves who have not."""
        with self.changed:
            givens = [self._give(seat, GREETING, *greeted) for greeted in self._greetings(seat, but=seat.ready)]
            self._outbox.ask(seat, givens, self.run)

    # -- what is behind

    def _again(self, seat: Seat) -> None:
        """Ask a party again that has refused, and says that it may answer now."""
        with self.changed:
            seat.refused, self.renewed = {}, True
            self.greet(seat)
            self.changed.notify_all()

    def _greetings(self, seat: Seat, but: Collection[str] = ()) -> list[tuple[Task, dict[str, Any]]]:
        """Return what members are asked first; in the lock, so that nobody tidies its body away before it is given."""
        if self.greeting is None:
            return []
        members = [(number, m.name) for number, m in enumerate(seat.members, start=1) if m.name not in but]
        tasks = [Task(number, name, self.greeting) for number, name in members]
        return [(task, self._outbox.message(task, self.room)) for task in tasks]

    def _give(self, seat: Seat, ask: int, task: Task, message: dict[str, Any]) -> Given:
        given = Given(self._key(ask, task), task, ask, message, self.now())
        self._awaited.add(seat, given)
        return given

    def _key(self, ask: int, task: Task) -> str:
        """Return what a task is known by: for training its number alone, which outlives the coordinator's process."""
        kind = type(task.body).__name__.lower()
        return f"train/{task.number}" if isinstance(task.body, Train) else f"{kind}/{self.born}/{ask}/{task.number}"

    def _lapses(self, ask: int) -> Iterator[tuple[float, str, Seat, Given]]:
        for seat, given in self._awaited.of(ask):
            yield *self.leases.lapse(given, seat), seat, given

    def _give_up(self, seat: Seat, given: Given, why: str) -> None:
        self._answer(seat, [given], given.failed("wait", "LeaseExpired", why))
        seat.call_off([given], self.run)

    def _answer(self, seat: Seat, givens: Sequence[Given], reply: Reply) -> None:
        for given in givens:
            self._awaited.remove(seat, given)
        if isinstance(givens[0].task.body, Train):
            seat.free = self.now()
        seat.answered += 1
        if isinstance(reply.body, Trained):
            seat.seconds.append(reply.seconds)
        if isinstance(reply.body, Fault):
            self._fault(seat, reply.body, ", ".join(reply.parties))
            self._noted[id(reply.body)] = reply.body
            if len(self._noted) > MOST_NOTED:
                self._noted.pop(next(iter(self._noted)))
        if isinstance(givens[0].task.body, Measure | Prepare):
            self._heard_before_training(seat, reply)
        if givens[0].ask in self._ready:
            self._ready[givens[0].ask].append(reply)
        self.changed.notify_all()

    def _fault(self, seat: Seat, fault: Fault, party: str) -> None:
        seat.note(fault, self.now())
        of = {"site": seat.name, "party": party}  # behind a relay there are several
        log.warning("fault", extra=of | {"error": fault.error, "said": fault.message})

    def _heard_before_training(self, seat: Seat, reply: Reply) -> None:
        name = reply.parties[0]
        if isinstance(reply.body, Fault):
            seat.refused[name] = reply.body
            return
        seat.refused.pop(name, None)
        if isinstance(reply.body, Ready):
            seat.ready[name] = reply.body

    def _serve(self, seat: Seat, digest: str, offset: int) -> None:
        with self.changed:
            asked = {body.digest for body in bodies_in(seat.given.values())}
        if digest not in asked:
            log.info("body not given", extra={"site": seat.name, "digest": digest[:12]})
            return  # an answer to a task that was cancelled in between
        seat.jobs.put(self._outbox.stream(digest, offset))
