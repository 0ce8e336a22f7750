"""Cells read by a schema: every policy, and every refusal with file, line and column."""

from typing import Any

import numpy as np
import pytest

from fedloom.core.errors import DataError
from fedloom.data.schema import Column, Schema
from fedloom.data.table import read_table
from fedloom.data.texts import Texts

KNOWN = {"x": {"mean": 2.0, "scale": 0.5}}


def texts(**columns: list[str]) -> Texts:
    size = len(next(iter(columns.values())))
    return Texts(columns, range(2, size + 2), "my.csv")


def encoded(column: Column, cells: list[str]) -> list[list[float]]:
    table = read_table(texts(x=cells, y=["0"] * len(cells)), Schema((column,), "y", "regression"))
    result: list[list[float]] = table.encode(np.arange(table.size), KNOWN).tolist()
    return result


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (Column("x", missing="mean"), [[-2.0], [0.0], [2.0]]),
        (Column("x", missing="mean", indicator=True), [[-2.0, 0.0], [0.0, 1.0], [2.0, 0.0]]),
        (Column("x", missing="drop"), [[-2.0], [2.0]]),
        (Column("x", missing="mean", missing_values=("", "3.0")), [[-2.0], [0.0], [0.0]]),
        (Column("x", "categorical", ("3", "1.0"), missing="other"), [[0, 1], [0, 0], [1, 0]]),
        (Column("x", "categorical", ("3", "1"), missing="drop"), [[0, 1], [1, 0]]),
        (Column("x", "categorical", ("1", ""), unseen="ignore"), [[1, 0], [0, 1], [0, 0]]),
        (Column("x", "categorical", ("3",), missing="other", unseen="ignore"), [[0], [0], [1]]),
    ],
)
def test_policies_for_missing_and_unseen_cells(column: Column, expected: list[list[float]]) -> None:
    assert encoded(column, ["1", " ", "3.0"]) == expected


@pytest.mark.parametrize(
    ("column", "cell", "sentence"),
    [
        (Column("x"), "", 'the cell is missing; .* "mean" or "drop"'),
        (Column("x"), "abc", "expected a number, got 'abc'"),
        (Column("x"), "1,5", "expected a number, got '1,5'"),
        (Column("x"), "nan", "expected a number, got 'nan'"),
        (Column("x"), "-inf", "expected a number, got '-inf'"),
        (Column("x"), "1e300", "not below 2\\^63"),
        (Column("x", range=(0, 120)), "121", "121 is outside the range 0 to 120; check its unit"),
        (Column("x", "categorical", ("1",)), "", 'the cell is missing; .* "other" or "drop"'),
        (
            Column("x", "categorical", ("1", "Male")),
            "male",
            r"'male' is not a declared category; did you mean 'Male'\?",
        ),
    ],
)
def test_a_bad_cell_is_refused_with_its_line_and_column(column: Column, cell: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        encoded(column, ["1", "1", cell])
    assert "my.csv, line 4, column 'x'" in str(caught.value)


@pytest.mark.parametrize(
    ("label", "cells", "expected"),
    [
        ({"classes": ("Yes", "No"), "positive": "Yes"}, ["Yes", "No", "Yes"], [1, 0, 1]),
        ({"above": 0}, ["0", "3", "1.0"], [0, 1, 1]),
        ({"task": "multiclass", "classes": ("2", "0", "1")}, ["0", "1.0", "2"], [1, 2, 0]),
        ({"task": "regression"}, ["0.5", "-1", "2"], [0.5, -1.0, 2.0]),
        ({"classes": ("0", "1"), "missing": "drop"}, ["1", "", "0"], [1, 0]),
        ({"task": "regression", "missing": "drop", "missing_values": ("?",)}, ["1", "?", "0"], [1.0, 0.0]),
    ],
)
def test_labels(label: dict[str, Any], cells: list[str], expected: list[float]) -> None:
    table = read_table(texts(x=["1", "2", "3"], y=cells), Schema((Column("x"),), "y", **label))
    assert table.targets.tolist() == expected
    assert table.dropped == 3 - len(expected)
    assert len(table.columns["x"]) == len(table.values["x"]) == len(expected)


@pytest.mark.parametrize(
    ("label", "cell", "sentence"),
    [
        ({"classes": ("Yes", "No")}, "yes", r"'yes' is not a declared class; did you mean 'Yes'\?"),
        ({"classes": ("Yes", "No")}, "", 'the cell is missing; .* "drop"'),
        ({"above": 0}, "many", "expected a number, got 'many'"),
        ({"task": "regression"}, "", "the cell is missing"),
    ],
)
def test_a_bad_label_is_refused(label: dict[str, Any], cell: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        read_table(texts(x=["1"], y=[cell]), Schema((Column("x"),), "y", **label))
    assert "my.csv, line 2, column 'y'" in str(caught.value)


def test_a_table_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(DataError, match="every row was left out"):
        encoded(Column("x", missing="drop"), ["", ""])


def test_encoding_without_statistics_is_refused() -> None:
    table = read_table(texts(x=["1"], y=["0"]), Schema((Column("x"),), "y", "regression"))
    with pytest.raises(DataError, match="column 'x': no mean and scale are known"):
        table.encode(np.array([0]), {})
