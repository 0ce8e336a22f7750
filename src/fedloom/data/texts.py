"""A CSV file as columns of text, with the line that each row came from, so that a complaint can name it."""

import csv
import gzip
import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError
from .folder import absent
from .schema import hint


@dataclass(frozen=True, eq=False)
class Texts:
    """Columns of cells as they were written, all of one length.

    Args:
        columns: cells by column name.
        lines: number of the line that each row ends on, counted from 1.
        where: what to call it in a complaint: the file's path.
    """

    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]
    where: str

    @property
    def names(self) -> Sequence[str]:
        """Names of the columns."""
        return tuple(self.columns)

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.lines)

    def place(self, row: int) -> str:
        """Return the file and the line that a row ends on."""
        return f"{self.where}, line {self.lines[row]}"

    def numbers(self, name: str) -> None:
        """Return None: cells are texts."""

    def coded(self, name: str, rows: NDArray[np.int64] | None = None) -> tuple[list[str], NDArray[np.int64]]:
        """Return the texts in a column, or in some rows of it, and which of them each cell is.

        >>> Texts({"a": ("x", "y", "x")}, (2, 3, 4), "my.csv").coded("a")
        (['x', 'y'], array([0, 1, 0]))
        """
        cells = self.column(name) if rows is None else [self.column(name)[row] for row in rows]
        numbers = {cell: at for at, cell in enumerate(dict.fromkeys(cells))}
        return list(numbers), np.fromiter(map(numbers.__getitem__, cells), np.int64, len(cells))

    def column(self, name: str) -> Sequence[str]:
        """Return one column; raises `DataError` that names the nearest one."""
        if name not in self.columns:
            raise DataError(f"{self.where}: there is no column {name!r}; {hint(name, self.columns)}{self._delimiter()}")
        return self.columns[name]

    def _delimiter(self) -> str:
        header = next(iter(self.columns))
        other = next((mark for mark in ";\t|," if mark in header), None)
        return (
            f" The only column is {header!r}: is the delimiter {other!r}?" if len(self.columns) == 1 and other else ""
        )


def read_texts(path: Path, delimiter: str = ",") -> Texts:
    """Return the columns of a CSV file with a header, plain or gzip-compressed, in UTF-8 with or without a mark.

    Blank lines are skipped. Raises `DataError` for a file that is missing, empty, not text, ragged or without rows.
    """
    reader = csv.reader(io.StringIO(_content(path), newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for row in reader:
            if row:
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: this is not a CSV file ({error}).") from None
    if not rows:
        raise DataError(f"{path}: the file is empty; its first line must name the columns.")
    header = _header(path, rows[0])
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {line}: the header names {len(header)} columns, and this row has {len(row)} cells; "
                f"put quotes around a cell that holds a {delimiter!r}, or fill in the row."
            )
    if len(rows) == 1:
        raise DataError(f"{path}: there are no rows below the header.")
    cells = zip(*rows[1:], strict=True)
    return Texts(dict(zip(header, cells, strict=True)), lines[1:], str(path))


def _content(path: Path) -> str:
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except FileNotFoundError:
        raise absent(path) from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: the file cannot be read ({error}).") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: byte {raw[error.start]:#04x} is not UTF-8; save the file as CSV in UTF-8."
        ) from None
    if "\0" in text:
        raise DataError(f"{path}: this is not a CSV file (it holds NUL bytes); save it as CSV in UTF-8.")
    return text


def _header(path: Path, cells: Sequence[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: the header names column {twice!r} twice; rename one of them.")
    return names
