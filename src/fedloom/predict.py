"""Using what was trained: predictions for new rows, with the run's own preparation."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from .core.errors import ConfigError, DataError
from .core.layout import Vector
from .core.model import Model
from .data import Npz, Parquet, Source, TableRows
from .data.parquet import read_parquet
from .data.sources import Csv
from .data.table import read_table
from .data.texts import read_texts


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the model says of n rows.

    Args:
        columns: the file's own columns as text (none for arrays), each of shape `(n,)`.
        classes: names of the classes; none for regression.
        outputs: probabilities `(n, classes)`, or values `(n,)`.
        dropped: rows that the schema leaves out.
    """

    columns: dict[str, Any]
    classes: tuple[str, ...]
    outputs: NDArray[Any]
    dropped: int = 0

    def rows(self) -> Iterator[list[str]]:
        """Yield the header, then the rows: the file's columns, the prediction, and a probability for each class."""
        extra = ["prediction", *(f"P({name})" for name in self.classes)]
        yield [*self.columns, *extra]
        for i, output in enumerate(self.outputs):
            own = [column[i] for column in self.columns.values()]
            yield own + (self._said(output) if self.classes else [f"{float(output):g}"])

    def _said(self, output: NDArray[Any]) -> list[str]:
        return [self.classes[int(np.argmax(output))], *(f"{p:.6f}" for p in output)]

    def write(self, file: TextIO) -> None:
        """Write them as CSV."""
        csv.writer(file, lineterminator="\n").writerows(self.rows())

    def save(self, path: Path) -> None:
        """Write them to a CSV file; raises `ConfigError` where that cannot be."""
        try:
            with path.open("w", newline="", encoding="utf-8") as file:
                self.write(file)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}; choose another with --output.") from error


def predict(model: Model, vector: Vector, source: Source, statistics: dict[str, Any], path: Path) -> Predictions:
    """Return predictions for the rows of a file; a label is not needed. Raises `DataError` as reading does."""
    columns, inputs, dropped = prepared(source, statistics, path)
    outputs = model.predict(model.load(vector), inputs)
    return Predictions(columns, source.class_names, outputs, dropped)


def prepared(source: Source, statistics: dict[str, Any], path: Path) -> tuple[dict[str, Any], NDArray[Any], int]:
    """Return a file's own columns as text, its rows as a model's inputs, and how many the schema leaves out."""
    if source.schema is not None:
        delimiter = source.delimiter if isinstance(source, Csv) else ","
        cells = read_parquet(path) if isinstance(source, Parquet) else read_texts(path, delimiter)
        table = read_table(cells, source.schema, labelled=False)
        inputs = TableRows(table).examples(statistics).inputs
        return dict(table.columns), inputs, table.dropped
    if isinstance(source, Npz):
        return {}, _array(source, path), 0
    raise DataError(f"{type(source).__name__} cannot read a file; load the model file and predict in Python.")


def _array(source: Npz, path: Path) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if source.inputs not in arrays:
                raise DataError(f"{path}: there is no array {source.inputs!r}; it has {', '.join(arrays.files)}.")
            inputs = arrays[source.inputs]
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise DataError(f"{path} cannot be read as .npz: {error}.") from error
    if inputs.dtype.kind not in "biuf" or int(np.prod(inputs.shape[1:])) != int(np.prod(source.shape)):
        there = f"{inputs.dtype} of shape {inputs.shape[1:]}"
        raise DataError(f"{path}: an input must be numbers of shape {source.shape}, got {there}.")
    scaled: NDArray[Any] = inputs.reshape(len(inputs), *source.shape).astype(np.float32)
    return scaled * np.float32(source.scale)


def statistics_of(folder: Path) -> dict[str, Any]:
    """Return what the run's parties computed together, as it was stored beside the model."""
    try:
        found: dict[str, Any] = json.loads((folder / "preparation.json").read_text())["statistics"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder.name} holds no model yet; resume the run to its end first.") from error
    return found


def preview(predictions: Predictions, most: int = 10) -> Sequence[list[str]]:
    """Return the header and the first rows, in short: of the file's own columns the first three, two decimals."""
    header, *lines = [line for line, _ in zip(predictions.rows(), range(most + 1), strict=False)]
    own = len(predictions.columns)
    short = [[*line[: own + 1], *(f"{float(p):.2f}" for p in line[own + 1 :])] for line in lines]
    return [line[: min(own, 3)] + line[own:] for line in (header, *short)]
