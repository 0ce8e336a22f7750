"""Privacy against utility: the same app at several budgets, each with the noise that keeps all its rounds within it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from .app import App
from .compare import main_figure
from .core.errors import ConfigError
from .core.strategy import Strategy
from .core.task import Member
from .privacy import examples, gate
from .privacy.calibrate import noise_multiplier
from .report.curve import Curve, Point
from .simulation import simulate
from .stages import AdaptiveNoise, GaussianNoise
from .stop import Stop

NONE = 1e-9  # a noise multiplier that changes nothing: at ε = ∞ clip and lots stay, and noise alone goes
Tick = Callable[[str], None]


def curve(
    app: App, budgets: Sequence[float], *, seeds: int = 1, engine: str = "sequential", tick: Tick = lambda _: None
) -> Curve:
    """Train an app once for each budget and seed, and return its main figure after the last round.

    Every point is a run of its own, on the same rows: whoever publishes several has spent their sum. So a curve is for
    rows that need no protection, or to be kept.

    Args:
        app: that claims differential privacy, of clients or of examples; its own noise does not matter.
        budgets: epsilons, above 0; infinity is the same without noise.
        seeds: how many, from the app's on.
        engine: as `fedloom.run` takes it.
        tick: is told what is being trained.

    Raises `ConfigError` for an app that claims nothing, or whose noise cannot be found.
    """
    if not budgets or not all(budget > 0 for budget in budgets) or seeds < 1:
        raise ConfigError(f"a curve needs epsilons above 0, and a seed or more; got {list(budgets)}, {seeds} seeds.")
    unit, delta = _claim(app.strategy)
    watched = replace(
        app, stop=Stop(watch=app.stop.watch or next(iter(app.stop.target), None)), evaluate_every=app.rounds
    )
    points: list[Point] = []
    known: dict[tuple[int, ...], float] = {}
    figure = measured_on = ""
    for budget in sorted(set(budgets)):
        found, spent, noise = [], 0.0, 0.0
        known.clear()
        for seed in range(app.seed, app.seed + seeds):
            tick(f"ε = {budget:g}, seed {seed}")
            made, noise = noised(replace(watched, seed=seed), budget, known)
            *_, last = made.run(engine=engine)
            assert last.metrics is not None, "the last round is evaluated"
            seen = last.metrics.view()
            figure, measured_on = main_figure(seen, watched.stop), "test" if last.central else "sites"
            found.append(seen[figure])
            spent = max(spent, last.epsilon)
        points.append(Point(budget=budget, noise_multiplier=noise, epsilon=spent, values=tuple(found)))
    return Curve(
        app=app.name,
        figure=figure,
        measured_on=measured_on,
        unit=unit,
        delta=delta,
        rounds=app.rounds,
        seeds=tuple(range(app.seed, app.seed + seeds)),
        points=tuple(points),
    )


def noised(app: App, budget: float, known: dict[tuple[int, ...], float] | None = None) -> tuple[App, float]:
    """Return the app with the noise that keeps all its rounds within a budget, and the noise multiplier.

    `known` keeps what was found, by how many examples each member has.
    """
    strategy = app.strategy
    if math.isinf(budget):
        return replace(app, strategy=_with(strategy, NONE, seeded=True)), 0.0
    members = simulate(app).federation.members()
    sizes, known = tuple(sorted(member.examples for member in members)), {} if known is None else known
    if sizes not in known:
        known[sizes] = _found(strategy, budget, app.rounds, members)
    noise = known[sizes]
    return replace(app, strategy=_with(strategy, noise, seeded=False)), noise


def _claim(strategy: Strategy) -> tuple[str, float]:
    """Return unit and delta of what is claimed."""
    if strategy.examples.private:
        return "example", float(strategy.examples.inner[0].values["delta"])
    if strategy.private and isinstance(strategy.stages[-1], GaussianNoise | AdaptiveNoise):
        return "client", float(strategy.stages[-1].delta)
    raise ConfigError(
        "a curve is of an app with Gaussian noise whose budget is told, and this one has none; take dp_fedavg or "
        "dp_sgd_fedavg."
    )


def _found(strategy: Strategy, budget: float, rounds: int, members: Sequence[Member]) -> float:
    if strategy.examples.private:
        return examples.calibrated(strategy.examples, budget, rounds, members)
    gate.meets(strategy, len(members), None)
    return noise_multiplier(budget, _claim(strategy)[1], rounds, sampled=strategy.select.event)


def _with(strategy: Strategy, noise: float, *, seeded: bool) -> Strategy:
    local: Any = strategy.local
    if strategy.examples.private:
        return replace(strategy, local=replace(local, noise_multiplier=noise, seeded=seeded))
    *before, last = strategy.stages
    mechanism: Any = last
    return replace(strategy, stages=(*before, replace(mechanism, noise_multiplier=noise, seeded=seeded)))
