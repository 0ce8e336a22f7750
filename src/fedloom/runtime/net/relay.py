"""A party that holds a federation: it passes tasks down to its own parties, adds what they answer, and offers one sum.

What was asked together above is asked together below. Replies that may be merged are verified and added here, exactly,
so that a tree of relays has the bits of a flat federation; all others go up one by one. Nothing new must survive a
crash: the log of dispatches below has the answers, and a sum that is made again has the same bits.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from ...core.errors import UpdateError, WireError
from ...core.layout import Layout
from ...core.metrics import Metrics
from ...core.metrics import total as sum_of
from ...core.task import Ask, Fault, Prepare, Reply, ReplyBody, Task, TaskBody, Train, Trained
from ...core.update import Update, fold, verify
from ..witness import Witness
from .asked import bodies_of, body_of
from .bounds import TASKS, Answers
from .codec import reply_tree
from .desk import Offer
from .hall import Hall
from .kept import Kept
from .spool import Spool
from .talk import Message, field_of, number_of

TICK_S = 1.0  # so often leases and deadlines are looked at
UNSAID = "what it says names a site, so it stays at the relay; ask there."


def passed(names: Iterable[str]) -> dict[str, str]:
    """Return what each member is called above, by its name here: the same.

    >>> passed(["oslo"])
    {'oslo': 'oslo'}
    """
    return {name: name for name in names}


def numbered(relay: str, names: Iterable[str]) -> dict[str, str]:
    """Return what each member is called above, by its name here: its place in the order of names.

    >>> numbered("north", ["oslo", "bergen"])
    {'bergen': 'north/0001', 'oslo': 'north/0002'}
    """
    ordered = sorted(names)
    width = max(4, len(str(len(ordered))))
    return {name: f"{relay}/{place:0{width}}" for place, name in enumerate(ordered, start=1)}


@dataclass(eq=False)
class Sum:
    """The sum of what has come so far: one reply as it is, several added in float64."""

    update: Update | None = None
    replies: list[Reply] = field(default_factory=list)
    metrics: list[tuple[int, Metrics]] = field(default_factory=list)

    def add(self, reply: Reply, update: Update, metrics: Metrics) -> None:
        """Add a reply; raises `UpdateError`, and then nothing was added."""
        if self.update is None:
            self.update = update
        elif len(self.replies) == 1:
            self.update = fold(None, self.update, update)  # the first one is not ours to write into
        else:
            self.update = fold(self.update, update)
        self.replies.append(reply)
        self.metrics.append((reply.numbers[0], metrics))

    @property
    def numbers(self) -> tuple[int, ...]:
        """The dispatches in it."""
        return tuple(sorted(number for reply in self.replies for number in reply.numbers))

    @property
    def seconds(self) -> float:
        """Those of the slowest."""
        return max(reply.seconds for reply in self.replies)

    def body(self) -> ReplyBody:
        """Return what goes up; metrics are added in the order of dispatch."""
        assert self.update is not None, "only a sum that holds something goes up"
        return Trained(self.update, sum_of(metrics for _, metrics in sorted(self.metrics, key=lambda pair: pair[0])))


@dataclass(eq=False)
class Batch:
    """Tasks that were asked together: the keys that they are known by above, of those that are not answered there.

    Args:
        ask: of them, below.
        keys: by dispatch number.
        merge: may answers be added?
        total: the layout of their sum.
        offer: sends a reply up.
        since: when it was asked, or a sum went up.
    """

    ask: Ask
    keys: dict[int, str]
    merge: bool
    total: Layout
    offer: Offer
    since: float
    sum: Sum = field(default_factory=Sum)

    @property
    def full(self) -> bool:
        """Has everybody else answered or failed?"""
        return set(self.sum.numbers) == set(self.keys)

    def taken(self, numbers: Collection[int]) -> list[str]:
        """Return the keys of these, which are answered now."""
        return [self.keys.pop(number) for number in numbers if number in self.keys]


@dataclass(eq=False)
class Relay:
    """What a relay works with: its own federation, in the place of a site's rows.

    The condition of its hall guards all of it: tasks come in one thread, replies in another.

    Args:
        kept: the federation of its own parties, behind its log.
        above: what each member is called above, by its name here.
        total: clients -> the layout of a sum that has room for so many.
        incoming, outgoing: bodies from above, and those that are sent there.
        deadline_s: after so many seconds the sum of those who have answered goes up, and again after as many; None
            waits until everybody has answered or failed.
        now: the clock, in seconds.
        most: how many dispatches may be open, for each member.
    """

    kept: Kept
    above: Mapping[str, str]
    total: Callable[[int], Layout]
    incoming: Spool
    outgoing: Spool
    deadline_s: float | None = None
    now: Callable[[], float] = monotonic
    most: Answers = Answers()
    stopped: bool = False
    refused: str = ""  # its sites refuse, and say so themselves
    independent: bool = False  # tasks that were asked together are answered together
    witness: Witness | None = None  # a relay does not watch the record above, and its sites do not see it
    _here: dict[str, str] = field(default_factory=dict)  # what a member is called above -> here
    _coming: dict[str, dict[str, tuple[Task, Message]]] = field(default_factory=dict)  # batch -> key -> …
    _batches: list[Batch] = field(default_factory=list)
    _sent: "Counter[str]" = field(default_factory=Counter)  # how often a body is on its way
    _last: tuple[Any, TaskBody] | None = None

    def __post_init__(self) -> None:
        self._here = {name: here for here, name in self.above.items()}

    @property
    def _hall(self) -> Hall:
        return self.kept.hall

    # -- what the connection to above calls: a desk, as a site's

    @property
    def waiting(self) -> Collection[int]:
        """Dispatches whose round is open."""
        return self.kept.log.open()

    def answer(self, key: str, message: Message, offer: Offer) -> None:
        """Pass a task down, together with those that it was asked with."""
        together, size = _together(message)
        task = self._task(message)
        with self._hall.changed:
            coming = self._coming.setdefault(together, {})
            coming[key] = (task, message)
            if len(coming) < size:
                self._forget_oldest()
                return
            self._coming = {name: tasks for name, tasks in self._coming.items() if not tasks.keys() & coming.keys()}
            running = {key for batch in self._batches for key in batch.keys.values()}  # they will be answered
            if new := {key: what for key, what in coming.items() if key not in running}:
                self._begin(new, offer)

    def cancel(self, keys: Collection[str]) -> None:
        """Tell those below that nobody waits for these any more."""
        with self._hall.changed:
            for tasks in self._coming.values():
                for key in keys:
                    tasks.pop(key, None)
            self._coming = {name: tasks for name, tasks in self._coming.items() if tasks}
            for batch in self._batches:
                batch.keys = {number: key for number, key in batch.keys.items() if key not in keys}
            self._end_what_is_over()

    def received(self, digest: str) -> None:
        """Forget a body that has arrived above."""
        with self._hall.changed:
            self._sent[digest] -= 1
            if self._sent[digest] <= 0:
                del self._sent[digest]
                self.outgoing.drop(digest)

    def settle(self, counted: set[int], void: set[int]) -> None:
        """Close what was decided above, and pass it down: memories move now."""
        with self._hall.changed:
            own = set(self.kept.log.open())
            self.kept.close(counted & own, void & own)

    def again(self) -> bool:
        """Has one of its own come, or said that it may answer now? Says so once."""
        with self._hall.changed:
            found, self._hall.renewed = self._hall.renewed, False
        return found

    # -- what a thread of its own does

    def live(self) -> None:
        """Take replies from below until it is stopped."""
        while not self.stopped:
            with self._hall.changed:
                found = self._next()
                if found is None:
                    self._hall.changed.wait(TICK_S)
            if found is not None:
                self.take(*found)
            self.send_what_is_due()

    def stop(self) -> None:
        """End `live`."""
        with self._hall.changed:
            self.stopped = True
            self._hall.changed.notify_all()

    def take(self, batch: Batch, reply: Reply) -> None:
        """Add a reply to its sum, or pass it up as it is."""
        single: ReplyBody | None = reply.body
        if batch.merge and isinstance(reply.body, Trained):
            single = self._added(batch, reply, reply.body)
        if single is not None:
            self._pass_up(batch, reply.numbers, self._named(single, reply.parties), reply.seconds)

    def send_what_is_due(self) -> None:
        """Offer the sums of batches that have all their answers, or whose deadline has passed."""
        for batch in list(self._batches):
            late = self.deadline_s is not None and self.now() - batch.since >= self.deadline_s
            if batch.sum.replies and (batch.full or late):
                done, batch.sum, batch.since = batch.sum, Sum(), self.now()
                self._pass_up(batch, done.numbers, done.body(), done.seconds)
        with self._hall.changed:
            self._end_what_is_over()

    # -- what is behind

    def _forget_oldest(self) -> None:
        """Forget who was asked together with somebody that never came, where there are more than any run asks."""
        while len(self._coming) > 1 and sum(map(len, self._coming.values())) > TASKS * len(self.above):
            del self._coming[next(iter(self._coming))]

    def _refuse_too_many(self) -> None:
        """Refuse to train for a federation above that settles nothing; see `bounds`."""
        if (open_ := len(self.kept.log.open())) >= self.most.number * len(self.above):
            raise WireError(f"{open_} dispatches wait here to be settled, and no run needs so many.")

    def _begin(self, coming: Mapping[str, tuple[Task, Message]], offer: Offer) -> None:
        tasks = [task for task, _ in coming.values()]
        if any(isinstance(task.body, Train) for task in tasks):
            self._refuse_too_many()
        room = field_of(next(iter(coming.values()))[1], "room", int)
        total = self.total(room)
        self._hall.layouts[total.digest], self._hall.room = total, room
        for task in tasks:
            if isinstance(task.body, Prepare):
                self._hall.greeting = task.body  # who comes back later is prepared first
        keys = {task.number: key for key, (task, _) in coming.items()}
        merge = all(task.merge and isinstance(task.body, Train) for task in tasks)
        self._batches.append(Batch(self.kept.send(tasks), keys, merge, total, offer, self.now()))
        self._hall.changed.notify_all()

    def _next(self) -> tuple[Batch, Reply] | None:
        for batch in self._batches:
            reply = self.kept.receive(batch.ask, 0.0)
            if reply is not None:
                return batch, reply
        return None

    def _added(self, batch: Batch, reply: Reply, body: Trained) -> Fault | None:
        try:
            update = verify(body.update, batch.total)
            if not update.count == len(reply.numbers) == len(set(reply.numbers)):
                raise UpdateError(f"a sum of {update.count} clients does not answer dispatch {reply.numbers}.")
            if set(reply.numbers) <= set(batch.keys):  # else it was cancelled
                batch.sum.add(reply, update, body.metrics)
        except UpdateError as error:
            return Fault(", ".join(reply.parties), "admit", type(error).__name__, str(error))
        return None

    def _pass_up(self, batch: Batch, numbers: Sequence[int], body: ReplyBody, seconds: float) -> None:
        with self._hall.changed:
            keys = batch.taken(numbers)  # before it is offered: whoever asks again from now on has to be answered again
            if len(keys) < len(numbers):
                return
            self.kept.flush()
            sent = self.outgoing.put(reply_tree(body))
            self._sent[sent.digest] += 1
            batch.offer(keys, sent, seconds)

    def _end_what_is_over(self) -> None:
        for batch in [batch for batch in self._batches if not batch.keys]:
            self._batches.remove(batch)
            self.kept.cancel(batch.ask)

    def _named(self, body: ReplyBody, parties: Sequence[str]) -> ReplyBody:
        """Return a fault in the names that are known above; a text that has another one stays here."""
        if not isinstance(body, Fault):
            return body
        hidden = [here.lower() for here, name in self.above.items() if here != name]
        texts = (body.message, *body.trace)
        told = replace(body, site=", ".join(self.above[party] for party in parties))
        if any(name in text.lower() for name in hidden for text in texts):
            return replace(told, message=UNSAID, trace=())
        return told

    def _task(self, message: Message) -> Task:
        named = (message.get("body"), bodies_of(message))
        if self._last is None or self._last[0] != named:
            self._last = (named, body_of(message, self.incoming.get))
        party = field_of(message, "party", str)
        if party not in self._here:
            raise WireError(f"a task is for {party[:80]!r}, and nobody here is called so.")
        merge = field_of(message, "merge", bool)
        return Task(number_of(message), self._here[party], self._last[1], merge)


def _together(message: Message) -> tuple[str, int]:
    match message.get("together"):
        case [str(name), int(size)] if size > 0:
            return name, size
    raise WireError("a task must say which others it was asked with; take the same fedloom above and here.")
