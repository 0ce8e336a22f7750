"""Canary clients in a run of an app's protections: put in or left out by fair coins, and scored by what they left."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .app import App
from .core.errors import ConfigError, DataError
from .core.examples import Examples, Split
from .core.layout import MODEL, Vector
from .core.rng import Streams, stream
from .core.state import State
from .core.strategy import Strategy, Terms
from .core.task import Member
from .core.update import Update
from .core.weights import Equal
from .data.holds import holdings
from .gather import Plain
from .local.canary import Canary
from .optimize import Step
from .privacy import gate
from .privacy.audit import Coins, Scores
from .privacy.scores import KINDS, Mechanism
from .runtime.inprocess import InProcess
from .runtime.trainer import Trainer
from .schedule import Sync

LOUD = 10.0  # times the clip: a canary relies on the clip to be cut, so that a clip that is gone is heard


@dataclass(frozen=True, kw_only=True)
class Cage:
    """An app's protections met with members that are canaries, before round 1.

    Args:
        app: whose they are.
        strategy: the app's, with equal weights, a plain gather (whose sum is the hidden one) and a server that steps
            by the mean: what comes after the noise cannot give privacy away.
        terms, initial: of a run; members: of whom at most `places.size` are canaries, the others send zeros.
        mechanism: that is declared; None where nothing is claimed.
        places: of the vector, where directions lie.
    """

    app: App
    strategy: Strategy
    terms: Terms
    initial: Vector
    members: tuple[Member, ...]
    mechanism: Mechanism | None
    places: NDArray[np.int64]

    @staticmethod
    def of(app: App, canaries: int) -> "Cage":
        """Return it for so many canaries: as many members as the app has, or as canaries where their number is free."""
        if not isinstance(app.strategy.schedule, Sync):
            raise ConfigError("an audit counts rounds; take schedule=Sync().")
        _heard(app.strategy)
        strategy = replace(app.strategy, gather=Plain(), optimizer=Step(1.0), weights=Equal())
        data = app.data
        size = len(holdings(data.source.read(), data.partition, data.holdout, stream(app.seed, "partition")))
        if not gate.depends_on_members(strategy):
            size = min(size, canaries)
        members = tuple(Member(f"canary-{i:04}", 1) for i in range(size))
        terms, initial = strategy.bind(app.built.layout, members), app.built.init(stream(app.seed, "init"))
        where = terms.payload.block(MODEL, "parameter")
        return Cage(
            app=app,
            strategy=strategy,
            terms=terms,
            initial=initial,
            members=members,
            mechanism=Mechanism.of(strategy.event, size),
            places=np.arange(where.start, where.stop),
        )

    @property
    def most(self) -> int:
        """Canaries of one run: each has a direction of its own."""
        return min(len(self.members), len(self.places))

    def run(self, rounds: int, streams: Streams) -> tuple[Scores, Coins]:
        """Run so many rounds; return the canaries' scores, and which of them were in."""
        coins: Coins = streams("coins").random(self.most) < 0.5
        directions = Directions.drawn(self.places, self.most, self._width(), streams)
        seen, before = [], self.strategy.first(self.terms, self.initial, streams.integer("seed"))
        for state in islice(self._states(before, directions, coins), rounds):
            change = np.asarray(state.vector, np.float64) - before.vector
            seen.append(directions.along(change) * self._unit(before, state))
            before = state
        table = np.array(seen)
        return (table.sum(axis=0) if self.mechanism is None else self.mechanism.ratio(table)), coins

    def _states(self, first: State, directions: "Directions", coins: Coins) -> Iterator[State]:
        nothing, strategy = np.zeros(first.layout.size), self.strategy
        payload = strategy.local.payload(self.app.built.layout)
        loud = min(LOUD * self._clip(first), 0.5 * payload.leaves[0].bound * directions.width**0.5)

        def party(number: int, name: str) -> Trainer:
            there = number < self.most and coins[number]
            delta = directions.vector(number, loud, payload.size) if there else nothing[: payload.size]
            own = replace(strategy, local=Canary(strategy.local, delta))
            return Trainer(name, self.app.built, own, Nothing(), 0, self.terms, self.initial, statistics={})

        parties = {member.name: party(i, member.name) for i, member in enumerate(self.members)}
        yield from strategy.schedule.run(strategy, self.terms, InProcess(parties, self.members), first)

    def _width(self) -> int:
        """How many coordinates a direction has: a limit on the L1 norm leaves most of a delta that has one."""
        laplace = self.mechanism is not None and self.mechanism.kind == "laplace"
        return 1 if laplace else len(self.places) // self.most

    def _clip(self, state: State) -> float:
        """The limit of a canary's delta in this round; 1 where there is none."""
        if not self.strategy.noisy:
            return 1.0
        noise: Any = self.strategy.stages[-1]
        shown = noise.public(state.stages[-1])  # an adaptive clip is shown to clients
        return float(noise.clip if shown is None else shown)

    def _unit(self, before: State, state: State) -> float:
        """What turns a change of the model into the sum, in clips."""
        expected, record = getattr(self.strategy.aggregate, "expected", None), state.record
        counted = len(record.counted) if record is not None else 0
        return (counted if expected is None else expected * self.terms.total.cohort) / self._clip(before)


def _heard(strategy: Strategy) -> None:
    """Refuse what canaries cannot hear: a bound that finds nothing must not look like an audit."""
    if strategy.examples.private:
        raise ConfigError(
            f"canaries are clients, and {type(strategy.local).__name__} protects single examples, which is not audited "
            f"so; `fedloom audit RUN --report` infers members there."
        )
    event = strategy.event
    while event.inner:
        event = event.inner[0]
    if event.private and event.kind not in KINDS:
        raise ConfigError(
            f"what {event.kind!r} noise leaves of a canary is not known here; GaussianNoise, AdaptiveNoise and "
            f"LaplaceNoise can be audited."
        )


@dataclass(frozen=True, eq=False)
class Directions:
    """Unit vectors, orthogonal since no two share a coordinate; signs are random.

    Args:
        places: coordinates, shape `(canaries, width)`; signs: ±1, alike.
    """

    places: NDArray[np.int64]
    signs: NDArray[np.float64]

    @staticmethod
    def drawn(places: NDArray[np.int64], canaries: int, width: int, streams: Streams) -> "Directions":
        """Return so many of so many coordinates each."""
        order = streams("directions").permutation(places)[: canaries * width].reshape(canaries, width)
        return Directions(order, streams("signs").choice([-1.0, 1.0], order.shape))

    @property
    def width(self) -> int:
        """Coordinates of each."""
        return int(self.places.shape[1])

    def vector(self, number: int, length: float, size: int) -> Vector:
        """Return one of them with that length, in a vector of that size."""
        vector = np.zeros(size)
        vector[self.places[number]] = self.signs[number] * (length / self.width**0.5)
        return vector

    def along(self, change: Vector) -> Scores:
        """Return the inner products of a vector with all of them."""
        return np.asarray((change[self.places] * self.signs).sum(axis=1) / self.width**0.5)


class Nothing:
    """The rows of a canary, which it does not look at: one of zeros."""

    train_size = 1

    def measure(self, what: str, known: Mapping[str, Any]) -> Update:
        """Refuse: there is nothing to measure."""
        raise DataError(f"a canary has no columns to measure {what!r} of; give the trainer its statistics.")

    def prepare(self, statistics: Mapping[str, Any]) -> Split:
        """Return that row."""
        row = Examples(np.zeros((1, 1)), np.zeros(1))
        return Split(row, row)


def spread(cage: Cage, canaries: int, rounds: int, streams: Streams) -> Sequence[tuple[Scores, Coins]]:
    """Return scores and coins of as many runs as so many canaries need."""
    return [cage.run(rounds, streams.child(run)) for run in range(-(-canaries // cage.most))]
