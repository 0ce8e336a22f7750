"""A matplotlib figure becomes an inline SVG that follows the page: its colours, its font, its width.

The figures are drawn in marker colours, which are replaced by CSS variables of the page; so one picture serves light,
dark and printed pages. Text stays text. Nothing in it depends on the time, on a random id or on somebody's settings.
"""

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from fedloom.core.errors import MissingExtra

from .words import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
FEDERATED, ALONE, POOLED, PERSONAL = "#0a0b05", "#0a0b06", "#0a0b07", "#0a0b08"
_VARIABLES = {
    INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--line)", PAPER: "var(--paper)",
    FEDERATED: "var(--federated)", ALONE: "var(--alone)", POOLED: "var(--pooled)", PERSONAL: "var(--personal)",
}  # fmt: skip

WIDTH = 5.4  # inches of 72 units; a picture is half the page wide
_STYLE: Any = {
    "text.parse_math": False, "figure.constrained_layout.h_pad": 0.06,
    "svg.fonttype": "none", "svg.hashsalt": "fedloom", "svg.image_inline": True, "font.size": 9.0,
    "axes.edgecolor": GRID, "axes.labelcolor": MUTED, "axes.titlecolor": INK, "text.color": INK,
    "xtick.color": GRID, "ytick.color": GRID, "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED,
    "axes.titlesize": 9.0, "axes.labelsize": 8.5, "xtick.labelsize": 8.0, "ytick.labelsize": 8.0,
    "legend.fontsize": 8.5, "legend.frameon": False, "axes.titlelocation": "left", "axes.unicode_minus": True,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "grid.color": GRID,
    "grid.linewidth": 0.6, "lines.linewidth": 1.6, "xtick.major.size": 0.0, "ytick.major.size": 0.0,
}  # fmt: skip
_lock = threading.Lock()  # matplotlib keeps its settings in one global place


@contextmanager
def style() -> Iterator[None]:
    """Draw inside this: matplotlib's defaults and the report's style, the caller's settings put back at the end.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtra(
            "A report draws with matplotlib. It is not installed: pip install 'fedloom[report]'"
        ) from error
    with _lock, matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a glyph that only the browser has; a figure with little room
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def blank(height: float) -> "Figure":
    """Return an empty figure, `height` inches high; to be called inside `style`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained", facecolor="none")


def panel(axes: "Axes", *, title: str = "", grid: Literal["x", "y", "both"] = "y") -> "Axes":
    """Give axes their title and grid, and return them."""
    axes.set_facecolor("none")
    axes.grid(True, axis=grid)
    if title:
        axes.set_title(title)
    return axes


def short(name: str, length: int = 22) -> str:
    """Return a name that fits beside an axis.

    >>> short("University Hospital of Somewhere Far Away")
    'University Hospital o…'
    """
    text = plain(name)
    return text if len(text) <= length else text[: length - 1] + "…"


def svg(figure: "Figure", name: str) -> str:
    """Return the figure as an `<svg>` element; `name` keeps its ids apart from those of other pictures on the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'^<svg([^>]*?) width="[^"]*" height="[^"]*"', r"<svg\1", text)
    text = re.sub(r' id="', f' id="{name}-', text)
    text = re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    text = re.sub(r"#0a0b\d\d", lambda found: _VARIABLES.get(found[0], found[0]), text)
    text = text.replace("<svg", '<svg aria-hidden="true"', 1)
    return re.sub(r"\s*\n\s*", "\n", text).strip()
