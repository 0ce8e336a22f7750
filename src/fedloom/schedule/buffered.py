"""Buffered asynchronous training: clients train all the time, and the server moves whenever enough have answered."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ..core.errors import QuorumLost, StrategyError, UpdateError
from ..core.event import NOT_PRIVATE
from ..core.layout import WEIGHT, Vector
from ..core.rng import stream
from ..core.state import Record, State
from ..core.strategy import Strategy, Terms
from ..core.task import Fault, Federation, Reply, Train
from ..core.update import Update, weigh
from ..core.words import counted
from .flights import Flight, Flights, drawn
from .fold import Intake, move, publics, summary


@dataclass(frozen=True, kw_only=True)
class Buffered:
    """FedBuff: Nguyen et al., AISTATS 2022 (arXiv 2106.06639v4), Algorithms 1 and 2; with size 1 nothing is buffered.

    A round is one step of the server. An update counts s(τ)·δ, where τ is how many steps the server made since its
    client was asked, and its weight stays: the mean divides by the clients' weights, as the paper divides by K. The
    server rounds s(τ)·w·δ once more to the grid, so the sum is exact in any order of its K updates; which updates these
    are, and how stale, is up to who answers first. With τ = 0 nothing is changed at all.

    It is `Sync` with one client a round if size = concurrency = 1. With size = concurrency > 1 it is not, however equal
    the delays: a slot that comes free is given away at once, from the model that is there.

    Args:
        size: K, how many updates make a step.
        concurrency: M, how many clients train at any time. Whose slot comes free makes room for a newly drawn client
            that is not training, so the selector draws one: `Uniform(clients=1)`.
        staleness: s(τ): "polynomial" is (1 + τ)^-a; "hinge" is 1 up to τ = b, then 1/(a·(τ - b) + 1); "constant" is 1.
            Xie et al. 2019 (arXiv 1903.03934v5), section 5.2.
        a, b: of s.
        mix: "deltas" adds s(τ)·δ, as FedBuff does; "models" moves towards the client's model, s(τ)·(x_client - x), as
            FedAsync does: δ with the distance that the server has come since.
        max_staleness: updates that are staler are dropped; None counts all.
        deadline_s: seconds, on the federation's clock, after which a client is given up and its slot is free; None
            waits for ever.
        faults: how many clients may fail, or be given up, in one step before the run ends; who has left the run while
            it trained is none of them. By default none.

    >>> Buffered(size=10, concurrency=100).discount(3)
    0.5
    """

    streams: ClassVar[bool] = True
    size: int
    concurrency: int
    staleness: Literal["polynomial", "hinge", "constant"] = "polynomial"
    a: float = 0.5
    b: int = 4
    mix: Literal["deltas", "models"] = "deltas"
    max_staleness: int | None = None
    deadline_s: float | None = None
    faults: int = 0

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("concurrency", 1), ("b", 0), ("max_staleness", 0), ("faults", 0)):
            if getattr(self, name) is not None and not getattr(self, name) >= least:
                raise StrategyError(f"Buffered.{name} must be at least {least}, got {getattr(self, name)}.")
        if not 0 <= self.a < math.inf:
            raise StrategyError(f"Buffered.a must be a number from 0 on, got {self.a}.")
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise StrategyError(f"Buffered.deadline_s must be above 0 seconds, got {self.deadline_s}.")
        for name, known in (("staleness", ("polynomial", "hinge", "constant")), ("mix", ("deltas", "models"))):
            if getattr(self, name) not in known:
                raise StrategyError(f"Buffered.{name} is one of {', '.join(known)}; got {getattr(self, name)!r}.")

    def discount(self, staleness: int) -> float:
        """Return s(τ), in (0, 1]."""
        if self.staleness == "constant":
            return 1.0
        if self.staleness == "hinge":
            return 1 / (self.a * max(0, staleness - self.b) + 1)
        return float((1 + staleness) ** -self.a)

    def fits(self, strategy: Strategy) -> None:
        """Refuse what needs a cohort that was asked together, from one model."""
        if strategy.gather.hides:
            raise StrategyError(
                f"{_name(strategy.gather)} needs a cohort that answers together, and Buffered has none; take Sync."
            )
        if strategy.local.population or strategy.aggregate.population:
            raise StrategyError("a mean over all members is one of a round, and Buffered has none; take Sync.")
        if strategy.aggregate.each:
            raise StrategyError(
                f"{_name(strategy.aggregate)} protects if few of a cohort misbehave, but whoever answers quickly is in "
                f"many buffers; take Sync, or aggregate with Mean()."
            )
        parts: tuple[Any, ...] = (strategy.local, *strategy.stages)
        for part in parts:
            if part.event() != NOT_PRIVATE:
                raise StrategyError(
                    f"the privacy of {_name(part)} is accounted for cohorts drawn by round, and Buffered has none; "
                    f"take Sync."
                )
        for stage in strategy.stages:
            if stage.sums:
                raise StrategyError(
                    f"{_name(stage)} finishes on one round's sum, and a buffer holds updates that were encoded in "
                    f"several; take Sync, or leave {_name(stage)} out."
                )

    def cohort(self, drawn: int, members: int) -> int:
        """Return K; refuses a selector that does not draw one at a time, and more concurrency than members."""
        if drawn != 1:
            raise StrategyError(
                f"Buffered asks one client whenever a slot is free, but the selector draws up to {drawn}; take "
                f"select=Uniform(clients=1), and say with concurrency how many train at a time."
            )
        if self.concurrency > members:
            raise StrategyError(
                f"{self.concurrency} clients cannot train at a time where there are {members}; "
                f"set concurrency to at most {members}."
            )
        return self.size

    def run(self, strategy: Strategy, terms: Terms, federation: Federation, state: State) -> Iterator[State]:
        """Yield the state after each step of the server; raises `QuorumLost` when too many fail, or nobody answers."""
        flights = Flights.of(state.schedule, terms, federation, self.size)
        try:
            while True:
                state = _Step(self, strategy, terms, flights, state, federation.now()).closed()
                yield state
        finally:
            federation.cancel(flights.ask)


def discounted(update: Update, factor: float, drift: Vector | None = None) -> Update:
    """Return one client's update with s·(w·δ + w·drift) in place of w·δ, rounded to the grid; its weight stays.

    Args:
        update: verified, of one client.
        factor: s, in (0, 1].
        drift: what is added to δ, of its shape.

    >>> import numpy as np
    >>> from fedloom.core.layout import Layout, Leaf
    >>> update = weigh(np.float32([3.0]), Layout((Leaf("w"),)).weighted(cohort=2), 0.25)
    >>> discounted(update, 0.5).vector.tolist()
    [0.375, 0.25]
    """
    if update.count != 1:
        raise UpdateError(f"a buffered schedule weighs every client by its staleness; got a sum of {update.count}.")
    if factor == 1 and drift is None:
        return update
    change, weight = update.vector[:-1], update.vector[update.layout.block(WEIGHT)]
    if drift is not None:
        change = change + weight * drift
    scaled = weigh(change, update.layout, factor)
    scaled.vector[update.layout.block(WEIGHT)] = weight
    return scaled


@dataclass(eq=False)
class _Step:
    """One step of the server while it is open."""

    schedule: Buffered
    strategy: Strategy
    terms: Terms
    flights: Flights
    state: State
    began: float

    def __post_init__(self) -> None:
        state, strategy = self.state, self.strategy
        self.body = Train(
            state.round + 1,
            state.vector,
            self.terms.total.digest,
            self.terms.cap,
            publics(strategy, state),
            cohort=self.schedule.size,
        )
        awaited = {number: flight.party for number, flight in self.flights.by_number.items()}
        self.intake = Intake(strategy, self.terms, awaited, treat=self._treated)
        self.landed: dict[int, Flight] = {}
        self.dispatched, self.lost = state.dispatched, 0

    def closed(self) -> State:
        """Take replies until K are counted, then move."""
        federation, limit = self.flights.federation, self.schedule.deadline_s
        while len(self.intake.counted) < self.schedule.size:
            self._fill()
            left = self.flights.left(limit)
            reply = federation.receive(self.flights.ask, left) if left is None or left > 0 else None
            if reply is not None:
                self._take(reply)
            elif limit is None:
                raise self._given_up("nobody who trains will answer any more")
            self._give_up_late(limit)
            if self.lost > self.schedule.faults:
                raise self._given_up(f"{counted(self.lost, 'client')} failed, and {self.schedule.faults} may")
        return self._moved()

    def _fill(self) -> None:
        flights, state, members = [], self.state, self.flights.federation.members()
        busy = self.flights.busy
        names = {member.name for member in members}
        while len(busy) < self.schedule.concurrency and names - busy:  # somebody may have left
            self.dispatched += 1
            streams = stream(state.seed, self.dispatched).child("select")
            party = self.flights.federation.asked(self.dispatched)
            party = party or drawn(self.strategy.select, members, busy, state.round + 1, streams).name
            busy.add(party)
            flights.append(Flight(self.dispatched, party, self.body, self.flights.federation.now()))
            self.intake.awaited[self.dispatched] = party
        self.flights.add(flights)

    def _give_up_late(self, limit: float | None) -> None:
        late = self.flights.overdue(limit)
        if late:
            self.flights.federation.give_up(self.flights.ask, [flight.number for flight in late])
        for flight in late:
            self._take(_fault(flight, "wait", "Deadline", f"no reply in {limit} s"))

    def _take(self, reply: Reply) -> None:
        """Let a reply in, or drop what is too stale; what has landed is no more in flight."""
        most = self.schedule.max_staleness
        flight = self.flights.by_number.get(reply.numbers[0]) if len(reply.numbers) == 1 else None
        stale = flight is not None and most is not None and self.state.round - flight.version > most
        if stale and flight is not None and not isinstance(reply.body, Fault):
            why = f"{self.state.round - flight.version} steps old, and max_staleness is {most}"
            reply = _fault(flight, "admit", "Stale", why)
        self.intake.take(reply)
        self.intake.refused -= set(reply.numbers) if stale else set()  # it is no failure
        for number in [n for n in reply.numbers if n in self.flights.by_number and n not in self.intake.awaited]:
            self.landed[number] = flight = self.flights.by_number.pop(number)
            if number not in self.intake.counted and not stale:
                self.lost += flight.party in {member.name for member in self.flights.federation.members()}

    def _treated(self, update: Update, numbers: tuple[int, ...]) -> Update:
        flight, schedule = self.flights.by_number[numbers[0]], self.schedule
        drift = None
        if schedule.mix == "models" and flight.version < self.state.round:
            drift = flight.body.start - self.state.vector
        return discounted(update, schedule.discount(self.state.round - flight.version), drift)

    def _given_up(self, why: str) -> QuorumLost:
        lost = QuorumLost(
            f"step {self.state.round + 1}: {len(self.intake.counted)} of {self.schedule.size} updates counted, and "
            f"{why}; {summary(self.intake.faults)}. Mend the sites, allow more faults, or set a deadline."
        )
        lost.final = len(self.intake.refused) > self.schedule.faults
        return lost

    def _moved(self) -> State:
        state, intake, federation = self.state, self.intake, self.flights.federation
        streams = stream(state.seed, f"round {state.round + 1}")
        moved = move(state, self.strategy, intake, len(federation.members()), streams.child("finish"))
        federation.settle(intake.counted)
        counted = [self.landed[number] for number in intake.counted]
        parties = tuple(flight.party for flight in counted)
        record = Record(
            state.round + 1,
            state.dispatched + 1,
            parties,
            tuple(intake.counted),
            tuple(intake.faults),
            intake.figures,
            state.vector.nbytes * (self.dispatched - state.dispatched),
            intake.bytes_up,
            federation.now() - self.began,
            parties,
            tuple(state.round - flight.version for flight in counted),
        )
        changes = {"dispatched": self.dispatched, "schedule": self.flights.tree(), "record": record}
        return moved.but(round=state.round + 1, **changes)


def _fault(flight: Flight, phase: str, error: str, message: str) -> Reply:
    return Reply((flight.number,), (flight.party,), Fault(flight.party, phase, error, message))


def _name(part: Any) -> str:
    return type(part).__name__
