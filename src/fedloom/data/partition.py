"""Divisions of one source among simulated clients. Every row goes to exactly one client, whatever the division."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ConfigError, DataError
from ..core.rng import Streams
from .rows import Index, Rows
from .schema import plain

DRAWS = 1000  # of proportions, before `Dirichlet` gives up on its `min_size`


class Partition(Protocol):
    """A division of rows."""

    def split(self, rows: Rows, streams: Streams) -> dict[str, Index]:
        """Return positions in `rows` by client, ascending; the same for the same streams."""
        ...


@dataclass(frozen=True, slots=True)
class Whole:
    """One client that holds everything."""

    name: str = "all"

    def split(self, rows: Rows, streams: Streams) -> dict[str, Index]:
        """Return all positions."""
        return {self.name: np.arange(rows.size)}


@dataclass(frozen=True, slots=True)
class Iid:
    """Shuffled rows in parts whose sizes differ by at most one."""

    clients: int

    def __post_init__(self) -> None:
        _check(self, self.clients)

    def split(self, rows: Rows, streams: Streams) -> dict[str, Index]:
        """Return positions by client."""
        _enough(rows, self.clients, f"{self.clients} clients")
        return _named(np.array_split(streams("iid").permutation(rows.size), self.clients))


@dataclass(frozen=True, slots=True)
class Dirichlet:
    """Label skew: of each class k, client i gets the share p[k, i], where p[k] ~ Dirichlet(alpha, …, alpha).

    Variant: shares of each class over clients, as Yurochkin et al. (ICML 2019, arXiv 1905.12022) draw them, so that
    sizes differ as well. Hsu, Qi and Brown (2019, arXiv 1909.06335) draw each client's shares of the classes, for
    clients of equal size. All shares are drawn again until every client has at least `min_size` rows.

    Args:
        clients: at least 1.
        alpha: positive; 0.1 gives most clients one or two classes, 100 is close to `Iid`.
        min_size: rows that every client gets at least; 0 allows empty clients.
    """

    clients: int
    alpha: float
    min_size: int = 1

    def __post_init__(self) -> None:
        _check(self, self.clients, self.alpha)
        if self.min_size < 0:
            raise ConfigError(f"Dirichlet: min_size must not be negative, got {self.min_size}.")

    def split(self, rows: Rows, streams: Streams) -> dict[str, Index]:
        """Return positions by client; raises `DataError` when `min_size` cannot be met."""
        if not rows.class_names:
            raise ConfigError("Dirichlet: it skews classes, and this task has none; use Quantity, Shards or ByColumn.")
        _enough(rows, self.clients * self.min_size, f"{self.clients} clients of at least {self.min_size}")
        order, labels = streams("dirichlet").permutation(rows.size), rows.labels()
        groups = [order[labels[order] == number] for number in np.unique(labels)]
        for draw in range(DRAWS):
            shares = streams(f"dirichlet {draw}").dirichlet(np.full(self.clients, self.alpha), len(groups))
            cuts = [_cuts(share, len(group)) for share, group in zip(shares, groups, strict=True)]
            sizes = sum(np.diff(cut) for cut in cuts)
            if np.min(sizes) >= self.min_size:
                parts = [np.split(group, cut[1:-1]) for group, cut in zip(groups, cuts, strict=True)]
                return _named([np.concatenate(pieces) for pieces in zip(*parts, strict=True)])
        raise DataError(
            f"Dirichlet: {DRAWS} draws left a client with fewer than {self.min_size} of {rows.size} rows; "
            f"use fewer clients than {self.clients}, a larger alpha than {self.alpha:g}, or a smaller min_size."
        )


@dataclass(frozen=True, slots=True)
class Shards:
    """Pathological label skew: rows sorted by label, cut in clients · per_client shards, `per_client` to each client.

    McMahan et al. (AISTATS 2017, arXiv 1602.05629v4), section 3. Deviations: rows of one label are shuffled before
    they are cut; where shards cannot be equal their sizes differ by one, so no remainder is left over.
    """

    clients: int
    per_client: int = 2

    def __post_init__(self) -> None:
        _check(self, self.clients)
        if self.per_client < 1:
            raise ConfigError(f"Shards: per_client must be at least 1, got {self.per_client}.")

    def split(self, rows: Rows, streams: Streams) -> dict[str, Index]:
        """Return positions by client."""
        count = self.clients * self.per_client
        _enough(rows, count, f"{count} shards")
        order = streams("shards").permutation(rows.size)
        shards = np.array_split(order[np.argsort(rows.labels()[order], kind="stable")], count)
        given = streams("shards to clients").permutation(count).reshape(self.clients, self.per_client)
        return _named([np.concatenate([shards[at] for at in own]) for own in given])


@dataclass(frozen=True, slots=True)
class Quantity:
    """Size skew: shuffled rows, one to each client and the rest in shares ~ Dirichlet(alpha, …, alpha)."""

    clients: int
    alpha: float

    def __post_init__(self) -> None:
        _check(self, self.clients, self.alpha)

    def split(self, rows: Rows, streams: Streams) -> dict[str, Index]:
        """Return positions by client."""
        _enough(rows, self.clients, f"{self.clients} clients")
        shares = streams("quantity").dirichlet(np.full(self.clients, self.alpha))
        cuts = _cuts(shares, rows.size - self.clients) + np.arange(self.clients + 1)
        return _named(np.split(streams("quantity rows").permutation(rows.size), cuts[1:-1]))


@dataclass(frozen=True, slots=True)
class ByColumn:
    """Natural sites: one for each value of a column of the file, which need not be a feature; sorted by name."""

    column: str

    def split(self, rows: Rows, streams: Streams) -> dict[str, Index]:
        """Return positions by value; raises `DataError` for an unknown column or a row without a value."""
        sites = np.array([plain(cell) for cell in rows.column(self.column)], object)
        if (sites == "").any():
            blank = int((sites == "").sum())
            raise DataError(f"ByColumn: {blank} rows have no value in column {self.column!r}; fill it in.")
        names, numbers = np.unique(sites, return_inverse=True)
        return {str(name): np.flatnonzero(numbers == at) for at, name in enumerate(names)}


def _check(part: Any, clients: int, alpha: float = 1.0) -> None:
    name = type(part).__name__
    if clients < 1:
        raise ConfigError(f"{name}: clients must be at least 1, got {clients}.")
    if not 0 < alpha < math.inf:
        raise ConfigError(f"{name}: alpha must be a positive number, got {alpha}.")


def _enough(rows: Rows, needed: int, what: str) -> None:
    if rows.size < max(1, needed):
        raise DataError(f"{rows.size} rows are too few for {what}; lower the number of clients.")


def _cuts(shares: NDArray[np.float64], size: int) -> Index:
    """Return where `size` rows are cut so that client i gets the share shares[i]; first 0, last `size`."""
    inner = np.floor(np.cumsum(shares)[:-1] * size).astype(np.int64)
    return np.concatenate([[0], np.minimum(inner, size), [size]])


def _named(parts: Sequence[Index]) -> dict[str, Index]:
    width = max(3, len(str(len(parts) - 1)))
    return {f"client-{at:0{width}}": np.sort(part) for at, part in enumerate(parts)}
