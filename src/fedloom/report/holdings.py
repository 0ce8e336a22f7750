"""The picture of who holds what: bars by label for a few sites, a map or a histogram for many."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..data.holds import Held
from .canvas import FEDERATED, INK, MUTED, PAPER, blank, panel, short, style, svg

BARS, CLASSES = 60, 12  # most sites that get a bar each, and most labels that get a colour each
_STOPS = np.array([(38, 70, 118), (42, 140, 142), (158, 200, 120), (248, 220, 140)])  # dark to light, also in grey


def held(held: Sequence[Held]) -> str:
    """Return who holds how many rows of what, or empty text where nobody holds any."""
    sites = [site for site in held if site.train or site.held_out]
    names = labels(sites)
    if not sites:
        return ""
    with style():
        if len(sites) <= BARS and len(names) <= CLASSES:
            return _bars(sites, names)
        return _map(sites, names) if names else _sizes(sites)


def labels(held: Iterable[Held]) -> list[str]:
    """Return every label that somebody holds, in order of number where all are numbers, else of name.

    >>> labels([Held("a", 3, 0, {"10": 1, "9": 2}), Held("b", 1, 0, {"2": 1})])
    ['2', '9', '10']
    """
    names = {label for site in held for label in site.labels}
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def colours(count: int) -> list[str]:
    """Return that many colours from dark to light, told apart in black and white while they are few.

    >>> colours(2)
    ['#264676', '#f8dc8c']
    """
    places = np.linspace(0, len(_STOPS) - 1, count) if count != 1 else np.array([1.0])
    parts = [np.interp(places, range(len(_STOPS)), _STOPS[:, part]).round().astype(int) for part in range(3)]
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in zip(*parts, strict=True)]


def shares(held: Sequence[Held], names: Sequence[str]) -> NDArray[np.float64]:
    """Return each label's share of each site's rows, shape (sites, labels); rows of zeros where none are labelled.

    >>> shares([Held("a", 4, 0, {"no": 3, "yes": 1})], ["no", "yes"])
    array([[0.75, 0.25]])
    """
    counts = np.array([[site.labels.get(name, 0) for name in names] for site in held], np.float64)
    sums = counts.sum(axis=1, keepdims=True)
    found: NDArray[np.float64] = np.divide(counts, sums, out=np.zeros_like(counts), where=sums > 0)
    return found


def _bars(sites: Sequence[Held], names: Sequence[str]) -> str:
    head = 0.8 + 0.18 * ((len(names) + 6) // 5)
    drawn = blank(head + (0.3 if len(sites) <= 8 else 0.19) * len(sites))
    axes = panel(drawn.subplots(), grid="x")
    places, left = np.arange(len(sites)), np.zeros(len(sites))
    for name, colour in zip(names, colours(len(names)), strict=True):
        counts = np.array([site.labels.get(name, 0) for site in sites], np.float64)
        axes.barh(places, counts, 0.68, left, color=colour, edgecolor=PAPER, linewidth=0.6, label=short(name, 16))
        left += counts
    rest = np.maximum([site.train for site in sites] - left, 0)
    if rest.any():
        label = "training, label not told" if names else "training"
        axes.barh(places, rest, 0.68, left, color=FEDERATED, edgecolor=PAPER, linewidth=0.6, label=label)
    kept = [site.held_out for site in sites]
    axes.barh(places, kept, 0.68, left + rest, color="none", edgecolor=MUTED, linewidth=0.8, label="held out")
    axes.set_yticks(places, [short(site.site) for site in sites], color=INK)
    axes.set_ylim(len(sites) - 0.4, -0.6)
    axes.set_xlabel("rows")
    drawn.legend(loc="outside upper left", ncols=min(5, max(3, len(names) + 1)), handlelength=1.0, columnspacing=1.2)
    return svg(drawn, "held")


def _map(sites: Sequence[Held], names: Sequence[str]) -> str:
    """Return label shares as a map: a line per site, in order of what it holds most of, darker for more."""
    table = shares(sites, names)
    order = np.lexsort((-table.max(axis=1), table.argmax(axis=1)))
    pixels = np.zeros((*table.shape, 4))
    pixels[..., :3] = np.array((42, 110, 142)) / 255
    pixels[..., 3] = table[order]
    drawn = blank(3.4)
    axes = panel(drawn.subplots(), title="share of each label in a site's training rows")
    axes.grid(False)
    axes.imshow(pixels, aspect="auto", interpolation="none")
    few = len(names) <= 24
    axes.set_xticks(range(len(names)) if few else [], [short(name, 8) for name in names] if few else [])
    axes.set_xlabel("label" if few else f"{len(names)} labels")
    axes.set_ylabel(f"{len(sites)} sites")
    axes.set_yticks([])
    return svg(drawn, "held")


def _sizes(sites: Sequence[Held]) -> str:
    drawn = blank(2.6)
    axes = panel(drawn.subplots(), title=f"training rows of {len(sites)} sites")
    axes.hist([site.train for site in sites], bins=24, color=FEDERATED, edgecolor=PAPER)
    axes.set_xlabel("training rows")
    axes.set_ylabel("sites")
    return svg(drawn, "held")
