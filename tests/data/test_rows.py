"""Rows of tables and arrays behind one protocol."""

import numpy as np
import pytest

from fedloom.core.errors import ConfigError, DataError
from fedloom.core.examples import Holding
from fedloom.data.rows import ArrayRows, Rows, SiteRows, TableRows
from fedloom.data.schema import Column, Schema
from fedloom.data.table import read_table
from fedloom.data.texts import Texts

SCHEMA = Schema((Column("age"), Column("sex", "categorical", ("f", "m"))), "sick", classes=("no", "yes"))
KNOWN = {"age": {"mean": 50.0, "scale": 10.0}}


def table_rows() -> TableRows:
    columns = {"age": ["40", "50", "60"], "sex": ["f", "m", "f"], "sick": ["no", "yes", "yes"], "site": ["b", "a", "b"]}
    return TableRows(read_table(Texts(columns, (2, 3, 4), "my.csv"), SCHEMA))


def array_of(count: int) -> ArrayRows:
    images = np.arange(count * 4, dtype=np.uint8).reshape(count, 2, 2)
    return ArrayRows(images, np.arange(count) % 2, ("no", "yes"), scale=1 / 255)


@pytest.mark.parametrize("rows", [table_rows(), array_of(3)], ids=["table", "array"])
def test_taking_twice_is_taking_the_composition(rows: Rows) -> None:
    twice, once = rows.take(np.array([2, 0, 1])).take(np.array([0, 2])), rows.take(np.array([2, 1]))
    assert twice.size == once.size == 2
    np.testing.assert_array_equal(twice.labels(), once.labels())
    np.testing.assert_array_equal(twice.examples(KNOWN).inputs, once.examples(KNOWN).inputs)


@pytest.mark.parametrize("rows", [table_rows(), array_of(3)], ids=["table", "array"])
def test_no_rows_are_rows_too(rows: Rows) -> None:
    none = rows.take(np.array([], np.int64))
    assert none.size == len(none.labels()) == none.examples(KNOWN).size == 0
    assert none.examples(KNOWN).inputs.shape[1:] == rows.examples(KNOWN).inputs.shape[1:]


def test_table_rows_give_numbers_and_any_column() -> None:
    rows = table_rows().take(np.array([2, 1]))
    examples = rows.examples(KNOWN)
    assert examples.inputs.dtype == np.float32
    assert examples.targets.dtype == np.int64
    assert examples.inputs.tolist() == [[1, 1, 0], [0, 0, 1]]
    assert rows.column("site").tolist() == ["b", "a"]
    with pytest.raises(DataError, match=r"no column 'sit'; did you mean 'site'\?"):
        rows.column("sit")


def test_bytes_stay_bytes_and_shared_until_they_are_prepared() -> None:
    rows = array_of(4)
    part = rows.take(np.array([1, 3]))
    assert part.inputs is rows.inputs
    np.testing.assert_allclose(part.examples({}).inputs[0], np.arange(4, 8).reshape(2, 2) / 255, rtol=1e-6)
    assert part.examples({}).inputs.dtype == np.float32
    assert rows.inputs.dtype == np.uint8


def test_float_inputs_are_not_written_to() -> None:
    inputs = np.ones((2, 3), np.float32)
    ArrayRows(inputs, np.array([0, 1]), ("a", "b"), scale=0.5).examples({})
    assert inputs.tolist() == np.ones((2, 3)).tolist()


def test_values_become_float32() -> None:
    assert ArrayRows(np.eye(2), np.array([0.5, 1.5])).examples({}).targets.dtype == np.float32


def test_arrays_have_nothing_to_measure_and_no_columns() -> None:
    with pytest.raises(ConfigError, match="no columns whose mean could be measured"):
        array_of(2).measure("mean", {})
    with pytest.raises(DataError, match="arrays have no column 'site'"):
        array_of(2).column("site")


def test_a_site_measures_only_what_it_trains_on() -> None:
    rows = table_rows()
    site: Holding = SiteRows(rows.take(np.array([0, 2])), rows.take(np.array([1])))
    assert site.train_size == 2
    present = site.measure("mean", {}).vector[-2]
    assert present == 2
    split = site.prepare(KNOWN)
    assert (split.train.size, split.held_out.size) == (2, 1)
