"""Membership inference on whole apps: an overfitted one gives its rows away, a private one does not."""

from math import sqrt
from statistics import NormalDist

import numpy as np
import pytest

import fedloom
from fedloom.core.errors import ConfigError
from fedloom.shadows import infer
from fedloom.simulation import simulate

pytestmark = pytest.mark.slow


def app(strategy, rounds=6):
    """Return an app whose labels are coins: whatever is learned of them is memory."""
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(320, 80)).astype(np.float32), rng.integers(0, 2, 320)
    source = fedloom.Arrays(rows[:120], labels[:120], classes=2, test_part=(rows[120:], labels[120:]))
    data = fedloom.Data(source=source, partition=fedloom.Iid(12), holdout=0.0)
    model = fedloom.BuiltIn(name="logistic")
    return fedloom.App(model=model, data=data, strategy=strategy, rounds=rounds, evaluate_every=rounds)


def attacked(made, **options):
    simulation = simulate(made)
    *_, last = simulation.rounds(simulation.first())
    return infer(simulation, last.vector, **options)


def test_an_overfitted_model_gives_its_rows_away():
    found = attacked(app(fedloom.fedavg(fedloom.sgd(0.5, epochs=10, batch_size=5))), shadows=8)
    assert found.lira.auc > 0.8
    assert found.lira.at(0.01) > 0.2
    assert found.loss.auc > 0.7
    assert (found.lira.members, found.lira.others, found.shadows) == (120, 200, 8)


def test_noise_takes_that_away():
    """Six Gaussian mechanisms of multiplier 8 are together mu-GDP (Dong et al. 2022): no attack's AUC passes Φ(mu/√2).

    Seeded, so that it says the same every time: 120 members against 200 others leave an AUC uncertain by 0.03.
    """
    sgd = fedloom.sgd(0.5, epochs=10, batch_size=5)
    found = attacked(app(fedloom.dp_fedavg(sgd, clip=0.5, noise_multiplier=8.0, delta=1e-3, seeded=True)), shadows=8)
    most = NormalDist().cdf(sqrt(6) / 8 / sqrt(2))
    assert 0.4 < found.lira.auc < most < 0.6
    assert found.lira.at(0.01) < 0.1


def test_without_a_test_part_held_out_rows_are_the_others():
    data = fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Iid(3))
    made = fedloom.App(model=fedloom.BuiltIn(name="logistic"), data=data, rounds=1)
    found = attacked(made, shadows=2)
    assert found.lira.members + found.lira.others == 569
    assert set(found.figures()) == {"lira", "loss", "shadows"}


def test_too_few_shadows_are_refused():
    with pytest.raises(ConfigError, match="needs 2 or more, got 1"):
        attacked(app(fedloom.fedavg(), rounds=1), shadows=1)
