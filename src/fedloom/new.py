"""From one's own CSV file to a commented TOML app: a first guess, to be read and corrected by a person."""

import json
from collections.abc import Iterator
from pathlib import Path

from .core.errors import ConfigError
from .data import Inferred, infer
from .data.schema import Column

_HEAD = """\
# An app for {file}, written from its header and rows. Read it, correct it, then: fedloom run {name}
# Only this one file was seen: other sites may hold other categories, other units, other gaps.
name = {stem}
rounds = 20          # at most; see [target]
seed = 0             # same seed, same bits

[data]
source = "csv"
path = {path}
holdout = 0.2        # what each site keeps back to measure on
# Who holds what, in a simulation: "iid", "dirichlet" (label skew), "quantity" (sizes), or the sites in a column:
# partition = {{ kind = "by_column", column = "site" }}
partition = {{ kind = "iid", clients = 4 }}
"""

_TAIL = """
[model]
name = {model}    # or "mlp" (needs torch)

[strategy]
name = "fedavg"      # fedsgd fedavgm fedprox scaffold fedadam fedyogi fedadagrad fedbn median
sgd = { lr = 0.1, epochs = 1, batch_size = 32 }
# stages = [{ name = "clip", norm = 1.0 }, { name = "quantize", bits = 8 }]

# [target]
# {figure} = {value}         # end when it is reached
"""


def write_app(csv: Path, label: str | None, output: Path, force: bool) -> Path:
    """Write the app and return its path; refuses to overwrite a file unless forced."""
    if output.exists() and not force:
        raise ConfigError(f"{output} exists already; choose another name with --output, or overwrite it with --force.")
    found = infer(csv, label)
    text = "\n".join(_lines(found, csv, output))
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error.strerror}.") from error
    return output


def _lines(found: Inferred, csv: Path, output: Path) -> Iterator[str]:
    schema, target = found.schema, output.parent.resolve()
    own = csv.resolve()
    path = own.name if own.parent == target else str(own)
    yield _HEAD.format(file=csv.name, name=output.name, stem=_text(output.stem), path=_text(path))
    yield f"[data.label]        {_comment(found.notes[schema.label])}"
    yield f"column = {_text(schema.label)}"
    yield f"task = {_text(schema.task)}"
    if schema.classes:
        yield f"classes = {_list(schema.classes)}"
    if schema.positive is not None:
        yield f"positive = {_text(schema.positive)}"
    if schema.missing != "error":
        yield f"missing = {_text(schema.missing)}"
    if schema.missing_values != ("",):
        yield f"missing_values = {_list(schema.missing_values)}"
    yield "\n[data.columns]"
    for column in schema.features:
        yield _comment(f"{column.name}: {found.notes[column.name]}")
        yield f"{_text(column.name)} = {{ {', '.join(_column(column))} }}"
    for name in found.left_out:
        yield _comment(f"{name}: {found.notes[name]}")
    regression = schema.task == "regression"
    model, figure, value = ("linear", "rmse", "5.0") if regression else ("logistic", "accuracy", "0.9")
    tail = _TAIL.replace("{model}", _text(model)).replace("{figure}", figure).replace("{value}", value)
    yield tail


def _column(column: Column) -> Iterator[str]:
    yield f"kind = {_text(column.kind)}"
    if column.categories:
        yield f"categories = {_list(column.categories)}"
    if column.missing != "error":
        yield f"missing = {_text(column.missing)}"
    if column.missing_values != ("",):
        yield f"missing_values = {_list(column.missing_values)}"


def _comment(text: str) -> str:
    return "# " + "".join(letter for letter in " ".join(text.split()) if letter.isprintable())


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")  # the one character that only TOML escapes


def _list(texts: tuple[str, ...]) -> str:
    return f"[{', '.join(_text(text) for text in texts)}]"
