"""Files between the two: safetensors of a closed set of types, never longer than what they hold may be."""

import os
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ..core.errors import AccessDenied, DataError, RunError
from ..store.files import pieces, restore, write_parts

MOST, CIPHERTEXTS = 1 << 30, 1 << 13  # bytes of a file; ciphertexts in it, each of 2^17 bytes at most
SLOTS = 2048  # rows in a ciphertext


def read(path: Path, most: int = MOST) -> bytes:
    """Return a file's bytes; raises `DataError` for one that is not there, or longer than it may be."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size <= most:
                return file.read(most)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    raise DataError(f"{path} is longer than {most:,} bytes, and is not read.")


def fits(rows: int, columns: int) -> bool:
    """Return whether so many rows of so many ciphertexts are some, and go into a file.

    >>> fits(1000, 1025), fits(20_000, 1025)
    (True, False)
    """
    return rows > 0 and columns > 0 and -(-rows // SLOTS) * columns <= CIPHERTEXTS


class Stored:
    """A value of plain fields and bytes that is a file: a name, and who makes it."""

    what: ClassVar[str]
    made: ClassVar[str]
    mode: ClassVar[int] = 0o666

    @property
    def digest(self) -> str:
        """SHA-256 over all of it, hexadecimal."""
        found = sha256(self.what.encode())
        for name, value in self._values().items():
            raw = value.tobytes() if isinstance(value, np.ndarray) else str(value).encode()
            found.update(f"{name} {len(raw)} ".encode() + raw)
        return found.hexdigest()

    def write(self, path: Path) -> None:
        """Write it, whole or not at all; raises `RunError`."""
        values = {"fedloom": self.what, "sha256": self.digest, **self._values()}
        write_parts(path, pieces(values), self.mode)

    def _values(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what a file holds.

        Raises `AccessDenied` for a key where none belongs, and `DataError` for what is none of these, or is damaged.
        """
        wrong = f"{path} holds no {cls.what}, or is damaged; `fedloom blind {cls.made}` makes it."
        try:
            found = restore(read(path))
        except RunError as error:
            raise DataError(wrong) from error
        said = found.pop("fedloom", None) if isinstance(found, dict) else None
        if said == Key.what != cls.what:
            raise AccessDenied(f"{path} is a secret key, which stays with whoever holds the rows; delete it here.")
        if said != cls.what:
            raise DataError(wrong)
        digest = found.pop("sha256", None)
        if not _typed(cls, found) or (made := cls(**found)).digest != digest:
            raise DataError(wrong)
        return made


def _typed(cls: Any, found: dict[str, Any]) -> bool:
    kinds = {f.name: getattr(f.type, "__origin__", f.type) for f in fields(cls)}
    arrays = (value for value in found.values() if isinstance(value, np.ndarray))
    return {name: type(value) for name, value in found.items()} == kinds and all(
        array.dtype == np.uint8 and array.ndim == 1 for array in arrays
    )


@dataclass(frozen=True, eq=False)
class Query(Stored):
    """Encrypted rows. There is no key in it, and no context: its reader has the parameters.

    Args:
        form: digest of the form that they were prepared by.
        rows: how many; columns: inputs of each.
        content: ciphertexts, as `ckks.sealed` makes them.
    """

    what: ClassVar[str] = "encrypted rows"
    made: ClassVar[str] = "--encrypt"
    form: str
    rows: int
    columns: int
    content: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.columns < 1 or not fits(self.rows, self.columns + 1):
            raise DataError(
                f"{self.rows:,} rows of {self.columns:,} inputs do not go into one file of {CIPHERTEXTS:,} ciphertexts "
                f"(one for each input and {SLOTS:,} rows); send fewer rows at a time."
            )


@dataclass(frozen=True, eq=False)
class Answer(Stored):
    """Encrypted outputs for the rows of a query.

    Args:
        query: digest of it.
        content: ciphertexts, as `ckks.applied` makes them.
    """

    what: ClassVar[str] = "encrypted outputs"
    made: ClassVar[str] = "--answer"
    query: str
    content: NDArray[np.uint8]


@dataclass(frozen=True, eq=False, repr=False)
class Key(Stored):
    """A secret key, of one query alone.

    Args:
        form, query: digests of the form and of the query.
        rows: how many it has.
        secret: as `ckks.fresh` makes it.
    """

    what: ClassVar[str] = "key of encrypted rows"
    made: ClassVar[str] = "--encrypt"
    mode: ClassVar[int] = 0o600
    form: str
    query: str
    rows: int
    secret: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if not fits(self.rows, 1):
            raise DataError(f"a key of {self.rows:,} rows is none.")
