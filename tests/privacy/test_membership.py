"""Membership inference on scores whose truth is known, against scikit-learn's ROC."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from fedloom.core.errors import DataError
from fedloom.privacy.membership import Roc, confidence, halves, offline_lira


@pytest.mark.parametrize("digits", [1, 12])
def test_the_roc_is_scikit_learns_ties_and_all(digits):
    rng = np.random.default_rng(0)
    members, others = rng.normal(0.7, 1, 300).round(digits), rng.normal(0, 1, 500).round(digits)
    truth, scores = np.repeat([1, 0], [300, 500]), np.concatenate([members, others])
    roc = Roc.of(members, others)
    assert roc.auc == pytest.approx(roc_auc_score(truth, scores))
    false, true, _ = roc_curve(truth, scores)
    for rate in (0.001, 0.01, 0.1, 0.5, 1.0):
        assert roc.at(rate) == pytest.approx(true[false <= rate].max())
    assert (roc.false[0], roc.true[0], roc.false[-1], roc.true[-1]) == (0, 0, 1, 1)
    told = roc.figures()
    assert (told["members"], told["others"]) == (300, 500)
    assert told["tpr_at_0.01"] == pytest.approx(roc.at(0.01), abs=1e-6)
    assert len(told["roc"]) <= 200


def test_confidence_is_finite_at_the_ends():
    found = confidence(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]))
    assert np.isfinite(found).all()
    assert found[0] == pytest.approx(-found[1])
    with pytest.raises(DataError, match="this model has none"):
        confidence(np.zeros(3), np.zeros(3))


def test_lira_takes_out_how_easy_a_row_is():
    """Rows differ in how sure any model is of them by far more than membership adds: alone that hides it."""
    rng = np.random.default_rng(1)
    ease, inside = rng.normal(0, 10, 1000), np.arange(1000) < 500
    seen = ease + 2 * inside + rng.normal(size=1000)
    kept = halves(1000, 16, rng)
    shadows = ease + 2 * kept + rng.normal(size=(16, 1000))
    lira = offline_lira(seen, shadows, ~kept)
    assert Roc.of(lira[inside], lira[~inside]).auc > 0.88
    assert Roc.of(seen[inside], seen[~inside]).auc < 0.65
    assert np.std(lira[~inside]) == pytest.approx(1.06, abs=0.15)


def test_a_row_that_every_shadow_saw_is_refused():
    with pytest.raises(DataError, match="in the rows of every shadow model; train more"):
        offline_lira(np.zeros(2), np.zeros((3, 2)), np.array([[False, True]] * 3))


def test_halves_are_halves():
    kept = halves(50, 16, np.random.default_rng(0))
    assert (kept.sum(axis=0) == 8).all()
    assert kept.shape == (16, 50)
