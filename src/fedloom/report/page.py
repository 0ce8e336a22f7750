"""The report of a run: one HTML file that needs nothing else, for the people who decide about it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from fedloom.core.errors import MissingExtra

from ..core.metrics import LOWER_IS_BETTER
from . import exposed, holdings, pictures
from .gains import best, change, gained, said, used_columns
from .history import curve, faults, traffic
from .view import Estimate, RunView, SiteRow
from .words import BAD, GOOD, NOTHING, bounds, called, duration, headline, megabytes, number, outcome

__all__ = ["gained", "render"]

_ARROWS = {1: "▲", 0: "=", -1: "▼"}
_SURE = {True: "beyond the intervals", False: "within the intervals", None: "intervals unknown"}


@dataclass(frozen=True)
class Cell:
    """A figure in the table: its value, its interval, and whether it is the best that this site can have."""

    value: str
    bounds: str
    best: bool


@dataclass(frozen=True)
class Line:
    """A site in the table: a cell per column, and what federating changed."""

    site: str
    examples: int
    cells: tuple[Cell, ...]
    change: str
    sure: str
    verdict: str


@dataclass(frozen=True)
class Picture:
    """A picture with its heading and what it says to those who cannot see it."""

    heading: str
    says: str
    svg: Any


def render(view: RunView) -> str:
    """Return the page; equal views give equal text.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise MissingExtra(
            "A report is filled in with jinja2. It is not installed: pip install 'fedloom[report]'"
        ) from error
    source = resources.files("fedloom.report").joinpath("template.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source).render(_content(view)) + "\n"


def _content(view: RunView) -> Mapping[str, Any]:
    """Return everything the template shows, as text."""
    columns = used_columns(view.comparison)
    return {
        "view": view,
        "title": outcome(view),
        "badge": _badge(view.status),
        "tiles": _tiles(view),
        "figure": called(view.figure),
        "lower": view.figure in LOWER_IS_BETTER,
        "gained": gained(view.comparison, view.figure) if view.comparison else "",
        "columns": columns,
        "lines": [_line(row, view.figure, columns) for row in view.comparison],
        "pictures": _pictures(view),
        "labels": holdings.labels(view.held),
        "traffic": _traffic(view),
        "faults": faults(view.rounds),
        "commands": _commands(view.run),
        "exposed": None if view.exposure is None else exposed.section(view.exposure),
        "model_digest": view.settings.get("model digest", ""),
    }


def _line(row: SiteRow, figure: str, columns: Sequence[str]) -> Line:
    winners, made = best(row, figure), change(row, figure)
    cells = tuple(_cell(getattr(row, name), figure, name in winners) for name in columns)
    if made is None:
        return Line(row.site, row.examples, cells, NOTHING, "", "unknown")
    told = f"{_ARROWS[made.direction]} {said(made)}"
    verdict = {1: "gain", 0: "same", -1: "loss"}[made.direction]
    return Line(row.site, row.examples, cells, told, _SURE[made.clear], verdict)


def _cell(estimate: Estimate | None, figure: str, wins: bool) -> Cell:
    return Cell(number(estimate.value if estimate else None, figure), bounds(estimate, figure), wins)


def _badge(status: str) -> Mapping[str, str]:
    if status in GOOD:
        return {"kind": "good", "sign": "✓"}
    return {"kind": "bad", "sign": "✗"} if status in BAD else {"kind": "open", "sign": "●"}


def _tiles(view: RunView) -> list[tuple[str, str]]:
    """Return the figures at the top: what they are, and their value."""
    measured, wire = curve(view.rounds, "metrics", view.figure), traffic(view.rounds)
    moved = None if wire.down is None and wire.up is None else (wire.down or 0) + (wire.up or 0)
    rows = sum(site.train + site.held_out for site in view.held)
    return [
        (f"federated {called(view.figure)}", headline(measured.values[-1] if measured else None, view.figure)),
        ("sites", f"{len(view.held):,}" if view.held else NOTHING),
        ("rows held by the sites", f"{rows:,}" if rows else NOTHING),
        ("rounds", f"{wire.rounds:,}"),
        ("sent back and forth", megabytes(moved)),
        ("time", duration(wire.seconds)),
    ]


def _pictures(view: RunView) -> list[Picture]:
    from markupsafe import Markup

    name = called(view.figure)
    drawn = [
        (*_compared(len(view.comparison), name),
         pictures.intervals(view.comparison, view.figure)),
        ("Who holds what", "Rows by site and label; the numbers are in the table below", holdings.held(view.held)),
        ("How the model learned", f"{name} and loss by round, over all sites' held-out rows",
         pictures.learning(view.rounds, view.figure)),
        (f"{name} at each site", f"{name} by round at each site, on its own held-out rows",
         pictures.sites(view.rounds, view.figure)),
    ]  # fmt: skip
    return [Picture(heading, says, Markup(text)) for heading, says, text in drawn if text]


def _compared(sites: int, name: str) -> tuple[str, str]:
    """Return the heading of the comparison's picture and what it says."""
    if sites > pictures.DOTS:
        return "What federating changed", f"federated minus alone in {name}, sites in order; numbers in the table above"
    return "How sure the figures are", f"{name} by site with 95 % intervals; the numbers are in the table above"


def _traffic(view: RunView) -> list[tuple[str, str, str]]:
    """Return name, total and mean per round of what went over the wire and of time."""
    wire = traffic(view.rounds)
    each = max(1, wire.rounds)
    return [
        ("to the sites", megabytes(wire.down), megabytes(None if wire.down is None else wire.down / each)),
        ("from the sites", megabytes(wire.up), megabytes(None if wire.up is None else wire.up / each)),
        ("time", duration(wire.seconds), duration(None if wire.seconds is None else wire.seconds / each)),
    ]


def _commands(run: str) -> list[tuple[str, str]]:
    """Return what to type, and what it does."""
    name = shlex.quote(run)
    return [
        (f"fedloom show {name}", "every round, every site, every fault"),
        (f"fedloom resume {name}", "continue where it stopped; a finished run stays as it is"),
        (f"fedloom predict {name} --data FILE", "apply the model to new rows"),
    ]
