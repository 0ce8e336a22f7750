"""Feature skew: sites that see the same things differently, each through an instrument of its own.

A partition says which rows a client holds; `Shifted` also says how its inputs look there. They change when rows become
numbers, after standardisation and scaling, so the rows themselves are shared and untouched.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ConfigError, DataError
from ..core.examples import Examples
from ..core.rng import Streams
from ..core.update import Update
from .partition import Partition
from .rows import Index, Rows, TableRows

Inputs = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Shifted:
    """A partition whose clients' inputs are shifted: x becomes c · (x - m) + m + b + ε; its rows are `inner`'s.

    Noise is after the "noise-based feature distribution skew" of Li et al. (arXiv 2102.02079): client i of N, counted
    from 1 in the partition's order, gets ε of variance noise · i/N, independent for each input.
    Brightness and contrast are ours: b ~ U(-brightness, brightness) and c ~ U(1 - contrast, 1 + contrast), once for
    each client; m is the mean over the elements of one input, such as an image. Nothing is clipped to a range.

    All of it depends on the seed and the client's name, apart from i/N. Training and held-out rows are shifted alike; a
    source's official test part is not. Of a table, only numeric columns get noise, in standard deviations: the 0/1
    inputs of categories and gaps stay, and means and scales are those of the unshifted columns.

    Args:
        inner: which rows a client holds.
        noise: variance that the last client's noise has; at least 0.
        brightness: largest shift, in the unit of the scaled inputs (1 is black to white); at least 0; arrays only.
        contrast: largest relative change, in [0, 1); arrays only.

    >>> from ..core.rng import stream
    >>> from .partition import Iid
    >>> from .rows import ArrayRows
    >>> rows, streams = ArrayRows(np.zeros((2000, 4)), np.zeros(2000)), stream(0, "partition")
    >>> shifted = Shifted(Iid(2), noise=0.04)
    >>> parts = {site: rows.take(index) for site, index in shifted.split(rows, streams).items()}
    >>> [round(float(part.examples({}).inputs.var()), 2) for part in shifted.shift(parts, streams).values()]
    [0.02, 0.04]
    """

    inner: Partition
    noise: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.inner, Shifted):
            raise ConfigError("Shifted: its inner partition is shifted already; give all settings to one of them.")
        for name in ("noise", "brightness"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"Shifted: {name} must be a number of at least 0, got {getattr(self, name)}.")
        if not 0 <= self.contrast < 1:
            raise ConfigError(f"Shifted: contrast must be in [0, 1), got {self.contrast}.")

    def split(self, rows: Rows, streams: Streams) -> Mapping[str, Index]:
        """Return the inner partition's positions."""
        return self.inner.split(rows, streams)

    def shift(self, parts: Mapping[str, Rows], streams: Streams) -> dict[str, Rows]:
        """Return each client's rows as it sees them, by name."""
        if any(isinstance(part, TableRows) for part in parts.values()) and (self.brightness or self.contrast):
            raise ConfigError("Shifted: brightness and contrast are for arrays, and these rows are a table; use noise.")
        own = streams.child("shift")
        shifts = tuple(
            self._of(part, own.child(site), (at + 1) / len(parts)) for at, (site, part) in enumerate(parts.items())
        )
        return {
            site: ShiftedRows(part, shifts, np.full(part.size, at), np.arange(part.size))
            for at, (site, part) in enumerate(parts.items())
        }

    def _of(self, rows: Rows, streams: Streams, rank: float) -> "Shift":
        brightness, contrast = streams("brightness and contrast").uniform(-1, 1, 2)
        places = rows.table.schema.measured if isinstance(rows, TableRows) else None
        deviation = math.sqrt(self.noise * rank)
        return Shift(streams, rows.size, deviation, self.brightness * brightness, 1 + self.contrast * contrast, places)


@dataclass(frozen=True, slots=True)
class Shift:
    """How the inputs of one client look: x becomes contrast · (x - m) + m + brightness + deviation · N(0, 1).

    Args:
        streams: the client's.
        size: number of its rows; the noise of a row depends on its number among them, not on what is taken of them.
        deviation: standard deviation of the noise.
        brightness: what is added.
        contrast: what distances from the mean m of an input are multiplied by.
        places: of the inputs that get noise; None for all.
    """

    streams: Streams
    size: int
    deviation: float
    brightness: float = 0.0
    contrast: float = 1.0
    places: tuple[int, ...] | None = None

    def __call__(self, inputs: Inputs, numbers: Index) -> Inputs:
        """Return inputs of shape `(k, …)` shifted; their rows' numbers have the shape `(k,)`."""
        width = np.zeros(inputs.shape[1:], np.float32)
        width[... if self.places is None else list(self.places)] = self.deviation
        noise = self.streams("noise").standard_normal((self.size, *inputs.shape[1:]), np.float32)[numbers]
        beside = inputs - inputs.mean(axis=tuple(range(1, inputs.ndim)), keepdims=True)
        seen: Inputs = inputs + np.float32(self.contrast - 1) * beside + np.float32(self.brightness) + width * noise
        return seen


@dataclass(frozen=True, eq=False)
class ShiftedRows:
    """Rows whose inputs are shifted when they become numbers; all else is theirs.

    Args:
        rows: as they lie in the source.
        shifts: of all clients.
        owner: shape `(size,)`, place in `shifts` of the client that holds the row.
        number: shape `(size,)`, number of the row among that client's.
    """

    rows: Rows
    shifts: tuple[Shift, ...]
    owner: Index
    number: Index

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.rows.size

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.rows.class_names

    def take(self, indices: Index) -> "ShiftedRows":
        """Return those rows, shifted as they are here."""
        return replace(self, rows=self.rows.take(indices), owner=self.owner[indices], number=self.number[indices])

    def join(self, others: Sequence[Rows]) -> "ShiftedRows":
        """Return all of them, each as its client sees it; raises `DataError` for rows of another division."""
        same = [rows for rows in others if isinstance(rows, ShiftedRows) and rows.shifts is self.shifts]
        if len(same) != len(others):
            raise DataError("only rows that were shifted together can be joined.")
        owner, number = (
            np.concatenate([getattr(rows, name) for rows in (self, *same)]) for name in ("owner", "number")
        )
        return replace(self, rows=self.rows.join([rows.rows for rows in same]), owner=owner, number=number)

    def column(self, name: str) -> NDArray[Any]:
        """Return a column as text, as it lies in the file."""
        return self.rows.column(name)

    def labels(self) -> NDArray[Any]:
        """Return class numbers or values."""
        return self.rows.labels()

    def measure(self, what: str, known: Mapping[str, Any]) -> Update:
        """Return sums over the numeric columns as they lie in the file."""
        return self.rows.measure(what, known)

    def examples(self, statistics: Mapping[str, Any]) -> Examples:
        """Return the shifted inputs, and targets."""
        found = self.rows.examples(statistics)
        inputs = np.array(found.inputs, np.float32)
        for at in np.unique(self.owner):
            own = self.owner == at
            inputs[own] = self.shifts[at](inputs[own], self.number[own])
        return Examples(inputs, found.targets)
