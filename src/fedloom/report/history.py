"""What the round events say, as curves, totals and lists; anything absent, None or NaN is left out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

Rounds = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Curve:
    """A figure over rounds: the rounds in which it was measured (from 1) and its finite values, equally many."""

    rounds: tuple[int, ...]
    values: tuple[float, ...]

    def __bool__(self) -> bool:
        """Tell whether there is anything to draw."""
        return bool(self.rounds)


@dataclass(frozen=True)
class FaultLine:
    """A fault and the round it happened in."""

    round: int
    site: str
    phase: str
    error: str
    message: str


@dataclass(frozen=True)
class Traffic:
    """Bytes from (`down`) and to (`up`) the coordinator and seconds, over all rounds; None where nobody counted."""

    rounds: int
    down: int | None
    up: int | None
    seconds: float | None


def finite(value: Any) -> bool:
    """Tell whether this is a number that can be drawn.

    >>> [finite(value) for value in (0.5, 3, None, float("nan"), "0.5")]
    [True, True, False, False, False]
    """
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def curve(rounds: Rounds, part: str, figure: str) -> Curve:
    """Return one figure over the rounds; `part` is "metrics" (held-out, pooled) or "training".

    >>> curve([{"round": 1, "metrics": {"auc": None}}, {"round": 2, "metrics": {"auc": 0.8}}], "metrics", "auc")
    Curve(rounds=(2,), values=(0.8,))
    """
    return _curve([(event["round"], (event.get(part) or {}).get(figure)) for event in rounds])


def site_curves(rounds: Rounds, figure: str) -> dict[str, Curve]:
    """Return each site's figure over the rounds, by name in order; sites without a finite value are absent."""
    points: dict[str, list[tuple[int, Any]]] = {}
    for event in rounds:
        for site, figures in (event.get("sites") or {}).items():
            points.setdefault(site, []).append((event["round"], (figures or {}).get(figure)))
    found = {site: _curve(points[site]) for site in sorted(points)}
    return {site: line for site, line in found.items() if line}


def traffic(rounds: Rounds) -> Traffic:
    """Return what went over the wire and how long it took."""
    down, up, seconds = (_total(rounds, name) for name in ("bytes_down", "bytes_up", "seconds"))
    return Traffic(len(rounds), None if down is None else int(down), None if up is None else int(up), seconds)


def faults(rounds: Rounds) -> list[FaultLine]:
    """Return every fault, in order."""
    return [
        FaultLine(event["round"], *(str(fault.get(name) or "") for name in ("site", "phase", "error", "message")))
        for event in rounds
        for fault in event.get("faults") or ()
    ]


def _curve(points: Sequence[tuple[int, Any]]) -> Curve:
    kept = [(number, float(value)) for number, value in points if finite(value)]
    return Curve(tuple(number for number, _ in kept), tuple(value for _, value in kept))


def _total(rounds: Rounds, name: str) -> float | None:
    values = [event.get(name) for event in rounds]
    counted = [value for value in values if value is not None and finite(value)]
    return sum(counted) if counted else None
