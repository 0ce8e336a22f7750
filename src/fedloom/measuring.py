"""Who has measured which model: nobody waits for a site that trains, and its last figures stand in."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from .core.metrics import Metrics
from .core.task import Ask, Evaluate, Evaluated, Fault, Federation, Reply, Task, ask_all

Measured = tuple[int, Metrics]  # of which round's model the figures are, and they


@dataclass(frozen=True)
class Seen:
    """What is known when a round has been measured.

    Args:
        figures: by site, in the order in which they were asked for.
        faults: of those who failed.
        whole: is there nobody who trains and of whom nothing is known yet?
    """

    figures: dict[str, Measured]
    faults: list[Fault]
    whole: bool


@dataclass(eq=False)
class Measuring:
    """The figures of a run's sites, as they come.

    A site that trains is asked too, and measures when it has trained: one question of a model waits for it at a time.

    Args:
        federation: of the sites.
        busy: returns who trains at the moment, although the round is closed, and answers nothing else before it has;
            None where that never is.
        patience_s: how long those are waited for where everybody is, in seconds on the federation's clock.
        known: the last figures of each site, where some may be busy.
    """

    federation: Federation
    busy: Callable[[], Collection[str]] | None
    patience_s: float = 0.0
    known: dict[str, Measured] = field(default_factory=dict)
    _open: dict[Ask, tuple[int, set[str]]] = field(default_factory=dict)  # of which round, and whose answers may come

    def of(self, names: Sequence[str], round: int, body: Evaluate, everybody: bool) -> Seen:
        """Return the figures of these sites; waits for the idle, or for `everybody`, but for the busy only so long."""
        if self.busy is None:
            found, faults = _taken(round, ask_all(self.federation, names, body))
            return Seen(found, faults, True)
        faults, busy = self._take_late(), set(self.busy())
        asked = {name for _, waiting in self._open.values() for name in waiting}
        if everybody:
            self.close()
        tasks = [name for name in names if everybody or name not in busy or name not in asked]
        fresh, failed = self._answers(tasks, busy, round, body, everybody)
        known = {name: self.known[name] for name in busy if name in self.known}
        figures = {name: (known | fresh)[name] for name in names if name in known or name in fresh}
        return Seen(figures, [*faults, *failed], busy.intersection(names) <= figures.keys())

    def close(self) -> None:
        """Wait for nothing more."""
        for ask in self._open:
            self.federation.cancel(ask)
        self._open.clear()

    def _answers(
        self, names: Sequence[str], busy: set[str], round: int, body: Evaluate, everybody: bool
    ) -> tuple[dict[str, Measured], list[Fault]]:
        ask = self.federation.send([Task(number, name, body) for number, name in enumerate(names, start=1)])
        waiting, replies = set(names), list[Reply]()
        until = self.federation.now() + self.patience_s
        while waiting - busy or (everybody and waiting):
            left = None if waiting - busy else until - self.federation.now()
            reply = self.federation.receive(ask, left) if left is None or left > 0 else None
            if reply is None:
                waiting = waiting if left is not None else set()  # nothing more will come
                break
            waiting.discard(reply.parties[0])
            replies.append(reply)
        if everybody or not waiting:
            self.federation.cancel(ask)
        else:
            self._open[ask] = round, waiting
        found, faults = _taken(round, replies)
        self.known |= found
        return found, faults

    def _take_late(self) -> list[Fault]:
        """Take in what has come since, if nothing newer is known; return who failed."""
        failed = []
        for ask, (round, waiting) in list(self._open.items()):
            while (reply := self.federation.receive(ask, 0.0)) is not None:
                found, faults = _taken(round, [reply])
                self.known |= {name: new for name, new in found.items() if round >= self.known.get(name, new)[0]}
                waiting.discard(reply.parties[0])
                failed += faults
            if not waiting:
                self.federation.cancel(ask)
                del self._open[ask]
        return failed


def _taken(round: int, replies: Iterable[Reply]) -> tuple[dict[str, Measured], list[Fault]]:
    found, faults = dict[str, Measured](), list[Fault]()
    for reply in replies:
        match reply.body:
            case Evaluated(metrics=metrics):
                found[reply.parties[0]] = round, metrics
            case Fault() as fault:
                faults.append(fault)
    return found, faults
