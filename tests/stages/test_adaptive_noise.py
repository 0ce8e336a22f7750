from dataclasses import replace

import numpy as np
import pytest

from fedloom.adapters.numpy import linear
from fedloom.core.errors import StrategyError
from fedloom.core.layout import Layout, Leaf
from fedloom.core.rng import stream
from fedloom.core.update import Update, weigh
from fedloom.recipes import dp_fedavg, sgd
from fedloom.stages import AdaptiveNoise
from small import regression, small

QUIET = {"noise_multiplier": 1e-6, "delta": 1e-5, "bit_noise": 1e-3, "seeded": True}
LAYOUT = Layout((Leaf("w", (3,)),))


def summed(stage, norms, server):
    """Return the sum of what clients whose deltas have these norms send, before the server's half."""
    totals, found = stage.payload(LAYOUT).weighted(len(norms)), None
    for norm in norms:
        update = Update(np.float32([norm, 0, 0]), LAYOUT)
        sent, _ = stage.encode(update, None, stage.public(server), stream(0, 1))
        one = weigh(sent.vector, totals, 1.0)
        found = one if found is None else found + one
    return found


@pytest.mark.parametrize(("z", "bit_noise", "split"), [(1.0, 5.0, 1.005038), (1.1, 5.0, 1.106716)])
def test_the_noise_is_split_as_in_the_paper(z, bit_noise, split):
    stage = AdaptiveNoise(noise_multiplier=z, delta=1e-5, bit_noise=bit_noise)
    assert stage.split == pytest.approx(split, abs=1e-6)
    assert z**-2 == pytest.approx(stage.split**-2 + (2 * bit_noise) ** -2)
    assert stage.event().values["noise_multiplier"] == z


def test_one_round_by_hand():
    """Norms 1, 2, 3 and a clip of 2: two are short, b̄ = 2/3, C ← 2·exp(-0.2·(2/3 - 1/2))."""
    stage = AdaptiveNoise(**QUIET, clip=2.0)
    found = summed(stage, [1.0, 2.0, 3.0], stage.start(LAYOUT))
    np.testing.assert_allclose(found.vector, [5, 0, 0, 0.5, 3], atol=1e-5)
    done, server = stage.finish(found, {"clip": 2.0}, stream(0, 1))
    assert server["clip"] == pytest.approx(2 * np.exp(-0.2 * (2 / 3 - 0.5)), rel=1e-3)
    np.testing.assert_allclose(done.vector, [5, 0, 0, 0, 3], atol=1e-4)


@pytest.mark.parametrize(("quantile", "expected"), [(0.5, (5, 6)), (0.9, (9, 10)), (0.2, (2, 3))])
def test_the_clip_moves_to_the_quantile(quantile, expected):
    stage = AdaptiveNoise(**QUIET, clip=0.1, quantile=quantile)
    server = stage.start(LAYOUT)
    for round in range(300):
        _, server = stage.finish(summed(stage, range(1, 11), server), server, stream(0, round))
    assert expected[0] * 0.9 < server["clip"] < expected[1] * 1.1


def test_both_noises_have_their_scales():
    stage = AdaptiveNoise(noise_multiplier=1.0, delta=1e-5, bit_noise=2.0, clip=3.0)
    totals = stage.payload(Layout((Leaf("w", (20_000,)),))).weighted(10)
    empty = Update(np.zeros(totals.size), totals, 0)
    drawn = [stage.finish(empty, {"clip": 3.0}, stream(0, 1)) for _ in range(200)]
    assert drawn[0][0].vector[:-2].std() == pytest.approx(3.0 * stage.split, rel=0.03)
    bits = [(np.log(server["clip"] / 3.0) / -0.2) * 10 for _, server in drawn]  # = Σb + noise
    assert np.mean(bits) == pytest.approx(0.0, abs=0.7)
    assert np.std(bits) == pytest.approx(2.0, rel=0.25)
    assert all(done.vector[-2] == 0 for done, _ in drawn)


def test_the_noise_of_the_bits_is_on_a_grid():
    """So that no floating-point number shows which sum of bits led to it; noise of deltas is on theirs."""
    for norms in ([0.0] * 8, [9.0] * 7):
        stage = AdaptiveNoise(noise_multiplier=1.0, delta=1e-5, bit_noise=2.0, clip=1.0, rate=1.0)
        _, server = stage.finish(summed(stage, norms, {"clip": 1.0}), {"clip": 1.0}, stream(0, 1))
        steps = -np.log(server["clip"]) * len(norms) * 2**20
        assert abs(steps - round(steps)) < 1e-6


def test_an_app_learns_while_the_clip_moves():
    strategy = replace(
        dp_fedavg(sgd(0.2, batch_size=8), seeded=True),
        stages=(AdaptiveNoise(**QUIET | {"noise_multiplier": 0.01, "bit_noise": 0.1}, clip=0.01),),
    )
    made = small(linear(3), strategy, regression())
    states = made.run(30)
    assert all(len(s.record.counted) == 5 and not s.record.faults for s in states)
    clips = [s.stages[0]["clip"] for s in states]
    assert clips[0] > 0.01
    assert np.abs(states[-1].vector[:-1]).max() > 0.1
    assert states[-1].vector[-1] == 0


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"noise_multiplier": 2.0, "bit_noise": 1.0}, "bit_noise must be above half the noise multiplier of 2.0"),
        ({"quantile": 1.0}, r"AdaptiveNoise.quantile must be in \(0, 1\), got 1.0"),
        ({"quantile": 0.0}, r"AdaptiveNoise.quantile must be in \(0, 1\), got 0.0"),
        ({"expected": 0.0}, "AdaptiveNoise.expected must be in"),
        ({"rate": 0.0}, "AdaptiveNoise.rate must be above 0 and finite"),
        ({"bit_noise": float("nan")}, "AdaptiveNoise.bit_noise must be above 0 and finite, got nan"),
        ({"clip": float("inf")}, "noise without a clip protects nobody"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, text):
    with pytest.raises(StrategyError, match=text):
        AdaptiveNoise(**QUIET | changes)
