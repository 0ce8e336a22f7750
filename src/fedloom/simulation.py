"""An app in one process: its rows divided, its parties built, and what they agree on before round 1."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic
from typing import Any

from .adapters.threads import single_threaded
from .app import App
from .attackers import Attackers
from .core.errors import ConfigError, DataError
from .core.hidden import Identity
from .core.layout import MODEL, Vector
from .core.lazy import Lazy, Roster
from .core.rng import stream
from .core.strategy import Strategy
from .core.task import (
    Fault,
    Federation,
    Measure,
    Prepare,
    Ready,
    ReplyBody,
    TaskBody,
    ask_all,
)
from .core.tree import Tree
from .core.update import Update
from .data.holds import holdings, roster
from .data.rows import Fetched, SiteRows
from .data.standardise import statistics
from .engines import Engine, carried, narrowed
from .gather import Encrypted
from .intervals import bootstrap
from .runtime.inprocess import InProcess
from .runtime.pool import Pool
from .runtime.traces import Traces
from .runtime.trainer import Trainer
from .runtime.virtual import Virtual, upload
from .store.memories import Memories
from .training import Training
from .tuning import chosen

Parties = Mapping[str, Trainer]
Carry = Callable[[Parties], Federation]
LISTED = 50  # names in a message
KEPT = 64  # of many parties, so many are kept ready, or a cohort


@dataclass(frozen=True, eq=False)
class Simulation(Training):
    """A training whose parties are all in this process, or in workers that it has started.

    Args:
        held: each party's rows.
        parties: by name.
        memories: what the parties remember, by name.
        attackers: clients that are hostile; None has none.
    """

    held: Mapping[str, SiteRows] = field(default_factory=dict)
    parties: Mapping[str, Trainer] = field(default_factory=dict)
    memories: Memories = field(default_factory=Memories)
    attackers: Attackers | None = None

    def close(self) -> None:
        """End what the engine has started."""
        self.memories.close()
        if isinstance(self.federation, Pool):
            self.federation.close()

    @property
    def sites(self) -> str:
        """Names of the parties, for people."""
        more = f" and {len(self.parties) - LISTED:,} more" if len(self.parties) > LISTED else ""
        return f"{', '.join(sorted(islice(self.parties, LISTED)))}{more}"

    def personal(self, site: str, vector: Vector) -> Vector:
        """Return what a site would deploy, in the model's layout; raises `ConfigError` for one that is not there."""
        if site not in self.parties:
            raise ConfigError(f"there is no site {site!r}; there are {self.sites}.")
        return self.parties[site].personal(vector)

    def moved(self, names: Collection[str]) -> dict[str, Tree]:
        """Return what these parties remember now."""
        return {name: self.parties[name].memory for name in sorted(names)}


def simulate(
    app: App,
    *,
    held: Mapping[str, SiteRows] | None = None,
    engine: Engine | str = "sequential",
    now: Callable[[], float] = monotonic,
    traces: Traces | None = None,
    attackers: Attackers | None = None,
) -> Simulation:
    """Set an app up in this process; `held` overrides who holds what. Nothing is trained yet.

    With `traces` clients take the time that they say, on a clock that nobody waits for. With `attackers` some of them
    are hostile.

    Raises `DataError`, `ConfigError` or `StrategyError`, each before anything has begun.
    """
    model, own = app.built, _held(app) if held is None else held
    members = roster(own, app.data.holdout)
    terms, memories = app.strategy.bind(model.layout, members), Memories()
    initial, identity = model.init(stream(app.seed, "init")), _identities(app, members.names)

    parties: Parties = {}
    follows = (
        _honest(app)
        if attackers is None
        else attackers.strategies(app, terms, members.names, lambda name: parties[name].prepared().train)
    )

    def made(name: str, found: Mapping[str, Any] | None = None) -> Trainer:
        rows, known = Fetched(own, name), identity(name)
        return Trainer(name, model, follows(name), rows, app.seed, terms, initial, memories, found, bootstrap, known)

    first, test = app.strategy.first(terms, initial, app.seed), app.data.source.test() if held is None else None
    whole = terms.payload.only(MODEL).alike(model.layout)
    build = _many if isinstance(own, Lazy) else _few

    def carry(parties: Parties) -> InProcess:
        return InProcess(parties, members, now, single_threaded)

    parties, found, measured = build(app, members, made, carry)
    if not measured and (test is None or not whole):
        raise ConfigError(
            "there is nothing to measure on: no site holds rows out; raise data.holdout, or use fewer clients."
        )
    examples = test.examples(found) if test is not None and whole else None
    wanted = narrowed(engine if isinstance(engine, Engine) else Engine.of(engine), app.needs)
    wanted = _unstacked(_one_by_one(wanted, app, traces), attackers)
    taken = chosen(wanted, app.strategy, parties, terms, first)
    carrier = carried(taken, carry(parties), parties, terms, app.needs)
    if traces is not None:
        carrier = Virtual(carrier, traces, app.seed, upload(app.strategy, terms))
    return Simulation(app, model, carrier, terms, found, examples, measured, taken, own, parties, memories, attackers)


def _one_by_one(engine: Engine, app: App, traces: Traces | None) -> Engine:
    """Return the engine; refuses one that carries a whole round where tasks come and go one by one."""
    strategy = app.strategy
    if traces is None and not strategy.schedule.streams and not strategy.gather.hides:
        return engine
    part = strategy.gather if strategy.gather.hides else strategy.schedule
    what = "virtual time" if traces is not None else type(part).__name__
    if engine.name == "auto":
        return Engine("sequential", why=f"{what} takes clients one by one")
    if engine.name != "sequential":
        raise ConfigError(f"{what} takes clients one by one, and {engine.name} whole rounds; take sequential.")
    return engine


def _honest(app: App) -> Callable[[str], Strategy]:
    return lambda name: app.strategy


def _unstacked(engine: Engine, attackers: Attackers | None) -> Engine:
    """Return the engine; with attackers, refuse one that trains clients alike, or that sends parties elsewhere."""
    if attackers is None or engine.name in ("sequential", "pool"):
        return engine
    if engine.name == "auto":
        return Engine("sequential", why="attackers train one by one")
    raise ConfigError(f"attackers train one by one, and {engine.name} does not; take pool or sequential.")


def _identities(app: App, names: Collection[str]) -> Callable[[str], Identity | None]:
    """Return what makes parties' identities: keys of this process, where a gather hides updates; else none."""
    if not app.strategy.gather.hides:
        return lambda name: None
    from .gather.secure.registry import Registry

    secret = app.strategy.gather.fresh() if isinstance(app.strategy.gather, Encrypted) else b""
    return Registry(names, shared=secret).identity


Found = tuple[Parties, Mapping[str, Any], Sequence[str]]  # the parties, their statistics, and who measures


def _few(app: App, members: Roster, made: Callable[..., Trainer], carry: Carry) -> Found:
    """Build and prepare every party: whoever has a row that cannot be used says so before anything has begun."""
    parties = {name: made(name) for name in members.names}
    federation, schema = carry(parties), app.data.source.schema
    found = statistics(lambda body: updates(federation, parties, body), schema)
    ready = [body for body in asked(federation, parties, Prepare(found)) if isinstance(body, Ready)]
    for member in members:
        if not member.examples:
            raise DataError(f"{member.name} has no rows to train on; use fewer clients, or another partition.")
    return parties, found, tuple(name for name, body in zip(parties, ready, strict=True) if body.held_out)


def _many(app: App, members: Roster, made: Callable[..., Trainer], carry: Carry) -> Found:
    """Build parties when they are asked; only statistics of columns, where there are any, ask all of them."""
    if app.data.holdout and app.evaluate_sites is None:
        raise ConfigError(
            f"{len(members):,} sites are too many to measure on after a round; "
            "set evaluate_sites = 1000, say, or data.holdout = 0."
        )
    names, keep = members.names, max(KEPT, app.strategy.cohort(len(members)))
    federation = carry(Lazy(names, made))
    found = statistics(lambda body: updates(federation, names, body), app.data.source.schema)
    return Lazy(names, lambda name: made(name, found), keep), found, names if app.data.holdout else ()


def asked(federation: Federation, names: Iterable[str], body: TaskBody) -> list[ReplyBody]:
    """Return the answers of all these parties; raises `DataError` for the first that failed."""
    bodies = [reply.body for reply in ask_all(federation, names, body)]
    for answer in bodies:
        if isinstance(answer, Fault):
            raise DataError(f"{answer.site}: {answer.message}")
    return bodies


def updates(federation: Federation, names: Iterable[str], body: Measure) -> list[Update]:
    """Return what these parties measured; raises `DataError` for the first that failed."""
    return [answer for answer in asked(federation, names, body) if isinstance(answer, Update)]


def _held(app: App) -> Mapping[str, SiteRows]:
    return holdings(app.data.source.read(), app.data.partition, app.data.holdout, stream(app.seed, "partition"))


def pooled(held: Mapping[str, SiteRows]) -> SiteRows:
    """Return one party that holds everybody's training rows, which only a simulation may do."""
    first, *others = held.values()
    return SiteRows(first.train.join([own.train for own in others]), first.held_out)
