import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from fedloom.core.metrics import SCORE_BINS, Metrics, area_under_roc, average_precision, histogram, total


def scored(scores, labels):
    positives, negatives = histogram(scores[labels == 1]), histogram(scores[labels == 0])
    return Metrics({"examples": len(scores), "positives": positives, "negatives": negatives})


def drawn(seed, n=3000, share=0.3):
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < share).astype(int)
    return np.clip(rng.beta(2, 3, n) + 0.15 * labels, 0, 1), labels


@pytest.mark.parametrize("seed", range(5))
def test_ranking_figures_are_sklearns_within_the_bins(seed):
    scores, labels = drawn(seed)
    figures = scored(scores, labels).view()
    assert figures["auc"] == pytest.approx(sk.roc_auc_score(labels, scores), abs=1 / SCORE_BINS)
    assert figures["average_precision"] == pytest.approx(sk.average_precision_score(labels, scores), abs=5e-3)


def test_ranking_figures_are_exact_where_scores_lie_on_bins():
    scores, labels = drawn(1)
    scores = np.floor(scores * 64) / 64
    figures = scored(scores, labels).view()
    assert figures["auc"] == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-12)
    assert figures["average_precision"] == pytest.approx(sk.average_precision_score(labels, scores), abs=1e-12)


def test_pooled_figures_are_those_of_the_pooled_examples():
    parts = [drawn(seed, n) for seed, n in ((0, 50), (1, 700), (2, 3))]
    pooled = total(scored(*part) for part in parts)
    whole = scored(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    assert pooled.view() == whole.view()
    assert pooled.examples == 753


@settings(max_examples=50)
@given(sums=st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(-9, 9)), max_size=5), data=st.data())
def test_adding_is_associative_and_commutative(sums, data):
    parts = [Metrics({"examples": 1, **s}) for s in sums]
    assert total(parts).sums == total(data.draw(st.permutations(parts))).sums
    assert (total(parts[:2]) + total(parts[2:])).sums == total(parts).sums


def test_adding_leaves_both_sides_alone():
    one, two = Metrics({"examples": 1, "positives": np.ones(2)}), Metrics({"examples": 1, "positives": np.ones(2)})
    total([one, two, two])
    assert one.sums["positives"].tolist() == [1, 1]


def test_figures_of_values():
    rng = np.random.default_rng(0)
    targets = rng.normal(2, 3, 40)
    outputs = targets + rng.normal(size=40)
    error = outputs - targets
    sums = {
        "examples": 40,
        "squared_error": (error**2).sum(),
        "absolute_error": np.abs(error).sum(),
        "target": targets.sum(),
        "target_square": (targets**2).sum(),
    }
    figures = Metrics(sums).view()
    assert figures["rmse"] == pytest.approx(sk.root_mean_squared_error(targets, outputs))
    assert figures["mae"] == pytest.approx(sk.mean_absolute_error(targets, outputs))
    assert figures["r2"] == pytest.approx(sk.r2_score(targets, outputs))


def test_what_cannot_be_said_is_nan_or_absent():
    assert total([]).view() == {"examples": 0}
    assert math.isnan(Metrics({"examples": 2, "squared_error": 1.0, "target": 4.0, "target_square": 8.0}).view()["r2"])
    one_class = scored(np.array([0.2, 0.4]), np.array([0, 0])).view()
    assert math.isnan(one_class["auc"])
    assert math.isnan(one_class["average_precision"])


def test_ends_of_the_scale_are_counted():
    counts = histogram(np.array([-0.5, 0.0, 1.0, 1.5]))
    assert (counts[0], counts[-1], counts.sum(), len(counts)) == (2, 2, 4, SCORE_BINS)


def test_ties_count_half():
    assert area_under_roc(np.array([3, 0]), np.array([5, 0])) == 0.5
    assert average_precision(np.array([3, 0]), np.array([5, 0])) == 3 / 8
