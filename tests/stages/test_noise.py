import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from fedloom.adapters.numpy import linear
from fedloom.core.errors import StrategyError
from fedloom.core.layout import Layout, Leaf
from fedloom.core.rng import stream
from fedloom.core.task import Fault
from fedloom.core.update import Update, verify, weigh
from fedloom.recipes import dp_fedavg, sgd
from fedloom.stages import Clip, GaussianNoise, LaplaceNoise, Quantize
from fedloom.stages.noise import slack
from small import regression, small

SETTINGS = {"clip": 1.0, "noise_multiplier": 2.0, "delta": 1e-5}
STREAMS = stream(0, 1)


def total(size, values=0.0, cohort=100, bits=53):
    layout = replace(Layout((Leaf("w", (size,)),)), bits=bits).weighted(cohort)
    return Update(np.append(np.full(size, values), 7.0), layout, 7)


@settings(max_examples=100)
@given(
    clip=st.floats(2.0**-10, 8.0),
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20),
    cohort=st.integers(1, 4000),
    bits=st.sampled_from([53, 30]),
)
@pytest.mark.parametrize(("kind", "order"), [(GaussianNoise, 2), (LaplaceNoise, 1)])
def test_what_a_client_adds_to_the_sum_is_never_longer_than_the_sensitivity(kind, order, clip, values, cohort, bits):
    """Clipped, then rounded to the grid by `weigh`: with the nearest step, and at random."""
    stage, layout = kind(**SETTINGS | {"clip": clip}), replace(Layout((Leaf("w", (len(values),)),)), bits=bits)
    sent, _ = stage.encode(Update(np.float32(values), layout), None, None, STREAMS)
    for draws in (None, STREAMS("rounding") if bits == 30 else None):
        added = weigh(sent.vector, layout.weighted(cohort), 1.0, draws).vector[:-1].astype(np.float64)
        assert np.linalg.norm(added, order) <= clip + slack(layout.weighted(cohort), order)


def test_the_slack_is_small_where_the_grid_is_fine_and_not_where_it_is_coarse():
    assert slack(total(10**6).layout) == 1000 * 2.0**-42
    assert slack(total(10**6, bits=30).layout) == 1000 * 2.0**-19
    assert slack(total(4).layout, order=1) == 4 * 2.0**-42


@pytest.mark.parametrize("seeded", [True, False])
@pytest.mark.parametrize(("kind", "law", "deviation"), [(GaussianNoise, "norm", 1), (LaplaceNoise, "laplace", 2**0.5)])
def test_the_noise_has_the_law_and_the_scale_that_it_says(seeded, kind, law, deviation):
    """40,000 draws against the distribution; unseeded ones fail this once in 10^6 runs."""
    found, _ = kind(**SETTINGS, seeded=seeded).finish(total(40_000, 0.5), None, STREAMS)
    noise = (found.vector[:-1] - 0.5) / 2.0
    assert kstest(noise, law).pvalue > 1e-6
    assert noise.std() == pytest.approx(deviation, rel=0.06)
    assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 0.03
    assert found.vector[-1] == 7.0


def test_a_coarse_grid_needs_more_noise():
    coarse = total(10_000, bits=30, cohort=30_000)
    found, _ = GaussianNoise(**SETTINGS | {"clip": 1e-3}, seeded=True).finish(coarse, None, STREAMS)
    step = coarse.layout.runs[0][1]
    assert found.vector[:-1].std() == pytest.approx(2 * (1e-3 + 100 * step), rel=0.03)


def test_a_noised_sum_is_on_the_grid():
    found, _ = GaussianNoise(**SETTINGS).finish(total(1000), None, STREAMS)
    steps = found.vector[:-1] * 2.0**42
    assert np.array_equal(np.rint(steps), steps)
    assert verify(replace(found, count=7), found.layout).vector is found.vector


def test_noise_of_the_operating_system_is_never_the_same_and_seeded_noise_is():
    stage = GaussianNoise(**SETTINGS)
    one, other = (stage.finish(total(5), None, STREAMS)[0].vector for _ in range(2))
    assert not np.any(one[:-1] == other[:-1])
    seeded = replace(stage, seeded=True)
    same = [seeded.finish(total(5), None, STREAMS)[0].vector.tobytes() for _ in range(2)]
    assert same[0] == same[1] != seeded.finish(total(5), None, stream(0, 2))[0].vector.tobytes()


def test_only_unseeded_noise_claims_anything():
    assert GaussianNoise(**SETTINGS).event().values == {"noise_multiplier": 2.0, "delta": 1e-5}
    assert GaussianNoise(**SETTINGS).event().private
    assert not GaussianNoise(**SETTINGS, seeded=True).event().private
    assert not LaplaceNoise(**SETTINGS, seeded=True).event().private


@pytest.mark.parametrize("lost", [0, 3])
def test_one_client_moves_the_shared_model_by_no_more_than_its_clip_over_the_public_denominator(lost):
    """Two federations that differ in one client's contribution, with the same noise: the definition of sensitivity."""
    strategy = dp_fedavg(sgd(0.5, batch_size=4), rate=0.8, clip=0.3, noise_multiplier=1.0, seeded=True)
    splits = regression()

    def without(replies):
        body = Fault(replies[lost].parties[0], "train", "Gone", "gone")
        return [replace(reply, body=body) if reply is replies[lost] else reply for reply in replies]

    there, gone = (small(linear(3), strategy, splits, change=change).run(1)[0] for change in (None, without))
    assert len(there.record.counted) == len(gone.record.counted) + 1
    moved = np.linalg.norm((there.vector - gone.vector).astype(np.float64)) * 0.8 * len(splits)
    assert 0.1 < moved <= 0.3 + 1e-6


@pytest.mark.parametrize("kind", [GaussianNoise, LaplaceNoise])
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"clip": math.inf}, "clip must be above 0 and finite, got inf; noise without a clip protects nobody"),
        ({"clip": 0.0}, "clip must be above 0 and finite, got 0.0"),
        ({"noise_multiplier": 0.0}, "noise_multiplier must be above 0 and finite, got 0.0"),
        ({"noise_multiplier": math.nan}, "noise_multiplier must be above 0 and finite, got nan"),
        ({"delta": 0.0}, r"delta must be in \(0, 1\), got 0.0"),
        ({"delta": 1.0}, r"delta must be in \(0, 1\), got 1.0"),
    ],
)
def test_settings_that_protect_nobody_are_refused(kind, changes, text):
    with pytest.raises(StrategyError, match=f"{kind.__name__}.{text}"):
        kind(**SETTINGS | changes)


@pytest.mark.parametrize("kind", ["buffer", "count"])
def test_what_is_no_parameter_is_refused(kind):
    layout = Layout((Leaf("w"), Leaf("bn.running_var", kind=kind)))
    with pytest.raises(StrategyError, match=f"'bn.running_var' is a {kind} and not a parameter.*keep batch normal"):
        GaussianNoise(**SETTINGS).payload(layout)


def test_what_could_undo_the_clip_may_not_come_behind_it():
    noise = GaussianNoise(**SETTINGS)
    with pytest.raises(StrategyError, match=r"Clip comes behind GaussianNoise and could undo its clip.*stages=\(Clip"):
        replace(dp_fedavg(), stages=(noise, Clip(2.0)))
    with pytest.raises(StrategyError, match="Quantize comes behind GaussianNoise"):
        replace(dp_fedavg(), stages=(noise, Quantize(8)))
    with pytest.raises(StrategyError, match="GaussianNoise and LaplaceNoise both add noise"):
        replace(dp_fedavg(), stages=(noise, LaplaceNoise(**SETTINGS)))
    assert replace(dp_fedavg(), stages=(Clip(2.0), noise)).private
