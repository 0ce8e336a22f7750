"""Points of a curve keep to their budgets, and ε = ∞ is the same app without noise alone."""

import math
from dataclasses import replace

import numpy as np
import pytest

import fedloom
from fedloom.core.errors import ConfigError
from fedloom.curve import curve, noised

pytestmark = pytest.mark.slow

EXAMPLES = fedloom.dp_sgd_fedavg(fedloom.sgd(0.5, steps=2), lot=1.0, noise_multiplier=9.0, delta=1e-3)
CLIENTS = fedloom.dp_fedavg(fedloom.sgd(0.5), noise_multiplier=9.0, delta=1e-2)


def app(strategy, **changes):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 3)).astype(np.float32)
    targets = (inputs[:, 0] > 0).astype(np.int64)
    data = fedloom.Data(
        source=fedloom.Arrays(inputs, targets, classes=2, test_part=(inputs[:50], targets[:50])),
        partition=fedloom.Iid(4),
        holdout=0.0,
    )
    model = fedloom.BuiltIn(name="logistic")
    return fedloom.App(**{"model": model, "data": data, "strategy": strategy, "rounds": 3} | changes)


@pytest.mark.parametrize(("strategy", "unit"), [(EXAMPLES, "example"), (CLIENTS, "client")])
def test_every_point_spends_its_budget_and_no_more(strategy, unit):
    found = curve(app(strategy, stop=fedloom.Stop(epsilon=100.0)), [math.inf, 8.0, 2.0, 8.0], seeds=2)
    assert [point.budget for point in found.points] == [2.0, 8.0, math.inf]
    assert [point.epsilon for point in found.points[:2]] == pytest.approx([2.0, 8.0], rel=5e-3)
    assert all(point.epsilon <= point.budget for point in found.points)
    assert found.points[0].noise_multiplier > found.points[1].noise_multiplier > found.points[2].noise_multiplier == 0
    assert (found.unit, found.figure, found.measured_on, found.seeds) == (unit, "auc", "test", (0, 1))
    assert all(len(point.values) == 2 for point in found.points)
    assert found.points[2].median > 0.95
    said = found.figures()
    assert said["points"][2]["epsilon"] == said["points"][2]["budget"] == "infinity"


def test_without_noise_clip_and_lots_stay():
    made, noise = noised(app(EXAMPLES), math.inf)
    local = made.strategy.local
    assert (noise, local.seeded, local.clip, local.lot) == (0.0, True, 1.0, 1.0)
    assert not made.strategy.examples.private


def test_stages_before_the_noise_stay():
    strategy = replace(CLIENTS, stages=(fedloom.Clip(3.0), *CLIENTS.stages))
    made, noise = noised(app(strategy), 4.0)
    assert made.strategy.stages[0] == fedloom.Clip(3.0)
    assert made.strategy.stages[1].noise_multiplier == noise


def test_the_watched_figure_is_told():
    stopped = app(EXAMPLES, stop=fedloom.Stop(target={"accuracy": 0.5}))
    assert curve(stopped, [math.inf]).figure == "accuracy"  # and no target ends a run early


@pytest.mark.parametrize(
    ("strategy", "budgets", "text"),
    [
        (fedloom.fedavg(), [1.0], "an app with Gaussian noise whose budget is told, and this one has none"),
        (fedloom.dp_fedavg(seeded=True), [1.0], "this one has none; take dp_fedavg or dp_sgd_fedavg"),
        (EXAMPLES, [], "a curve needs epsilons above 0, and a seed or more"),
        (EXAMPLES, [-1.0], r"got \[-1\.0\], 1 seeds"),
    ],
)
def test_what_has_no_curve_is_refused(strategy, budgets, text):
    with pytest.raises(ConfigError, match=text):
        curve(app(strategy), budgets)
