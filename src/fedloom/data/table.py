"""A table read by its schema: every cell is checked once, where the file lies; nothing can go wrong later."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError
from .schema import LARGEST, Column, Schema, hint, is_number, number, plain

_NONE, _DROP = -1, -2  # instead of a category: all inputs are 0; the row is left out


class Cells(Protocol):
    """Columns of cells, all of one length: the texts of a CSV file, or the typed columns of a Parquet file."""

    @property
    def where(self) -> str:
        """What to call them in a complaint."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Names of the columns."""
        ...

    @property
    def size(self) -> int:
        """Number of rows."""
        ...

    def place(self, row: int) -> str:
        """Return the file and the line or row that a person finds it by; rows count from 0."""
        ...

    def column(self, name: str) -> Sequence[str] | NDArray[Any]:
        """Return one column as text; raises `DataError` that names the nearest one."""
        ...

    def numbers(self, name: str) -> NDArray[Any] | None:
        """Return a column that is held as numbers, NaN where there is none; None where it is held otherwise."""
        ...

    def coded(self, name: str, rows: NDArray[np.int64] | None = None) -> tuple[list[str], NDArray[np.int64]]:
        """Return the texts in a column, or in some rows of it, and which of them each cell is; each occurs."""
        ...


@dataclass(frozen=True, eq=False)
class Kept(Mapping[str, NDArray[Any]]):
    """The columns of a file as text, without the rows that were left out; a column is read when it is asked for."""

    cells: Cells
    keep: NDArray[np.bool_]

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self:
            raise KeyError(name)
        return np.array(self.cells.column(name), object)[self.keep]

    def __contains__(self, name: object) -> bool:
        return name in self.cells.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.cells.names)

    def __len__(self) -> int:
        return len(self.cells.names)


@dataclass(frozen=True, eq=False)
class Table:
    """The n rows of one file that the schema keeps.

    Args:
        schema: by which it was read.
        columns: every column of the file as text, shape `(n,)`, also those that are not features.
        values: by feature, shape `(n,)`: float64 with NaN where missing, or the category's number (-1: none of them).
        targets: shape `(n,)`: class numbers (int64), or values (float64).
        dropped: number of rows that the schema left out.

    >>> from .texts import Texts
    >>> schema = Schema((Column("age", missing="mean"),), "sick", classes=("no", "yes"))
    >>> texts = Texts({"age": ("60", "", "40"), "sick": ("yes", "no", "no")}, (2, 3, 4), "my.csv")
    >>> table = read_table(texts, schema)
    >>> table.encode(np.array([0, 1]), {"age": {"mean": 50.0, "scale": 10.0}})
    array([[1.],
           [0.]], dtype=float32)
    """

    schema: Schema
    columns: Mapping[str, NDArray[Any]]
    values: Mapping[str, NDArray[Any]]
    targets: NDArray[Any]
    dropped: int = 0

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.targets)

    def encode(self, index: NDArray[np.int64], statistics: Mapping[str, Any]) -> NDArray[np.float32]:
        """Return the inputs of those rows, shape `(len(index), schema.inputs)`; statistics are by numeric column."""
        encoded, begin = np.zeros((len(index), self.schema.inputs), np.float32), 0
        for column in self.schema.features:
            values, width = self.values[column.name][index], len(column.inputs)
            part = encoded[:, begin : begin + width]
            if column.kind == "categorical":
                seen = np.flatnonzero(values >= 0)
                part[seen, values[seen]] = 1
            else:
                part[:, 0] = _standardised(values, column, statistics)
                part[:, 1:] = np.isnan(values)[:, None]
            begin += width
        return encoded


def read_table(cells: Cells, schema: Schema, *, labelled: bool = True) -> Table:
    """Return the table; without `labelled` the label's column is not read, and targets are 0.

    Raises `DataError` with file, line, column and cell for what the schema does not allow.
    """
    values = {column.name: _feature(cells, column) for column in schema.features}
    targets = _targets(cells, schema) if labelled else np.zeros(cells.size, np.int64)
    keep = ~(np.isnan(targets) if schema.task == "regression" else targets == _DROP)
    for column in schema.features:
        if column.missing == "drop":
            found = values[column.name]
            keep &= ~(np.isnan(found) if column.kind == "numeric" else found == _DROP)
    if not keep.any():
        raise DataError(f'{cells.where}: every row was left out for a missing cell; revise missing = "drop".')
    kept = {name: found[keep] for name, found in values.items()}
    return Table(schema, Kept(cells, keep), kept, targets[keep], int((~keep).sum()))


def _feature(cells: Cells, column: Column) -> NDArray[Any]:
    if column.kind == "categorical":
        return _meant(cells, column.name, _reading(column))
    return _numbers(cells, column.name, _reading(column), column.missing_values, column.range)


def _targets(cells: Cells, schema: Schema) -> NDArray[Any]:
    if schema.classes:
        return _meant(cells, schema.label, _label(schema))
    values = _numbers(cells, schema.label, _label(schema), schema.missing_values)
    if schema.above is None:
        return values
    return np.where(np.isnan(values), _DROP, values > schema.above).astype(np.int64)


def _numbers(
    cells: Cells,
    name: str,
    meaning: Callable[[str], float],
    missing_values: Sequence[str],
    span: tuple[float, float] | None = None,
) -> NDArray[Any]:
    """Return numbers; only a cell that a stored number cannot simply stand for is read as text."""
    stored = cells.numbers(name)
    if stored is None:
        return _meant(cells, name, meaning)
    low, high = span or (-LARGEST, LARGEST)
    usual = (np.abs(stored) < LARGEST) & (stored >= low) & (stored <= high)
    usual &= ~np.isin(stored, np.array([float(text) for text in missing_values if is_number(text)], stored.dtype))
    values, rest = stored.astype(np.float64), np.flatnonzero(~usual)
    if rest.size:
        values[rest] = _meant(cells, name, meaning, rest)
    return values


def _meant(
    cells: Cells, name: str, meaning: Callable[[str], float], rows: NDArray[np.int64] | None = None
) -> NDArray[Any]:
    texts, codes = cells.coded(name, rows)
    meanings = []
    for at, cell in enumerate(texts):
        try:
            meanings.append(meaning(plain(cell)))
        except ValueError as problem:
            first = int(np.argmax(codes == at))
            place = cells.place(first if rows is None else int(rows[first]))
            raise DataError(f"{place}, column {name!r}: {problem}") from None
    return np.array(meanings)[codes]


def _reading(column: Column) -> Callable[[str], float]:
    numbers = {category: at for at, category in enumerate(column.categories)}

    def numeric(cell: str) -> float:
        if cell in column.missing_values:
            return _unless_error(column.missing, math.nan, column.kind)
        value = _number(cell)
        low, high = column.range or (-math.inf, math.inf)
        if not low <= value <= high:
            raise ValueError(f"{cell} is outside the range {low:g} to {high:g}; check its unit.")
        return value

    def categorical(cell: str) -> int:
        if cell in numbers:
            return numbers[cell]
        if cell in column.missing_values:
            return int(_unless_error(column.missing, _DROP if column.missing == "drop" else _NONE, column.kind))
        if column.unseen == "ignore":
            return _NONE
        raise ValueError(f'{cell!r} is not a declared category; {hint(cell, numbers)} Or set unseen = "ignore".')

    return numeric if column.kind == "numeric" else categorical


def _label(schema: Schema) -> Callable[[str], float]:
    classes = {name: at for at, name in enumerate(schema.outputs)}

    def label(cell: str) -> float:
        if cell in schema.missing_values:
            return _unless_error(schema.missing, _DROP if schema.classes else math.nan, "label")
        if not schema.classes:
            return _number(cell)
        if cell not in classes:
            raise ValueError(f"{cell!r} is not a declared class; {hint(cell, classes)}")
        return classes[cell]

    return label


def _unless_error(policy: str, value: float, kind: str) -> float:
    if policy != "error":
        return value
    policies = {"numeric": '"mean" or "drop"', "categorical": '"other" or "drop"', "label": '"drop"'}[kind]
    raise ValueError(f"the cell is missing; fill it in, or set the schema's missing to {policies}.")


def _number(cell: str) -> float:
    try:
        value = number(cell)
    except ValueError:
        raise ValueError(f"expected a number, got {cell!r}; correct it, or list it in missing_values.") from None
    if abs(value) >= LARGEST:
        raise ValueError(f"{cell} is not below 2^63; change the column's unit.")
    return value


def _standardised(values: NDArray[Any], column: Column, statistics: Mapping[str, Any]) -> NDArray[Any]:
    name = column.name
    if column.scaling == "range" and column.range is not None:
        low, high = column.range
        return np.where(np.isnan(values), 0.0, (values - (low + high) / 2) / ((high - low) / 2))
    if not {"mean", "scale"} <= statistics.get(name, {}).keys():
        raise DataError(f"column {name!r}: no mean and scale are known; the schema here is not the one of the run.")
    found = (values - statistics[name]["mean"]) / statistics[name]["scale"]
    return np.where(np.isnan(values), 0.0, found)
