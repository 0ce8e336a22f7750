"""Who gained, who lost: alone against federated, site by site, in plain language."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.metrics import LOWER_IS_BETTER
from ..core.words import counted
from .view import Estimate, SiteRow
from .words import called, difference, number

LISTED = 6  # more sites than this are counted, and only the first few named
NAMED = 3
KINDS = ("alone", "federated", "personal", "pooled")


@dataclass(frozen=True)
class Change:
    """What federating changed for one site; both estimates are finite.

    `federated` is of the shared model, or where a site would deploy its own (`kind` "personal"), of that.
    """

    site: str
    figure: str
    alone: Estimate
    federated: Estimate
    kind: str = "federated"

    @property
    def difference(self) -> float:
        """Federated minus alone, before rounding."""
        return self.federated.value - self.alone.value

    @property
    def direction(self) -> int:
        """1 if the site gains, -1 if it loses, 0 if the values or their difference read as nothing."""
        same = number(self.alone.value, self.figure) == number(self.federated.value, self.figure)
        if same or not any(digit in "123456789" for digit in difference(self.difference, self.figure)):
            return 0
        return 1 if (self.difference < 0) == (self.figure in LOWER_IS_BETTER) else -1

    @property
    def clear(self) -> bool | None:
        """Do the two intervals lie apart? None if one is not known."""
        limits = (self.alone.low, self.alone.high, self.federated.low, self.federated.high)
        if not all(math.isfinite(limit) for limit in limits):
            return None
        return bool(self.federated.low > self.alone.high or self.federated.high < self.alone.low)


def change(row: SiteRow, figure: str) -> Change | None:
    """Return what federating changed for a site, or None if either estimate is missing."""
    kind, together = ("federated", row.federated) if row.federated is not None else ("personal", row.personal)
    if row.alone is None or together is None:
        return None
    if not (math.isfinite(row.alone.value) and math.isfinite(together.value)):
        return None
    return Change(row.site, figure, row.alone, together, kind)


def said(made: Change) -> str:
    """Return the difference as it is shown: nothing where both values read the same."""
    return difference(made.difference if made.direction else 0.0, made.figure)


def used_columns(rows: Sequence[SiteRow]) -> tuple[str, ...]:
    """Return the kinds of training that are compared: alone, what it is compared with, and what a site has besides.

    >>> used_columns([SiteRow("a", 60, alone=Estimate(0.8, 0.7, 0.9), personal=Estimate(0.9, 0.8, 1.0))])
    ('alone', 'personal')
    """
    filled = {kind for kind in KINDS for row in rows if getattr(row, kind) is not None}
    wanted = filled | ({"alone"} if "personal" in filled else {"alone", "federated"})
    return tuple(kind for kind in KINDS if kind in wanted)


def best(row: SiteRow, figure: str) -> frozenset[str]:
    """Return which of a site's own choices (alone, federated, personal) read best; equal to the shown digit are both.

    Pooled is left out: nobody who keeps rows at home can have it. A choice without rivals is not the best of anything.

    >>> sorted(best(SiteRow("a", 60, alone=Estimate(0.81, 0.7, 0.9), federated=Estimate(0.85, 0.8, 0.9)), "auc"))
    ['federated']
    """
    found = {"alone": row.alone, "federated": row.federated, "personal": row.personal}
    values = {name: e.value for name, e in found.items() if e is not None and math.isfinite(e.value)}
    if len(values) < 2:
        return frozenset()
    top = (min if figure in LOWER_IS_BETTER else max)(values.values())
    return frozenset(name for name, value in values.items() if number(value, figure) == number(top, figure))


def gained(rows: Sequence[SiteRow], figure: str) -> str:
    """Return who gained, who lost and who is worst off, in a few sentences.

    >>> gained([SiteRow("Oslo", 60, alone=Estimate(0.81, 0.7, 0.83), federated=Estimate(0.85, 0.84, 0.9))], "auc")
    'Oslo gains +0.04 (alone 0.81 → federated 0.85), beyond the intervals. Nobody lost.'
    """
    changes = [made for row in rows if (made := change(row, figure)) is not None]
    if not changes:
        return "Alone and federated cannot be compared at any site, so this run does not tell who gained."
    ranked = sorted(changes, key=lambda made: (-abs(made.difference), made.site))
    parts = [
        _group([made for made in ranked if made.direction > 0], len(changes), "gains", "gain"),
        _group([made for made in ranked if made.direction < 0], len(changes), "loses", "lose") or "Nobody lost.",
        _same([made for made in ranked if made.direction == 0], len(changes)),
        _worst(changes, figure),
        _missing([row.site for row in rows if change(row, figure) is None]),
        f"(For {called(figure)}, lower is better.)" if figure in LOWER_IS_BETTER else "",
    ]
    return " ".join(part for part in parts if part)


def _group(group: Sequence[Change], sites: int, one: str, many: str) -> str:
    if not group:
        return ""
    if len(group) == 1:
        return f"{group[0].site} {one} {_told(group[0])}."
    if len(group) <= LISTED:
        return f"{_count(len(group), sites)} {many}: {'; '.join(f'{made.site} {_told(made)}' for made in group)}."
    beyond = sum(made.clear is True for made in group)
    named = "; ".join(f"{made.site} {_told(made)}" for made in group[:NAMED])
    return f"{_count(len(group), sites)} {many}, {beyond or 'none'} of them beyond the intervals; most of all {named}."


def _told(made: Change) -> str:
    sure = {True: "beyond the intervals", False: "within the intervals", None: "intervals unknown"}[made.clear]
    values = f"alone {number(made.alone.value, made.figure)} → {made.kind} {number(made.federated.value, made.figure)}"
    return f"{difference(made.difference, made.figure)} ({values}), {sure}"


def _same(group: Sequence[Change], sites: int) -> str:
    if not group:
        return ""
    if len(group) > LISTED:
        return f"{_count(len(group), sites)} stay the same."
    told = ", ".join(f"{made.site} ({number(made.federated.value, made.figure)})" for made in group)
    return f"Unchanged: {told}."


def _worst(changes: Sequence[Change], figure: str) -> str:
    """Name the site that the federated model serves worst; of one site there is none."""
    if len(changes) < 2:
        return ""
    sign = -1 if figure in LOWER_IS_BETTER else 1
    last = min(changes, key=lambda made: (sign * made.federated.value, made.site))
    value = number(last.federated.value, figure)
    return f"Worst off with the {last.kind} model is {last.site}, at {called(figure)} {value}."


def _missing(sites: Sequence[str]) -> str:
    if not sites:
        return ""
    if len(sites) > LISTED:
        return f"{counted(len(sites), 'site')} could not be compared, because an estimate is missing."
    return f"Not compared, because an estimate is missing: {', '.join(sites)}."


def _count(count: int, sites: int) -> str:
    return f"All {counted(sites, 'site')}" if count == sites else f"{count:,} of {counted(sites, 'site')}"
