"""What a data set is known by: its own content, whatever its file is called, in whatever order its rows lie.

Each row is hashed with a key that only the site has, so that a list of hashes tells nobody who is in it. The digest is
over all of them in order of size; the sketch is the smallest of them, by which two data sets that share rows are found.
"""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import Any

import numpy as np

from ..core.errors import DataError
from .rows import ArrayRows, Rows, SiteRows, TableRows
from .shift import ShiftedRows

SKETCH = 1024  # rows
_BLOCK, _BYTES = 4096, 16


@dataclass(frozen=True)
class Fingerprint:
    """A data set, as its site knows it again.

    Args:
        digest: SHA-256 over its rows' hashes, hexadecimal; the same for the same rows in any order.
        rows: how many it has.
        sketch: the smallest `SKETCH` hashes of different rows, hexadecimal, ascending: all of them in a small data set.

    Of two data sets with a sketch each, a shared part J of all their rows is missed with probability about
    e^(-1024·J); where both have at most 1,024 rows, never (Broder, "On the resemblance and containment of documents",
    1997, section 3: the smallest elements of a union are a sample of it).
    """

    digest: str
    rows: int
    sketch: tuple[str, ...]

    def shares(self, other: "Fingerprint") -> bool:
        """Has it a row in common with another data set, as far as their sketches show?"""
        return self.digest == other.digest or not set(self.sketch).isdisjoint(other.sketch)


def fingerprint(own: SiteRows, key: bytes) -> Fingerprint:
    """Return the fingerprint of all of a site's rows, those that it holds out among them.

    Args:
        own: its rows.
        key: of the site, up to 64 bytes: fingerprints can be compared only with others of the same key.

    >>> from .rows import ArrayRows
    >>> rows = ArrayRows(np.arange(6.0).reshape(3, 2), np.array([0, 1, 0]))
    >>> whole = fingerprint(SiteRows(rows, rows.take(np.array([], int))), b"key")
    >>> parts = fingerprint(SiteRows(rows.take(np.array([2, 0])), rows.take(np.array([1]))), b"key")
    >>> whole == parts, whole.rows
    (True, 3)
    """
    hashes = [blake2b(row, digest_size=_BYTES, key=key).digest() for part in _parts(own) for row in _rows(part)]
    digest = sha256(b"".join(sorted(hashes))).hexdigest()
    return Fingerprint(digest, len(hashes), tuple(each.hex() for each in heapq.nsmallest(SKETCH, set(hashes))))


def _parts(own: SiteRows) -> Iterator[Rows]:
    return (part for part in (own.train, own.held_out) if part.size)


def _rows(rows: Rows) -> Iterable[bytes]:
    match rows:
        case ShiftedRows():
            return _rows(rows.rows)
        case TableRows():
            return _of_table(rows)
        case ArrayRows():
            return _of_arrays(rows)
    raise DataError(f"rows of type {type(rows).__name__} cannot be told apart; read them as a table or as arrays.")


def _of_table(rows: TableRows) -> Iterator[bytes]:
    """Yield each row's cells, of every column of the file: an app that reads others of them has the same data set."""
    names = sorted(rows.table.columns)
    head = "\x1e".join(names)
    columns = [_plain(rows.column(name)) for name in names]
    return ("\x1f".join((head, *cells)).encode() for cells in zip(*columns, strict=True))


def _plain(cells: Any) -> list[str]:
    """Return a column's cells, numbers in one spelling: a file that was saved in another format has the same rows."""
    spelt = {cell: _spelt("" if cell is None else str(cell)) for cell in set(cells.tolist())}
    return [spelt[cell] for cell in cells.tolist()]


def _spelt(cell: str) -> str:
    """Return a cell's one spelling; no number is as good as no cell, and zero has no sign.

    >>> _spelt(" 63.0"), _spelt("6.3e1"), _spelt("male "), _spelt("nan"), _spelt("-0")
    ('63.0', '63.0', 'male', '', '0.0')
    """
    try:
        number = float(cell) + 0.0
    except ValueError:
        return cell.strip()
    return "" if number != number else repr(number)


def _of_arrays(rows: ArrayRows) -> Iterator[bytes]:
    inputs, targets = rows.inputs[:, None] if rows.inputs.ndim == 1 else rows.inputs, rows.targets
    shape = repr(inputs.shape[1:]).encode()
    for begin in range(0, rows.size, _BLOCK):
        index = rows.index[begin : begin + _BLOCK]
        block = np.ascontiguousarray(inputs[index], "<f4").reshape(len(index), -1)
        named = np.ascontiguousarray(targets[index], "<f8").reshape(len(index), -1)
        for values, target in zip(block, named, strict=True):
            yield shape + values.tobytes() + target.tobytes()
