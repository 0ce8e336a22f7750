"""What each institution's board asks: how good is the model on our rows, alone, together, and pooled?"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from .aggregate import Mean
from .app import App
from .core.errors import ConfigError
from .core.layout import Vector
from .core.lazy import Lazy
from .core.needs import Needs
from .core.state import State
from .core.task import Evaluate, Evaluated, ask_all
from .core.weights import Equal
from .core.words import counted
from .data.rows import SiteRows
from .engines import fits
from .gather import Plain
from .local import AtHome
from .report.view import Estimate, SiteRow
from .schedule import Sync
from .select import Everyone
from .simulation import Simulation, pooled, simulate
from .stop import Stop

RESAMPLES = 1000
Tick = Callable[[str], None]


@dataclass(frozen=True)
class Comparison:
    """A row for each site, the figure they compare, and a note on how it was made."""

    figure: str
    rows: tuple[SiteRow, ...]
    note: str


def main_figure(figures: Iterable[str], stop: Stop = Stop()) -> str:
    """Return the figure that a run is about: the one it watches, else the first of those that people look at.

    >>> main_figure({"loss": 1, "auc": 1, "accuracy": 1})
    'auc'
    """
    if stop.watch or stop.target:
        return stop.watched
    known = list(figures)
    return next(name for name in ("auc", "accuracy", "rmse", "loss", *known) if name in known)


def compare(simulation: Simulation, state: State, tick: Tick = lambda _: None) -> Comparison:
    """Train every site alone and all rows pooled, as the federation trained, and measure all on the same held-out rows.

    Both train with the app's model, local work and optimizer, for as many rounds as the federation did; "pooled" holds
    every site's training rows in one place, which only a simulation may do, and keeps no leaves at home.
    """
    if state.metrics is None or not simulation.measured:
        return Comparison("loss", (), "There is no comparison: no site holds rows out.")
    if isinstance(simulation.held, Lazy):
        return Comparison("loss", (), f"There is no comparison: {len(simulation.held):,} sites are too many for one.")
    if state.round == 0:
        return Comparison("loss", (), "There is no comparison: no round has been closed.")
    try:
        fits(simulation.app.needs, simulation.parties)
    except ConfigError as error:
        return Comparison("loss", (), f"There is no comparison: {error}")
    figure = main_figure(state.metrics.view(), simulation.app.stop)
    keeps = isinstance(simulation.app.strategy.local, AtHome)
    together = _measured(simulation, state.vector, figure)
    tick("pooled")
    pot = _pooled(simulation, state.round, figure)
    rows = []
    for name in simulation.measured:
        tick(name)
        single = _set_up(simulation.app, {name: simulation.held[name]}, state.round)
        alone = _measured(single, _last(single), figure)[name]
        shared, personal = (None, together[name]) if keeps else (together[name], None)
        rows.append(SiteRow(name, simulation.held[name].held_out.size, alone, shared, personal, pot[name]))
    note = (
        f"Alone and pooled: the same model, local work and optimizer for {counted(state.round, 'round')}, on one "
        f"site's training rows or on all of them; every figure is on the site's own held-out rows, with 95 % bootstrap "
        f"intervals."
    )
    return Comparison(figure, tuple(rows), note)


def _pooled(simulation: Simulation, rounds: int, figure: str) -> dict[str, Estimate]:
    local = simulation.app.strategy.local
    if not isinstance(local, AtHome):
        return _measured(simulation, trained_on(simulation.app, _one_pot(simulation), rounds), figure)
    plain = replace(simulation.app, strategy=replace(simulation.app.strategy, local=local.local))
    vector = trained_on(plain, _one_pot(simulation), rounds)
    return _measured(_set_up(plain, simulation.held, rounds), vector, figure)


def trained_on(app: App, held: Mapping[str, SiteRows], rounds: int) -> Vector:
    """Return the shared vector after so many rounds of the app with other holdings, everybody taking part."""
    return _last(_set_up(app, held, rounds))


def _one_pot(simulation: Simulation) -> dict[str, SiteRows]:
    return {"pooled": pooled(simulation.held)}


def _set_up(app: App, held: Mapping[str, SiteRows], rounds: int) -> Simulation:
    # one site has nobody to hide among, and what hides gives the bits of the plain sum
    strategy = replace(app.strategy, select=Everyone(), schedule=Sync(), weights=Equal(), gather=Plain())
    if strategy.aggregate.least > len(held):  # one site has nobody to outvote
        strategy = replace(strategy, aggregate=Mean())
    once = replace(app, strategy=strategy, rounds=rounds, stop=Stop(watch=app.stop.watched))
    once = replace(once, evaluate_every=rounds, evaluate_sites=None, needs=Needs())
    return simulate(once, held=held)


def _last(simulation: Simulation) -> Vector:
    *_, state = simulation.rounds(simulation.first())
    return state.vector


def _measured(simulation: Simulation, vector: Vector, figure: str) -> dict[str, Estimate]:
    replies = ask_all(simulation.federation, simulation.measured, Evaluate(vector, figure, RESAMPLES))
    found = {reply.parties[0]: reply.body for reply in replies}
    estimates = {name: body.estimate for name, body in found.items() if isinstance(body, Evaluated)}
    unknown = (float("nan"),) * 3
    return {name: Estimate(*(estimates.get(name) or unknown)) for name in simulation.measured}
