"""Tables and pictures of a run, from plain values."""

from ..data.holds import Held
from .bootstrap import interval
from .page import gained, render
from .tables import comparison_table, fault_lines, held_table, rounds_table, runs_table
from .view import Estimate, RunView, SiteRow

__all__ = [
    "Estimate",
    "Held",
    "RunView",
    "SiteRow",
    "comparison_table",
    "fault_lines",
    "gained",
    "held_table",
    "interval",
    "render",
    "rounds_table",
    "runs_table",
]
