"""What a party holds: examples as arrays, and raw rows that never leave it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

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
