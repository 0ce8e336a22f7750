"""Workers that are processes of one machine: one thread each, data and broadcast in shared memory.

They are forked once everything is prepared, so they hold the parties' rows and a resident model without a copy.
"""

import ctypes
import mmap
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from threading import Thread

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ConfigError
from ..core.layout import Layout, Vector
from ..core.tree import Tree
from ..store.files import dump, restore
from .chunk import Parties, Together, work
from .machine import cores
from .pool import DEPTH, Done, Job

PATIENCE_S = 5.0  # for a worker to end by itself


def forks() -> bool:
    """Return whether processes can be forked here."""
    return "fork" in get_all_start_methods()


@dataclass(eq=False)
class Process:
    """One process, the pipe to it, the memory for its partial sums, and what it has been asked."""

    process: BaseProcess
    pipe: Connection
    sums: Sequence[NDArray[np.float64]]
    given: deque[Job] = field(default_factory=deque)
    turn: int = 0

    def give(self, chunk: Tree) -> None:
        """Send a chunk; to a dead process nothing, and `take` will see so."""
        with suppress(OSError):
            self.pipe.send_bytes(dump(chunk))

    def take(self) -> Done | None:
        """Return the answer to the first chunk; None if the process died."""
        try:
            done = restore(self.pipe.recv_bytes())
        except (EOFError, OSError):
            self.process.join(PATIENCE_S)
            return None
        self.turn += 1
        return done, self.sums[(self.turn - 1) % DEPTH]

    def dismiss(self) -> None:
        """Tell it that there is no more to do; who is at work is killed."""
        if self.given:
            self.process.kill()
        with suppress(OSError):
            self.pipe.send_bytes(b"")
        self.pipe.close()

    def end(self) -> str:
        """Wait until it is gone; return how it ended."""
        self.process.join(PATIENCE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        return f"its worker process ended with exit code {self.process.exitcode}"


@dataclass(eq=False)
class Processes:
    """The cores of one machine.

    Args:
        parties: by name, prepared.
        payload, totals: the layouts of what travels and of a sum.
        calm: called once in every worker: to keep libraries to one thread.
        together: if given, clients train several at a time.
        size: how many processes; by default one for each core.
    """

    parties: Parties
    payload: Layout
    totals: Layout
    calm: Callable[[], object]
    together: Together | None = None
    size: int = field(default_factory=cores)
    shared: Vector = None

    def start(self) -> list[Process]:
        """Return the first workers; raises `ConfigError` where processes cannot fork."""
        if not forks():
            raise ConfigError("the pool engine needs processes that fork, and this system has none; take sequential.")
        self.shared = _shared(self.payload.size, self.payload.dtype)
        there: list[Process] = []
        for _ in range(self.size):
            there.append(self.hire(there))
        return there

    def hire(self, there: Sequence[Process]) -> Process:
        """Return a new process."""
        ours, theirs = get_context("fork").Pipe()
        sums = [_shared(self.totals.size, np.dtype("float64")) for _ in range(DEPTH)]
        others = [worker.pipe for worker in there if not worker.pipe.closed]
        args = (theirs, [ours, *others], sums, os.getpid())
        process = get_context("fork").Process(target=self._serve, args=args, daemon=True)
        process.start()
        theirs.close()
        return Process(process, ours, sums)

    def share(self, start: Vector) -> None:
        """Copy the vector into the memory that all workers see."""
        self.shared[:] = start

    def wait(self, busy: Sequence[Process], timeout_s: float | None) -> Process | None:
        """Return one whose pipe has something to say, be it that it is closed."""
        found = set(wait([worker.pipe for worker in busy], timeout_s))
        return next((worker for worker in busy if worker.pipe in found), None)

    def close(self) -> None:
        """Nothing is left: shared memory goes with those who use it."""

    def _serve(
        self, pipe: Connection, foreign: Sequence[Connection], sums: Sequence[NDArray[np.float64]], parent: int
    ) -> None:
        """Live as a worker: do chunks until the pipe closes or says so."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the coordinator
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # and what that does on SIGTERM is not a worker's to do
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
