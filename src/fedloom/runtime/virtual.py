"""A federation in virtual time: replies come in the order in which clients would answer, and nobody waits for them."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

import numpy as np

from ..core.errors import RunError
from ..core.hidden import Backing
from ..core.rng import stream
from ..core.strategy import Strategy, Terms
from ..core.task import Ask, Fault, Federation, Member, Reply, Task, Train
from ..core.update import Update
from .traces import Traces

TICKS = 1_000_000  # of the clock in a second; whole, so that equal delays stay equal

Event = tuple[int, int, int, Task, bool]  # when it is due, dispatch number, place, what was asked, is it done?


@dataclass(eq=False)
class Virtual:
    """A federation whose clock moves to what happens next. Who asks cannot tell: it has the seam's clock alone.

    A client trains when its reply is due, from what it was sent. Tasks that do not train take no time.

    Args:
        inner: carries a task when it is due; one after the other.
        traces: how long clients take.
        seed: of the delays.
        up: bytes of an update; see `upload`.
    """

    inner: Federation
    traces: Traces
    seed: int
    up: int = 0
    ticks: int = 0
    coming: dict[int, list[Event]] = field(default_factory=dict)
    ids: Iterator[int] = field(default_factory=count)
    places: Iterator[int] = field(default_factory=count)

    def members(self) -> Sequence[Member]:
        """Return those of the inner one."""
        return self.inner.members()

    def now(self) -> float:
        """Return virtual seconds since the federation was made."""
        return self.ticks / TICKS

    def send(self, tasks: Sequence[Task], ask: Ask | None = None) -> Ask:
        """Draw when each reply is due; raises `RunError` for an ask that is not open."""
        if ask is not None and ask.id not in self.coming:
            raise RunError("tasks cannot join an ask that is not open; send them without it.")
        ask = Ask(next(self.ids)) if ask is None else ask
        events = self.coming.setdefault(ask.id, [])
        self.inner.cancel(self.inner.send(tasks))  # who is not there is refused now, not when it would answer
        for task in tasks:
            done = not isinstance(task.body, Train) or not self.traces.drops(task.number, self.seed)
            seconds = self._seconds(task) if done else self.traces.timeout_s
            if seconds is not None:
                due = self.ticks + max(0, _ticks(seconds) - _ticks(task.age_s))
                heappush(events, (due, task.number, next(self.places), task, done))
        return ask

    def receive(self, ask: Ask, timeout_s: float | None) -> Reply | None:
        """Move the clock to the next reply, and return it; None after the timeout, or if no more will come."""
        events = self.coming.get(ask.id)
        if events is None or (not events and timeout_s is None):
            return None
        until = None if timeout_s is None else self.ticks + math.ceil(timeout_s * TICKS)
        if until is not None and (not events or events[0][0] > until):
            self.ticks = until
            return None
        due, _, _, task, done = heappop(events)
        self.ticks = max(self.ticks, due)
        return self._reply(task, done)

    def cancel(self, ask: Ask) -> None:
        """Drop what has not come."""
        self.coming.pop(ask.id, None)

    def give_up(self, ask: Ask, numbers: Collection[int]) -> None:
        """What comes late is passed over by who asked."""

    def asked(self, number: int) -> None:
        """Nobody has been: parties end with this process."""

    def settle(self, numbers: Collection[int]) -> None:
        """Tell the parties."""
        self.inner.settle(numbers)

    def backing(self) -> Backing:
        """Return that of the inner one."""
        return self.inner.backing()

    def _seconds(self, task: Task) -> float:
        if not isinstance(task.body, Train):
            return 0.0
        return self.traces.duration(task.party, task.number, task.body.start.nbytes + self.up, self.seed)

    def _reply(self, task: Task, done: bool) -> Reply:
        if not done:
            why = f"no reply in {self.traces.timeout_s} s"
            return Reply((task.number,), (task.party,), Fault(task.party, "train", "Dropout", why))
        ask = self.inner.send([task])
        reply = self.inner.receive(ask, None)
        self.inner.cancel(ask)
        if reply is None:
            raise RunError(f"{task.party} gave no reply; carry virtual time by a federation that always does.")
        return reply


def _ticks(seconds: float) -> int:
    return round(seconds * TICKS)


def upload(strategy: Strategy, terms: Terms) -> int:
    """Return the bytes of one client's update: of a made-up one, encoded by the stages as a client's first.

    >>> from fedloom.core.layout import Layout, Leaf
    >>> from fedloom.recipes import fedavg
    >>> upload(fedavg(), fedavg().bind(Layout((Leaf("w", (3,)),)), [Member("a", 1)]))
    16
    """
    layouts = strategy.layouts(terms.model)
    update = Update(stream(0, "upload")("delta").normal(size=layouts[0].size).astype(layouts[0].dtype), layouts[0])
    for i, stage in enumerate(strategy.stages):
        memory, public = stage.init(layouts[i]), stage.public(stage.start(layouts[i]))
        update, _ = stage.encode(update, memory, public, stream(0, "upload").child(i))
    weight = 8 if strategy.each else np.dtype(terms.total.dtype).itemsize
    return update.size_bytes + weight
