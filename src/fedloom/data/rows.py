"""Rows of one site or of all of them, tables and arrays behind one small protocol; clients are lists of indices.

Taking rows copies no data: what is taken remembers where it lies in the table or array that was read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ConfigError, DataError
from ..core.examples import Examples, Split
from ..core.update import Update
from .schema import hint
from .standardise import measure
from .table import Table

Index = NDArray[np.int64]


class Rows(Protocol):
    """Some rows of a source."""

    @property
    def size(self) -> int:
        """Number of rows."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of their numbers; none for regression."""
        ...

    def take(self, indices: Index) -> "Rows":
        """Return those of these rows, shape `(k,)`, in that order."""
        ...

    def join(self, others: Sequence["Rows"]) -> "Rows":
        """Return these rows and the others', which must be of the same table or arrays."""
        ...

    def column(self, name: str) -> NDArray[Any]:
        """Return any column of the file as text, shape `(size,)`."""
        ...

    def labels(self) -> NDArray[Any]:
        """Return class numbers (int64) or values (float64), shape `(size,)`."""
        ...

    def measure(self, what: str, known: Mapping[str, Any]) -> Update:
        """Return sums over the numeric columns; see `standardise.measure`."""
        ...

    def examples(self, statistics: Mapping[str, Any]) -> Examples:
        """Return float32 inputs, and int64 class numbers or float32 values."""
        ...


@dataclass(frozen=True, eq=False)
class TableRows:
    """Rows of a table.

    Args:
        table: that was read.
        index: shape `(size,)`, positions in the table; by default all of them.
    """

    table: Table
    index: Index = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.index is None:
            object.__setattr__(self, "index", np.arange(self.table.size))

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.index)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.table.schema.outputs

    def take(self, indices: Index) -> "TableRows":
        """Return those rows."""
        return replace(self, index=self.index[indices])

    def join(self, others: Sequence[Rows]) -> "TableRows":
        """Return all of them; raises `DataError` for rows of another table."""
        same = [rows.index for rows in others if isinstance(rows, TableRows) and rows.table is self.table]
        return replace(self, index=_joined(self.index, same, others))

    def column(self, name: str) -> NDArray[Any]:
        """Return a column as text; raises `DataError` that names the nearest one."""
        if name not in self.table.columns:
            raise DataError(f"there is no column {name!r}; {hint(name, self.table.columns)}")
        return self.table.columns[name][self.index]

    def labels(self) -> NDArray[Any]:
        """Return class numbers or values."""
        return self.table.targets[self.index]

    def measure(self, what: str, known: Mapping[str, Any]) -> Update:
        """Return sums over the numeric columns."""
        return measure({name: self.table.values[name][self.index] for name in self.table.schema.numeric}, what, known)

    def examples(self, statistics: Mapping[str, Any]) -> Examples:
        """Return inputs of shape `(size, schema.inputs)` and targets."""
        return Examples(self.table.encode(self.index, statistics), _targets(self.labels(), self.class_names))


@dataclass(frozen=True, eq=False)
class ArrayRows:
    """Rows of two arrays; the inputs stay in the type that they were read in until `examples` scales them.

    Args:
        inputs: shape `(n, …)`, numbers.
        targets: shape `(n,)`, class numbers (int64) or values (float64).
        class_names: of the classes; none for regression.
        scale: what inputs are multiplied by: 1/255 for bytes.
        index: shape `(size,)`, positions in the arrays; by default all of them.

    >>> rows = ArrayRows(np.array([[0, 0], [255, 0]], np.uint8), np.array([1, 0]), ("no", "yes"), scale=1 / 255)
    >>> rows.take(np.array([1])).examples({}).inputs
    array([[1., 0.]], dtype=float32)
    """

    inputs: NDArray[Any]
    targets: NDArray[Any]
    class_names: tuple[str, ...] = ()
    scale: float = 1.0
    index: Index = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.index is None:
            object.__setattr__(self, "index", np.arange(len(self.targets)))

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.index)

    def take(self, indices: Index) -> "ArrayRows":
        """Return those rows; the arrays are shared."""
        return replace(self, index=self.index[indices])

    def join(self, others: Sequence[Rows]) -> "ArrayRows":
        """Return all of them; raises `DataError` for rows of other arrays."""
        same = [rows.index for rows in others if isinstance(rows, ArrayRows) and rows.inputs is self.inputs]
        return replace(self, index=_joined(self.index, same, others))

    def column(self, name: str) -> NDArray[Any]:
        """Refuse: arrays have no named columns."""
        raise DataError(f"arrays have no column {name!r}; divide them by Dirichlet, Shards, Quantity or Iid instead.")

    def labels(self) -> NDArray[Any]:
        """Return class numbers or values."""
        return self.targets[self.index]

    def measure(self, what: str, known: Mapping[str, Any]) -> Update:
        """Refuse: arrays are scaled by a constant."""
        raise ConfigError(f"arrays have no columns whose {what} could be measured; they are multiplied by `scale`.")

    def examples(self, statistics: Mapping[str, Any]) -> Examples:
        """Return inputs of shape `(size, …)` and targets."""
        inputs = self.inputs[self.index].astype(np.float32)
        inputs *= np.float32(self.scale)
        return Examples(inputs, _targets(self.labels(), self.class_names))


@dataclass(frozen=True, eq=False)
class SiteRows:
    """One party's rows: what it trains on, and what it holds out to measure on. The `Holding` of this library."""

    train: Rows
    held_out: Rows

    @property
    def train_size(self) -> int:
        """Number of rows to train on."""
        return self.train.size

    def measure(self, what: str, known: Mapping[str, Any]) -> Update:
        """Return sums over the training rows."""
        return self.train.measure(what, known)

    def prepare(self, statistics: Mapping[str, Any]) -> Split:
        """Return the rows as numbers."""
        train = self.train.examples(statistics)
        return Split(train, self.held_out.examples(statistics) if self.held_out.size else train.take(slice(0)))


@dataclass(frozen=True, eq=False)
class Fetched:
    """One party's rows among those of many, found again whenever they are asked for."""

    held: Mapping[str, SiteRows]
    site: str

    @property
    def train_size(self) -> int:
        """Number of rows to train on."""
        return self.held[self.site].train_size

    def measure(self, what: str, known: Mapping[str, Any]) -> Update:
        """Return sums over the training rows."""
        return self.held[self.site].measure(what, known)

    def prepare(self, statistics: Mapping[str, Any]) -> Split:
        """Return the rows as numbers."""
        return self.held[self.site].prepare(statistics)


def _targets(labels: NDArray[Any], classes: tuple[str, ...]) -> NDArray[Any]:
    return labels.astype(np.int64 if classes else np.float32)


def _joined(first: Index, same: Sequence[Index], others: Sequence[Rows]) -> Index:
    if len(same) != len(others):
        raise DataError("only rows that were read from one source can be joined.")
    return np.concatenate([first, *same])
