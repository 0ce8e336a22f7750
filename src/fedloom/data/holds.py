"""Who holds what: each site's training and held-out rows, and a plain account of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core.errors import ConfigError
from ..core.rng import Streams
from .partition import Partition
from .rows import Rows, SiteRows
from .shift import Shifted


def hold_out(rows: Rows, fraction: float, streams: Streams, site: str) -> SiteRows:
    """Return one site's rows, a `fraction` in [0, 1) of them held out, stratified by label.

    Every class gives fraction · rows to within one row; for regression, every stretch of the sorted labels does.
    At least one row is left to train on. The choice depends on the streams and the site's name, not on other sites.
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"the held-out fraction must be in [0, 1), got {fraction}.")
    order = streams.child("holdout").child(site)("rows").permutation(rows.size)
    order = order[np.argsort(rows.labels()[order], kind="stable")]
    held = np.diff(np.floor(np.round(np.arange(rows.size + 1) * fraction + 0.5, 9))) > 0
    if held.all():
        held[:1] = False
    return SiteRows(rows.take(np.sort(order[~held])), rows.take(np.sort(order[held])))


def holdings(rows: Rows, partition: Partition, holdout: float, streams: Streams) -> dict[str, SiteRows]:
    """Return what each client of a simulation holds, by name, in the partition's order, shifted where it says so."""
    parts = {site: rows.take(index) for site, index in partition.split(rows, streams).items()}
    if isinstance(partition, Shifted):
        parts = partition.shift(parts, streams)
    return {site: hold_out(part, holdout, streams, site) for site, part in parts.items()}


@dataclass(frozen=True, slots=True)
class Held:
    """What one site holds: numbers of rows, and of training rows of each class (none for regression)."""

    site: str
    train: int
    held_out: int
    labels: Mapping[str, int]


def who_holds_what(held: Mapping[str, SiteRows]) -> list[Held]:
    """Return an account of a simulation's sites, in their order; `labels` lists every class, also with a count of 0.

    >>> from ..core.rng import stream
    >>> from .partition import Iid
    >>> from .rows import ArrayRows
    >>> rows = ArrayRows(np.zeros((10, 2)), np.arange(10) % 2, ("no", "yes"))
    >>> who_holds_what(holdings(rows, Iid(1), 0.2, stream(0, "partition")))
    [Held(site='client-000', train=8, held_out=2, labels={'no': 4, 'yes': 4})]
    """
    return [Held(site, own.train.size, own.held_out.size, _labels(own)) for site, own in held.items()]


def _labels(own: SiteRows) -> dict[str, int]:
    names = own.train.class_names
    if not names:
        return {}
    counts = np.bincount(own.train.labels(), minlength=len(names))
    return dict(zip(names, counts.tolist(), strict=True))
