"""Sources of arrays: images and other inputs without named columns. They are scaled by a constant, not standardised."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import ArrayLike, NDArray

from ..core.errors import ConfigError, DataError
from .folder import locate
from .rows import ArrayRows
from .schema import TaskKind, hint


@dataclass(frozen=True)
class Npz:
    """Named arrays in one .npz file. Nothing is unpickled.

    Args:
        path: of the file; "$FEDLOOM_DATA/…" lies in `data_folder()`; None where each institution names its own.
        inputs, targets: names of the arrays, of shapes `(n, …)` and `(n,)` or `(n, 1)`.
        test_inputs, test_targets: names of the official test part's arrays; None if there is none.
        shape: of one input as the model sees it, such as (28, 28), (1, 28, 28) or (784,): elements keep their order.
        classes: number of classes; 0 for regression.
        names: of the classes; by default their numbers.
        scale: what inputs are multiplied by when they become float32; bytes stay bytes until then.
    """

    path: str | Path | None
    inputs: str = "train_images"
    targets: str = "train_labels"
    test_inputs: str | None = "test_images"
    test_targets: str | None = "test_labels"
    shape: tuple[int, ...] = (28, 28)
    classes: int = 10
    names: tuple[str, ...] = ()
    scale: float = 1 / 255

    def __post_init__(self) -> None:
        _check_classes("Npz", self.classes, self.names)
        if (self.test_inputs is None) != (self.test_targets is None):
            raise ConfigError("Npz: give both test_inputs and test_targets, or set both to None.")

    @property
    def schema(self) -> None:
        """Arrays have none."""

    @property
    def task(self) -> TaskKind:
        """By the number of classes."""
        return _task(self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """`names`, or the numbers as text."""
        return self.names or _numbers(self.classes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """`shape`."""
        return self.shape

    def read(self, path: str | Path | None = None) -> ArrayRows:
        """Return the training rows of the file."""
        return self._part(locate(self.path if path is None else path), self.inputs, self.targets)

    def test(self) -> ArrayRows | None:
        """Return the official test part."""
        if self.test_inputs is None or self.test_targets is None:
            return None
        return self._part(locate(self.path), self.test_inputs, self.test_targets)

    def _part(self, path: Path, inputs: str, targets: str) -> ArrayRows:
        found = _load(path, (inputs, targets))
        where = f"{path}, arrays {inputs!r} and {targets!r}"
        return array_rows(*found, where=where, shape=self.shape, classes=self.class_names, scale=self.scale)


@dataclass(frozen=True, eq=False)
class Arrays:
    """Arrays that are in memory already.

    Args:
        inputs: shape `(n, …)`, numbers.
        targets: shape `(n,)`, class numbers or values.
        classes: number of classes; 0 for regression.
        names: of the classes; by default their numbers.
        test_part: its inputs and targets, if there is one.
        scale: what inputs are multiplied by when they become float32.

    >>> source = Arrays(np.eye(3), np.array([0, 1, 1]), classes=2)
    >>> source.task, source.input_shape, source.read().size
    ('binary', (3,), 3)
    """

    inputs: NDArray[Any]
    targets: NDArray[Any]
    classes: int
    names: tuple[str, ...] = ()
    test_part: tuple[NDArray[Any], NDArray[Any]] | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_classes("Arrays", self.classes, self.names)

    @property
    def schema(self) -> None:
        """Arrays have none."""

    @property
    def task(self) -> TaskKind:
        """By the number of classes."""
        return _task(self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """`names`, or the numbers as text."""
        return self.names or _numbers(self.classes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an element of `inputs`."""
        return tuple(np.shape(self.inputs)[1:])

    def read(self, path: str | Path | None = None) -> ArrayRows:
        """Return all rows."""
        if path is not None:
            raise DataError(f"these rows are arrays in memory, and cannot be read from {path}; use Npz or Csv.")
        return self._rows(self.inputs, self.targets)

    def test(self) -> ArrayRows | None:
        """Return the test part."""
        return None if self.test_part is None else self._rows(*self.test_part)

    def _rows(self, inputs: NDArray[Any], targets: NDArray[Any]) -> ArrayRows:
        shape = self.input_shape
        return array_rows(inputs, targets, where="Arrays", shape=shape, classes=self.class_names, scale=self.scale)


def array_rows(
    inputs: ArrayLike, targets: ArrayLike, *, where: str, shape: tuple[int, ...], classes: tuple[str, ...], scale: float
) -> ArrayRows:
    """Return rows of two arrays after checking them: types, lengths, shape of an input, finite values, class numbers.

    `where` names them in the `DataError` that is raised. Targets of shape `(n, 1)` are taken as `(n,)`.
    """
    inputs, targets = np.asarray(inputs), np.asarray(targets)
    targets = targets[:, 0] if targets.ndim == 2 and targets.shape[1] == 1 else targets
    if inputs.dtype.kind not in "biuf" or targets.dtype.kind not in "biuf":
        raise DataError(f"{where}: expected arrays of numbers, got {inputs.dtype} inputs and {targets.dtype} targets.")
    if inputs.ndim < 1 or targets.shape != inputs.shape[:1] or not targets.size:
        raise DataError(f"{where}: n inputs need n targets, got shapes {inputs.shape} and {targets.shape}.")
    if inputs[0].size != np.prod(shape, dtype=int):
        raise DataError(f"{where}: an input must have shape {shape}, got {inputs.shape[1:]}; set `shape`.")
    if not (np.isfinite(inputs).all() and np.isfinite(targets).all()):
        raise DataError(f"{where}: there are NaN or infinite values; take those rows out.")
    targets = targets.astype(np.float64)
    if classes:
        if not np.isin(targets, np.arange(len(classes))).all():
            wrong = targets[~np.isin(targets, np.arange(len(classes)))][0]
            raise DataError(f"{where}: classes must be whole numbers from 0 to {len(classes) - 1}, got {wrong:g}.")
        targets = targets.astype(np.int64)
    return ArrayRows(inputs.reshape(-1, *shape), targets, classes, scale)


def _load(path: Path, names: tuple[str, str]) -> list[NDArray[Any]]:
    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, NpzFile):
                raise ValueError("it holds a single array")
            for name in names:
                if name not in arrays:
                    raise DataError(f"{path}: there is no array {name!r}; {hint(name, arrays)}")
            return [arrays[name] for name in names]
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: this is not an .npz file of plain arrays ({error}).") from None


def _check_classes(what: str, classes: int, names: tuple[str, ...]) -> None:
    if classes < 0 or classes == 1:
        raise ConfigError(f"{what}: classes must be 0 (regression) or at least 2, got {classes}.")
    if names and len(names) != classes:
        raise ConfigError(f"{what}: {classes} classes need as many names, got {len(names)}.")


def _numbers(classes: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(classes))


def _task(classes: int) -> TaskKind:
    return "regression" if classes == 0 else "binary" if classes == 2 else "multiclass"
