"""Who has measured which model: nobody waits for a site that trains, and its last figures stand in."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from .core.metrics import Metrics
from .core.task import Ask, Evaluate, Evaluated, Fault, Federation, Reply, Task, ask_all

Measured = tuple[int, Metrics]  # of which round's model the figures are, and they


@dataclass(eq=False)
class Measuring:
    """The figures of a run's sites, as they come.

    Args:
        federation: of the sites.
        busy: returns who trains at the moment, although the round is closed, and answers nothing else before it has;
            None where that never is.
        later: are those asked all the same, to measure when they have trained? Where each round is measured, they are
            asked about a newer model by then.
        known: the last figures of each site, where some may be busy.
    """

    federation: Federation
    busy: Callable[[], Collection[str]] | None
    later: bool
    known: dict[str, Measured] = field(default_factory=dict)
    _late: tuple[int, Ask] | None = None

    def of(
        self, names: Sequence[str], round: int, body: Evaluate, everybody: bool
    ) -> tuple[dict[str, Measured], list[Fault]]:
        """Return the figures of these sites, in their order, and who failed; waits for `everybody`, or for the idle.

        Of whom nothing is known yet is waited for too.
        """
        if self.busy is None:
            return _taken(round, ask_all(self.federation, names, body))
        self._take_late()
        busy = set() if everybody else {name for name in self.busy() if name in self.known}
        idle = [name for name in names if name not in busy]
        found, faults = _taken(round, ask_all(self.federation, idle, body))
        self.known |= found
        found |= {name: self.known[name] for name in names if name in busy}
        asked = [name for name in names if name in busy and self.later]
        if asked:
            tasks = [Task(number, name, body) for number, name in enumerate(asked, start=1)]
            self._late = round, self.federation.send(tasks)
        return {name: found[name] for name in names if name in found}, faults

    def close(self) -> None:
        """Wait for nothing more."""
        self._take_late()

    def _take_late(self) -> None:
        """Take in what has come since; who has not measured by now is asked anew, or trains again."""
        if self._late is None:
            return
        (round, ask), self._late = self._late, None
        while (reply := self.federation.receive(ask, 0.0)) is not None:
            self.known |= _taken(round, [reply])[0]
        self.federation.cancel(ask)


def _taken(round: int, replies: Iterable[Reply]) -> tuple[dict[str, Measured], list[Fault]]:
    found, faults = dict[str, Measured](), list[Fault]()
    for reply in replies:
        match reply.body:
            case Evaluated(metrics=metrics):
                found[reply.parties[0]] = round, metrics
            case Fault() as fault:
                faults.append(fault)
    return found, faults
