"""Where rows come from: tables; arrays are in `arrays`.

A source is a value that can be described without reading anything: the coordinator of a real federation has none of
the files, and each institution names its own.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from ..core.errors import ConfigError, MissingExtra
from .folder import locate
from .parquet import read_parquet
from .rows import Rows, TableRows
from .schema import Column, Schema, TaskKind, hint
from .table import read_table
from .texts import Texts, read_texts

SKLEARN_SETS = ("breast_cancer", "diabetes", "digits", "iris", "wine")


class Source(Protocol):
    """Rows to come, and what is known of them beforehand."""

    @property
    def schema(self) -> Schema | None:
        """Of a table; None for arrays."""
        ...

    @property
    def task(self) -> TaskKind:
        """What is predicted."""
        ...

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one encoded input."""
        ...

    @property
    def classes(self) -> int:
        """Number of classes; 0 for regression."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers."""
        ...

    def read(self, path: str | Path | None = None) -> Rows:
        """Return all rows, of the source's own file or of an institution's; raises `DataError`."""
        ...

    def test(self) -> Rows | None:
        """Return the official test part, if there is one."""
        ...


class OfSchema:
    """What a source of a table says beforehand: all of it follows from its schema."""

    schema: Schema

    @property
    def task(self) -> TaskKind:
        """Of the schema."""
        return self.schema.task

    @property
    def input_shape(self) -> tuple[int, ...]:
        """`(schema.inputs,)`."""
        return (self.schema.inputs,)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.schema.outputs)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.schema.outputs


@dataclass(frozen=True)
class Csv(OfSchema):
    """A CSV file with a header, plain or gzip-compressed.

    Args:
        path: of the file; "$FEDLOOM_DATA/…" lies in `data_folder()`; None where each institution names its own.
        schema: what its columns mean.
        delimiter: between cells.
        test_path: of the official test part, if there is one.
    """

    path: str | Path | None
    schema: Schema
    delimiter: str = ","
    test_path: str | Path | None = None

    def __post_init__(self) -> None:
        if len(self.delimiter) != 1:
            raise ConfigError(f"Csv: the delimiter must be one character, got {self.delimiter!r}.")

    def read(self, path: str | Path | None = None) -> TableRows:
        """Return the rows of the file."""
        texts = read_texts(locate(self.path if path is None else path), self.delimiter)
        return TableRows(read_table(texts, self.schema))

    def test(self) -> TableRows | None:
        """Return the rows of the test file."""
        return None if self.test_path is None else self.read(self.test_path)


@dataclass(frozen=True)
class Parquet(OfSchema):
    """A Parquet file, or a folder of files `*.parquet` whose rows are taken in the order of their names.

    Needs `fedloom[parquet]`. The schema means the same as for `Csv`: a null is the missing cell "", NaN is the cell
    "nan", a truth value is "true" or "false". Files are mapped into memory; only columns that the schema names are
    read, and others when a partition asks for them.

    Args:
        path: of the file or folder; "$FEDLOOM_DATA/…" lies in `data_folder()`; None where each institution names its
            own.
        schema: what its columns mean.
        test_path: of the official test part, if there is one.
    """

    path: str | Path | None
    schema: Schema
    test_path: str | Path | None = None

    def read(self, path: str | Path | None = None) -> TableRows:
        """Return the rows of the file or folder."""
        return TableRows(read_table(read_parquet(locate(self.path if path is None else path)), self.schema))

    def test(self) -> TableRows | None:
        """Return the rows of the test part."""
        return None if self.test_path is None else self.read(self.test_path)


@dataclass(frozen=True)
class SklearnSet(OfSchema):
    """One of scikit-learn's own tables: breast_cancer, diabetes, digits, iris, wine. Needs `fedloom[sklearn]`.

    All features are numeric columns; `read(path)` reads a CSV file with the same columns and a column "target".
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in SKLEARN_SETS:
            raise ConfigError(f"SklearnSet: there is no set {self.name!r}; {hint(self.name, SKLEARN_SETS)}")

    @cached_property
    def schema(self) -> Schema:  # type: ignore[override]  # a field of the others, and as frozen there
        """Built from the set's own names of features and classes."""
        columns = tuple(Column(str(name)) for name in self._bunch.feature_names)
        names = tuple(str(name) for name in self._bunch.get("target_names", ()))
        task: TaskKind = "regression" if not names else "binary" if len(names) == 2 else "multiclass"
        return Schema(columns, "target", task, names)

    def read(self, path: str | Path | None = None) -> TableRows:
        """Return the set's rows, or those of a CSV file."""
        return _shipped(self, _sets(self.name)) if path is None else Csv(path, self.schema).read()

    def test(self) -> None:
        """Return None: there is no official test part."""

    @property
    def _bunch(self) -> Any:
        return _loaded(_sets(self.name), self.name)


def _sets(name: str) -> Any:
    try:
        return import_module("sklearn.datasets")
    except ModuleNotFoundError:
        raise MissingExtra(f"the data set {name!r} comes with scikit-learn: pip install 'fedloom[sklearn]'") from None


@cache
def _loaded(sets: Any, name: str) -> Any:
    return getattr(sets, f"load_{name}")()


@cache
def _shipped(source: SklearnSet, sets: Any) -> TableRows:
    """Return a set's rows, which come with a library and are read once; nobody may write into them."""
    found, names = _loaded(sets, source.name), source.schema.classes
    data, targets = found.data, found.target
    columns = {column.name: [repr(float(x)) for x in data[:, at]] for at, column in enumerate(source.schema.features)}
    columns["target"] = [names[int(x)] if names else repr(float(x)) for x in targets]
    texts = Texts(columns, range(1, len(targets) + 1), f"scikit-learn's {source.name}")
    rows = TableRows(read_table(texts, source.schema))
    for array in (*rows.table.values.values(), rows.table.targets, rows.index):
        array.setflags(write=False)
    return rows
