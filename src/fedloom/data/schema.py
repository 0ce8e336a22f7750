"""What the columns of a table mean: the half of the data that is part of the app and the same at every site.

Nothing is discovered by looking at pooled rows: categories and classes are declared, means and scales are computed
together (`standardise`). Cells are compared as text, numbers in their shortest form: "1.0", " 1" and "01" are "1".
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from itertools import accumulate
from typing import Literal, get_args

from ..core.errors import ConfigError

ColumnKind = Literal["numeric", "categorical"]
TaskKind = Literal["binary", "multiclass", "regression"]
Missing = Literal["error", "mean", "other", "drop"]

LARGEST = 2.0**63  # of the absolute numbers in a numeric column: sums over sites are exact below it


def number(text: str) -> float:
    """Return the finite number that a cell holds; raises `ValueError` for any other text.

    >>> number("1.50")
    1.5
    """
    value = float(text)
    if "_" in text or not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite number")
    return value


def is_number(text: str) -> bool:
    """Return whether a cell holds a finite number."""
    try:
        number(text)
    except ValueError:
        return False
    return True


def plain(text: str) -> str:
    """Return a cell as it is compared: without outer blanks, a number in its shortest form.

    >>> plain("1.0"), plain(" 01 "), plain("2.50"), plain("Yes ")
    ('1', '1', '2.5', 'Yes')
    """
    text = text.strip()
    try:
        value = number(text)
    except ValueError:
        return text
    if abs(value) >= 2.0**53:
        return text
    return str(int(value)) if value.is_integer() else repr(value)


def hint(name: str, known: Iterable[str]) -> str:
    """Return the part of a sentence that names the nearest known name, or lists what there is.

    >>> hint("agee", ("age", "sex"))
    "did you mean 'age'?"
    """
    known = tuple(known)
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known[:40]) or 'none'}."


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the file, and what it becomes.

    A numeric column becomes one input, (x - mean)/scale with the federation's mean and scale. A categorical one
    becomes one 0/1 input for each category.

    Args:
        name: as in the file's header.
        kind: "numeric" or "categorical".
        categories: all that any site may hold; needed for, and only for, a categorical column.
        missing: what a missing cell does. "error": the file is refused; "drop": its row is left out;
            "mean" (numeric): it becomes the federation's mean, which is 0 after standardising;
            "other" (categorical): all of the column's inputs are 0.
        indicator: numeric with "mean" only: one more input that is 1 where the cell was missing.
        unseen: what an undeclared category does: "error", or "ignore" (all of the column's inputs are 0).
        range: numeric only: smallest and largest sane value, in the column's unit; beyond it, the file is refused.
        scaling: numeric only: "measured", as above; or "range": the middle of its range becomes 0 and the ends -1 and
            1, so that nothing has to be measured at sites; a missing cell becomes the middle.
        missing_values: cells that mean "missing"; `("", "0")` where a zero was never measured.

    >>> Column("cp", "categorical", categories=("1", "2")).inputs
    ('cp=1', 'cp=2')
    >>> Column("age", missing="mean", indicator=True).inputs
    ('age', 'age is missing')
    """

    name: str
    kind: ColumnKind = "numeric"
    categories: tuple[str, ...] = ()
    missing: Missing = "error"
    indicator: bool = False
    unseen: Literal["error", "ignore"] = "error"
    range: tuple[float, float] | None = None
    missing_values: tuple[str, ...] = ("",)
    scaling: Literal["measured", "range"] = "measured"

    def __post_init__(self) -> None:
        object.__setattr__(self, "categories", tuple(plain(text) for text in self.categories))
        object.__setattr__(self, "missing_values", tuple(plain(text) for text in self.missing_values))
        problem = self._problem()
        if problem:
            raise ConfigError(f"schema: column {self.name!r}: {problem}")

    def _problem(self) -> str:
        numeric, policies = self.kind == "numeric", {"numeric": ("error", "mean", "drop")}
        allowed = policies.get(self.kind, ("error", "other", "drop"))
        rules = (
            (self.kind in get_args(ColumnKind), f'kind must be "numeric" or "categorical", got {self.kind!r}.'),
            (self.missing in allowed, f"missing must be one of {', '.join(allowed)} here, got {self.missing!r}."),
            (self.unseen in ("error", "ignore"), f'unseen must be "error" or "ignore", got {self.unseen!r}.'),
            (not (numeric and self.categories), 'it is numeric and lists categories; set kind = "categorical".'),
            (numeric or self.categories, "list its categories: they are declared, never discovered in rows."),
            (len(set(self.categories)) == len(self.categories), f"a category is twice in {self.categories}."),
            (not self.indicator or self.missing == "mean", 'indicator needs missing = "mean".'),
            (numeric or self.range is None, "only a numeric column has a range."),
            (self.scaling in ("measured", "range"), f'scaling must be "measured" or "range", got {self.scaling!r}.'),
            (
                self.scaling == "measured" or self.range is not None,
                'scaling = "range" needs a numeric column\'s range.',
            ),
            (self.range is None or self.range[0] < self.range[1], f"range must be (low, high), got {self.range}."),
        )
        return next((sentence for holds, sentence in rules if not holds), "")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs that it becomes."""
        if self.kind == "categorical":
            return tuple(f"{self.name}={category}" for category in self.categories)
        return (self.name, f"{self.name} is missing") if self.indicator else (self.name,)


@dataclass(frozen=True)
class Schema:
    """Which columns go in, which one is predicted, and what its values mean. Other columns of the file are ignored.

    Args:
        features: at least one, in the order of the inputs.
        label: the column to predict.
        task: "binary", "multiclass" or "regression".
        classes: the label's values, in the order of the model's outputs; none for regression or with `above`.
        positive: binary only: the class that counts as 1; by default the second one.
        above: binary only: a number; the label is 1 where its column is larger, 0 elsewhere.
        missing: what a missing label does: "error" (the file is refused) or "drop" (its row is left out).
        missing_values: cells of the label's column that mean "missing".

    >>> schema = Schema((Column("age"), Column("sex", "categorical", ("f", "m"))), "sick", classes=("no", "yes"))
    >>> schema.names, schema.inputs, schema.outputs
    (('age', 'sex=f', 'sex=m'), 3, ('no', 'yes'))
    """

    features: tuple[Column, ...]
    label: str
    task: TaskKind = "binary"
    classes: tuple[str, ...] = ()
    positive: str | None = None
    above: float | None = None
    missing: Literal["error", "drop"] = "error"
    missing_values: tuple[str, ...] = ("",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(plain(text) for text in self.classes))
        object.__setattr__(self, "missing_values", tuple(plain(text) for text in self.missing_values))
        if self.positive is not None:
            object.__setattr__(self, "positive", plain(self.positive))
        problem = self._problem()
        if problem:
            raise ConfigError(f"schema: {problem}")

    def _problem(self) -> str:
        names = [column.name for column in self.features]
        twice = next((name for name in names if names.count(name) > 1), None)
        binary, few = self.task == "binary", len(self.classes)
        rules = (
            (bool(names), "it has no features; list at least one column."),
            (twice is None, f"feature {twice!r} is there twice."),
            (self.label not in names, f"the label {self.label!r} is a feature too; take it out of the features."),
            (self.task in get_args(TaskKind), f"task must be binary, multiclass or regression, got {self.task!r}."),
            (len(set(self.classes)) == few, f"a class is twice in {self.classes}."),
            (self.missing in ("error", "drop"), f'missing must be "error" or "drop", got {self.missing!r}.'),
            (binary or (self.positive is None and self.above is None), "positive and above are for a binary task."),
            (self.above is None or not few, "give classes, or above, not both."),
            (not binary or few == 2 or self.above is not None, f"binary needs two classes or above, got {few}."),
            (self.task != "multiclass" or few >= 2, f"multiclass needs at least two classes, got {few}."),
            (self.task != "regression" or not few, "regression has no classes."),
            (self.positive is None or self.positive in self.classes, f"positive {self.positive!r} is not a class."),
        )
        return next((sentence for holds, sentence in rules if not holds), "")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the encoded inputs, in order."""
        return tuple(name for column in self.features for name in column.inputs)

    @cached_property
    def measured(self) -> tuple[int, ...]:
        """Places among the encoded inputs of those that are numbers, and not 0 or 1 for a category or a gap."""
        ends = accumulate(len(column.inputs) for column in self.features)
        begins = (end - len(column.inputs) for end, column in zip(ends, self.features, strict=True))
        return tuple(at for at, column in zip(begins, self.features, strict=True) if column.kind == "numeric")

    @property
    def inputs(self) -> int:
        """Number of encoded inputs."""
        return len(self.names)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the classes in the order of their numbers; none for regression."""
        if self.above is not None:
            return (f"{self.label} <= {self.above:g}", f"{self.label} > {self.above:g}")
        if self.positive is not None:
            return (*(name for name in self.classes if name != self.positive), self.positive)
        return self.classes

    @cached_property
    def numeric(self) -> tuple[str, ...]:
        """Names of the numeric features whose mean and scale sites measure together, in order."""
        return tuple(c.name for c in self.features if c.kind == "numeric" and c.scaling == "measured")

    def ranged(self) -> "Schema":
        """Return the same schema with every numeric feature scaled by its range; raises `ConfigError` without one.

        >>> Schema((Column("age", range=(0, 100)),), "sick", classes=("no", "yes")).ranged().numeric
        ()
        """
        features = (replace(c, scaling="range") if c.kind == "numeric" else c for c in self.features)
        return replace(self, features=tuple(features))
