"""[data]: where rows come from, their schema, and who holds what."""

import inspect
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ..app import Data
from ..core.errors import ConfigError
from ..data import KNOWN, Column, Csv, Idx, Npz, Parquet, Partition, Schema, Shifted, SklearnSet, Source
from ..data.partition import ByColumn, Dirichlet, Drawn, Iid, Quantity, Shards, Whole
from ..data.sources import SKLEARN_SETS
from .table import Strict, Table, checked, chosen, made, named, nearest

PARTITIONS: dict[str, type] = {
    "iid": Iid,
    "dirichlet": Dirichlet,
    "shards": Shards,
    "quantity": Quantity,
    "drawn": Drawn,
    "by_column": ByColumn,
    "whole": Whole,
}
ARRAYS: dict[str, type] = {"idx": Idx, "npz": Npz}
TABLES = ("csv", "parquet")


class DataTable(Strict):
    """[data]: a known set, one of scikit-learn's, or one's own file."""

    source: str
    path: str | None = None
    test_path: str | None = None
    delimiter: str = ","
    holdout: float | None = Field(None, ge=0, lt=1)
    scaling: Literal["measured", "range"] = "measured"
    partition: str | Table | None = None
    label: Table | None = None
    columns: dict[str, Table] = {}
    arrays: Table = {}


class LabelTable(Strict):
    """[data.label]."""

    column: str
    task: Literal["binary", "multiclass", "regression"] = "binary"
    classes: list[str | int | float] = []
    positive: str | int | float | None = None
    above: float | None = None
    missing: Literal["error", "drop"] = "error"
    missing_values: list[str] = [""]


class ColumnTable(Strict):
    """[data.columns.NAME]."""

    kind: Literal["numeric", "categorical"] = "numeric"
    categories: list[str | int | float] = []
    missing: Literal["error", "mean", "other", "drop"] = "error"
    indicator: bool = False
    unseen: Literal["error", "ignore"] = "error"
    range: tuple[float, float] | None = None
    missing_values: list[str] = [""]
    scaling: Literal["measured", "range"] = "measured"


def data_of(table: Table, clients: int | None, folder: Path, where: str) -> Data:
    """Return the data of [data], among so many clients; paths in it are relative to `folder`."""
    where = f"{where}: data"
    found: DataTable = checked(DataTable, table, where)
    source = _source(found, folder, where)
    if found.scaling == "range":
        source = _ranged(source, where)
    holdout = found.holdout if found.holdout is not None else (0.0 if _has_test(source) else 0.2)
    return Data(source=source, partition=_partition(found, clients, where), holdout=holdout)


def _has_test(source: Source) -> bool:
    if isinstance(source, Npz):
        return source.test_inputs is not None
    return isinstance(source, Idx) or (isinstance(source, Csv | Parquet) and source.test_path is not None)


def _partition(found: DataTable, clients: int | None, where: str) -> Partition:
    if found.partition is None:
        if found.source == "heart_disease" and clients is None:
            return ByColumn("site")
        return Iid(clients or 10)
    table = named("partition", found.partition)
    if clients is not None:
        if "clients" not in inspect.signature(PARTITIONS.get(table.get("kind", ""), Iid)).parameters:
            raise ConfigError(
                f"{where}.partition: {table.get('kind')!r} has its own clients; leave the key 'clients' out."
            )
        table = {"clients": clients, **table}
    own = {key: value for key, value in table.items() if key != "shift"}
    partition: Partition = chosen(PARTITIONS, "kind", "partition", own, f"{where}.partition")
    return _shifted(partition, table["shift"], f"{where}.partition.shift") if "shift" in table else partition


def _shifted(inner: Partition, shift: Any, where: str) -> Partition:
    if not isinstance(shift, dict):
        raise ConfigError(f"{where}: it is a table, such as shift = {{ noise = 0.1 }}; got {shift!r}.")
    shifted: Partition = made(partial(Shifted, inner), shift, where)
    return shifted


def _source(found: DataTable, folder: Path, where: str) -> Source:
    if found.source in KNOWN:
        return KNOWN[found.source]()
    if found.source in SKLEARN_SETS:
        return SklearnSet(found.source)
    path = None if found.path is None else _beside(folder, found.path)
    if found.source in ARRAYS:
        arrays: Source = made(ARRAYS[found.source], {"path": path, **found.arrays}, f"{where}.arrays")
        return arrays
    if found.source not in TABLES:
        known = [*ARRAYS, *TABLES, *KNOWN, *SKLEARN_SETS]
        raise ConfigError(f"{where}: there is no source {found.source!r}; {nearest(found.source, known)}")
    if path is None or found.label is None or not found.columns:
        raise ConfigError(
            f"{where}: a {found.source} needs 'path', 'label' and 'columns'; `fedloom new FILE.csv` writes them."
        )
    test = None if found.test_path is None else _beside(folder, found.test_path)
    if found.source == "csv":
        return Csv(path, _schema(found, where), found.delimiter, test)
    return Parquet(path, _schema(found, where), test)


def _ranged(source: Source, where: str) -> Source:
    if not isinstance(source, Csv | Parquet):
        raise ConfigError(f"{where}: 'scaling' is for the columns of a table; this source has none.")
    return replace(source, schema=source.schema.ranged())


def _beside(folder: Path, path: str) -> str:
    return path if path.startswith("$") else str(folder / Path(path).expanduser())


def _schema(found: DataTable, where: str) -> Schema:
    label: LabelTable = checked(LabelTable, found.label or {}, f"{where}.label")
    columns = tuple(_column(name, table, f"{where}.columns.{name}") for name, table in found.columns.items())
    return Schema(
        columns,
        label.column,
        label.task,
        tuple(str(name) for name in label.classes),
        None if label.positive is None else str(label.positive),
        label.above,
        label.missing,
        tuple(label.missing_values),
    )


def _column(name: str, table: Table, where: str) -> Column:
    found: ColumnTable = checked(ColumnTable, table, where)
    return Column(
        name,
        found.kind,
        tuple(str(category) for category in found.categories),
        found.missing,
        found.indicator,
        found.unseen,
        found.range,
        tuple(found.missing_values),
        found.scaling,
    )
