"""A table read by its schema: every cell is checked once, where the file lies; nothing can go wrong later."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError
from .schema import LARGEST, Column, Schema, hint, number, plain
from .texts import Texts

_NONE, _DROP = -1, -2  # instead of a category: all inputs are 0; the row is left out


@dataclass(frozen=True, eq=False)
class Table:
    """The n rows of one file that the schema keeps.

    Args:
        schema: by which it was read.
        columns: every column of the file as text, shape `(n,)`, also those that are not features.
        values: by feature, shape `(n,)`: float64 with NaN where missing, or the category's number (-1: none of them).
        targets: shape `(n,)`: class numbers (int64), or values (float64).
        dropped: number of rows that the schema left out.

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
                part[:, 0] = _standardised(values, column.name, statistics)
                part[:, 1:] = np.isnan(values)[:, None]
            begin += width
        return encoded


def read_table(texts: Texts, schema: Schema, *, labelled: bool = True) -> Table:
    """Return the table; without `labelled` the label's column is not read, and targets are 0.

    Raises `DataError` with file, line, column and cell for what the schema does not allow.
    """
    values = {column.name: _column(texts, column.name, _reading(column)) for column in schema.features}
    blank = np.zeros(len(texts.lines), np.int64)
    targets = _column(texts, schema.label, _label(schema)) if labelled else blank
    keep = ~(np.isnan(targets) if schema.task == "regression" else targets == _DROP)
    for column in schema.features:
        if column.missing == "drop":
            found = values[column.name]
            keep &= ~(np.isnan(found) if column.kind == "numeric" else found == _DROP)
    if not keep.any():
        raise DataError(f'{texts.where}: every row was left out for a missing cell; revise missing = "drop".')
    columns = {name: np.array(cells, object)[keep] for name, cells in texts.columns.items()}
    kept = {name: found[keep] for name, found in values.items()}
    return Table(schema, columns, kept, targets[keep], int((~keep).sum()))


def _column(texts: Texts, name: str, meaning: Callable[[str], float | int]) -> NDArray[Any]:
    cells = texts.column(name)
    meanings: dict[str, float | int] = {}
    for cell in dict.fromkeys(cells):
        try:
            meanings[cell] = meaning(plain(cell))
        except ValueError as problem:
            line = texts.lines[cells.index(cell)]
            raise DataError(f"{texts.where}, line {line}, column {name!r}: {problem}") from None
    return np.array([meanings[cell] for cell in cells])


def _reading(column: Column) -> Callable[[str], float | int]:
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


def _label(schema: Schema) -> Callable[[str], float | int]:
    classes = {name: at for at, name in enumerate(schema.outputs)}

    def label(cell: str) -> float | int:
        if cell in schema.missing_values:
            return _unless_error(schema.missing, math.nan if schema.task == "regression" else _DROP, "label")
        if schema.task == "regression":
            return _number(cell)
        if schema.above is not None:
            return int(_number(cell) > schema.above)
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


def _standardised(values: NDArray[Any], name: str, statistics: Mapping[str, Any]) -> NDArray[Any]:
    if name not in statistics:
        raise DataError(f"column {name!r}: no mean and scale are known; the schema here is not the one of the run.")
    found = (values - statistics[name]["mean"]) / statistics[name]["scale"]
    return np.where(np.isnan(values), 0.0, found)
