"""Long-lived worker processes on one machine: one thread each, data and broadcast in shared memory.

Workers are forked once everything is prepared, so they hold the parties' rows and a resident model without a copy. The
round's vector lies in memory that all share; a worker gets names and numbers and answers with one partial sum.
"""

import ctypes
import mmap
import os
import signal
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from threading import Thread
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ConfigError, RunError
from ..core.layout import Layout, Vector
from ..core.task import Ask, Evaluate, Member, Reply, Task, Train
from ..core.tree import Tree
from ..store.files import dump, restore
from .chunk import Parties, Together, lost, replies, request, singly, work

MOST, SHARES = 50, 3  # clients in a chunk, and chunks for each worker: few partial sums, and no long wait at the end
DEPTH = 2  # chunks that a worker has at a time: it trains one while the other's sum is folded
PATIENCE_S = 5.0  # for a worker to end by itself

Job = tuple[Tree, bool]  # a chunk, and whether it has ended a worker before


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def forks() -> bool:
    """Return whether processes can be forked here."""
    return "fork" in get_all_start_methods()


@dataclass(eq=False)
class Worker:
    """One process, the pipe to it, the memory for its partial sums, and what it has been asked."""

    process: BaseProcess
    pipe: Connection
    sums: Sequence[NDArray[np.float64]]
    given: deque[Job] = field(default_factory=deque)  # the first is being done
    turn: int = 0

    def dismiss(self) -> None:
        """Tell it that there is no more to do; who is at work is killed."""
        if self.given:
            self.process.kill()
        with suppress(OSError):
            self.pipe.send_bytes(b"")
        self.pipe.close()

    def end(self) -> None:
        """Wait until it is gone."""
        self.process.join(PATIENCE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@dataclass(eq=False)
class Pool:
    """A federation on all cores of one machine.

    Args:
        parties: by name, prepared.
        roster: who can be asked.
        payload, totals: the layouts of what travels and of a sum.
        calm: called once in every worker: to keep libraries to one thread.
        together: if given, clients train several at a time.
        workers: how many processes; by default one for each core.
        now: the clock, in seconds.
    """

    parties: Parties
    roster: Sequence[Member]
    payload: Layout
    totals: Layout
    calm: Callable[[], object]
    together: Together | None = None
    size: int = field(default_factory=cores)
    now: Callable[[], float] = monotonic
    workers: list[Worker] = field(default_factory=list)
    shared: Vector = None
    todo: deque[Job] = field(default_factory=deque)
    ready: deque[Reply] = field(default_factory=deque)
    open: int = -1
    unsettled: set[str] = field(default_factory=set)
    ids: count = field(default_factory=count)  # type: ignore[type-arg]

    def __post_init__(self) -> None:
        if not forks():
            raise ConfigError("the pool engine needs processes that fork, and this system has none; take sequential.")
        self.shared = _shared(self.payload.size, self.payload.dtype)
        for _ in range(self.size):
            self.workers.append(self._hire())

    def members(self) -> Sequence[Member]:
        """Return the roster."""
        return self.roster

    def send(self, tasks: Sequence[Task]) -> Ask:
        """Share the vector and hand out the first chunks. One ask at a time; bodies must be one and the same."""
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
        self.shared[:] = body.start
        if isinstance(body, Train):
            self.unsettled |= {task.party for task in tasks}
        each = max(1, min(MOST, -(-len(tasks) // (self.size * SHARES))))
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
            busy = {worker.pipe: worker for worker in self.workers if worker.given}
            if not busy:
                return None
            left = None if until is None else until - self.now()
            if left is not None and left <= 0:
                return None
            for pipe in wait(list(busy), left):
                self._collect(busy[pipe])  # type: ignore[index]
                break
        return None

    def cancel(self, ask: Ask) -> None:
        """Drop what was not answered. Who is at work is ended and hired anew: a deadline waits for nobody.

        So it is after an interrupt in the middle of a message, too: nothing more that such a pipe says can be trusted.
        """
        if ask.id != self.open:
            return
        self.todo.clear()
        self.ready.clear()
        for worker in [worker for worker in self.workers if worker.given]:
            self._anew(worker)

    def settle(self, numbers: Collection[int]) -> None:
        """Tell every party that was asked to train since the last time."""
        counted = frozenset(numbers)
        for name in self.unsettled:
            self.parties[name].settle(counted)
        self.unsettled.clear()

    def close(self) -> None:
        """End the workers and wait for them."""
        self.todo.clear()
        for worker in self.workers:
            worker.dismiss()
        for worker in self.workers:
            worker.end()
        self.workers.clear()

    def _feed(self) -> None:
        for _ in range(DEPTH):
            for worker in self.workers:
                if self.todo and len(worker.given) < DEPTH:
                    worker.given.append(self.todo.popleft())
                    with suppress(OSError):  # it is dead, and `_collect` will see so
                        worker.pipe.send_bytes(dump(worker.given[-1][0]))

    def _collect(self, worker: Worker) -> None:
        try:
            done = restore(worker.pipe.recv_bytes())
        except (EOFError, OSError):
            self._mourn(worker)
            return
        chunk, _ = worker.given.popleft()
        sums = worker.sums[worker.turn % DEPTH]
        worker.turn += 1
        self.ready.extend(replies(chunk, done, sums, self.parties, self.totals, self.payload))

    def _mourn(self, worker: Worker) -> None:
        """Go on after a worker's death: what it was at is done once more, client by client; who kills again is lost."""
        worker.process.join(PATIENCE_S)
        self._anew(worker)
        (chunk, again), *rest = worker.given
        self.todo.extendleft(reversed(rest))
        if again:
            self.ready.extend(lost(chunk, f"its worker process ended with exit code {worker.process.exitcode}, twice"))
        else:
            self.todo.extendleft((one, True) for one in singly(chunk))

    def _anew(self, worker: Worker) -> None:
        worker.dismiss()
        worker.end()
        self.workers[self.workers.index(worker)] = self._hire()

    def _hire(self) -> Worker:
        ours, theirs = get_context("fork").Pipe()
        sums = [_shared(self.totals.size, np.dtype("float64")) for _ in range(DEPTH)]
        others = [worker.pipe for worker in self.workers if not worker.pipe.closed]
        args = (theirs, [ours, *others], sums, os.getpid())
        process = get_context("fork").Process(target=self._serve, args=args, daemon=True)
        process.start()
        theirs.close()
        return Worker(process, ours, sums)

    def _serve(
        self, pipe: Connection, foreign: Sequence[Connection], sums: Sequence[NDArray[np.float64]], parent: int
    ) -> None:
        """Live as a worker: do chunks until the pipe closes or says so."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the coordinator
        _die_with(parent)
        for other in foreign:
            other.close()
        self.calm()
        start = self.shared.view()
        start.flags.writeable = False
        asked: SimpleQueue[bytes | None] = SimpleQueue()
        Thread(target=_read, args=(pipe, asked), daemon=True).start()
        for turn, content in enumerate(iter(asked.get, None)):
            pipe.send_bytes(dump(work(self.parties, restore(content), start, sums[turn % DEPTH], self.together)))


def _die_with(parent: int) -> None:
    """Ask Linux for SIGKILL when the coordinator is gone; elsewhere the closed pipe ends a worker after its chunk."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
    if os.getppid() != parent:  # it went before it could be asked
        os._exit(1)


def _read(pipe: Connection, asked: "SimpleQueue[bytes | None]") -> None:
    """Take in chunks while others are done: whoever sends to a worker never waits for one that sends itself."""
    with suppress(EOFError, OSError):
        while content := pipe.recv_bytes():  # empty: the end, also where another process keeps the pipe open
            asked.put(content)
    asked.put(None)


def _shared(size: int, dtype: np.dtype[np.generic]) -> NDArray[np.float64]:
    """Return an array that this process shares with those it forks."""
    memory = mmap.mmap(-1, max(1, size * dtype.itemsize))
    return np.frombuffer(memory, dtype)[:size]
