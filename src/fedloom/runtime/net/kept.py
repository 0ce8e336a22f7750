"""A federation that remembers: what was asked, accepted and closed is written down before anybody acts on it.

After a crash the open round is run again under the same dispatch numbers. Replies that were accepted are taken from the
log, in their order; only what was not answered is asked again. A round that was closed stays as it was closed.

Where a schedule streams, whom it asks next, and from which model, follows from what it has received, faults too. There
a fault is in the log once something follows from it, and what the log has is received in its order before the rest.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...core.hidden import Backing
from ...core.task import Ask, Fault, Member, Reply, Task, Train, Trained
from ...core.tree import Tree
from ...store.dispatches import Accepted, Answer, Dispatches, Failed
from ...store.files import pieces, restore, write_parts
from .answers import answered
from .hall import Hall
from .spool import Body

SUM = "sum-"
LATE = "no reply before its deadline"
VOID = "not counted when it was received"


@dataclass(eq=False)
class Kept:
    """A `Hall` behind its log.

    Args:
        hall: of the parties.
        log: of dispatches.
        keep_bodies: whether updates of closed rounds stay on the disk, to be replayed.
        sums: folder of the hidden sum of the open round, once clients have been asked to unmask it; None keeps none.
        closed: is told of a round that has been closed: members come and go between rounds.
        idle: is called before replies are waited for: what can wait for that is done then.
        streams: does the schedule?
    """

    hall: Hall
    log: Dispatches
    keep_bodies: bool = False
    closed: Callable[[int], None] = lambda round: None
    sums: Path | None = None
    idle: Callable[[], None] = lambda: None
    streams: bool = False
    _round: int = 0  # the newest that somebody was asked in
    _waiting: dict[int, deque[Reply]] = field(default_factory=dict)  # by ask: here, and not received yet
    _unwritten: list[Answer] = field(default_factory=list)  # what the log does not have yet
    _due: deque[int] = field(default_factory=deque)  # of a stream: answered in the log and not received yet, in order
    _still: float = 0.0  # the time while there are any
    _replayed: set[int] = field(default_factory=set)  # those of which the log need not be told again
    _asked: dict[int, int] = field(default_factory=dict)  # open dispatches, and the ask that each belongs to
    _over: set[int] = field(default_factory=set)  # of those, who has answered or will not be waited for
    _bodies: dict[tuple[int, ...], tuple[str, str]] = field(default_factory=dict)  # of open dispatches: party, digest
    _closed: list[tuple[str, str]] = field(default_factory=list)  # party and digest of bodies that are done with

    def members(self) -> Sequence[Member]:
        """Return the roster."""
        return self.hall.members()

    def now(self) -> float:
        """Return the time; it stands still before all is received that the log has, and so no deadline passes."""
        return self._still if self._due else self.hall.now()

    def send(self, tasks: Sequence[Task], ask: Ask | None = None) -> Ask:
        """Write down who is asked, then ask those whose answers are not there yet."""
        train = {task.number: task for task in tasks if isinstance(task.body, Train)}
        self.flush()
        if not train:
            return self.hall.send(tasks, ask)
        self.forget_sums(but=train)
        again = self._written(train.values())
        self.hall.expect({number: task.party for number, task in train.items()})
        verdicts = self.log.verdicts(again) if again else {}
        answers = self.log.answers(again) if again and not hidden(tasks) else []
        known = [
            row
            for row in answers
            if isinstance(row, Accepted)
            and verdicts.get(row.numbers[0], True)
            and row.parties == tuple(train[number].party for number in row.numbers)
            and self._here(row)
        ]
        self._hold(known)
        there = {number for row in known for number in row.numbers}
        there |= {number for number, counted in verdicts.items() if not counted}
        replies = [self._again(row, [train[number] for number in row.numbers]) for row in known]
        faults = _faults(train, [row for row in answers if isinstance(row, Failed)], verdicts)
        there |= {fault.numbers[0] for fault in faults}
        replies += faults
        ticket = self.hall.send([task for number, task in train.items() if number not in there], ask)
        self._asked |= dict.fromkeys(train, ticket.id)
        self._replay(ticket, replies)
        if self.streams and again:
            self._follow(replies)
        return ticket

    def asked(self, number: int) -> str | None:
        """Return whom an earlier process asked under this number."""
        return self.log.asked(number)

    def receive(self, ask: Ask, timeout_s: float | None) -> Reply | None:
        """Return the next reply, from the log or from a party.

        Updates that are there are in the log before anybody is waited for, asked or told something: all at once, and
        with the verdict, where nothing of that comes in between.
        """
        if not self._trains(ask):
            return self.hall.receive(ask, timeout_s)
        waiting = self._waiting.setdefault(ask.id, deque())
        if not waiting:
            self._take(waiting, self.hall.ready(ask))
        until = None if timeout_s is None else self.hall.now() + timeout_s
        while (reply := self._next(waiting)) is None:
            self.flush()
            self.idle()
            self._forget()
            found = self.hall.receive(ask, None if until is None else max(0.0, until - self.hall.now()))
            if found is None:
                return None
            self._take(waiting, [found])
        self._over.update(self._asked.keys() & set(reply.numbers))
        return reply

    def give_up(self, ask: Ask, numbers: Collection[int]) -> None:
        """Wait for these no more: each is a fault that is received now."""
        self.hall.give_up(ask, numbers)
        waiting = self._waiting.setdefault(ask.id, deque())
        self._take(waiting, self.hall.ready(ask))
        late = [reply for reply in waiting if set(reply.numbers) & set(numbers)]
        self._waiting[ask.id] = deque(reply for reply in waiting if reply not in late)
        self._drop(late)
        known = {reply.numbers[0] for reply in late if isinstance(reply.body, Fault)} & self._replayed
        self._unwritten += [Failed(number, "wait", "Deadline", LATE) for number in numbers if number not in known]
        self._due = deque(number for number in self._due if number not in numbers)
        self._replayed -= set(numbers)
        self._over.update(numbers)

    def flush(self) -> None:
        """Write down the updates that are there: whoever tells others of them does so first."""
        self.log.accept(self._unwritten)
        self._unwritten = []

    def cancel(self, ask: Ask) -> None:
        """Drop what was not answered, and the faults that nothing has followed from: these are asked again."""
        asked = {number for number, of in self._asked.items() if of == ask.id}
        self._unwritten = [answer for answer in self._unwritten if isinstance(answer, Accepted)]
        if not asked <= {number for numbers in self._bodies for number in numbers}:
            self.flush()  # somebody is told so, or has failed, and the round may never close
        self._drop(self._waiting.pop(ask.id, ()))
        self._due.clear()
        self._over.update(asked)
        self.hall.cancel(ask)

    def settle(self, numbers: Collection[int]) -> None:
        """Write down which dispatches were counted and which never will be, then tell the parties."""
        self.close(set(numbers), self._over - set(numbers))

    def close(self, counted: set[int], void: set[int]) -> None:
        """Write down what was counted and what never will be, where somebody else has decided it; tell the parties."""
        self.log.close(counted, void, self._unwritten)
        self._unwritten = []
        done = [numbers for numbers in self._bodies if set(numbers) <= counted | void]
        self._closed += [self._bodies.pop(numbers) for numbers in done]
        for number in counted | void:
            self._asked.pop(number, None)
        self._over -= counted | void
        for path in {self._sum(number) for number in void} if self.sums is not None else ():
            path.unlink(missing_ok=True)  # a round that was closed without its sum stays so
        self.hall.tell(counted, void)
        self.closed(self._round or self.log.latest())  # where this process has asked nobody, an earlier one has

    def backing(self) -> Backing:
        """Return what a hidden sum has behind it: whose key is whose, and a file of its own."""
        return replace(self.hall.backing(), keep=self._keep, kept=self._kept)

    def forget_sums(self, but: Collection[int] = ()) -> None:
        """Delete hidden sums whose round has been saved, or is none any more."""
        for path in self.sums.glob(f"{SUM}*") if self.sums is not None else ():
            if path not in {self._sum(number) for number in but}:
                path.unlink()

    def _sum(self, number: int) -> Path:
        assert self.sums is not None, "asked only where sums are kept"
        return self.sums / f"{SUM}{number}.safetensors"

    def _keep(self, number: int, value: Tree) -> None:
        if self.sums is not None:
            self.flush()
            write_parts(self._sum(number), pieces(value), 0o600)

    def _kept(self, number: int) -> Tree:
        if self.sums is None or not self._sum(number).exists():
            return None
        if not self.log.verdicts([number]).get(number, True):
            return None
        open_ = self.log.open()  # asked in an earlier process, and not again: the sum is there
        self._over.update(open_)
        self._hold(self.log.accepted(open_))
        return restore(self._sum(number).read_bytes())

    def _written(self, tasks: Collection[Task]) -> set[int]:
        """Write down who is asked, by round: a buffered schedule asks again from several models at once.

        Returns the numbers that were there already.
        """
        rounds: dict[int, dict[int, str]] = {}
        for task in tasks:
            assert isinstance(task.body, Train), "only training is written down"
            rounds.setdefault(task.body.round, {})[task.number] = task.party
        self._round = max(self._round, *rounds)
        return {number for round, parties in rounds.items() for number in self.log.ask(parties, round)}

    def _take(self, waiting: deque[Reply], replies: Iterable[Reply]) -> None:
        """Let replies wait to be received, and the updates among them to be written down."""
        for reply in replies:
            waiting.append(reply)
            if not self.streams:
                self._note(reply)

    def _next(self, waiting: deque[Reply]) -> Reply | None:
        """Take out the reply that is received next: in a stream, what the log has comes first, and then is written."""
        found = waiting[0] if waiting else None
        if self._due:
            found = next((reply for reply in waiting if reply.numbers[0] == self._due[0]), None)
        if found is None:
            return None
        waiting.remove(found)
        if self._due:
            self._due.popleft()
        if self.streams:
            self._note(found)
        return found

    def _note(self, reply: Reply) -> None:
        """Let an update be written down; in a stream, a fault too."""
        if reply.numbers[0] in self._replayed:
            self._replayed.remove(reply.numbers[0])
        elif isinstance(reply.body, Trained):
            body, seconds = self.hall.source(reply)
            self._bodies[reply.numbers] = (reply.parties[0], body.digest)
            self._unwritten.append(Accepted(reply.numbers, reply.parties, body.digest, body.size, seconds))
        elif isinstance(reply.body, Fault) and self.streams:
            told = reply.body
            self._unwritten.append(Failed(reply.numbers[0], told.phase, told.error, told.message))

    def _drop(self, replies: Iterable[Reply]) -> None:
        """Drop the bodies of updates that will not be received, and are not in the log."""
        for reply in replies:
            if self.streams and isinstance(reply.body, Trained) and reply.numbers not in self._bodies:
                self.hall.seat_of(reply.parties[0]).spool.drop(self.hall.source(reply)[0].digest)

    def _follow(self, replies: Iterable[Reply]) -> None:
        """Receive what the log has before all else, in its order; these are in it already."""
        self._still = self.now()
        self._replayed.update(reply.numbers[0] for reply in replies)
        rows = self.log.answers(self._asked)
        self._due = deque(row.numbers[0] for row in rows if row.numbers[0] not in self._over)

    def _replay(self, ask: Ask, replies: Sequence[Reply]) -> None:
        """Put these among those that wait to be received again, in the order in which all were accepted."""
        if replies:
            places = {row.numbers: place for place, row in enumerate(self.log.answers(self._asked))}
            waiting = [*self._waiting.get(ask.id, ()), *replies]
            self._waiting[ask.id] = deque(sorted(waiting, key=lambda reply: places.get(reply.numbers, len(places))))

    def _hold(self, rows: Iterable[Accepted]) -> None:
        """Need the bodies of updates that an earlier process has accepted."""
        for row in rows:
            if row.numbers not in self._bodies:
                self._bodies[row.numbers] = (row.parties[0], row.digest)
                self.hall.seat_of(row.parties[0]).spool.claim(row.digest)

    def _trains(self, ask: Ask) -> bool:
        return ask.id in self._asked.values()

    def _here(self, row: Accepted) -> bool:
        return self.hall.seat_of(row.parties[0]).spool.intact(Body(row.digest, row.size))

    def _again(self, row: Accepted, tasks: Sequence[Task]) -> Reply:
        spool = self.hall.seat_of(row.parties[0]).spool
        return answered(spool, self.hall.layouts, tasks, Body(row.digest, row.size), row.seconds)

    def _forget(self) -> None:
        """Drop the bodies of closed rounds; the state behind them has been saved when nothing else is to be done."""
        closed, self._closed = self._closed, []
        if not self.keep_bodies:
            for party, digest in closed:
                self.hall.seat_of(party).spool.drop(digest)


def _faults(tasks: Mapping[int, Task], rows: Iterable[Failed], verdicts: Mapping[int, bool]) -> list[Reply]:
    """Return the faults that a log has of these tasks, and one for each other that was not counted."""
    told = {number: Failed(number, "admit", "Void", VOID) for number, counted in verdicts.items() if not counted}
    told |= {row.number: row for row in rows}
    faults = {n: Fault(tasks[n].party, row.phase, row.error, row.message) for n, row in told.items()}
    return [Reply((number,), (fault.site,), fault) for number, fault in faults.items()]


def hidden(tasks: Sequence[Task]) -> bool:
    """Are these updates masked? Then what was accepted in an earlier session does not cancel with them."""
    return any(isinstance(task.body, Train) and task.body.peers for task in tasks)
