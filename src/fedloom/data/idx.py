"""The IDX files of MNIST and its kin: memory-mapped where they are not compressed."""

import gzip
import mmap
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ConfigError, DataError
from .arrays import array_rows
from .folder import locate
from .rows import ArrayRows
from .schema import TaskKind

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


@dataclass(frozen=True)
class Idx:
    """A folder with the four files of MNIST, plain or `.gz`: {train,t10k}-{images-idx3,labels-idx1}-ubyte.

    The format is LeCun's: 2 zero bytes, a type, a number of dimensions, big-endian sizes, then the values. Plain files
    are memory-mapped: clients are lists of indices, and only what is used is read.

    Args:
        path: the folder; "$FEDLOOM_DATA/…" lies in `data_folder()`.
        shape: of one input.
        classes: number of classes.
        scale: what inputs are multiplied by when they become float32.
    """

    path: str | Path | None
    shape: tuple[int, ...] = (28, 28)
    classes: int = 10
    scale: float = 1 / 255

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ConfigError(f"Idx: classes must be at least 2, got {self.classes}.")

    @property
    def schema(self) -> None:
        """Arrays have none."""

    @property
    def task(self) -> TaskKind:
        """Of classes."""
        return "binary" if self.classes == 2 else "multiclass"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Their numbers."""
        return tuple(str(number) for number in range(self.classes))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """`shape`."""
        return self.shape

    def read(self, path: str | Path | None = None) -> ArrayRows:
        """Return the training rows."""
        return self._part(locate(self.path if path is None else path), "train")

    def test(self) -> ArrayRows:
        """Return the official test part."""
        return self._part(locate(self.path), "t10k")

    def _part(self, folder: Path, part: str) -> ArrayRows:
        inputs, targets = (read_idx(_found(folder, f"{part}-{name}-ubyte")) for name in ("images-idx3", "labels-idx1"))
        where = f"{folder}, part {part!r}"
        return array_rows(inputs, targets, where=where, shape=self.shape, classes=self.class_names, scale=self.scale)


def read_idx(path: Path) -> NDArray[Any]:
    """Return the array of one IDX file; raises `DataError` for anything else.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "two-idx1-ubyte"
    >>> _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 7]))
    >>> read_idx(file)
    array([5, 7], dtype=uint8)
    """
    try:
        content = _content(path)
        zeros, kind, dimensions = int.from_bytes(content[:2], "big"), content[2], content[3]
        if zeros or kind not in _TYPES:
            raise ValueError("its first bytes are not those of an IDX file")
        sizes = np.frombuffer(content, ">i4", dimensions, 4)
        found = np.frombuffer(content, _TYPES[kind], int(np.prod(sizes, dtype=np.int64)), 4 + 4 * dimensions)
        return found.reshape(sizes)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as IDX: {error}.") from error


def _content(path: Path) -> Any:
    if path.suffix == ".gz":
        with gzip.open(path) as file:
            return file.read()
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _found(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{folder} holds no {name}, nor {name}.gz; give the folder with the four files.")
