"""Who holds what: each site's training and held-out rows, and a plain account of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ConfigError
from ..core.lazy import Lazy, Roster
from ..core.rng import Streams
from .partition import Partition, Parts
from .rows import Rows, SiteRows
from .shift import Shifted

MANY = 5000  # clients that are looked at one by one before round 1; of more, only those that are asked
KEPT = 1000  # of many clients, whose rows are remembered


def hold_out(rows: Rows, fraction: float, streams: Streams, site: str) -> SiteRows:
    """Return one site's rows, a `fraction` in [0, 1) of them held out, stratified by label.

    Every class gives fraction · rows to within one row; for regression, every stretch of the sorted labels does.
    At least one row is left to train on. The choice depends on the streams and the site's name, not on other sites.
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"the held-out fraction must be in [0, 1), got {fraction}.")
    if not fraction:
        return SiteRows(rows, rows.take(np.arange(0)))
    order = streams.child("holdout").child(site)("rows").permutation(rows.size)
    order = order[np.argsort(rows.labels()[order], kind="stable")]
    held = _held(rows.size, fraction)
    return SiteRows(rows.take(np.sort(order[~held])), rows.take(np.sort(order[held])))


def _held(size: int, fraction: float) -> NDArray[np.bool_]:
    """Return which of so many rows, sorted by label, are held out."""
    held: NDArray[np.bool_] = np.diff(np.floor(np.round(np.arange(size + 1) * fraction + 0.5, 9))) > 0
    if held.all():
        held[:1] = False
    return held


def _number_held(size: int, fraction: float) -> int:
    return int(_held(size, fraction).sum()) if fraction else 0


def holdings(rows: Rows, partition: Partition, holdout: float, streams: Streams) -> Mapping[str, SiteRows]:
    """Return what each client of a simulation holds, by name, in the partition's order, shifted where it says so.

    Of more than `MANY` clients, each one's rows are found when they are asked for.
    """
    split = partition.split(rows, streams)
    parts: Mapping[str, Rows] = Lazy(split, lambda site: rows.take(split[site]))
    if isinstance(partition, Shifted):
        parts = partition.shift(dict(parts), streams)
    held = Lazy(split, lambda site: hold_out(parts[site], holdout, streams, site), KEPT)
    return held if len(split) > MANY else dict(held)


def roster(held: Mapping[str, SiteRows], fraction: float) -> Roster:
    """Return the members that hold so much, without looking at each of many; a `fraction` of the rows is held out."""
    split = held.names if isinstance(held, Lazy) else None
    if isinstance(split, Parts):
        return Roster(
            split.names, lambda name: split.size(name) - _number_held(split.size(name), fraction), split.largest
        )
    sizes = {name: own.train_size for name, own in held.items()}
    return Roster(tuple(sizes), sizes.__getitem__, max(sizes.values()))


@dataclass(frozen=True, slots=True)
class Held:
    """What one site holds: numbers of rows, and of training rows of each class (none for regression)."""

    site: str
    train: int
    held_out: int
    labels: Mapping[str, int]


def who_holds_what(held: Mapping[str, SiteRows], most: int = MANY) -> list[Held]:
    """Return an account of a simulation's first `most` sites; `labels` lists every class, also with a count of 0.

    >>> from ..core.rng import stream
    >>> from .partition import Iid
    >>> from .rows import ArrayRows
    >>> rows = ArrayRows(np.zeros((10, 2)), np.arange(10) % 2, ("no", "yes"))
    >>> who_holds_what(holdings(rows, Iid(1), 0.2, stream(0, "partition")))
    [Held(site='client-000', train=8, held_out=2, labels={'no': 4, 'yes': 4})]
    """
    return [Held(site, own.train.size, own.held_out.size, _labels(own)) for site, own in islice(held.items(), most)]


def _labels(own: SiteRows) -> dict[str, int]:
    names = own.train.class_names
    if not names:
        return {}
    counts = np.bincount(own.train.labels(), minlength=len(names))
    return dict(zip(names, counts.tolist(), strict=True))
