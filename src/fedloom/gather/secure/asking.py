"""One step of a hidden sum on the coordinator's side: ask some clients, and wait as long as this step may take."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ...core.errors import ConfigError, UpdateError
from ...core.hidden import HiddenReply
from ...core.task import Fault, Federation, Reply, Task, TaskBody, Train, Trained

# Of the time that a round has, what must be left after each step: training has the most.
RESERVES = {"advertise": 0.9, "share": 0.8, "train": 0.2, "confirm": 0.1, "unmask": 0.0, "decrypt": 0.0}


@dataclass(eq=False)
class Asking:
    """Who asks.

    Args:
        federation: of the clients.
        tasks: of the round, by name of the party; a step keeps their dispatch numbers.
        close: returns how many seconds the round has left, or None for as long as it takes.
        faults: of clients, in the order in which they came.
    """

    federation: Federation
    tasks: Mapping[str, Task]
    close: Callable[[], float | None]
    faults: list[Reply] = field(default_factory=list)
    _all_s: float | None = None

    def __post_init__(self) -> None:
        self._all_s = self.close()

    @property
    def number(self) -> int:
        """The dispatch number by which the round's sum is kept."""
        return min(task.number for task in self.tasks.values())

    def step(
        self, name: str, bodies: Mapping[str, TaskBody], kind: type[HiddenReply] | type[Trained]
    ) -> Iterator[Reply]:
        """Yield answers of that kind, one for each client at most; what else comes is a fault."""
        tasks = [Task(self.tasks[party].number, party, body) for party, body in bodies.items()]
        ask, waiting = self.federation.send(tasks), dict(zip((t.number for t in tasks), bodies, strict=True))
        try:
            while waiting:
                left = self._left(name)
                if left is not None and left <= 0:
                    return
                reply = self.federation.receive(ask, left)
                if reply is None and left is None:
                    return
                if reply is not None and self._expected(reply, waiting, kind):
                    yield reply
        finally:
            self.federation.cancel(ask)

    def refuse(self, reply: Reply, phase: str, why: str) -> None:
        """Note that an answer is not what was asked for."""
        said = Fault(", ".join(reply.parties), phase, "UpdateError", why)
        self.faults.append(Reply(reply.numbers, reply.parties, said, reply.seconds))

    def _expected(self, reply: Reply, waiting: dict[int, str], kind: type) -> bool:
        if len(reply.numbers) != 1 or reply.parties != (waiting.get(reply.numbers[0]),):
            self.refuse(reply, "gather", f"dispatch {reply.numbers} was not asked of it in this step, or is answered.")
            return False
        del waiting[reply.numbers[0]]
        if isinstance(reply.body, Fault):
            self.faults.append(reply)
        elif not isinstance(reply.body, kind):
            self.refuse(reply, "gather", f"expected {kind.__name__}, got {type(reply.body).__name__}.")
        else:
            return True
        return False

    def _left(self, step: str) -> float | None:
        left = self.close()
        return left if left is None or self._all_s is None else left - RESERVES[step] * self._all_s


def cohort(tasks: Sequence[Task]) -> tuple[tuple[str, ...], Train]:
    """Return who is asked, and for what training; raises `ConfigError` for what can never be a hidden sum."""
    asked, body = tuple(task.party for task in tasks), tasks[0].body
    if not isinstance(body, Train) or any(task.body is not body for task in tasks) or len(set(asked)) < len(asked):
        raise ConfigError("a hidden sum is of one training, asked once of each client of a cohort.")
    return asked, body


def told(asking: Asking, tasks: Sequence[Task], run: Callable[[], Reply]) -> Iterator[Reply]:
    """Yield the sum that `run` returns, and a fault for each client that is not in it; without a sum, faults for all.

    `run` raises `UpdateError` where there is none. A fault of a client that is in the sum comes behind it.
    """
    try:
        reply = run()
    except UpdateError as error:
        named = {name for fault in asking.faults for name in fault.parties}
        yield from asking.faults
        yield from (_lost(task, str(error)) for task in tasks if task.party not in named)
        return
    yield from (fault for fault in asking.faults if not set(fault.parties) <= set(reply.parties))
    yield reply
    yield from (fault for fault in asking.faults if set(fault.parties) <= set(reply.parties))


def _lost(task: Task, why: str) -> Reply:
    return Reply((task.number,), (task.party,), Fault(task.party, "gather", "HiddenSumLost", why))
