"""A federation in one process: parties answer one after the other, when the coordinator waits for them."""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import count
from time import monotonic

from ..core.errors import RunError
from ..core.hidden import Backing
from ..core.task import Ask, Member, Party, Reply, Task, Train


@dataclass(eq=False)
class InProcess:
    """The reference runtime: sequential, nothing copied, nothing sent.

    Args:
        parties: by name.
        roster: who can be asked.
        now: the clock, in seconds; a test may inject its own.
        calm: what a client trains in: keeps libraries to one thread, so that a pool of workers gives the same bits.
    """

    parties: Mapping[str, Party]
    roster: Sequence[Member]
    now: Callable[[], float] = monotonic
    calm: Callable[[], AbstractContextManager[None]] = nullcontext
    waiting: dict[int, deque[Task]] = field(default_factory=dict)
    unsettled: dict[int, str] = field(default_factory=dict)
    ids: Iterator[int] = field(default_factory=count)

    def members(self) -> Sequence[Member]:
        """Return the roster."""
        return self.roster

    def send(self, tasks: Sequence[Task], ask: Ask | None = None) -> Ask:
        """Queue the tasks, behind those of `ask`; raises `RunError` for a party or an ask that is not there."""
        for task in tasks:
            if task.party not in self.parties:
                raise RunError(f"there is no party called {task.party!r}.")
        if ask is not None and ask.id not in self.waiting:
            raise RunError("tasks cannot join an ask that is not open; send them without it.")
        ask = Ask(next(self.ids)) if ask is None else ask
        self.waiting.setdefault(ask.id, deque()).extend(tasks)
        return ask

    def receive(self, ask: Ask, timeout_s: float | None) -> Reply | None:
        """Let the next party answer; None if all have, or if it took longer than the timeout: then it came too late."""
        queue, began = self.waiting.get(ask.id), self.now()
        if not queue:
            return None
        task = queue.popleft()
        if isinstance(task.body, Train):
            self.unsettled[task.number] = task.party
        with self.calm():
            reply = next(iter(self.parties[task.party].answer([task])))
        return reply if timeout_s is None or self.now() - began <= timeout_s else None

    def cancel(self, ask: Ask) -> None:
        """Drop what nobody has begun."""
        self.waiting.pop(ask.id, None)

    def give_up(self, ask: Ask, numbers: Collection[int]) -> None:
        """What comes late is passed over by who asked."""

    def asked(self, number: int) -> None:
        """Nobody has been: parties end with this process."""

    def settle(self, numbers: Collection[int]) -> None:
        """Tell every party that was asked to train since the last time."""
        counted = frozenset(numbers)
        for name in set(self.unsettled.values()):
            self.parties[name].settle(counted)
        self.unsettled.clear()

    def backing(self) -> Backing:
        """Return nothing: parties end with this process."""
        return Backing()
