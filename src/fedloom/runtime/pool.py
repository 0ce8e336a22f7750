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
from .chunk import Parties, Together, lost, replies, request, work

MOST, SHARES = 50, 3  # clients in a chunk, and chunks for each worker: few partial sums, and no long wait at the end
DEPTH = 2  # chunks that a worker has at a time: it trains one while the other's sum is folded


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
    given: deque[tuple[Tree, int]] = field(default_factory=deque)  # (chunk, how often it was given)
    turn: int = 0


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
    todo: deque[Tree] = field(default_factory=deque)
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
        self.todo = deque(request(tasks[i : i + each], self.parties) for i in range(0, len(tasks), each))
        self._feed()
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
        """Drop what was not begun and forget what is being done; a worker finishes its client first."""
        if ask.id != self.open:
            return
        self.todo.clear()
        self.ready.clear()
        for worker in self.workers:
            while worker.given:
                self._collect(worker)
        self.ready.clear()

    def settle(self, numbers: Collection[int]) -> None:
        """Tell every party that was asked to train since the last time."""
        for name in self.unsettled:
            self.parties[name].settle(numbers)
        self.unsettled.clear()

    def close(self) -> None:
        """End the workers and wait for them."""
        for worker in self.workers:
            worker.pipe.close()
        for worker in self.workers:
            worker.process.join(timeout=5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self.workers.clear()

    def _feed(self) -> None:
        for _ in range(DEPTH):
            for worker in self.workers:
                if self.todo and len(worker.given) < DEPTH:
                    self._give(worker, self.todo.popleft(), 1)

    def _give(self, worker: Worker, chunk: Tree, times: int) -> None:
        worker.given.append((chunk, times))
        with suppress(OSError):  # it is dead, and `_collect` will see so
            worker.pipe.send_bytes(dump(chunk))

    def _collect(self, worker: Worker) -> None:
        try:
            done = restore(worker.pipe.recv_bytes())
        except (EOFError, OSError):
            self._replace(worker)
            return
        chunk, _ = worker.given.popleft()
        sums = worker.sums[worker.turn % DEPTH]
        worker.turn += 1
        self.ready.extend(replies(chunk, done, sums, self.parties, self.totals, self.payload))

    def _replace(self, worker: Worker) -> None:
        """Hire anew for a dead worker; what it had is done once more, and then reported as faults."""
        worker.process.join()
        worker.pipe.close()
        why = f"its worker process ended with exit code {worker.process.exitcode}, twice"
        fresh = self._hire()
        self.workers[self.workers.index(worker)] = fresh
        for chunk, times in worker.given:
            if times > 1:
                self.ready.extend(lost(chunk, why))
            else:
                self._give(fresh, chunk, times + 1)

    def _hire(self) -> Worker:
        ours, theirs = get_context("fork").Pipe()
        sums = [_shared(self.totals.size, np.dtype("float64")) for _ in range(DEPTH)]
        others = [worker.pipe for worker in self.workers if not worker.pipe.closed]
        process = get_context("fork").Process(target=self._serve, args=(theirs, [ours, *others], sums), daemon=True)
        process.start()
        theirs.close()
        return Worker(process, ours, sums)

    def _serve(self, pipe: Connection, foreign: Sequence[Connection], sums: Sequence[NDArray[np.float64]]) -> None:
        """Live as a worker: do chunks until the pipe closes."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the coordinator
        _die_with_parent()
        for other in foreign:
            other.close()
        self.calm()
        start = self.shared.view()
        start.flags.writeable = False
        asked: SimpleQueue[bytes | None] = SimpleQueue()
        Thread(target=_read, args=(pipe, asked), daemon=True).start()
        for turn, content in enumerate(iter(asked.get, None)):
            pipe.send_bytes(dump(work(self.parties, restore(content), start, sums[turn % DEPTH], self.together)))


def _die_with_parent() -> None:
    """Ask Linux for SIGKILL when the coordinator is gone; elsewhere the closed pipe ends a worker after its chunk."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))


def _read(pipe: Connection, asked: "SimpleQueue[bytes | None]") -> None:
    """Take in chunks while others are done: whoever sends to a worker never waits for one that sends itself."""
    with suppress(EOFError, OSError):
        while True:
            asked.put(pipe.recv_bytes())
    asked.put(None)


def _shared(size: int, dtype: np.dtype[np.generic]) -> NDArray[np.float64]:
    """Return an array that this process shares with those it forks."""
    memory = mmap.mmap(-1, max(1, size * dtype.itemsize))
    return np.frombuffer(memory, dtype)[:size]
