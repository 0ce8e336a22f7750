"""How sure is a figure? The percentile bootstrap over one site's held-out examples.

Source: Efron & Tibshirani, An Introduction to the Bootstrap, Chapman & Hall 1993, section 13.3 (percentile interval).
Deviation: for AUC, resamples in which only one class occurs are left out, because they have no AUC.
"""

import math
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .view import Estimate

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
T = TypeVar("T", bound=np.generic)

LEVELS = (0.025, 0.975)  # a 95 % interval
CELLS = 1 << 21  # most drawn indices held at a time


def interval(
    scores: ArrayLike, targets: ArrayLike, figure: str, *, generator: np.random.Generator, resamples: int = 1000
) -> Estimate:
    """Return a figure over n examples with its 95 % percentile bootstrap interval.

    Args:
        scores: what the model said, by figure. "accuracy": probabilities, shape (n, k), or those of label 1, shape
            (n,). "auc": any score that grows with label 1, shape (n,), or probabilities, shape (n, 2). "mae", "rmse":
            predictions, shape (n,). Any other name ("loss"): the per-example values whose mean is the figure, shape
            (n,).
        targets: the truth, shape (n,): label numbers, 0/1 for "auc", values for "mae" and "rmse"; unused otherwise.
        figure: the figure's name.
        generator: draws the resamples.
        resamples: how many, at least 1.

    Returns:
        The figure and its bounds. Without examples everything is NaN, and so is an AUC of one class; with one example,
        or values that are not finite, the bounds are NaN.

    Raises:
        ValueError: arrays of the wrong shape, `resamples` below 1, or AUC targets that are not 0 or 1.

    >>> interval([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], "auc", generator=np.random.default_rng(0)).value
    0.75
    """
    if resamples < 1:
        raise ValueError(f"The 'resamples' of interval must be at least 1. Got {resamples} instead.")
    said, truth = np.asarray(scores, np.float64), np.asarray(targets)
    if said.size == 0:
        return Estimate(math.nan, math.nan, math.nan)
    if figure == "auc":
        return _auc_interval(_one_score(said), _binary(truth, len(said)), generator, resamples)
    values = _values(said, truth, figure)
    finish = np.sqrt if figure == "rmse" else np.asarray
    value = float(finish(values.mean()))
    if len(values) == 1 or not np.isfinite(values).all():
        return Estimate(value, math.nan, math.nan)
    means = np.concatenate([values[drawn].mean(axis=1) for drawn in _draws(len(values), resamples, generator)])
    return _bounds(value, finish(means))


def area(scores: ArrayLike, targets: ArrayLike) -> float:
    """Return the exact area under the ROC curve: P(score of a 1 > score of a 0) + P(equal)/2; NaN with one class.

    Args:
        scores: shape (n,).
        targets: 0 or 1, shape (n,).

    >>> area([0.2, 0.7, 0.7, 0.9], [0, 0, 1, 1])
    0.875
    """
    said = np.asarray(scores, np.float64)
    groups = np.unique(said, return_inverse=True)[1]
    everyone = np.arange(len(said))[None]
    return float(_areas(groups, _binary(np.asarray(targets), len(said)), everyone)[0])


def _auc_interval(scores: Floats, targets: Counts, generator: np.random.Generator, resamples: int) -> Estimate:
    if np.isnan(scores).any():
        return Estimate(math.nan, math.nan, math.nan)
    value = area(scores, targets)
    if math.isnan(value):
        return Estimate(value, math.nan, math.nan)
    groups = np.unique(scores, return_inverse=True)[1]
    draws = _draws(len(scores), resamples, generator)
    areas = np.concatenate([_areas(groups, targets, drawn) for drawn in draws])
    return _bounds(value, areas[~np.isnan(areas)])


def _areas(groups: Counts, targets: Counts, drawn: Counts) -> Floats:
    """Return the AUC of each resample by Mann-Whitney's U.

    Args:
        groups: rank of each example's score, equal scores sharing one, shape (n,).
        targets: 0 or 1, shape (n,).
        drawn: indices of examples, shape (resamples, n).
    """
    rows, width = len(drawn), int(groups.max(initial=-1)) + 1
    cells = np.arange(rows)[:, None] * width + groups[drawn]
    hits = targets[drawn] == 1
    ones = np.bincount(cells[hits], minlength=rows * width).reshape(rows, width)
    zeros = np.bincount(cells[~hits], minlength=rows * width).reshape(rows, width)
    below = np.cumsum(zeros, axis=1) - zeros / 2
    pairs = (ones.sum(axis=1) * zeros.sum(axis=1)).astype(np.float64)
    found: Floats = np.divide((ones * below).sum(axis=1), pairs, out=np.full(rows, math.nan), where=pairs > 0)
    return found


def _values(scores: Floats, targets: NDArray[np.generic], figure: str) -> Floats:
    """Return the per-example values whose mean is the figure (its square, for rmse), shape (n,)."""
    if figure == "accuracy":
        labels = scores.argmax(axis=1) if scores.ndim == 2 else (scores > 0.5).astype(np.int64)
        hits: NDArray[np.bool_] = labels == _column(targets, len(scores))
        return hits.astype(np.float64)
    if figure in ("mae", "rmse"):
        errors = _column(scores, len(scores)) - _column(targets, len(scores)).astype(np.float64)
        found: Floats = np.abs(errors) if figure == "mae" else errors**2
        return found
    return _column(scores, len(scores))


def _draws(n: int, resamples: int, generator: np.random.Generator) -> Iterator[Counts]:
    """Yield chunks of resamples: indices in [0, n), shape (chunk, n)."""
    chunk = max(1, CELLS // n)
    for start in range(0, resamples, chunk):
        yield generator.integers(0, n, (min(chunk, resamples - start), n))


def _bounds(value: float, draws: Floats) -> Estimate:
    if len(draws) == 0:
        return Estimate(value, math.nan, math.nan)
    low, high = np.quantile(draws, LEVELS)
    return Estimate(value, float(low), float(high))


def _one_score(scores: Floats) -> Floats:
    return scores[:, 1] if scores.ndim == 2 and scores.shape[1] == 2 else _column(scores, len(scores))


def _binary(targets: NDArray[np.generic], n: int) -> Counts:
    column = _column(targets, n)
    if not np.isin(column, (0, 1)).all():
        raise ValueError("The 'targets' of an AUC must be 0 or 1. Got other values instead; name one label as 1.")
    return column.astype(np.int64)


def _column(array: NDArray[T], n: int) -> NDArray[T]:
    if array.shape != (n,):
        raise ValueError(f"Expected one value per example, shape ({n},). Got shape {array.shape} instead.")
    return array
