"""Membership inference: who was in the training rows, by how sure the model is of them; told as a ROC."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError

Scores = NDArray[np.float64]
LOW = (0.001, 0.01)  # rates of false positives at which an attack is told
CLIP = 1e-9  # probabilities nearer to 0 and 1 than that are taken for it


def confidence(probabilities: Any, targets: Any) -> Scores:
    """Return ln p/(1-p) of the true class: nearly normal, where a loss is not.

    Carlini et al., IEEE S&P 2022 (arXiv 2112.03570): the logit scaling of LiRA.

    Args:
        probabilities: shape `(n, classes)`; targets: class numbers, shape `(n,)`.

    >>> confidence(np.array([[0.5, 0.5], [0.1, 0.9]]), np.array([0, 1])).round(3)
    array([0.   , 2.197])
    """
    found = np.asarray(probabilities, np.float64)
    if found.ndim != 2:
        raise DataError("membership is inferred from classes' probabilities, and this model has none.")
    own = np.clip(found[np.arange(len(found)), np.asarray(targets, np.int64)], CLIP, 1 - CLIP)
    return np.asarray(np.log(own) - np.log1p(-own))


def offline_lira(seen: Scores, shadows: Scores, without: NDArray[np.bool_]) -> Scores:
    """Return (φ - mean)/deviation of each row, over shadow models that were trained without it.

    Carlini et al., IEEE S&P 2022 (arXiv 2112.03570), the offline attack: 1 - P[Z > φ], Z ~ N(mean, deviation²), has the
    same order. As they advise for few shadow models, one deviation serves all rows.

    Args:
        seen: φ of the attacked model, shape `(n,)`.
        shadows: φ of the shadow models, shape `(shadows, n)`; without: which of them had not seen which row, alike.
    """
    if not without.any(axis=0).all():
        raise DataError("a row was in the rows of every shadow model; train more of them.")
    count = without.sum(axis=0)
    mean = np.where(without, shadows, 0).sum(axis=0) / count
    off = np.where(without, shadows - mean, 0)
    deviation = np.sqrt((off**2).sum() / max(1, (count - 1).sum()))
    return np.asarray((seen - mean) / max(float(deviation), 1e-12))


@dataclass(frozen=True)
class Roc:
    """Rates of true and false positives over all thresholds, from (0, 0) to (1, 1).

    Args:
        false, true: rates, shape `(points,)`, not falling.
        members, others: how many rows of each were judged.
    """

    false: Scores
    true: Scores
    members: int
    others: int

    @staticmethod
    def of(members: Scores, others: Scores) -> "Roc":
        """Return it for scores that are higher where a row seems to be a member; equal scores move together.

        >>> roc = Roc.of(np.array([3.0, 2.0, 1.0]), np.array([2.5, 0.0]))
        >>> roc.auc, roc.at(0.0), roc.at(0.5)
        (0.6666666666666666, 0.3333333333333333, 1.0)
        """
        scores = np.concatenate([members, others])
        inside = np.concatenate([np.ones(len(members)), np.zeros(len(others))])
        order = np.argsort(-scores, kind="stable")
        last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
        true, false = np.cumsum(inside[order])[last], np.cumsum(1 - inside[order])[last]
        start = np.zeros(1)
        return Roc(
            np.concatenate([start, false / len(others)]),
            np.concatenate([start, true / len(members)]),
            len(members),
            len(others),
        )

    @property
    def auc(self) -> float:
        """Area under it; 0.5 is chance."""
        return float(np.trapezoid(self.true, self.false))

    def at(self, rate: float) -> float:
        """Return the largest rate of true positives with at most that rate of false ones."""
        return float(self.true[self.false <= rate + 1e-12].max())

    def figures(self) -> dict[str, Any]:
        """Return it as JSON can hold it, with at most 200 points."""
        told = {f"tpr_at_{rate:g}": round(self.at(rate), 6) for rate in LOW}
        kept = np.unique(np.linspace(0, len(self.false) - 1, 200).round().astype(int))
        points = np.column_stack([self.false, self.true])[kept].round(6).tolist()
        return {"auc": round(self.auc, 6), **told, "members": self.members, "others": self.others, "roc": points}


def halves(size: int, shadows: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return which rows each shadow model is trained on, shape `(shadows, size)`: each row is in half of them.

    >>> halves(3, 4, np.random.default_rng(0)).sum(axis=0)
    array([2, 2, 2])
    """
    return np.argsort(rng.random((shadows, size)), axis=0) < shadows // 2


def judged(scores: Sequence[float] | Scores, members: int) -> Roc:
    """Return the ROC of scores of which the first so many are members'."""
    found = np.asarray(scores, np.float64)
    return Roc.of(found[:members], found[members:])
