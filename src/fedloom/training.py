"""An app that trains: rounds over a federation, evaluated and stopped as the app says; wherever its parties are."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .app import App
from .core.errors import ConfigError, RunError
from .core.examples import Examples
from .core.layout import MODEL, Vector
from .core.metrics import Metrics
from .core.metrics import total as sum_of
from .core.model import Model
from .core.rng import stream
from .core.state import State
from .core.strategy import Terms
from .core.task import Evaluate, Federation
from .core.tree import Tree
from .measuring import Measuring
from .privacy import examples, gate
from .privacy.guarantee import Guarantee
from .stop import Verdict

NETWORK = "network"  # the engine of a run whose parties are somewhere else


@dataclass(frozen=True, eq=False)
class Training:
    """What an app became, seen by who coordinates it.

    Args:
        app: that was set up.
        model: its model, at the data's size.
        federation: that carries tasks to the parties.
        terms: layouts and cap.
        statistics: what the parties computed together: mean and scale by column.
        test: the source's official test part, as numbers; None if it has none.
        measured: names of the parties that hold examples out; where they are many, of all that may.
        engine: what carries the tasks, as it is journaled.
        founders: how many members the run began with, where that is not how many there are.
        busy: returns who still trains when a round is closed; patience_s: how long who does is waited for when the run
            may be over; see `Measuring`.
    """

    app: App
    model: Model
    federation: Federation
    terms: Terms
    statistics: Mapping[str, Any]
    test: Examples | None
    measured: Sequence[str]
    engine: Any = NETWORK
    founders: int | None = field(default=None, kw_only=True)
    busy: Callable[[], Collection[str]] | None = field(default=None, kw_only=True)
    patience_s: float = field(default=0.0, kw_only=True)

    def close(self) -> None:
        """End what was started to carry tasks."""

    def moved(self, names: Collection[str]) -> dict[str, Tree]:
        """Return what these parties remember now, if they are here."""
        return {}

    @property
    def sites(self) -> str:
        """Names of those whose personal models are here, for people."""
        return "none is here"

    def personal(self, site: str, vector: Vector) -> Vector:
        """Return what a site would deploy, in the model's layout; raises `ConfigError` for one that is not here."""
        raise ConfigError(f"the model of {site!r} is at that site; a coordinator has only what is shared.")

    def first(self) -> State:
        """Return the state before round 1; raises `ConfigError` if the members are too few for what is claimed."""
        app, initial = self.app, self.model.init(stream(self.app.seed, "init"))
        if app.strategy.examples.private:
            examples.meets(app.strategy.examples, self.federation.members(), app.stop.epsilon)
        gate.meets(app.strategy, self._members, app.stop.epsilon)
        return self.priced(app.strategy.first(self.terms, initial, app.seed))

    @cached_property
    def _members(self) -> int:
        return len(self.federation.members()) if self.founders is None else self.founders

    def guarantee(self, rounds: int) -> Guarantee | None:
        """Return what so many rounds cost in privacy; None where nothing is claimed.

        Raises `RunError` if members have come or gone on whose number the cost depends.
        """
        if self.app.strategy.examples.private:
            return examples.guarantee(self.app.strategy.examples, rounds, self.federation.members())
        strategy, now = self.app.strategy, len(self.federation.members())
        if strategy.private and now != self._members and gate.depends_on_members(strategy):
            raise RunError(
                f"there were {self._members} members and are {now}, and what a round costs depends on that; begin a "
                f"new run, or take Poisson without a cap."
            )
        return gate.guarantee(strategy, rounds, self._members)

    def priced(self, state: State) -> State:
        """Return the state with the privacy that its rounds have spent."""
        cost = self.guarantee(state.round)
        if cost is None:
            return state
        return state.but(epsilon=cost.epsilon, delta=cost.delta, epsilons=dict(cost.sites))

    def _exhausted(self, round: int) -> Verdict | None:
        if self.app.stop.epsilon is None:
            return None
        cost = self.guarantee(round)
        return self.app.stop.exhausted(round, math.inf if cost is None else cost.epsilon)

    def rounds(self, state: State, closed: Callable[[State], object] = lambda state: None) -> Iterator[State]:
        """Yield the state after each round from `state` on, evaluated, until the app's stopping rule ends it.

        `closed` is given each state before anybody sees its model, who measures it included. Nobody waits for who still
        trains: its last figures stand in. Before a run ends on such figures, everybody is waited for a while.
        """
        app, memory, measuring = self.app, state.stop, Measuring(self.federation, self.busy, self.patience_s)
        if over := self._exhausted(state.round + 1):
            raise RunError(f"{over.reason}; there is nothing to go on with.")
        with closing(measuring):
            for moved in app.strategy.schedule.run(app.strategy, self.terms, self.federation, state):
                closed(self.priced(moved))
                state = self._measured(moved, memory, measuring)
                memory = state.stop
                yield state
                if state.status != "running":
                    return

    def _measured(self, moved: State, memory: Tree, measuring: Measuring) -> State:
        """Return the state of a closed round with its figures, if they are due, and with what follows from them."""
        last = moved.round == self.app.rounds
        due = moved.round % self.app.evaluate_every == 0 or last
        state, whole = self._evaluated(moved, measuring, everybody=last) if due else (moved, False)
        after, verdict = self._judged(memory, state, whole)
        if verdict is not None and state.measured_at and not last:
            state, whole = self._evaluated(moved, measuring, everybody=True)
            after, verdict = self._judged(memory, state, whole)
        state = self.priced(state.but(stop=after))
        return state if verdict is None else state.but(status=verdict.status, reason=verdict.reason)

    def _judged(self, memory: Tree, state: State, whole: bool) -> tuple[Tree, Verdict | None]:
        figures = state.metrics.view() if whole and state.metrics is not None else None
        memory, verdict = self.app.stop.judge(memory, state.round, self.app.rounds, figures)
        return memory, verdict or self._exhausted(state.round + 1)

    def evaluated(self, state: State) -> State:
        """Return the state with its figures: on every site's held-out rows, and pooled, or on the test part."""
        found, _ = self._evaluated(state, Measuring(self.federation, self.busy, self.patience_s), everybody=True)
        return found

    def _evaluated(self, state: State, measuring: Measuring, *, everybody: bool) -> tuple[State, bool]:
        """Return the state with its figures, and whether they are of all: before, nothing is judged by them."""
        names, body = self.measurers(state.round), Evaluate(state.vector)
        seen = measuring.of(names, state.round, body, everybody)
        sites, metrics = {site: figures for site, (_, figures) in seen.figures.items()}, self._central(state)
        pooled = sum_of(sites.values()) if metrics is None else metrics
        earlier = {site: round for site, (round, _) in seen.figures.items() if round < state.round}
        record = state.record and state.record.but(faults=(*state.record.faults, *seen.faults))
        changes = {"metrics": pooled, "central": metrics is not None, "sites": sites, "measured_at": earlier}
        return state.but(**changes, record=record), seen.whole or metrics is not None

    def measurers(self, round: int) -> list[str]:
        """Return the sites that measure this round's model: all that hold rows out, or the app's sample of them."""
        most = self.app.evaluate_sites
        if most is None or most >= len(self.measured):
            return list(self.measured)
        draws = stream(self.app.seed, f"evaluate {round}")("sites")
        drawn = draws.choice(len(self.measured), most, replace=False, shuffle=False)
        return [self.measured[at] for at in sorted(drawn.tolist())]

    def _central(self, state: State) -> Metrics | None:
        if self.test is None:
            return None
        return self.model.evaluate(self.model.load(self.shared(state.vector)), self.test)

    def shared(self, vector: Vector) -> Vector:
        """Return the shared model in the model's layout; leaves that stay home have their initial values."""
        layout = self.model.layout
        if self.terms.payload.only(MODEL).alike(layout):
            return vector[self.terms.payload.block(MODEL)].astype(layout.dtype, copy=False)
        whole = self.model.init(stream(self.app.seed, "init"))
        places, sent = layout.unpack(whole), self.terms.payload.unpack(vector)
        for leaf in self.terms.payload.leaves:
            if leaf.block == MODEL:
                places[leaf.name][...] = sent[leaf.name]
        return whole
