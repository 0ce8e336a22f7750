"""An app in one process: its rows divided, its parties built, and what they agree on before round 1."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from .adapters.threads import single_threaded
from .app import App
from .core.errors import ConfigError, DataError
from .core.layout import MODEL, Vector
from .core.metrics import Metrics
from .core.metrics import total as sum_of
from .core.parts import Examples, Model
from .core.rng import stream
from .core.state import State
from .core.strategy import Terms
from .core.task import (
    Evaluate,
    Evaluated,
    Fault,
    Federation,
    Measure,
    Member,
    Prepare,
    Ready,
    ReplyBody,
    TaskBody,
    ask_all,
)
from .core.update import Update
from .data.holds import holdings
from .data.rows import SiteRows
from .data.standardise import statistics
from .engines import Engine, carried, chosen
from .intervals import bootstrap
from .runtime.inprocess import InProcess
from .runtime.pool import Pool
from .runtime.trainer import Trainer


@dataclass(frozen=True, eq=False)
class Simulation:
    """What an app became.

    Args:
        app: that was set up.
        model: its model, at the data's size.
        held: each party's rows.
        parties: by name.
        federation: that carries tasks to them.
        terms: layouts and cap.
        statistics: what the parties computed together: mean and scale by column.
        test: the source's official test part, as numbers; None if it has none.
        measured: names of the parties that hold examples out.
        engine: what carries the tasks.
    """

    app: App
    model: Model
    held: Mapping[str, SiteRows]
    parties: Mapping[str, Trainer]
    federation: Federation
    terms: Terms
    statistics: Mapping[str, Any]
    test: Examples | None
    measured: tuple[str, ...]
    engine: Engine = Engine("sequential")

    def close(self) -> None:
        """End what the engine has started."""
        if isinstance(self.federation, Pool):
            self.federation.close()

    def first(self) -> State:
        """Return the state before round 1."""
        return self.app.strategy.first(self.terms, self.model.init(stream(self.app.seed, "init")), self.app.seed)

    def rounds(self, state: State) -> Iterator[State]:
        """Yield the state after each round from `state` on, evaluated, until the app's stopping rule ends it."""
        app, memory = self.app, state.stop
        for moved in app.strategy.schedule.run(app.strategy, self.terms, self.federation, state):
            due = moved.round % app.evaluate_every == 0 or moved.round == app.rounds
            state = self.evaluated(moved) if due else moved
            figures = state.metrics.view() if state.metrics is not None else None
            memory, verdict = app.stop.judge(memory, state.round, app.rounds, figures)
            state = state.but(stop=memory)
            if verdict is None:
                yield state
                continue
            yield state.but(status=verdict.status, reason=verdict.reason)
            return

    def evaluated(self, state: State) -> State:
        """Return the state with its figures: on every site's held-out rows, and pooled, or on the test part."""
        replies = ask_all(self.federation, self.measured, Evaluate(state.vector))
        sites = {reply.parties[0]: reply.body.metrics for reply in replies if isinstance(reply.body, Evaluated)}
        faults = tuple(reply.body for reply in replies if isinstance(reply.body, Fault))
        record = state.record and state.record.but(faults=(*state.record.faults, *faults))
        metrics = self._central(state)
        pooled = sum_of(sites.values()) if metrics is None else metrics
        return state.but(metrics=pooled, central=metrics is not None, sites=sites, record=record)

    def _central(self, state: State) -> Metrics | None:
        if self.test is None:
            return None
        return self.model.evaluate(self.model.load(self.shared(state.vector)), self.test)

    def shared(self, vector: Vector) -> Vector:
        """Return the shared model in the model's layout; leaves that stay home have their initial values."""
        layout, whole = self.model.layout, self.model.init(stream(self.app.seed, "init"))
        places, sent = layout.unpack(whole), self.terms.payload.unpack(vector)
        for leaf in self.terms.payload.leaves:
            if leaf.block == MODEL:
                places[leaf.name][...] = sent[leaf.name]
        return whole


def simulate(
    app: App,
    *,
    held: Mapping[str, SiteRows] | None = None,
    engine: Engine | str = "sequential",
    now: Callable[[], float] = monotonic,
) -> Simulation:
    """Set an app up in this process; `held` overrides who holds what. Nothing is trained yet.

    Raises `DataError`, `ConfigError` or `StrategyError`, each before anything has begun.
    """
    model, own = app.built, _held(app) if held is None else held
    members = [Member(name, rows.train_size) for name, rows in own.items()]
    terms = app.strategy.bind(model.layout, members)
    initial = model.init(stream(app.seed, "init"))
    parties = {
        name: Trainer(name, model, app.strategy, rows, app.seed, terms, initial, bootstrap=bootstrap)
        for name, rows in own.items()
    }
    federation = InProcess(parties, members, now, single_threaded)
    found = statistics(lambda body: _updates(federation, list(own), body), app.data.source.schema)
    ready = [body for body in asked(federation, list(own), Prepare(found)) if isinstance(body, Ready)]
    _enough(own)
    measured = tuple(name for name, body in zip(own, ready, strict=True) if body.held_out)
    test = app.data.source.test() if held is None else None
    whole = terms.payload.only(MODEL).leaves == model.layout.leaves
    if not measured and (test is None or not whole):
        raise ConfigError(
            "there is nothing to measure on: no site holds rows out; raise data.holdout, or use fewer clients."
        )
    examples = test.examples(found) if test is not None and whole else None
    first = app.strategy.first(terms, initial, app.seed)
    wanted = engine if isinstance(engine, Engine) else Engine.of(engine)
    taken = chosen(wanted, app.strategy, parties, terms, first)
    carrier = carried(taken, federation, parties, terms)
    return Simulation(app, model, own, parties, carrier, terms, found, examples, measured, taken)


def asked(federation: Federation, names: Sequence[str], body: TaskBody) -> list[ReplyBody]:
    """Return the answers of all these parties; raises `DataError` for the first that failed."""
    bodies = [reply.body for reply in ask_all(federation, names, body)]
    for answer in bodies:
        if isinstance(answer, Fault):
            raise DataError(f"{answer.site}: {answer.message}")
    return bodies


def _updates(federation: Federation, names: Sequence[str], body: Measure) -> list[Update]:
    return [answer for answer in asked(federation, names, body) if isinstance(answer, Update)]


def _held(app: App) -> dict[str, SiteRows]:
    return holdings(app.data.source.read(), app.data.partition, app.data.holdout, stream(app.seed, "partition"))


def _enough(held: Mapping[str, SiteRows]) -> None:
    for name, rows in held.items():
        if rows.train_size == 0:
            raise DataError(f"{name} has no rows to train on; use fewer clients, or another partition.")


def pooled(held: Mapping[str, SiteRows]) -> SiteRows:
    """Return one party that holds everybody's training rows, which only a simulation may do."""
    first, *others = held.values()
    return SiteRows(first.train.join([own.train for own in others]), first.held_out)
