import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fedloom.report.bootstrap import area, interval


def slow(scores, targets, measure, generator, resamples):
    """Draw one resample after another; leave out those that the measure refuses."""
    found = []
    for _ in range(resamples):
        drawn = generator.integers(0, len(scores), (1, len(scores)))[0]
        value = measure(scores[drawn], targets[drawn])
        if value is not None:
            found.append(value)
    return np.percentile(found, 2.5), np.percentile(found, 97.5)


def pairs(scores, targets):
    """AUC by its definition: every pair of a one and a zero."""
    ones, zeros = scores[targets == 1], scores[targets == 0]
    if not len(ones) or not len(zeros):
        return None
    return np.mean([(one > zero) + (one == zero) / 2 for one in ones for zero in zeros])


@pytest.fixture
def data():
    generator = np.random.default_rng(3)
    targets = generator.integers(0, 2, 31)
    return np.round(generator.normal(targets, 1.0), 1), targets  # rounding makes ties


MEASURES = {
    "auc": pairs,
    "mae": lambda s, t: np.mean(np.abs(s - t)),
    "rmse": lambda s, t: np.sqrt(np.mean((s - t) ** 2)),
    "loss": lambda s, t: np.mean(s),
    "accuracy": lambda s, t: np.mean((s > 0.5) == t),
}


@pytest.mark.parametrize("figure", MEASURES)
def test_agrees_with_one_resample_after_another(figure, data):
    scores, targets = data
    found = interval(scores, targets, figure, generator=np.random.default_rng(5), resamples=200)
    low, high = slow(scores, targets, MEASURES[figure], np.random.default_rng(5), 200)
    assert found.value == pytest.approx(MEASURES[figure](scores, targets))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.low <= found.value <= found.high


def test_area_is_that_of_scikit_learn_with_ties():
    generator = np.random.default_rng(0)
    for n in (2, 5, 40, 3000):
        targets = np.r_[0, 1, generator.integers(0, 2, n - 2)]
        scores = generator.integers(0, 7, n).astype(float)
        assert area(scores, targets) == pytest.approx(roc_auc_score(targets, scores))


def test_accuracy_takes_the_likeliest_of_k_labels():
    scores = np.eye(4)[[0, 1, 2, 3, 0]]
    assert interval(scores, [0, 1, 2, 3, 1], "accuracy", generator=np.random.default_rng(0)).value == 0.8


def test_auc_reads_the_second_column_of_two():
    scores = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert interval(scores, [0, 1], "auc", generator=np.random.default_rng(0)).value == 1.0


def test_auc_leaves_out_resamples_of_one_class():
    found = interval([0.1, 0.9], [0, 1], "auc", generator=np.random.default_rng(0))
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("scores", "targets", "figure"),
    [
        ([], [], "auc"),
        ([], [], "mae"),
        ([0.2, 0.7], [1, 1], "auc"),
        ([0.4], [0], "auc"),
        ([math.nan, 1], [0, 1], "auc"),
    ],
)
def test_nothing_can_be_said(scores, targets, figure):
    found = interval(scores, targets, figure, generator=np.random.default_rng(0))
    assert all(math.isnan(value) for value in (found.value, found.low, found.high))


@pytest.mark.parametrize("scores", [[0.25], [0.25, math.inf], [0.25, math.nan]])
def test_bounds_are_unknown(scores):
    found = interval(scores, [0] * len(scores), "loss", generator=np.random.default_rng(0))
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_large_sites_are_drawn_in_chunks(monkeypatch, data):
    whole = interval(*data, "mae", generator=np.random.default_rng(1), resamples=50)
    monkeypatch.setattr("fedloom.report.bootstrap.CELLS", 100)
    assert interval(*data, "mae", generator=np.random.default_rng(1), resamples=50) == whole


@pytest.mark.parametrize(
    ("scores", "targets", "figure", "resamples", "told"),
    [
        ([[1.0, 2.0, 3.0]], [0], "auc", 10, "shape (1,)"),
        ([1.0, 2.0], [0], "mae", 10, "shape (2,)"),
        ([1.0, 2.0], [1, 2], "auc", 10, "0 or 1"),
        ([1.0, 2.0], [0, 1], "auc", 0, "at least 1"),
    ],
)
def test_refuses(scores, targets, figure, resamples, told):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        interval(scores, targets, figure, generator=np.random.default_rng(0), resamples=resamples)
    assert told in str(caught.value)
