"""Parquet files as columns of cells: numbers stay numbers, and a column is read when it is asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError, MissingExtra
from .folder import absent
from .schema import hint


@dataclass(frozen=True)
class File:
    """One Parquet file: what its footer says."""

    path: Path
    rows: int
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ParquetCells:
    """Columns of one Parquet file, or of several below each other.

    Args:
        files: in order, with one row in all of them at least.
        where: what to call them in a complaint: the path of the file or folder.
    """

    files: tuple[File, ...]
    where: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self.files[0].names

    @cached_property
    def size(self) -> int:
        """Number of rows."""
        return sum(file.rows for file in self.files)

    def place(self, row: int) -> str:
        """Return the file that a row lies in and its number there, counted from 1."""
        for file in self.files:
            if row < file.rows:
                return f"{file.path}, row {row + 1}"
            row -= file.rows
        raise IndexError(row)

    def column(self, name: str) -> NDArray[Any]:
        """Return one column as text."""
        texts, codes = self.coded(name)
        return np.array(texts, object)[codes]

    def numbers(self, name: str) -> NDArray[Any] | None:
        """Return a column that holds integers or floats, NaN where there is none; None for any other type.

        Single-precision numbers stay so: 0.1 among them is compared as 0.1, and not as 0.10000000149.
        """
        arrow, column = import_module("pyarrow"), self._read(name)
        if not (arrow.types.is_integer(column.type) or arrow.types.is_floating(column.type)):
            return None
        half, single = arrow.types.is_float16(column.type), arrow.types.is_float32(column.type)
        wide = arrow.float32() if half or single else arrow.float64()
        found: NDArray[Any] = column.cast(wide, safe=False).to_numpy()
        return found

    def coded(self, name: str, rows: NDArray[np.int64] | None = None) -> tuple[list[str], NDArray[np.int64]]:
        """Return the texts in a column, or in some rows of it, and which of them each cell is; no value is ""."""
        arrow, column = import_module("pyarrow"), self._read(name)
        with complaints(f"{self.where}, column {name!r} of type {column.type}"):
            part = column if rows is None else column.take(arrow.array(rows))
            part = part.cast(arrow.string()) if arrow.types.is_null(part.type) else part
            encoded = part.dictionary_encode().unify_dictionaries().combine_chunks()
            texts: list[str] = encoded.dictionary.cast(arrow.string()).to_pylist()
        codes = encoded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False).astype(np.int64)
        return texts + [""] * bool(part.null_count), codes

    def _read(self, name: str) -> Any:
        arrow, parts = import_module("pyarrow"), []
        for file in self.files:
            if name not in file.names:
                raise DataError(f"{file.path}: there is no column {name!r}; {hint(name, file.names)}")
            with opened(file.path) as found:
                parts.append(found.read(columns=[name]).select([name]))
        with complaints(f"{self.where}, column {name!r}"):
            column = arrow.concat_tables(parts, promote_options="permissive").column(name)
            return column.cast(column.type.value_type) if arrow.types.is_dictionary(column.type) else column


def read_parquet(path: Path) -> ParquetCells:
    """Return the columns of a Parquet file, or of all files `*.parquet` of a folder in the order of their names.

    Only footers are read. Raises `DataError` for what is missing, no Parquet file, or without rows, and `MissingExtra`.
    """
    paths = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not paths:
        raise DataError(f"{path}: the folder holds no file *.parquet; give the one that does, or a file.")
    cells = ParquetCells(tuple(_file(each) for each in paths), str(path))
    if not cells.size:
        raise DataError(f"{path}: there are no rows.")
    return cells


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file, mapped into memory."""
    try:
        parquet = import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise MissingExtra("Parquet files are read by pyarrow: pip install 'fedloom[parquet]'") from None
    if not path.exists():
        raise absent(path)
    with complaints(str(path)), parquet.ParquetFile(path, memory_map=True) as file:
        yield file


@contextmanager
def complaints(where: str) -> Iterator[None]:
    """Turn what pyarrow raises into a `DataError`."""
    try:
        yield
    except (import_module("pyarrow").ArrowException, OSError) as error:
        problem = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{where} cannot be read by pyarrow ({problem}).") from None


def _file(path: Path) -> File:
    with opened(path) as found:
        names = tuple(found.schema_arrow.names)
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"{path}: there are two columns {twice!r}; rename one of them.")
        return File(path, found.metadata.num_rows, names)
