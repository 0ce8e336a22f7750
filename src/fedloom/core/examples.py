"""What a party holds: examples as arrays, and raw rows that never leave it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from .errors import DataError
from .layout import Array
from .update import Update


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs and targets of n examples: arrays whose first axis is the example.

    Args:
        inputs: shape `(n, …)`.
        targets: shape `(n,)` (class numbers or values), or `(n, k)`.

    >>> import numpy as np
    >>> Examples(np.zeros((3, 2)), np.zeros(3)).size
    3
    """

    inputs: Array
    targets: Array

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.targets)

    @cached_property
    def largest(self) -> float:
        """The largest magnitude of an input; NaN if there is one, and 0 without any. Looked for once.

        >>> import numpy as np
        >>> Examples(np.array([[1.0], [-3.0]]), np.zeros(2)).largest
        3.0
        """
        return float(max(np.max(self.inputs, initial=0), -np.min(self.inputs, initial=0)))

    def take(self, rows: Any) -> "Examples":
        """Return those rows."""
        return Examples(self.inputs[rows], self.targets[rows])


@dataclass(frozen=True, eq=False)
class Split:
    """One party's examples: what it trains on, and what it holds out to measure on; either may be empty."""

    train: Examples
    held_out: Examples


def scalars(statistics: Mapping[str, Any]) -> Mapping[str, Mapping[str, float]]:
    """Return statistics by column; raises `DataError` unless each is one finite number, and a scale above 0.

    One for every row would tell rows apart in what is made of them: an infinite scale hides all rows but those meant.

    >>> scalars({"age": {"mean": 50.0, "scale": 10.0}})
    {'age': {'mean': 50.0, 'scale': 10.0}}
    """
    for column, found in statistics.items():
        if not isinstance(found, Mapping):
            raise DataError(f"column {column!r}: a mean and a scale are expected, got {type(found).__name__}.")
        for name, value in found.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise DataError(f"column {column!r}: its {name} must be one finite number for all rows; refused.")
            if name == "scale" and not value > 0:
                raise DataError(f"column {column!r}: its scale must be above 0, got {value}.")
    return statistics


class Holding(Protocol):
    """One party's raw rows, which never leave it: sums over them do."""

    @property
    def train_size(self) -> int:
        """Number of rows to train on, as declared to the coordinator."""
        ...

    def measure(self, what: str, known: Mapping[str, Any]) -> Update:
        """Return sums of the statistic `what` over the training rows' columns, given what is `known` by column."""
        ...

    def prepare(self, statistics: Mapping[str, Any]) -> Split:
        """Return the rows as numbers; raises `DataError` for what the schema does not allow."""
        ...
