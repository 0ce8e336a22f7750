"""Sources of tables: CSV files and scikit-learn's own sets."""

import sys
from pathlib import Path

import numpy as np
import pytest

from fedloom.core.errors import ConfigError, DataError, MissingExtra
from fedloom.data.schema import Column, Schema
from fedloom.data.sources import SKLEARN_SETS, Csv, Parquet, SklearnSet, Source

SCHEMA = Schema((Column("age"),), "sick", classes=("no", "yes"))


@pytest.mark.parametrize("kind", [Csv, Parquet])
def test_a_table_is_described_without_its_file(kind: type[Csv] | type[Parquet]) -> None:
    source: Source = kind(None, SCHEMA)
    assert (source.task, source.input_shape, source.classes, source.class_names) == ("binary", (1,), 2, ("no", "yes"))
    with pytest.raises(DataError, match="no file of its own; give the path of yours"):
        source.read()


def test_each_institution_reads_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "app.csv").write_text("age,sick\n60,yes\n")
    (tmp_path / "mine.csv").write_text("sick,age,extra\nno,30,a\nyes,40,b\n")
    source = Csv(tmp_path / "app.csv", SCHEMA, test_path=str(tmp_path / "mine.csv"))
    assert source.read().labels().tolist() == [1]
    assert source.read(tmp_path / "mine.csv").column("extra").tolist() == ["a", "b"]
    test = source.test()
    assert test is not None
    assert test.size == 2
    assert Csv("x.csv", SCHEMA).test() is None


def test_a_parquet_source_reads_its_own_file_or_an_institutions(tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    parquet.write_table(arrow.table({"age": [60], "sick": ["yes"]}), tmp_path / "app.parquet")
    parquet.write_table(arrow.table({"sick": ["no", "yes"], "age": [30, 40]}), tmp_path / "mine.parquet")
    source = Parquet(tmp_path / "app.parquet", SCHEMA, test_path=tmp_path / "mine.parquet")
    assert source.read().labels().tolist() == [1]
    assert source.read(str(tmp_path / "mine.parquet")).column("age").tolist() == ["30", "40"]
    test = source.test()
    assert test is not None
    assert test.labels().tolist() == [0, 1]
    assert Parquet("x.parquet", SCHEMA).test() is None


def test_a_delimiter_is_one_character() -> None:
    with pytest.raises(ConfigError, match="delimiter must be one character"):
        Csv("x.csv", SCHEMA, delimiter="")


@pytest.mark.parametrize("name", SKLEARN_SETS)
def test_sklearn_sets_are_tables_with_their_own_names(name: str) -> None:
    import sklearn.datasets as datasets

    data, target = getattr(datasets, f"load_{name}")(return_X_y=True)
    source: Source = SklearnSet(name)
    rows = source.read()
    assert source.input_shape == data.shape[1:]
    np.testing.assert_array_equal(rows.labels(), target)
    known = {column: {"mean": 0.0, "scale": 1.0} for column in source.schema.numeric} if source.schema else {}
    np.testing.assert_allclose(rows.examples(known).inputs, data, rtol=1e-6)
    assert source.test() is None


def test_sklearn_sets_can_be_divided_among_files(tmp_path: Path) -> None:
    names = SklearnSet("iris").schema.names
    (tmp_path / "mine.csv").write_text(",".join([*names, "target"]) + "\n5,3,1,0.2,setosa\n")
    assert SklearnSet("iris").read(tmp_path / "mine.csv").labels().tolist() == [0]


def test_an_unknown_set_and_a_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"no set 'irs'; did you mean 'iris'\?"):
        SklearnSet("irs")
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtra, match=r"pip install 'fedloom\[sklearn\]'"):
        SklearnSet("iris").read()
