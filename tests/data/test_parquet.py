"""Parquet files: what a CSV file of the same rows gives, with the file and the row of a complaint."""

import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.core.errors import DataError, MissingExtra
from fedloom.data.parquet import read_parquet
from fedloom.data.partition import ByColumn
from fedloom.data.rows import TableRows
from fedloom.data.schema import Column, Schema
from fedloom.data.table import Table, read_table
from fedloom.data.texts import Texts


def written(folder: Path, name: str = "my.parquet", **columns: Any) -> Path:
    parquet.write_table(arrow.table(columns), folder / name, row_group_size=2)
    return folder / name


def read(path: Path, column: Column, **label: Any) -> Table:
    return read_table(read_parquet(path), Schema((column,), "y", **(label or {"task": "regression"})))


def alike(path: Path, cells: dict[str, Sequence[str]], schema: Schema) -> Table:
    """Return the table of a Parquet file after comparing it with that of the same cells as text."""
    oracle = read_table(Texts(cells, range(2, 2 + len(cells["y"])), "my.csv"), schema)
    table = read_table(read_parquet(path), schema)
    assert table.dropped == oracle.dropped
    np.testing.assert_array_equal(table.targets, oracle.targets)
    for name, values in oracle.values.items():
        np.testing.assert_array_equal(table.values[name], values)
        assert table.values[name].dtype == values.dtype
    return table


def text(value: object) -> str:
    return "" if value is None else str(value)


NUMBERS = st.one_of(st.none(), st.integers(-100, 100), st.floats(-100, 100, width=32))


@given(st.lists(NUMBERS, min_size=1, max_size=9), st.lists(st.sampled_from([None, "a", "b"]), min_size=9, max_size=9))
def test_typed_columns_mean_what_their_texts_mean(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[Any], words: list[Any]
) -> None:
    words, targets = words[: len(numbers)], list(range(len(numbers)))
    columns = (
        Column("x", missing="mean", missing_values=("", "-9", "0.5")),
        Column("word", "categorical", ("b", "a"), missing="other"),
    )
    floats = [None if number is None else float(number) for number in numbers]
    path = written(tmp_path_factory.mktemp("rows"), x=arrow.array(floats, arrow.float64()), word=words, y=targets)
    cells = {"x": [*map(text, floats)], "word": [*map(text, words)], "y": [*map(text, targets)]}
    table = alike(path, cells, Schema(columns, "y", "regression"))
    assert table.columns["word"].tolist() == cells["word"]


@pytest.mark.parametrize("kind", ["int8", "uint16", "int64", "float16", "float32", "float64", "dictionary", "string"])
def test_any_type_of_numbers(tmp_path: Path, kind: str) -> None:
    array = arrow.array([3, None, -0.0, 120] if kind != "string" else ["3", None, "-0.0", "120"])
    array = array.dictionary_encode() if kind == "dictionary" else array.cast(getattr(arrow, kind)())
    path = written(tmp_path, x=array, y=[0, 1, 0, 1])
    column = Column("x", missing="mean", range=(0, 120))
    assert read(path, column).values["x"].tolist() == [3, pytest.approx(np.nan, nan_ok=True), 0, 120]
    with pytest.raises(DataError, match=r"my.parquet, row 4, column 'x': 120 is outside the range 0 to 100; check"):
        read(path, Column("x", missing="mean", range=(0, 100)))


def test_single_precision_is_compared_as_it_was_meant(tmp_path: Path) -> None:
    path = written(tmp_path, x=arrow.array([-999.9, 0.1, 0.2], arrow.float32()), y=[0, 1, 2])
    table = read(path, Column("x", missing="mean", missing_values=("-999.9",), range=(0.1, 0.2)))
    np.testing.assert_allclose(table.values["x"], [np.nan, 0.1, 0.2], rtol=1e-7)


@pytest.mark.parametrize(
    ("array", "column", "sentence"),
    [
        ([1.0, 2.0, None], Column("x"), "row 3, column 'x': the cell is missing"),
        ([1.0, 2.0, float("nan")], Column("x", missing="mean"), "row 3, column 'x': expected a number, got 'nan'"),
        ([1.0, 2.0, float("-inf")], Column("x"), "row 3, column 'x': expected a number, got '-inf'"),
        ([1.0, 1e300, 3.0], Column("x"), "row 2, column 'x': 1e\\+300 is not below 2\\^63"),
        ([1, 2**63 - 1, 3], Column("x"), "row 2, column 'x': 9223372036854775807 is not below"),
        ([True, False, None], Column("x"), "row 1, column 'x': expected a number, got 'true'"),
        (["1", "2", "many"], Column("x"), "row 3, column 'x': expected a number, got 'many'"),
        ([None, None, None], Column("x"), "row 1, column 'x': the cell is missing"),
        (["f", "m", "w"], Column("x", "categorical", ("f", "m")), "row 3, column 'x': 'w' is not a declared category"),
        ([1, 2, None], Column("x", "categorical", ("1", "2")), "row 3, column 'x': the cell is missing"),
        ([[1], [2], [3]], Column("x", "categorical", ("1",)), "column 'x' of type list<.*> cannot be read by"),
        ([1, 2, 3], Column("z"), "there is no column 'z'; there are x, y"),
    ],
)
def test_a_bad_cell_is_refused_with_its_file_row_and_column(
    tmp_path: Path, array: list[Any], column: Column, sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        read(written(tmp_path, x=array, y=[0, 1, 2]), column)
    assert "my.parquet" in str(caught.value)


@pytest.mark.parametrize(
    ("label", "array", "expected"),
    [
        ({"classes": ("1", "0"), "missing": "drop"}, [1, None, 0], [0, 1]),
        ({"classes": ("false", "true")}, [True, False, True], [1, 0, 1]),
        ({"above": 0.5, "missing": "drop"}, [0.5, None, 2.0], [0, 1]),
        ({"task": "regression", "missing": "drop", "missing_values": ("-1",)}, [0.5, -1.0, 2.0], [0.5, 2.0]),
        ({"classes": ("2020-01-01", "2020-01-02")}, [datetime.date(2020, 1, day) for day in (2, 1, 2)], [1, 0, 1]),
    ],
)
def test_labels(tmp_path: Path, label: dict[str, Any], array: list[Any], expected: list[float]) -> None:
    table = read(written(tmp_path, x=[1, 2, 3], y=array), Column("x"), **label)
    assert table.targets.tolist() == expected
    assert table.targets.dtype == (np.float64 if label.get("task") == "regression" else np.int64)


def test_a_folder_is_read_in_the_order_of_its_files_which_may_differ_in_type(tmp_path: Path) -> None:
    written(tmp_path, "b.parquet", site=["s", "s"], y=[2, 3], x=[0.5, 200.0])
    written(tmp_path, "a.parquet", x=[1, 2], y=[0, 1], site=["n", None], extra=[0, 0])
    (tmp_path / "notes.txt").write_text("no rows")
    rows = TableRows(read(tmp_path, Column("x")))
    assert rows.labels().tolist() == [0, 1, 2, 3]
    assert rows.column("site").tolist() == ["n", "", "s", "s"]
    with pytest.raises(DataError, match=r"b.parquet, row 2, column 'x': 200"):
        read(tmp_path, Column("x", range=(0, 100)))
    with pytest.raises(DataError, match=r"b.parquet: there is no column 'extra'"):
        rows.column("extra")


def test_files_whose_types_do_not_fit_are_refused(tmp_path: Path) -> None:
    written(tmp_path, "a.parquet", x=[1], y=[0])
    written(tmp_path, "b.parquet", x=["1"], y=[0])
    with pytest.raises(DataError, match="column 'x' cannot be read by pyarrow"):
        read(tmp_path, Column("x"))


def test_only_columns_that_are_needed_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    whole = parquet.ParquetFile.read

    def watched(self: Any, columns: list[str]) -> Any:
        asked.extend(columns)
        return whole(self, columns=columns)

    monkeypatch.setattr(parquet.ParquetFile, "read", watched)
    rows = TableRows(read(written(tmp_path, x=[1, 2], y=[0, 1], site=["n", "s"], extra=[[1], [2]]), Column("x")))
    assert asked == ["x", "y"]
    assert sorted(ByColumn("site").split(rows, None)) == ["n", "s"]  # type: ignore[arg-type]
    assert asked == ["x", "y", "site"]
    assert "extra" in rows.table.columns
    assert (list(rows.table.columns), len(rows.table.columns)) == (["x", "y", "site", "extra"], 4)
    with pytest.raises(DataError, match=r"no column 'sit'; did you mean 'site'\?"):
        rows.column("sit")
    with pytest.raises(KeyError):
        rows.table.columns["sit"]


def test_a_name_with_dots_is_one_column(tmp_path: Path) -> None:
    path = written(tmp_path, **{"x": [1.0], "x.y": [2.0], "y": [0]})
    assert read(path, Column("x")).values["x"].tolist() == [1]
    assert read(path, Column("x.y")).values["x.y"].tolist() == [2]


def test_what_is_not_there_or_not_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder holds no file"):
        read_parquet(tmp_path)
    (tmp_path / "rows.parquet").write_text("age,sick\n1,2\n")
    with pytest.raises(DataError, match=r"rows.parquet cannot be read by pyarrow \("):
        read_parquet(tmp_path)
    with pytest.raises(DataError, match=r"there is no such file; did you mean 'rows.parquet'\?"):
        read_parquet(tmp_path / "row.parquet")
    with pytest.raises(DataError, match="there are no rows"):
        read_parquet(written(tmp_path, x=arrow.array([], arrow.int64())))
    twice = arrow.table([arrow.array([1]), arrow.array([2])], names=["x", "x"])
    parquet.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(DataError, match="there are two columns 'x'; rename one"):
        read_parquet(tmp_path / "twice.parquet")


def test_a_missing_library_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match=r"pip install 'fedloom\[parquet\]'"):
        read_parquet(tmp_path / "x.parquet")
