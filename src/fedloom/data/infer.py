"""A first guess at the schema of one's own file, with its reasons, to be read and corrected by a person."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import DataError
from .schema import Column, Schema, TaskKind, is_number, number, plain
from .texts import Texts, read_texts

MISSING = ("", "na", "n/a", "nan", "null", "none", "?", "-", "missing")
LABELS = ("label", "target", "class", "outcome", "disease", "churn", "default", "y")
YES = ("1", "yes", "true", "positive", "y", "t", "pos", "sick", "case")
FEW, MANY = 10, 30  # whole numbers, or words, of so many kinds are categories


@dataclass(frozen=True)
class Inferred:
    """A guess.

    Args:
        schema: that reads the file.
        notes: a sentence for each column of the file, also for those that were left out, in the file's order.
        left_out: columns that are neither features nor the label.
    """

    schema: Schema
    notes: Mapping[str, str]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class _Cells:
    name: str
    present: tuple[str, ...]  # in their shortest form
    missing: tuple[str, ...]  # the texts that seem to mean missing, without repetition
    rows: int

    @property
    def kinds(self) -> list[str]:
        return sorted(set(self.present), key=_by_number)

    @property
    def numeric(self) -> bool:
        return all(is_number(cell) for cell in set(self.present))

    @property
    def whole(self) -> bool:
        return all(cell.lstrip("-").isdigit() for cell in set(self.present))


def infer(path: str | Path, label: str | None = None, delimiter: str = ",") -> Inferred:
    """Return a guess at the schema of a CSV file.

    The label is the named column, else one with a usual name, else the last. Columns of numbers are numeric; words,
    and up to ten different whole numbers, are categories; identifiers, free text and constants are left out.
    Only this file is seen: other sites may hold further categories. Raises `DataError` as reading does.
    """
    texts = read_texts(Path(path), delimiter)
    cells = {name: _cells(texts, name) for name in texts.columns}
    name, why = _label_of(texts, label)
    task, classes, positive = _task(cells[name], texts.where)
    features, notes = [], {}
    for column in cells.values():
        if column.name == name:
            notes[name] = f"{why}; {_describe(column, task, positive)}"
            continue
        feature, notes[column.name] = _feature(column)
        if feature is not None:
            features.append(feature)
            notes[column.name] += _leak(texts, column, feature, name, classes)
    if not features:
        raise DataError(f"{texts.where}: no column besides the label {name!r} can serve as a feature.")
    gaps = cells[name].missing
    schema = Schema(
        tuple(features),
        name,
        task,
        classes,
        positive,
        missing="drop" if gaps else "error",
        missing_values=_texts(gaps),
    )
    used = {name, *(feature.name for feature in features)}
    return Inferred(schema, notes, tuple(column for column in cells if column not in used))


def _cells(texts: Texts, name: str) -> _Cells:
    plains = [plain(cell) for cell in texts.column(name)]
    missing = dict.fromkeys(cell for cell in plains if cell.lower() in MISSING)
    return _Cells(name, tuple(cell for cell in plains if cell not in missing), tuple(missing), len(plains))


def _label_of(texts: Texts, label: str | None) -> tuple[str, str]:
    if label is not None:
        texts.column(label)
        return label, "the label"
    names = list(texts.columns)
    usual = [name for word in LABELS for name in names if name.lower().split(".")[0] == word]
    return (usual[0], "the label, by its name") if usual else (names[-1], "the label, as it is the last column")


def _task(label: _Cells, where: str) -> tuple[TaskKind, tuple[str, ...], str | None]:
    kinds = label.kinds
    if len(kinds) < 2:
        raise DataError(f"{where}: the label {label.name!r} has {len(kinds)} different values; name another column.")
    if label.numeric and len(kinds) > (FEW if label.whole else 2):
        return "regression", (), None
    if len(kinds) > MANY:
        raise DataError(f"{where}: the label {label.name!r} has {len(kinds)} different words; name another column.")
    if len(kinds) > 2:
        return "multiclass", tuple(kinds), None
    return "binary", tuple(kinds), next((kind for kind in kinds if kind.lower() in YES), kinds[1])


def _describe(label: _Cells, task: TaskKind, positive: str | None) -> str:
    gap = f"; {label.rows - len(label.present)} rows without it are dropped" if label.missing else ""
    if task == "regression":
        return f"numbers, so regression{gap}"
    return f"{len(label.kinds)} classes" + (f", of which {positive!r} is positive" if positive else "") + gap


def _feature(cells: _Cells) -> tuple[Column | None, str]:
    kinds, rows = cells.kinds, cells.rows
    gaps = rows - len(cells.present)
    tail = f"; {gaps} of {rows} cells are missing" if gaps else ""
    if len(kinds) < 2:
        return None, f"left out: {'the same in every row' if kinds else 'empty'}"
    if _is_identifier(cells):
        return None, "left out: different in every row, an identifier"
    values = _texts(cells.missing)
    if cells.numeric and not (cells.whole and len(kinds) <= min(FEW, rows // 3)):
        return Column(cells.name, missing="mean" if gaps else "error", missing_values=values), f"numbers{tail}"
    if len(kinds) > MANY or len(kinds) > max(2, rows // 2):
        return None, f"left out: {len(kinds)} different texts in {rows} rows, free text or an identifier"
    policy = "other" if gaps else "error"
    column = Column(cells.name, "categorical", tuple(kinds), missing=policy, missing_values=values)  # type: ignore[arg-type]
    return column, f"{len(kinds)} categories here; add those that only other sites have{tail}"


def _is_identifier(cells: _Cells) -> bool:
    every = len(set(cells.present)) == len(cells.present) > FEW
    words = cells.name.lower().replace("_", " ").split()
    named = bool({"id", "uid", "udi", "uuid", "key", "index"} & set(words)) or cells.name.endswith(("ID", "Id"))
    counted = cells.whole and cells.numeric and _consecutive(cells.present)
    return every and (not cells.numeric or counted or (named and cells.whole))


def _consecutive(present: Sequence[str]) -> bool:
    values = sorted(int(cell) for cell in present)
    return values[-1] - values[0] == len(values) - 1


def _leak(texts: Texts, column: _Cells, feature: Column, label: str, classes: tuple[str, ...]) -> str:
    if feature.kind != "categorical" or not classes:
        return ""
    pairs = {(plain(a), plain(b)) for a, b in zip(texts.column(column.name), texts.column(label), strict=True)}
    leaks = len(pairs) == len({value for value, _ in pairs})
    return "; each of its values goes with one class only: does it give the label away?" if leaks else ""


def _texts(missing: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(("", *missing)))


def _by_number(cell: str) -> tuple[bool, float, str]:
    return (False, number(cell), cell) if is_number(cell) else (True, 0.0, cell)
