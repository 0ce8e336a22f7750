"""From one's own CSV file to a commented TOML app: a first guess, to be read and corrected by a person."""

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .core.errors import ConfigError
from .data import Inferred, infer
from .data.schema import Column, Schema, is_number, number, plain
from .data.texts import Texts, read_texts
from .store.folders import writable

FEW = 2000  # with fewer rows small batches, so that a round still takes some steps
_SITE = re.compile(r"site|hospital|clinic|klinik|cent(er|re)|bank|branch|institut|provider|plant|region|country")
_COMMA = re.compile(r"[-+]?\d+,\d+")

_HEAD = """\
# An app for {file}, written from its header and rows. Read it, correct it, then: fedloom run {name}
# Only this one file was seen: other sites may hold other categories, other units, other gaps.
name = {stem}
rounds = 20          # at most; see [target]
seed = 0             # same seed, same bits

[data]
source = "csv"
path = {path}
{delimiter}holdout = 0.2        # what each site keeps back to measure on
# Who holds what, in a simulation: "iid", "dirichlet" (label skew), "quantity" (sizes), or the sites in a column:
# partition = {{ kind = "by_column", column = {site} }}
partition = {{ kind = "iid", clients = {clients} }}
"""

_TAIL = """
[model]
name = {model}    # or "mlp" (needs torch)
{bound}
[strategy]
name = "fedavg"      # fedsgd fedavgm fedprox scaffold fedadam fedyogi fedadagrad fedbn median
sgd = { lr = {lr}, epochs = 1, batch_size = {batch} }
# stages = [{ name = "clip", norm = 1.0 }, { name = "quantize", bits = 8 }]

# [target]
# {figure} = {value}         # end when it is reached
"""


def write_app(csv: Path, label: str | None, output: Path, force: bool) -> Path:
    """Write the app and return its path; refuses to overwrite a file unless forced."""
    writable(output, csv)
    if output.exists() and not force:
        raise ConfigError(f"{output} exists already; choose another name with --output, or overwrite it with --force.")
    delimiter = _delimiter(csv)
    texts = read_texts(csv, delimiter)
    _points(texts)
    found = infer(csv, label, delimiter)
    text = "\n".join(_lines(found, csv, output, _sizes(texts, found.schema, delimiter)))
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error.strerror}.") from error
    return output


def _delimiter(csv: Path) -> str:
    """Return what parts the header's cells: a comma, or where it has none a semicolon or a tab."""
    try:
        with gzip.open(csv, "rb") if csv.suffix == ".gz" else csv.open("rb") as file:
            header = file.readline(1_000_000).decode("utf-8", "replace")
    except (OSError, EOFError, zlib.error):
        return ","  # reading says what is wrong with it
    return next((mark for mark in (",", ";", "\t") if mark in header), ",")


def _points(texts: Texts) -> None:
    """Refuse decimal commas, which would read as words."""
    for name in texts.columns:
        cells = {cell.strip() for cell in texts.column(name)}
        found = sorted(cell for cell in cells if _COMMA.fullmatch(cell))
        if len(found) > len(cells) / 2:
            raise ConfigError(
                f"{texts.where}: the column {name!r} writes numbers with a decimal comma, such as {found[0]}; save the "
                f"file with decimal points."
            )


@dataclass(frozen=True)
class _Sizes:
    delimiter: str
    rows: int
    site: str  # the column whose values seem to be the sites
    largest: float  # of a regression's label
    spread: float  # its standard deviation


def _sizes(texts: Texts, schema: Schema, delimiter: str) -> _Sizes:
    named = (name for name in texts.columns if name != schema.label and _SITE.search(name.lower()))
    values = [number(cell) for cell in map(plain, texts.column(schema.label)) if is_number(cell)]
    if schema.task != "regression" or not values:
        return _Sizes(delimiter, texts.size, next(named, "site"), 0.0, 1.0)
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    return _Sizes(delimiter, texts.size, next(named, "site"), max(map(abs, values)), spread)


def _lines(found: Inferred, csv: Path, output: Path, sizes: _Sizes) -> Iterator[str]:
    schema, target = found.schema, output.parent.resolve()
    own = csv.resolve()
    path = own.name if own.parent == target else str(own)
    yield _HEAD.format(
        file=csv.name,
        name=output.name,
        stem=_text(output.stem),
        path=_text(path),
        delimiter="" if sizes.delimiter == "," else f"delimiter = {_text(sizes.delimiter)}\n",
        site=_text(sizes.site),
        clients=max(1, min(4, sizes.rows // 10)),
    )
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
    yield _tail(schema.task == "regression", sizes)


def _tail(regression: bool, sizes: _Sizes) -> str:
    parts = {
        "model": _text("linear" if regression else "logistic"),
        "bound": _bound(sizes.largest) if regression else "",
        "lr": "0.05" if regression else "0.1",  # least squares is the steeper of the two
        "batch": "8" if sizes.rows < FEW else "32",
        "figure": "rmse" if regression else "accuracy",
        "value": f"{float(f'{sizes.spread / 2:.2g}'):g}" if regression else "0.9",
    }
    return re.sub(r"\{(\w+)\}", lambda found: parts[found[1]], _TAIL)


def _bound(largest: float) -> str:
    """Return the bound of the weights where the usual one is too small for labels of that size."""
    if largest <= 1:
        return ""
    power = math.ceil(math.log10(largest)) + 2
    return (
        f"bound = 1e{power}          # more than a client's weights can move in a round; the labels reach {largest:g}\n"
    )


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
