"""The weighted mean: the aggregator that only ever sees a sum."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from ..core.cores import on_blocks
from ..core.errors import StrategyError
from ..core.layout import WEIGHT, Vector
from ..core.update import Update, fold


@dataclass(frozen=True)
class Mean:
    """Σ wᵢ·δᵢ / Σ wᵢ, in float64 from an exact sum.

    McMahan et al., AISTATS 2017 (arXiv 1602.05629v4), Algorithm 1: w ← Σ (n_k/n)·w_k, written on deltas.

    Args:
        over: blocks that are divided otherwise. "members" divides the sum by the number of all members, asked or not:
            the mean over the federation when who was not asked contributes nothing (SCAFFOLD's control variates).
        expected: divide by a public number instead of Σ wᵢ: this part, in (0, 1], of the declared largest cohort,
            whoever was counted. McMahan et al., ICLR 2018 (arXiv 1710.06963v3), section 2.1, the estimator f̃_f with
            the fixed denominator qW; needed for differential privacy, since who was counted is not public.

    >>> import numpy as np
    >>> from fedloom.core.layout import Layout, Leaf
    >>> from fedloom.core.update import weigh
    >>> layout = Layout((Leaf("w"),)).weighted(cohort=2)
    >>> mean, total = Mean(), None
    >>> for delta, weight in ((1.0, 0.25), (4.0, 0.5)):
    ...     total = mean.add(total, weigh(np.float32([delta]), layout, weight))
    >>> mean.finish(total, members=2)
    array([3.])
    """

    each: ClassVar[bool] = False
    least: ClassVar[int] = 1
    over: Mapping[str, Literal["members"]] = field(default_factory=dict)
    expected: float | None = None

    def __post_init__(self) -> None:
        if wrong := set(self.over.values()) - {"members"}:
            raise StrategyError(f"Mean.over knows only 'members' as a denominator, got {sorted(wrong)}.")
        if self.expected is not None and not 0 < self.expected <= 1:
            raise StrategyError(
                f"Mean.expected is a part of the declared largest cohort, in (0, 1], got {self.expected}."
            )

    @property
    def population(self) -> frozenset[str]:
        """Those in `over`."""
        return frozenset(self.over)

    def add(self, total: Update | None, update: Update) -> Update:
        """Add exactly, in place."""
        return fold(total, update)

    def finish(self, total: Update, members: int) -> Vector:
        """Divide, in the memory of the sum."""
        layout = total.layout
        summed = float(total.vector[layout.block(WEIGHT)][0])
        weight = summed if self.expected is None else self.expected * layout.cohort
        for name in {*layout.blocks, *self.over} - {WEIGHT}:
            part = total.vector[layout.block(name)]
            _divide(part, members if name in self.over else weight)
        return total.vector[:-1]


def _divide(part: Vector, by: float) -> None:
    on_blocks(lambda block: np.divide(part[block], by, out=part[block]), len(part))
