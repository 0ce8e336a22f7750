"""Membership inference on an app: shadow models, trained as the app trains, tell what it would say of rows unseen."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .app import App
from .core.errors import ConfigError
from .core.examples import Examples
from .core.layout import Vector
from .core.needs import Needs
from .core.rng import Streams, stream
from .data.rows import Rows, SiteRows
from .privacy.membership import Roc, Scores, confidence, halves, judged, offline_lira
from .simulation import Simulation, simulate

SHADOWS, MOST = 16, 2000  # models; rows of each kind that are judged
Tick = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Inferred:
    """How well members can be told from others.

    Args:
        lira: with shadow models; loss: by the attacked model's loss alone, which costs nothing.
        shadows: how many models.
    """

    lira: Roc
    loss: Roc
    shadows: int

    def figures(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {"lira": self.lira.figures(), "loss": self.loss.figures(), "shadows": self.shadows}


def infer(
    simulation: Simulation, vector: Vector, *, shadows: int = SHADOWS, seed: int = 0, tick: Tick = lambda said: None
) -> Inferred:
    """Ask of rows that an app was trained on, and of its test part (or held-out rows), which are which.

    Carlini et al., IEEE S&P 2022 (arXiv 2112.03570), offline LiRA. Each shadow model is trained by the whole app, on a
    random half of every client's rows.

    Args:
        simulation: of the app that was trained, whose rows are here.
        vector: the shared model, as the run's last state has it.
        shadows: how many models, at least 2.
        seed: of the halves, and of the rows that are judged.
        tick: is told what is being trained.
    """
    if shadows < 2:
        raise ConfigError(f"an attack with shadow models needs 2 or more, got {shadows}.")
    streams = stream(seed, "membership")
    rows = {name: own.train for name, own in simulation.held.items()}
    chosen, members = _sample(simulation, rows, streams)
    kept = halves(sum(one.size for one in rows.values()), shadows, streams("halves"))
    seen = _asked(simulation, vector, chosen, members)
    without = np.concatenate([~kept[:, chosen], np.ones((shadows, len(seen) - len(chosen)), bool)], axis=1)
    phis = []
    for number, half in enumerate(kept):
        tick(f"shadow model {number + 1} of {shadows}")
        phis.append(_asked(simulation, _trained(simulation, rows, half, number), chosen, members))
    lira = judged(offline_lira(seen, np.array(phis), without), len(chosen))
    return Inferred(lira=lira, loss=judged(seen, len(chosen)), shadows=shadows)


def _sample(simulation: Simulation, rows: Mapping[str, Rows], streams: Streams) -> tuple[NDArray[np.int64], Examples]:
    """Return which training rows are judged, end to end, and the examples: those rows', then the others'."""
    first, *more = rows.values()
    pot = first.join(list(more))
    others = simulation.test or _held_out(simulation)
    chosen = np.sort(streams("members").permutation(pot.size)[:MOST])
    inside = pot.take(chosen).examples(simulation.statistics)
    outside = others.take(np.sort(streams("others").permutation(others.size)[:MOST]))
    inputs = np.concatenate([inside.inputs, outside.inputs])
    return chosen, Examples(inputs, np.concatenate([inside.targets, outside.targets]))


def _held_out(simulation: Simulation) -> Examples:
    first, *more = [own.held_out for own in simulation.held.values() if own.held_out.size]
    return first.join(list(more)).examples(simulation.statistics)


def _asked(simulation: Simulation, vector: Vector, chosen: NDArray[np.int64], rows: Examples) -> Scores:
    model = simulation.model
    return confidence(model.predict(model.load(simulation.shared(vector)), rows.inputs), rows.targets)


def _trained(simulation: Simulation, rows: Mapping[str, Rows], half: NDArray[np.bool_], number: int) -> Vector:
    """Return the model of the app on those rows; each client measures one of the others, which nobody looks at."""
    held, at = {}, 0
    for name, own in rows.items():
        mine = half[at : at + own.size]
        at += own.size
        inside, outside = np.flatnonzero(mine), np.flatnonzero(~mine)
        if len(inside):
            held[name] = SiteRows(own.take(inside), own.take(outside[:1]))
    app: App = simulation.app
    shadow = replace(app, seed=app.seed + 1 + number, evaluate_every=app.rounds, needs=Needs())
    made = simulate(shadow, held=held)
    try:
        *_, last = made.rounds(made.first())
    finally:
        made.close()
    return np.asarray(last.vector)
