"""An app that trains: rounds over a federation, evaluated and stopped as the app says; wherever its parties are."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
from .core.task import Evaluate, Evaluated, Fault, Federation, ask_all
from .core.tree import Tree
from .privacy import examples, gate
from .privacy.guarantee import Guarantee
from .stop import Verdict

Measured = tuple[int, Metrics]  # a site's figures, and of which round's model they are
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
        busy: returns who trains at the moment, although the round is closed, and answers nothing else before it has;
            None where that never is.
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
        trains: its last figures stand in. A run never ends on such figures.
        """
        app, memory, known = self.app, state.stop, dict[str, Measured]()
        if over := self._exhausted(state.round + 1):
            raise RunError(f"{over.reason}; there is nothing to go on with.")
        for moved in app.strategy.schedule.run(app.strategy, self.terms, self.federation, state):
            closed(self.priced(moved))
            last = moved.round == app.rounds
            due = moved.round % app.evaluate_every == 0 or last
            state = self.evaluated(moved, {} if last else known) if due else moved
            if self.busy is not None:
                new = state.sites.keys() - state.measured_at.keys()
                known |= {site: (moved.round, state.sites[site]) for site in new}
            before, (memory, verdict) = memory, self._judged(memory, state)
            if verdict is not None and state.measured_at:
                state = self.evaluated(moved)
                memory, verdict = self._judged(before, state)
            state = self.priced(state.but(stop=memory))
            if verdict is None:
                yield state
                continue
            yield state.but(status=verdict.status, reason=verdict.reason)
            return

    def _judged(self, memory: Tree, state: State) -> tuple[Tree, Verdict | None]:
        figures = state.metrics.view() if state.metrics is not None else None
        memory, verdict = self.app.stop.judge(memory, state.round, self.app.rounds, figures)
        return memory, verdict or self._exhausted(state.round + 1)

    def evaluated(self, state: State, known: Mapping[str, Measured] = {}) -> State:
        """Return the state with its figures: on every site's held-out rows, and pooled, or on the test part.

        Who trains is not waited for if it is in `known`, with what it has measured before.
        """
        measuring, busy = self.measuring(state.round), set(self.busy() if known and self.busy else ())
        before = {site: known[site] for site in measuring if site in known and site in busy}
        replies = ask_all(self.federation, [site for site in measuring if site not in before], Evaluate(state.vector))
        found = {reply.parties[0]: reply.body.metrics for reply in replies if isinstance(reply.body, Evaluated)}
        found |= {site: metrics for site, (_, metrics) in before.items()}
        sites = {site: found[site] for site in measuring if site in found}  # in an order that sums keep
        faults = tuple(reply.body for reply in replies if isinstance(reply.body, Fault))
        record = state.record and state.record.but(faults=(*state.record.faults, *faults))
        metrics, earlier = self._central(state), {site: round for site, (round, _) in before.items()}
        pooled = sum_of(sites.values()) if metrics is None else metrics
        changes = {"metrics": pooled, "central": metrics is not None, "sites": sites, "measured_at": earlier}
        return state.but(**changes, record=record)

    def measuring(self, round: int) -> list[str]:
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
