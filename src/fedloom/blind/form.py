"""What the holder of rows has to know to prepare them: the columns, and how they are standardised."""

import json
from dataclasses import dataclass, replace
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any, Literal

from ..app import App
from ..core.errors import ConfigError, DataError
from ..data import Csv, Npz, Parquet, Source
from ..store.files import write_whole
from .files import read

_MOST = 1 << 24  # bytes


@dataclass(frozen=True)
class Form:
    """A model without its weights, which its holder gives to whoever asks: public among them.

    Exactly one of the sources is there, without a path.

    Args:
        name: of the app.
        loss: tells what outputs mean: probabilities of classes, or a value.
        statistics: mean and scale of each measured column, from the sites that trained.
        csv, parquet, npz: what rows look like.

    >>> from fedloom.data import Column, Schema
    >>> source = Csv(None, Schema((Column("age"), Column("bmi")), "sick", classes=("no", "yes")))
    >>> form = Form("heart", "binary_cross_entropy", {}, csv=source)
    >>> form.inputs, form.outputs, Form.parsed(form.content()) == form
    (2, 1, True)
    """

    name: str
    loss: Literal["mse", "binary_cross_entropy", "cross_entropy"]
    statistics: dict[str, dict[str, float]]
    csv: Csv | None = None
    parquet: Parquet | None = None
    npz: Npz | None = None

    def __post_init__(self) -> None:
        if [self.csv, self.parquet, self.npz].count(None) != 2:
            raise ConfigError("a form is of one source: csv, parquet or npz.")

    @property
    def source(self) -> Source:
        """What rows look like."""
        found = self.csv or self.parquet or self.npz
        assert found is not None, "one is there"
        return found

    @property
    def inputs(self) -> int:
        """Number of the model's inputs."""
        return prod(self.source.input_shape)

    @property
    def outputs(self) -> int:
        """Number of the model's outputs."""
        return self.source.classes if self.loss == "cross_entropy" else 1

    @property
    def digest(self) -> str:
        """SHA-256 over its content, hexadecimal."""
        return sha256(self.content()).hexdigest()

    @staticmethod
    def of(app: App, statistics: dict[str, Any], loss: Any) -> "Form":
        """Return the form of an app's rows."""
        kinds: dict[str, Any] = {"csv": None, "parquet": None, "npz": None}
        match app.data.source:
            case Npz() as source:
                kinds["npz"] = replace(source, path=None)
            case Parquet() as source:
                kinds["parquet"] = replace(source, path=None, test_path=None)
            case Csv() as source:
                kinds["csv"] = replace(source, path=None, test_path=None)
            case source if source.schema is not None:
                kinds["csv"] = Csv(None, source.schema)
            case source:
                raise ConfigError(f"rows of {type(source).__name__} come from no file; take a table, or an .npz.")
        measured = {name: {key: float(s[key]) for key in ("mean", "scale")} for name, s in statistics.items()}
        return Form(app.name, loss, measured, **kinds)

    def content(self) -> bytes:
        """Return it as JSON, the same for equal forms."""
        return bytes(_adapter().dump_json(self, indent=1))

    @staticmethod
    def parsed(content: bytes) -> "Form":
        """Return the form that JSON holds; raises `DataError` for anything else, also for more than a form."""
        try:
            form: Form = _adapter().validate_json(content, strict=True)
            whole = json.loads(content) == json.loads(form.content())
        except (ValueError, ConfigError, RecursionError) as error:
            raise DataError(f"this is no form of `fedloom blind --describe`: {_why(error)}") from error
        if not whole:
            raise DataError("this is no form of `fedloom blind --describe`: it holds more than a form, or less.")
        return form

    @staticmethod
    def read(path: Path) -> "Form":
        """Return the form in a file; raises `DataError`, with the file's name, for one that holds none."""
        content = read(path, _MOST)
        try:
            return Form.parsed(content)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        write_whole(path, self.content())


def _why(error: Exception) -> str:
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}."
    return str(error)


def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Form)
