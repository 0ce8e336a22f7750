"""A privacy-utility curve: its points, and their picture as a PNG file."""

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from .canvas import style
from .words import called

LINE, FAINT, TEXT = "#0b6e99", "#d8dde0", "#33393d"


@dataclass(frozen=True, kw_only=True)
class Point:
    """What one budget gave.

    Args:
        budget: epsilon that all rounds keep to; infinity is no noise.
        noise_multiplier: that was found for it, the same with every seed; of none, 0.
        epsilon: that was spent, the largest of all seeds.
        values: the figure after the last round, by seed.
    """

    budget: float
    noise_multiplier: float
    epsilon: float
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median over the seeds."""
        return median(self.values)

    def figures(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        spent = {
            "budget": _said(self.budget),
            "noise_multiplier": self.noise_multiplier,
            "epsilon": _said(self.epsilon),
        }
        return spent | {"median": self.median, "values": list(self.values)}


@dataclass(frozen=True, kw_only=True)
class Curve:
    """An app's figure by budget, from the smallest to the largest; what is told apart, and at which delta."""

    app: str
    figure: str
    measured_on: str
    unit: str
    delta: float
    rounds: int
    seeds: tuple[int, ...]
    points: tuple[Point, ...]

    def figures(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        said = {name: getattr(self, name) for name in ("app", "figure", "measured_on", "unit", "delta", "rounds")}
        return said | {"seeds": list(self.seeds), "points": [point.figures() for point in self.points]}


def _said(epsilon: float) -> float | str:
    return "infinity" if math.isinf(epsilon) else round(epsilon, 6)


def drawn(found: Curve, path: Path) -> None:
    """Draw the medians over epsilon with the span of the seeds, ε = ∞ as a dashed line, and write that to `path`."""
    with style():
        import matplotlib
        from matplotlib.figure import Figure

        faint = ("axes.edgecolor", "grid.color", "xtick.color", "ytick.color")
        texts = ("axes.labelcolor", "axes.titlecolor", "text.color", "xtick.labelcolor", "ytick.labelcolor")
        look: Any = dict.fromkeys(faint, FAINT) | dict.fromkeys(texts, TEXT)
        matplotlib.rcParams.update(look)
        figure = Figure(figsize=(5.4, 3.2), layout="constrained", facecolor="white")
        axes = figure.subplots()
        axes.grid(True)
        finite = [point for point in found.points if math.isfinite(point.budget)]
        for point in found.points:
            if not math.isfinite(point.budget):
                axes.axhline(point.median, color=TEXT, linestyle=(0, (4, 3)), linewidth=1, label="ε = ∞")
        at = [point.epsilon for point in finite]
        axes.plot(at, [point.median for point in finite], color=LINE, marker="o", label="median of seeds")
        low, high = [min(point.values) for point in finite], [max(point.values) for point in finite]
        axes.fill_between(at, low, high, color=LINE, alpha=0.15, linewidth=0, label="least to most")
        axes.set_xscale("log", base=2)
        axes.set_xticks([point.budget for point in finite], [f"{point.budget:g}" for point in finite])
        axes.minorticks_off()
        axes.set_xlabel(f"ε of one {found.unit}, at δ = {found.delta:g}, after {found.rounds} rounds")
        axes.set_title(f"{found.app}: {called(found.figure)}")
        axes.legend(loc="lower right")
        figure.savefig(path, dpi=160)
