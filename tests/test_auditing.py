"""Builds that are broken on purpose are caught, and the honest one passes; noise and selection are seeded here."""

import json
from dataclasses import replace

import numpy as np
import pytest

import fedloom
from fedloom import GaussianNoise, Poisson
from fedloom.auditing import audit
from fedloom.core import draws
from fedloom.core.errors import ConfigError

WIDE = 500  # parameters, and canaries in a run


def app(strategy=None, *, rounds=8, clients=WIDE):
    """Return an app on arrays of zeros, whose rows an audit does not look at."""
    rows = np.zeros((clients, WIDE - 1), np.float32)
    source = fedloom.Arrays(rows, np.arange(clients) % 2, classes=2, test_part=(rows[:2], np.arange(2)))
    data = fedloom.Data(source=source, partition=fedloom.Iid(clients), holdout=0.0)
    model = fedloom.BuiltIn(name="logistic")
    strategy = strategy or fedloom.dp_fedavg(rate=0.25, clip=0.5, noise_multiplier=1.0, delta=1e-5)
    return fedloom.App(model=model, data=data, strategy=strategy, rounds=rounds)


EVERYONE = fedloom.dp_fedavg(rate=1.0, clip=0.5, noise_multiplier=3.0, delta=1e-5)


@pytest.fixture(autouse=True)
def seeded(monkeypatch):
    """The operating system's randomness, the same each time: what is audited is the path that draws from it."""
    rng = np.random.default_rng(0)
    monkeypatch.setattr(draws.os, "urandom", rng.bytes)
    monkeypatch.setattr("fedloom.core.strategy.randbits", lambda bits: int.from_bytes(rng.bytes(bits // 8)))


@pytest.mark.slow
def test_an_honest_build_passes_and_the_bound_is_not_far_below():
    found = audit(app(EVERYONE, rounds=5))
    assert not found.broken
    assert 0.7 < found.independent <= found.epsilon == pytest.approx(3.1246, abs=1e-3)
    assert 0.3 < found.one_run < found.epsilon
    assert (found.canaries, found.runs) == (1000, 2)


@pytest.mark.slow
def test_an_honest_build_passes_with_sampling():
    found = audit(app())
    assert not found.broken
    assert 0.9 < found.bound < found.epsilon


def no_noise(monkeypatch):
    monkeypatch.setattr(GaussianNoise, "finish", lambda self, update, server, streams: (update, server))


def no_clip(monkeypatch):
    monkeypatch.setattr(GaussianNoise, "encode", lambda self, update, memory, public, streams: (update, memory))


def doubled_sampling(monkeypatch):
    pick = Poisson.pick
    monkeypatch.setattr(Poisson, "pick", lambda self, *given: pick(replace(self, rate=2 * self.rate), *given))


def half_the_noise(monkeypatch):
    finish = GaussianNoise.finish
    less = lambda self, *given: finish(replace(self, noise_multiplier=self.noise_multiplier / 2), *given)  # noqa: E731
    monkeypatch.setattr(GaussianNoise, "finish", less)


def noise_of_the_mean(monkeypatch):
    """Calibrated to a mean of the cohort, and added to the sum: divided once too often."""
    finish = GaussianNoise.finish
    monkeypatch.setattr(
        GaussianNoise,
        "finish",
        lambda self, update, *given: finish(
            replace(self, noise_multiplier=self.noise_multiplier / max(1, update.count)), update, *given
        ),
    )


SAMPLED = app()
WHOLE = app(EVERYONE, rounds=2)


@pytest.mark.parametrize(
    ("break_it", "of"),
    [
        pytest.param(no_noise, SAMPLED, marks=pytest.mark.slow),
        pytest.param(no_clip, SAMPLED, marks=pytest.mark.slow),
        pytest.param(doubled_sampling, SAMPLED, marks=pytest.mark.slow),
        pytest.param(noise_of_the_mean, SAMPLED, marks=pytest.mark.slow),
        (no_noise, WHOLE),
        (no_clip, WHOLE),
        pytest.param(half_the_noise, app(EVERYONE, rounds=4), marks=pytest.mark.slow),
    ],
)
def test_a_broken_build_is_caught(break_it, of, monkeypatch):
    break_it(monkeypatch)
    found = audit(of, canaries=WIDE)
    assert found.broken, found.figures()
    assert "BROKEN: canaries prove that at least" in found.sentence()


def test_what_is_not_claimed_cannot_be_broken():
    found = audit(app(fedloom.fedavg(cohort=0.5), rounds=2), canaries=WIDE)
    assert (found.epsilon, found.independent, found.broken) == (float("inf"), None, False)
    assert found.bound > 3
    assert found.figures()["epsilon"] == "infinity"
    assert "Nothing is claimed (ε = ∞)" in found.sentence()


def test_a_model_with_fewer_parameters_than_canaries_has_several_runs():
    small = app(EVERYONE, rounds=2, clients=30)
    found = audit(small, canaries=100)
    assert (found.runs, found.canaries, found.broken) == (4, 100, False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy",
    [
        replace(EVERYONE, stages=(fedloom.LaplaceNoise(clip=0.5, noise_multiplier=4.0, delta=1e-5),)),
        replace(EVERYONE, stages=(fedloom.AdaptiveNoise(noise_multiplier=3.0, delta=1e-5, bit_noise=25.0, clip=0.5),)),
        replace(EVERYONE, stages=(fedloom.FixedPoint(limit=1.0), *EVERYONE.stages), gather=fedloom.SecAgg()),
        replace(EVERYONE, optimizer=fedloom.Adam(0.1)),
        replace(EVERYONE, select=fedloom.Uniform(fraction=0.5), aggregate=fedloom.Mean(expected=1.0)),
    ],
    ids=["laplace", "adaptive", "secagg", "adam", "uniform"],
)
def test_other_mechanisms_can_be_audited(strategy):
    found = audit(app(strategy, rounds=3), canaries=WIDE)
    assert not found.broken
    assert found.bound < found.epsilon


def test_the_same_seed_tosses_the_same_coins():
    one, other = audit(app(EVERYONE, rounds=1), canaries=40), audit(app(EVERYONE, rounds=1), canaries=40)
    assert one.included == other.included


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"canaries": 10}, "needs 20 canaries or more"),
        ({"rounds": 0}, "rounds must be at least 1 .* got rounds=0"),
        ({"confidence": 0.0}, r"confidence in \(0, 1\), got .*confidence=0"),
    ],
)
def test_what_proves_nothing_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        audit(app(), **{"canaries": 40, "rounds": 1} | changes)
    with pytest.raises(ConfigError, match="an audit counts rounds"):
        audit(app(fedloom.fedbuff()))


def test_what_canaries_cannot_hear_is_refused():
    examples = fedloom.dp_sgd_fedavg(lot=0.5, clip=1.0, noise_multiplier=1.0, delta=1e-3)
    with pytest.raises(ConfigError, match="canaries are whole clients, and this app protects single examples"):
        audit(app(examples))
    local = fedloom.LocalGaussianNoise(clip=0.5, noise_multiplier=1.0, delta=1e-5)
    with pytest.raises(ConfigError, match="what 'local gaussian' noise leaves of a canary is not known here"):
        audit(app(replace(EVERYONE, stages=(local,))))


TOML = """
clients = 40
rounds = 2
strategy = { name = "dp_fedavg", clip = 0.5, noise_multiplier = 2.0, delta = 1e-3 }
[data]
source = "npz"
path = "rows.npz"
arrays = { shape = [80], classes = 2 }
"""


@pytest.mark.slow
def test_the_command_prints_both_numbers_and_fails_for_a_broken_build(command, tmp_path, monkeypatch):
    rows, labels = np.zeros((40, 80)), np.arange(40) % 2
    np.savez(tmp_path / "rows.npz", train_images=rows, train_labels=labels, test_images=rows, test_labels=labels)
    (tmp_path / "app.toml").write_text(TOML)
    told = command("audit", "app.toml", "--canaries", 400)
    assert told.code == 0, told.err
    assert "ε accounted for" in told.out
    assert "ε proved, whatever the mechanism is (one run)" in told.out
    no_noise(monkeypatch)
    told = command("audit", "app.toml", "--canaries", 400)
    assert told.code == 1
    assert "BROKEN: canaries prove that at least" in told.out
    told = command("audit", "app.toml", "--canaries", 400, "--json")
    (event,) = told.events
    assert (told.code, event["event"], event["broken"]) == (1, "audit", True)
    assert json.loads(told.out) == event
