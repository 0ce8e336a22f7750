"""Metrics as sums, so that pooled figures are exact views of the sites': never a mean of means."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCORE_BINS = 4096  # of the histograms behind AUC: an error of at most 1/8192 where scores are spread

LOWER_IS_BETTER = frozenset({"loss", "mae", "rmse"})


@dataclass(frozen=True, eq=False)
class Metrics:
    """Named sums over examples; `examples` is always among them.

    `view` divides: loss = loss/examples, accuracy = correct/examples, mae, rmse and r2 from the sums of errors, and
    auc and average_precision from histograms of scores in [0, 1]. Any other name is divided by `examples`.

    >>> pooled = Metrics({"examples": 10, "correct": 9}) + Metrics({"examples": 30, "correct": 15})
    >>> pooled.view()
    {'examples': 40, 'accuracy': 0.6}
    """

    sums: Mapping[str, Any]

    def __add__(self, other: "Metrics") -> "Metrics":
        """Add name by name; a name that one side lacks counts as zero there."""
        names = [*self.sums, *(name for name in other.sums if name not in self.sums)]
        return Metrics({name: self.sums.get(name, 0) + other.sums.get(name, 0) for name in names})

    @property
    def examples(self) -> int:
        """Number of examples behind the sums."""
        return int(self.sums.get("examples", 0))

    def view(self) -> dict[str, float]:
        """Return the figures that people read, by name; without examples there are none."""
        sums, n = self.sums, self.examples
        figures: dict[str, float] = {"examples": n}
        if n == 0:
            return figures
        for name, value in sums.items():
            if name not in _PARTS:
                figures[_NAMES.get(name, name)] = float(value) / n
        if "squared_error" in sums:
            figures["rmse"] = math.sqrt(sums["squared_error"] / n)
        if "target_square" in sums:
            spread = sums["target_square"] - sums["target"] ** 2 / n
            figures["r2"] = 1 - float(sums["squared_error"]) / spread if spread > 0 else math.nan
        if "positives" in sums:
            figures["auc"] = area_under_roc(sums["positives"], sums["negatives"])
            figures["average_precision"] = average_precision(sums["positives"], sums["negatives"])
        return figures


_NAMES = {"correct": "accuracy", "absolute_error": "mae"}
_PARTS = {"examples", "positives", "negatives", "squared_error", "target", "target_square"}


def total(parts: Iterable[Metrics]) -> Metrics:
    """Return the sum of all parts; of none, the empty metrics."""
    sums: dict[str, Any] = {"examples": 0}
    for part in parts:
        for name, value in part.sums.items():
            sums[name] = sums.get(name, 0) + value
    return Metrics(sums)


def histogram(scores: NDArray[Any]) -> NDArray[np.int64]:
    """Return how many scores in [0, 1] fall into each of `SCORE_BINS` equal bins; scores beyond go to the ends."""
    bins = np.clip((np.asarray(scores, np.float64) * SCORE_BINS).astype(np.int64), 0, SCORE_BINS - 1)
    return np.bincount(bins, minlength=SCORE_BINS)


def area_under_roc(positives: NDArray[Any], negatives: NDArray[Any]) -> float:
    """Return the area under the ROC curve from two histograms of scores, ties counted half; NaN without both classes.

    Mann-Whitney: P(score of a positive > score of a negative) + P(equal)/2.

    >>> area_under_roc(np.array([0, 1, 1]), np.array([2, 0, 0]))
    1.0
    """
    pairs = float(positives.sum()) * float(negatives.sum())
    if pairs == 0:
        return math.nan
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / pairs)


def average_precision(positives: NDArray[Any], negatives: NDArray[Any]) -> float:
    """Return Σ (recall_k - recall_{k-1})·precision_k over score bins from high to low; NaN without positives.

    >>> average_precision(np.array([0, 2]), np.array([3, 0]))
    1.0
    """
    if positives.sum() == 0:
        return math.nan
    hits, called = np.cumsum(positives[::-1]), np.cumsum((positives + negatives)[::-1])
    precision = np.divide(hits, called, out=np.zeros(len(hits)), where=called > 0)
    return float((precision * positives[::-1]).sum() / positives.sum())
