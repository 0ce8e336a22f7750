"""Resident workers that do clients' tasks in chunks: processes of this machine, or actors of a cluster.

The round's vector is shared once with all of them; a worker gets names and numbers and answers with one partial sum.
"""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..core.errors import RunError
from ..core.hidden import Backing
from ..core.layout import Layout, Vector
from ..core.task import Ask, Evaluate, Member, Reply, Task, Train
from ..core.tree import Tree
from .chunk import Parties, lost, replies, request, singly

MOST, SHARES = 50, 3  # clients in a chunk, and chunks for each worker: few partial sums, and no long wait at the end
DEPTH = 2  # chunks that a worker has at a time: it trains one while the other's sum is folded

Job = tuple[Tree, bool]  # a chunk, and whether it has ended a worker before
Done = tuple[Tree, NDArray[np.float64]]  # what `chunk.work` returned, and its sum, valid until the next one is taken


class Worker(Protocol):
    """Somebody who does chunks in the order in which they are given."""

    given: deque[Job]  # the first is being done

    def give(self, chunk: Tree) -> None:
        """Send a chunk; returns at once, also if the worker is dead."""
        ...

    def take(self) -> Done | None:
        """Return the answer to the first chunk, waiting for it; None if the worker died."""
        ...

    def dismiss(self) -> None:
        """Tell it that there is no more to do; who is at work is killed."""
        ...

    def end(self) -> str:
        """Wait until it is gone; return how it ended."""
        ...


W = TypeVar("W", bound=Worker)


class Host(Protocol[W]):
    """Where workers live."""

    def start(self) -> list[W]:
        """Return the first workers; raises `ConfigError` if there is no room for one."""
        ...

    def hire(self, there: Sequence[W]) -> W | None:
        """Return one more worker beside those that are there; None if there is no room for it any more."""
        ...

    def share(self, start: Vector) -> None:
        """Show the round's vector to all workers."""
        ...

    def wait(self, busy: Sequence[W], timeout_s: float | None) -> W | None:
        """Return a worker that has answered or died; None if it takes long."""
        ...

    def close(self) -> None:
        """Give back what the host has taken, when all workers have gone."""
        ...


@dataclass(eq=False)
class Pool(Generic[W]):
    """A federation whose tasks are done by workers, of whom any may die.

    Args:
        host: where they live.
        parties: by name, prepared.
        roster: who can be asked.
        payload, totals: the layouts of what travels and of a sum.
        now: the clock, in seconds.
        stack: how many clients a worker trains at a time.
    """

    host: Host[W]
    parties: Parties
    roster: Sequence[Member]
    payload: Layout
    totals: Layout
    now: Callable[[], float] = monotonic
    stack: int = 1
    workers: list[W] = field(default_factory=list)
    todo: deque[Job] = field(default_factory=deque)
    ready: deque[Reply] = field(default_factory=deque)
    open: int = -1
    unsettled: set[str] = field(default_factory=set)
    ids: count = field(default_factory=count)  # type: ignore[type-arg]

    def __post_init__(self) -> None:
        self.workers = self.host.start()

    def members(self) -> Sequence[Member]:
        """Return the roster."""
        return self.roster

    def send(self, tasks: Sequence[Task], ask: Ask | None = None) -> Ask:
        """Share the vector and hand out the first chunks. One ask at a time; bodies must be one and the same."""
        if ask is not None:
            raise RunError(
                "workers share one round's vector, so no task joins an open ask; take the engine sequential."
            )
        if self.todo or any(worker.given for worker in self.workers):
            raise RunError("the pool is still busy with another ask; receive or cancel it first.")
        ask = Ask(next(self.ids))
        self.open = ask.id
        self.ready.clear()
        if not tasks:
            return ask
        for task in tasks:
            if task.party not in self.parties:
                raise RunError(f"there is no party called {task.party!r}.")
        body = tasks[0].body
        if not isinstance(body, Train | Evaluate):
            raise RunError(f"a pool trains and evaluates; {type(body).__name__} comes before it is made.")
        self.host.share(body.start)
        if isinstance(body, Train):
            self.unsettled |= {task.party for task in tasks}
        each = self._each(len(tasks))
        self.todo = deque((request(tasks[i : i + each], self.parties), False) for i in range(0, len(tasks), each))
        try:
            self._feed()
        except BaseException:  # Ctrl-C, in the middle of a message
            self.cancel(ask)
            raise
        return ask

    def receive(self, ask: Ask, timeout_s: float | None) -> Reply | None:
        """Return the next reply; None after the timeout, or when there is nothing left to wait for."""
        until = None if timeout_s is None else self.now() + timeout_s
        while ask.id == self.open:
            if self.ready:
                return self.ready.popleft()
            self._feed()
            busy = [worker for worker in self.workers if worker.given]
            if not busy:
                return None
            left = None if until is None else until - self.now()
            if left is not None and left <= 0:
                return None
            worker = self.host.wait(busy, left)
            if worker is not None:
                self._collect(worker)
        return None

    def cancel(self, ask: Ask) -> None:
        """Drop what was not answered. Who is at work is ended and hired anew: a deadline waits for nobody.

        So it is after an interrupt in the middle of a message, too: nothing more that such a worker says can be
        trusted.
        """
        if ask.id != self.open:
            return
        self.todo.clear()
        self.ready.clear()
        for worker in [worker for worker in self.workers if worker.given]:
            self._anew(worker)

    def give_up(self, ask: Ask, numbers: Collection[int]) -> None:
        """What comes late is passed over by who asked."""

    def asked(self, number: int) -> None:
        """Nobody has been: parties end with this process."""

    def settle(self, numbers: Collection[int]) -> None:
        """Tell every party that was asked to train since the last time."""
        counted = frozenset(numbers)
        for name in self.unsettled:
            self.parties[name].settle(counted)
        self.unsettled.clear()

    def backing(self) -> Backing:
        """Return nothing: parties end with this process."""
        return Backing()

    def close(self) -> None:
        """End the workers and wait for them."""
        self.todo.clear()
        for worker in self.workers:
            worker.dismiss()
        for worker in self.workers:
            worker.end()
        self.workers.clear()
        self.host.close()

    def _each(self, tasks: int) -> int:
        """Return how many clients a chunk has: whole stacks, and so few that every worker gets some."""
        workers = max(1, len(self.workers))
        share, stack = min(MOST, -(-tasks // (workers * SHARES))), min(self.stack, -(-tasks // workers))
        return max(stack, share - share % stack)

    def _feed(self) -> None:
        if self.todo and not self.workers:
            raise RunError("every worker is gone, and there is no room for new ones; resume when there is.")
        for _ in range(DEPTH):
            for worker in self.workers:
                if self.todo and len(worker.given) < DEPTH:
                    worker.given.append(self.todo.popleft())
                    worker.give(worker.given[-1][0])

    def _collect(self, worker: W) -> None:
        done = worker.take()
        if done is None:
            self._mourn(worker)
            return
        chunk, _ = worker.given.popleft()
        self.ready.extend(replies(chunk, *done, self.parties, self.totals, self.payload))

    def _mourn(self, worker: W) -> None:
        """Go on after a worker's death: what it was at is done once more, client by client; who kills again is lost."""
        how = self._anew(worker)
        (chunk, again), *rest = worker.given
        self.todo.extendleft(reversed(rest))
        if again:
            self.ready.extend(lost(chunk, f"{how}, twice"))
        else:
            self.todo.extendleft((one, True) for one in singly(chunk))

    def _anew(self, worker: W) -> str:
        """End a worker and hire another in its place, where there is room for one; return how it ended."""
        worker.dismiss()
        how = worker.end()
        at = self.workers.index(worker)
        self.workers.pop(at)
        another = self.host.hire(self.workers)
        if another is not None:
            self.workers.insert(at, another)
        return how
