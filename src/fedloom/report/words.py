"""Numbers and names as people read them; the same words on the page and in the terminal."""

import math

from ..core.words import counted
from .history import curve, finite, traffic
from .view import Estimate, RunView

NOTHING = "–"
GOOD = frozenset({"completed", "target_reached", "converged"})
BAD = frozenset({"failed"})
_SHARES = frozenset({"auc", "accuracy", "average_precision", "f1", "precision", "recall", "r2", "sensitivity"})
_UPPER = frozenset({"auc", "mae", "rmse", "f1"})


def called(figure: str) -> str:
    """Return a figure's name as people write it.

    >>> called("auc"), called("average_precision")
    ('AUC', 'average precision')
    """
    return figure.upper() if figure in _UPPER else figure.replace("_", " ").replace("r2", "R²")


def number(value: float | None, figure: str) -> str:
    """Return a figure's value: two decimals for shares, three digits otherwise.

    >>> number(0.8512, "auc"), number(0.01234, "loss"), number(12345.6, "rmse"), number(None, "auc")
    ('0.85', '0.0123', '12,346', '–')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    if figure in _SHARES:
        text = f"{value:.2f}"
    elif abs(value) >= 100:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{_decimals(value)}f}"
    return _signed(text)


def headline(value: float | None, figure: str) -> str:
    """Return a figure's value for a headline: of a share near 1 a digit more, where a hundredth says little.

    >>> headline(0.8512, "auc"), headline(0.9874, "accuracy"), headline(1.0, "auc")
    ('0.85', '0.987', '1.00')
    """
    near = figure in _SHARES and value is not None and 0.95 < value < 1
    return _signed(f"{value:.3f}") if near else number(value, figure)


def difference(value: float, figure: str) -> str:
    """Return a signed difference, two decimals for shares and two digits otherwise.

    >>> difference(0.041, "auc"), difference(-0.0412, "loss"), difference(-0.001, "auc")
    ('+0.04', '−0.041', '0.00')
    """
    if not math.isfinite(value):
        return NOTHING
    text = f"{value:+.2f}" if figure in _SHARES else f"{value:+,.{max(0, _decimals(value) - 1)}f}"
    return _signed(text) if float(text.replace(",", "")) else text[1:]


def bounds(estimate: Estimate | None, figure: str) -> str:
    """Return the interval, or nothing where it is not known.

    >>> bounds(Estimate(0.85, 0.81, 0.894), "auc")
    '0.81 to 0.89'
    """
    if estimate is None or not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return ""
    return f"{number(estimate.low, figure)} to {number(estimate.high, figure)}"


def megabytes(size: float | None) -> str:
    """Return a size in bytes as people read it.

    >>> megabytes(812), megabytes(45_300), megabytes(3_400_000), megabytes(None)
    ('812 B', '45.3 kB', '3.4 MB', '–')
    """
    if size is None or not math.isfinite(size):
        return NOTHING
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:,.1f} {unit}"
    return f"{size:.0f} B"


def duration(seconds: float | None) -> str:
    """Return a time as people read it.

    >>> duration(0.0123), duration(75), duration(7330), duration(None)
    ('0.01 s', '1 min 15 s', '2 h 2 min', '–')
    """
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def plain(name: str) -> str:
    r"""Return a name on one line without control characters, so that it cannot steer a terminal or break a picture.

    >>> plain("a\tb\x1b[31m")
    'a b[31m'
    """
    return "".join(letter for letter in " ".join(name.split()) if letter.isprintable())


def outcome(view: RunView) -> str:
    """Return how the run ended, in one sentence."""
    done = traffic(view.rounds).rounds
    if done == 0:
        return _before_first(view)
    rounds, measured = counted(done, "round"), curve(view.rounds, "metrics", view.figure)
    so_far = "" if _ended_well(view) else f" (status: {view.status})"
    if not measured:
        return f"After {rounds}{so_far} the {called(view.figure)} of the federated model has not been measured"
    when = measured.rounds[-1]
    late = "" if when == view.rounds[-1]["round"] else f", as measured in round {when}"
    value = headline(measured.values[-1], view.figure)
    sites = _sites(view)
    central = any(event.get("measured_on") == "test" for event in view.rounds)
    where = "on the test part" if central else f"on held-out data of {counted(sites, 'site')}"
    return f"After {rounds}{so_far} the federated model reaches {called(view.figure)} {value} {where}{late}"


def _before_first(view: RunView) -> str:
    if view.status in BAD:
        return "The run failed before its first round was complete"
    return "No round has been completed yet" if view.status == "running" else "The run ended without a round"


def _ended_well(view: RunView) -> bool:
    return view.status in GOOD


def _sites(view: RunView) -> int:
    """Return how many sites the last measured round counts, or how many hold rows where it does not say."""
    for event in reversed(view.rounds):
        if finite((event.get("metrics") or {}).get(view.figure)):
            return len(event.get("sites") or ()) or len(view.held)
    return len(view.held)


def _decimals(value: float) -> int:
    """Return how many decimals show three digits of a value, at most 6."""
    rounded = float(f"{abs(value):.2e}")  # 0.0999999 has as many as 0.1
    return 2 if rounded == 0 else min(6, max(0, 2 - math.floor(math.log10(rounded))))


def _signed(text: str) -> str:
    return text.replace("-", "−")
