"""Named losses against scikit-learn and PyTorch."""

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from torch.nn import functional

from fedloom.adapters.losses import LOSSES, class_numbers, named, sigmoid, softmax
from fedloom.core.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
N = 400


def scores_on_bins(n=N):
    """Probabilities at the centres of the histogram's bins, so that binning loses nothing."""
    return (RNG.integers(0, 4096, n) + 0.5) / 4096


def test_cross_entropy_of_many_classes():
    logits, targets = RNG.normal(size=(N, 5)) * 4, RNG.integers(0, 5, N)
    figures = named("cross_entropy").metrics(logits, targets).view()
    assert figures["loss"] == pytest.approx(sk.log_loss(targets, softmax(logits)))
    assert figures["accuracy"] == pytest.approx(sk.accuracy_score(targets, logits.argmax(axis=1)))
    assert set(figures) == {"examples", "loss", "accuracy"}


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy"])
def test_two_classes_are_ranked(name):
    p, targets = scores_on_bins(), RNG.integers(0, 2, N)
    logit = np.log(p / (1 - p))
    outputs = logit[:, None] if name == "binary_cross_entropy" else np.stack([0 * logit, logit], axis=1)
    figures = named(name).metrics(outputs, targets).view()
    assert figures["loss"] == pytest.approx(sk.log_loss(targets, p))
    assert figures["accuracy"] == pytest.approx(sk.accuracy_score(targets, p > 0.5))
    assert figures["auc"] == pytest.approx(sk.roc_auc_score(targets, p), abs=1e-3)
    assert figures["average_precision"] == pytest.approx(sk.average_precision_score(targets, p), abs=1e-3)


def test_squared_error():
    values, targets = RNG.normal(size=(N, 1)), RNG.normal(size=N) + 3
    figures = named("mse").metrics(values, targets).view()
    assert figures["loss"] == pytest.approx(sk.mean_squared_error(targets, values))
    assert figures["rmse"] == pytest.approx(sk.root_mean_squared_error(targets, values))
    assert figures["mae"] == pytest.approx(sk.mean_absolute_error(targets, values))
    assert figures["r2"] == pytest.approx(sk.r2_score(targets, values))


def test_squared_error_of_several_outputs_is_the_mean_over_them():
    values, targets = RNG.normal(size=(N, 3)), RNG.normal(size=(N, 3))
    figures = named("mse").metrics(values, targets).view()
    assert figures["loss"] == pytest.approx(sk.mean_squared_error(targets, values))
    assert "r2" not in figures


def test_huge_logits_stay_finite():
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]])
    found = named("cross_entropy").each(logits, np.array([0, 0]))
    np.testing.assert_array_equal(found, [0, 2e4])
    np.testing.assert_array_equal(named("binary_cross_entropy").each(np.array([1e4, -1e4]), np.array([1, 1])), [0, 1e4])
    np.testing.assert_array_equal(sigmoid(np.array([1e4, -1e4])), [1, 0])


@pytest.mark.parametrize("name", LOSSES)
def test_each_agrees_with_torch(name):
    outputs = torch.randn(50, 4 if name == "cross_entropy" else 1, dtype=torch.float64)
    targets = torch.randint(0, 4 if name == "cross_entropy" else 2, (50,))
    if name == "cross_entropy":
        expected = functional.cross_entropy(outputs, targets, reduction="none")
    elif name == "mse":
        expected = (outputs[:, 0] - targets) ** 2
    else:
        expected = functional.binary_cross_entropy_with_logits(outputs[:, 0], targets.double(), reduction="none")
    np.testing.assert_allclose(named(name).each(outputs.numpy(), targets.numpy()), expected.numpy(), atol=1e-12)


def test_an_unknown_name_lists_the_nearest_first():
    with pytest.raises(ConfigError, match="there is no loss 'crossentropy'; the known ones are cross_entropy, binary"):
        named("crossentropy")


def test_infinite_outputs_do_not_crash():
    for name in LOSSES:
        outputs = np.full((2, 2 if name == "cross_entropy" else 1), np.inf)
        named(name).predict(outputs)
        assert named(name).metrics(outputs, np.array([0, 1])).examples == 2


def test_targets_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"class numbers must be integers, got float64; convert with"):
        class_numbers(np.array([0.5]))
    with pytest.raises(DataError, match="class numbers run from 0 to 3, but the model has 3 outputs"):
        named("cross_entropy").each(np.zeros((2, 3)), np.array([0, 3]))
    with pytest.raises(DataError, match=r"needs targets 0 or 1, got \[1, 2\]"):
        named("binary_cross_entropy").each(np.zeros(2), np.array([1, 2]))


def test_outputs_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"got \(2, 1\) and \(2,\); a single logit is for binary_cross_entropy"):
        named("cross_entropy").each(np.zeros((2, 1)), np.array([0, 1]))
    with pytest.raises(ConfigError, match=r"one output for each target, got outputs \(3, 2\) for targets \(3,\)"):
        named("mse").each(np.zeros((3, 2)), np.zeros(3))
    with pytest.raises(ConfigError, match=r"outputs \(3, 2\) for targets \(3,\)"):
        named("binary_cross_entropy").each(np.zeros((3, 2)), np.zeros(3))
