"""A strategy: one choice on each axis. What does not fit is refused when it is built, or when it meets the members."""

from collections.abc import Sequence
from dataclasses import dataclass
from secrets import randbits
from typing import Any

import numpy as np

from .errors import StrategyError
from .event import NOT_PRIVATE, DpEvent
from .layout import MODEL, Layout, Vector
from .parts import Aggregator, Gather, Local, Optimizer, Schedule, Selector, Stage, Weights
from .state import State
from .task import Member


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A point in the product of the axes.

    Args:
        local: what a client does; weights: how much it counts; select: who is asked; stages: what happens on the road,
            in the client's order; gather: how updates reach the server; aggregate: how many become one; optimizer: how
            the server moves; schedule: when.

    Raises `StrategyError` for parts that do not fit each other.
    """

    local: Local[Any]
    weights: Weights
    select: Selector
    stages: tuple[Stage[Any, Any, Any], ...] = ()
    gather: Gather
    aggregate: Aggregator[Any]
    optimizer: Optimizer[Any]
    schedule: Schedule

    def __post_init__(self) -> None:
        singles = [_name(stage) for stage in self.stages if stage.each]
        if self.gather.hides and (singles or self.aggregate.each):
            who = ", ".join([*singles, *([_name(self.aggregate)] if self.aggregate.each else [])])
            raise StrategyError(
                f"{_name(self.gather)} hides single clients, but {who} must see them; "
                f"take Plain() to gather, or leave {who} out."
            )
        for before, after in zip(self.stages, self.stages[1:], strict=False):
            if before.each and not after.each:
                raise StrategyError(
                    f"{_name(before)} is decoded one client at a time and {_name(after)} on the sum, so "
                    f"{_name(before)} must come behind it: write stages=({_name(after)}(…), {_name(before)}(…))."
                )
        if self.aggregate.each and any(stage.sums for stage in self.stages):
            last = next(_name(stage) for stage in self.stages if stage.sums)
            raise StrategyError(
                f"{last} works on a sum, but {_name(self.aggregate)} makes none; aggregate with Mean()."
            )
        missing = set(self.local.population) - self.aggregate.population
        if missing:
            over = ", ".join(f"'{block}': 'members'" for block in sorted(missing))
            raise StrategyError(f"{_name(self.local)} needs a mean over all members: aggregate=Mean(over={{{over}}}).")
        if self.aggregate.population and self.weights.private:
            raise StrategyError(f"{_name(self.aggregate)} over all members needs weights=Equal().")
        self._noise_fits()
        self.schedule.fits(self)

    def _noise_fits(self) -> None:
        if self.private and self.examples.private:
            raise StrategyError(
                f"{_name(self.local)} claims privacy for single examples and {_name(self.stages[-1])} for whole "
                f"clients: two units that do not add up; leave one of them out."
            )
        noisy = [_name(stage) for stage in self.stages if stage.event() != NOT_PRIVATE]
        if not noisy:
            return
        if len(noisy) > 1:
            raise StrategyError(f"{' and '.join(noisy)} both add noise; one stage clips and adds noise: take one.")
        if _name(self.stages[-1]) != noisy[0]:
            raise StrategyError(
                f"{_name(self.stages[-1])} comes behind {noisy[0]} and could undo its clip; what clips and adds noise "
                f"must be the last stage: write stages=({_name(self.stages[-1])}(…), {noisy[0]}(…))."
            )
        if self.weights.private and self.private:
            raise StrategyError(
                f"{_name(self.weights)} tells something about a client's rows, and {noisy[0]} bounds unweighted "
                f"deltas; take weights=Equal()."
            )

    @property
    def mechanism(self) -> DpEvent:
        """What one answer releases about its client: the stages' mechanisms, whoever knows that it was asked."""
        found = [event for event in (stage.event() for stage in self.stages) if event != NOT_PRIVATE]
        if len(found) > 1:
            return DpEvent("composed", inner=tuple(found))
        return found[0] if found else NOT_PRIVATE

    @property
    def event(self) -> DpEvent:
        """What a round releases about a client: the mechanism, as the selector samples."""
        mechanism = self.mechanism
        return mechanism if mechanism == NOT_PRIVATE else self.select.event(mechanism)

    @property
    def examples(self) -> DpEvent:
        """What local work does for single examples, at each client by itself."""
        return self.local.event()

    @property
    def noisy(self) -> bool:
        """Does the server add noise, whether or not anything is claimed? Then an empty sum is a release like others."""
        return any(stage.sums and stage.event() != NOT_PRIVATE for stage in self.stages)

    @property
    def private(self) -> bool:
        """Is differential privacy claimed for clients?"""
        return self.event.private

    @property
    def each(self) -> bool:
        """Does the server have to decode every client's update by itself?"""
        return any(stage.each for stage in self.stages)

    @property
    def merges(self) -> bool:
        """May updates be added before the server sees them? Masked ones are added by the server alone."""
        return not (self.each or self.aggregate.each or self.gather.hides)

    def payload(self, layout: Layout) -> Layout:
        """Return what travels, given the model's layout."""
        return self.layouts(layout)[-1]

    def layouts(self, layout: Layout) -> tuple[Layout, ...]:
        """Return what each stage is given, and last what travels, from the model's layout on."""
        steps = [self.local.payload(layout)]
        for stage in self.stages:
            steps.append(stage.payload(steps[-1]))
        return tuple(steps)

    def cohort(self, members: int) -> int:
        """Return the most updates in one step of the server; raises `StrategyError` for too few members."""
        return self.schedule.cohort(self.select.most(members), members)

    def fits(self, total: Layout) -> None:
        """Refuse a sum in which a part could not keep its word; coordinator and parties ask, each for itself."""
        self.gather.fits(total)
        for stage in self.stages:
            stage.fits(total)

    def bind(self, layout: Layout, members: Sequence[Member]) -> "Terms":
        """Return what follows from a model and its members; raises `StrategyError` for what does not fit them."""
        if not members:
            raise StrategyError("the federation has no members; add clients, or check the partition.")
        cohort = self.cohort(len(members))
        if cohort < self.aggregate.least:
            raise StrategyError(
                f"{self.aggregate!r} needs at least {self.aggregate.least} clients in a round, but the cohort is "
                f"{cohort}; ask more, or set it for fewer that misbehave."
            )
        payload = self.payload(layout)
        total = payload.weighted(cohort)
        self.fits(total)
        return Terms(layout, payload, total, self.weights.cap(members))

    def first(self, terms: "Terms", initial: Vector, seed: int) -> State:
        """Return the state before round 1, from the model's initial values; further blocks start at zero.

        The coordinator's own draws come from `seed`, which everybody knows; where privacy is claimed, from a secret of
        the operating system, which is stored with the state: nobody else may know who was drawn.
        """
        vector = np.zeros(terms.payload.size, terms.payload.dtype)
        values = terms.model.unpack(initial)
        for (name, leaf), place in zip(terms.payload.named(), terms.payload.unpack(vector).values(), strict=True):
            if leaf.block == MODEL:
                place[...] = values[name]
        moments = self.optimizer.init(vector, terms.payload)
        given = self.layouts(terms.model)
        memories = tuple(stage.start(layout) for stage, layout in zip(self.stages, given, strict=False))
        own = randbits(128) if self.private else seed
        return State(own, terms.payload, vector, optimizer=moments, stages=memories)


@dataclass(frozen=True)
class Terms:
    """What strategy, model and members agree on: layouts of the model, of the payload, of a sum; and the cap."""

    model: Layout
    payload: Layout
    total: Layout
    cap: int


def _name(part: object) -> str:
    return type(part).__name__
