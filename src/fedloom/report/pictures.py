"""The pictures of a run; each is an inline SVG, or empty text where there is nothing to draw."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .canvas import ALONE, FEDERATED, INK, MUTED, PAPER, PERSONAL, POOLED, blank, panel, short, style, svg
from .history import Curve, Rounds, curve, finite, site_curves
from .view import Estimate, SiteRow
from .words import called

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MULTIPLES = 12  # more sites than this share one shaded band
DOTS = 40  # more sites than this are ranked by what they gained
_KINDS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("alone", ALONE, {"marker": "o", "markerfacecolor": PAPER}),
    ("federated", FEDERATED, {"marker": "D"}),
    ("personal", PERSONAL, {"marker": "^"}),
    ("pooled", POOLED, {"marker": "s", "markerfacecolor": PAPER}),
)


def learning(rounds: Rounds, figure: str) -> str:
    """Return the loss and the main figure over the rounds, over all sites' held-out examples."""
    shown = {name: curve(rounds, "metrics", name) for name in dict.fromkeys((figure, "loss"))}
    training = curve(rounds, "training", "loss")
    panels = [name for name, line in shown.items() if line or (name == "loss" and training)]
    if not panels:
        return ""
    with style():
        drawn = blank(0.5 + 1.35 * len(panels))
        grid = drawn.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, name in zip(grid, panels, strict=True):
            panel(axes, title=called(name))
            _line(axes, shown[name], FEDERATED, "held-out")
            if name == "loss" and training:
                _line(axes, training, MUTED, "training", linestyle=(0, (3, 2)))
                axes.legend(loc="upper right", ncols=2, handlelength=2.2)
        _rounds_axis(grid[-1])
        return svg(drawn, "learning")


def sites(rounds: Rounds, figure: str) -> str:
    """Return each site's figure over the rounds: a small panel each, or one shaded band for more than 12 sites."""
    curves = site_curves(rounds, figure)
    if not curves:
        return ""
    with style():
        drawn = blank(_panels_height(len(curves)) if len(curves) <= MULTIPLES else 3.2)
        if len(curves) <= MULTIPLES:
            _multiples(drawn, curves)
        else:
            _band(panel(drawn.subplots(), title=f"{called(figure)} of {len(curves)} sites"), curves)
        return svg(drawn, "sites")


def intervals(rows: Sequence[SiteRow], figure: str) -> str:
    """Return each site's estimates as dots with whiskers; for more than 40 sites, what each gained, in order."""
    kept = [row for row in rows if any(_known(getattr(row, kind)) for kind, _, _ in _KINDS)]
    if not kept:
        return ""
    with style():
        if len(kept) > DOTS:
            return _ranked(kept, figure)
        kinds = [kind for kind in _KINDS if any(_known(getattr(row, kind[0])) for row in kept)]
        drawn = blank(0.9 + len(kept) * (0.14 + 0.13 * len(kinds)))
        axes = panel(drawn.subplots(), grid="x")
        for place, (kind, colour, look) in enumerate(kinds):
            shift = (place - (len(kinds) - 1) / 2) * 0.72 / len(kinds)
            _whiskers(axes, [getattr(row, kind) for row in kept], shift, kind, colour, look)
        _names(axes, [row.site for row in kept])
        axes.set_xlabel(called(figure))
        drawn.legend(loc="outside upper left", ncols=len(kinds), handlelength=1.4, columnspacing=1.4)
        return svg(drawn, "intervals")


def _whiskers(
    axes: "Axes", found: Sequence[Estimate | None], shift: float, kind: str, colour: str, look: Mapping[str, Any]
) -> None:
    known = [(place + shift, e) for place, e in enumerate(found) if e is not None and finite(e.value)]
    for place, estimate in known:
        if finite(estimate.low) and finite(estimate.high):
            axes.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=1.4)
    points, places = [estimate.value for _, estimate in known], [place for place, _ in known]
    axes.plot(points, places, color=colour, linestyle="none", markersize=5, markeredgewidth=1.4, label=kind, **look)


def _ranked(rows: Sequence[SiteRow], figure: str) -> str:
    """Return federated minus alone as bars from the site that gained least to the one that gained most."""
    pairs = [(row.alone, row.federated) for row in rows]
    found = [b.value - a.value for a, b in pairs if a is not None and b is not None]
    known = np.sort(np.array([value for value in found if finite(value)]))
    if not len(known):
        return ""
    drawn = blank(2.9)
    axes = panel(drawn.subplots(), title=f"{called(figure)}: federated minus alone, {len(known)} sites in order")
    places = np.arange(1, len(known) + 1)
    axes.fill_between(places, known, step="mid", color=FEDERATED, alpha=0.35, linewidth=0)
    axes.step(places, known, where="mid", color=FEDERATED)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xlabel("sites, in order of the difference")
    return svg(drawn, "intervals")


def _multiples(drawn: Any, curves: Mapping[str, Curve]) -> None:
    columns = 1 if len(curves) == 1 else 2 if len(curves) <= 4 else 3
    lines = -(-len(curves) // columns)
    grid = drawn.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for place, (site, line) in enumerate(curves.items()):
        axes = panel(grid[place], title=short(site, 52 // columns))
        for other in curves.values():
            axes.plot(other.rounds, other.values, color=MUTED, linewidth=0.7, alpha=0.35)
        _line(axes, line, FEDERATED, site)
    for axes in grid[len(curves) :]:
        axes.set_visible(False)
    for axes in grid[max(0, len(curves) - columns) : len(curves)]:
        _rounds_axis(axes)
        axes.tick_params(labelbottom=True)


def _band(axes: "Axes", curves: Mapping[str, Curve]) -> None:
    """Shade what 80 % and 50 % of the sites reach in each round, around the median."""
    rounds = sorted({number for line in curves.values() for number in line.rounds})
    place = {number: column for column, number in enumerate(rounds)}
    table = np.full((len(curves), len(rounds)), np.nan)
    for row, line in enumerate(curves.values()):
        table[row, [place[number] for number in line.rounds]] = line.values
    low, lower, middle, upper, high = np.nanquantile(table, (0.1, 0.25, 0.5, 0.75, 0.9), axis=0)
    axes.fill_between(rounds, low, high, color=FEDERATED, alpha=0.15, linewidth=0, label="80 % of sites")
    axes.fill_between(rounds, lower, upper, color=FEDERATED, alpha=0.3, linewidth=0, label="50 % of sites")
    _line(axes, Curve(tuple(rounds), tuple(middle)), FEDERATED, "median site")
    axes.plot(rounds, np.nanmin(table, axis=0), color=MUTED, linewidth=1, linestyle=(0, (2, 2)), label="worst and best")
    axes.plot(rounds, np.nanmax(table, axis=0), color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
    axes.legend(loc="lower right", ncols=2)
    _rounds_axis(axes)


def _line(axes: "Axes", line: Curve, colour: str, label: str, linestyle: Any = "-") -> None:
    """Draw a curve; a few points get marks, so that a single one can be seen."""
    marker = "o" if len(line.rounds) <= 2 else ""
    axes.plot(line.rounds, line.values, color=colour, label=label, linestyle=linestyle, marker=marker, markersize=4)


def _rounds_axis(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("round")


def _names(axes: "Axes", names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [short(name) for name in names], color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _panels_height(count: int) -> float:
    return 2.4 if count <= 2 else 3.2 if count <= 6 else 4.4


def _known(estimate: Estimate | None) -> bool:
    return estimate is not None and finite(estimate.value)
