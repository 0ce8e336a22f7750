"""Synchronous rounds: ask a cohort, wait, fold, move."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..core.errors import QuorumLost, StrategyError
from ..core.rng import Streams, stream
from ..core.state import Record, State
from ..core.strategy import Strategy, Terms
from ..core.task import Fault, Federation, Member, Task, Train
from .fold import Intake, move, publics, summary


@dataclass(frozen=True, kw_only=True)
class Sync:
    """McMahan et al., AISTATS 2017 (arXiv 1602.05629v4), Algorithm 1: round by round.

    Args:
        quorum: how many of the cohort must be counted for a round to close: a number of clients, or a fraction in
            (0, 1] of those asked. By default all: then a run that closes lost nobody. With 0 a round closes with
            whoever answered, even nobody, as differential privacy needs it.
        deadline_s: seconds, on the federation's clock, after which a round closes with whoever answered; None waits
            until everybody has answered or failed.
        early: close as soon as the quorum is counted, and drop whoever is slower, which is no fault: over-selection as
            in Bonawitz et al., MLSys 2019 (arXiv 1902.01046v2), section 2.2. To count 10 of 13, let the selector draw
            13, with quorum=10. One process answers in the order of asking, so the last in order would never count: a
            simulation needs traces then.

    >>> Sync(quorum=10, early=True).needed(13)
    10
    """

    streams: ClassVar[bool] = False
    quorum: int | float = 1.0
    deadline_s: float | None = None
    early: bool = False

    def __post_init__(self) -> None:
        whole = isinstance(self.quorum, int)
        if not (self.quorum == 0 or 0 < self.quorum <= (math.inf if whole else 1)):
            raise StrategyError(f"Sync.quorum must be a number of clients, or a fraction in (0, 1], got {self.quorum}.")
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise StrategyError(f"Sync.deadline_s must be above 0 seconds, got {self.deadline_s}.")

    def needed(self, asked: int) -> int:
        """Return how many of so many must be counted.

        >>> Sync(quorum=0.5).needed(5), Sync(quorum=4).needed(5)
        (3, 4)
        """
        return self.quorum if isinstance(self.quorum, int) else math.ceil(self.quorum * asked - 1e-9)

    def fits(self, strategy: Any) -> None:
        """All parts fit."""

    def cohort(self, drawn: int, members: int) -> int:
        """Return what is drawn; refuses a quorum that no cohort can reach."""
        if self.needed(drawn) > drawn:
            raise StrategyError(
                f"a quorum of {self.quorum} cannot be reached by a cohort of {drawn}; ask for at most {drawn}."
            )
        return drawn

    def run(self, strategy: Strategy, terms: Terms, federation: Federation, state: State) -> Iterator[State]:
        """Yield the state after each closed round; raises `QuorumLost` when too few were counted."""
        while True:
            state = self._round(strategy, terms, federation, state)
            yield state

    def _round(self, strategy: Strategy, terms: Terms, federation: Federation, state: State) -> State:
        number, began = state.round + 1, federation.now()
        streams = stream(state.seed, f"round {number}")
        cohort = strategy.select.pick(federation.members(), number, streams.child("select"))
        members = len(federation.members())
        tasks, last = _tasks(strategy, terms, state, cohort, members, streams)
        asked = {task.number: task.party for task in tasks}
        intake = Intake(strategy, terms, dict(asked))
        needed = self.needed(len(tasks))
        for reply in strategy.gather.collect(federation, tasks, lambda: self._left(federation.now() - began), needed):
            intake.take(reply)
            if self.early and len(intake.counted) >= needed:
                intake.awaited.clear()
                break
        why = "no reply" if self.deadline_s is None else f"no reply in {self.deadline_s} s"
        late = [Fault(site, "wait", "Deadline", why) for site in intake.awaited.values()]
        faults = (*intake.faults, *late)
        if len(intake.counted) < needed:
            lost = QuorumLost(
                f"round {number}: {len(intake.counted)} of {len(tasks)} clients counted, {needed} "
                f"are needed; {summary(faults)}. Mend the sites, or begin a run with a smaller quorum."
            )
            lost.final = len(tasks) - len(intake.refused & asked.keys()) < needed
            raise lost
        moved = move(state, strategy, intake, members, streams.child("finish"))
        federation.settle(intake.counted)
        record = Record(
            number,
            state.dispatched + 1,
            tuple(asked.values()),
            tuple(intake.counted),
            faults,
            {} if strategy.private else intake.figures,
            state.vector.nbytes * len(tasks),
            intake.bytes_up,
            federation.now() - began,
            tuple(asked[number] for number in intake.counted),
        )
        return moved.but(round=number, dispatched=last, record=record)

    def _left(self, passed_s: float) -> float | None:
        return None if self.deadline_s is None else self.deadline_s - passed_s


def _tasks(
    strategy: Strategy, terms: Terms, state: State, cohort: Sequence[Member], members: int, streams: Streams
) -> tuple[list[Task], int]:
    """Return the round's tasks, and the last dispatch number that is used up.

    Where privacy is claimed, nobody may learn from a task who else was drawn: numbers are drawn from as many as there
    are members, and clients are told how many are expected, not how many were asked.
    """
    asked, numbers = len({member.name for member in cohort}), range(len(cohort))
    last = state.dispatched + len(cohort)
    if strategy.private:
        rate = strategy.event.values.get("rate")
        asked = asked if rate is None else int(rate * members)
        numbers = streams("numbers").permutation(members)[: len(cohort)].tolist()
        last = state.dispatched + members
    body = Train(state.round + 1, state.vector, terms.total.digest, terms.cap, publics(strategy, state), asked)
    numbered = zip(numbers, cohort, strict=True)
    first, merges = state.dispatched + 1, strategy.merges
    return [Task(first + number, member.name, body, merges) for number, member in numbered], last
