import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from fedloom.core.errors import QuorumLost, StrategyError
from fedloom.core.layout import Layout, Leaf
from fedloom.core.rng import stream
from fedloom.core.update import Update, fold, verify, weigh
from fedloom.stages import SkellamNoise
from fedloom.stages.poisson import skellam
from fedloom.stages.skellam_noise import rounded

SETTINGS = {"clip": 1.0, "noise_multiplier": 1.0, "delta": 1e-5, "survivors": 4}
STREAMS = stream(0, 1)


def layout(size):
    return Layout((Leaf("w", (size,)),))


def encoded(stage, values, streams=STREAMS):
    """Return what a client sends, in whole steps."""
    update, _ = stage.encode(Update(np.float32(values), layout(len(values))), None, None, streams)
    return update.vector.astype(np.float64) / stage.step


@settings(max_examples=60)
@given(
    clip=st.floats(2.0**-10, 8.0),
    bits=st.integers(9, 18),
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20),
    seed=st.integers(0, 2**20),
)
def test_the_whole_numbers_of_a_client_are_never_longer_than_the_noise_was_made_for(clip, bits, values, seed):
    """The noise, which is known here, is taken off again."""
    stage = SkellamNoise(**SETTINGS | {"clip": clip}, bits=bits, seeded=True)
    whole = encoded(stage, values, stream(seed, 1)) - skellam(len(values), stage.share(len(values)), stream(seed, 1))
    assert np.array_equal(whole, np.rint(whole))
    assert np.linalg.norm(whole) <= stage.longest(len(values))
    assert 2**bits <= clip / stage.step < 2 ** (bits + 1)


def test_rounding_keeps_the_mean_and_draws_again_what_is_too_long():
    values = np.full(40_000, 0.25)
    assert rounded(values, 1e9, None).mean() == pytest.approx(0.25, abs=0.02)
    longest = math.sqrt(10_000)  # half of all tries are longer
    assert all(np.linalg.norm(rounded(values, longest, stream(i, 1))) <= longest for i in range(5))


@pytest.mark.parametrize("seeded", [True, False])
def test_a_share_has_the_scale_that_it_says(seeded):
    stage = SkellamNoise(**SETTINGS, seeded=seeded)
    noise = encoded(stage, np.zeros(40_000))
    scale = stage.longest(40_000) / math.sqrt(4)
    assert kstest(noise / scale, "norm").pvalue > 1e-6
    assert scale == pytest.approx(2.0**15, rel=1e-3)


def test_the_shares_of_the_survivors_are_the_noise_that_is_promised():
    """Sums of four clients: variance (z·Δ)², of which neither rounding nor float32 lost a step."""
    stage, size, total = SkellamNoise(**SETTINGS), 30_000, None
    terms = stage.payload(layout(size)).weighted(8)
    stage.fits(terms)
    for _ in range(4):
        sent, _ = stage.encode(Update(np.zeros(size, np.float32), layout(size)), None, None, STREAMS)
        one = verify(weigh(sent.vector, terms, 1.0, STREAMS("round")), terms)
        assert np.array_equal(one.vector[:-1], sent.vector)  # whole steps are not rounded again
        total = fold(total, one)
    assert kstest(total.vector[:-1] / (stage.step * stage.longest(size)), "norm").pvalue > 1e-6


def test_a_delta_that_is_no_number_tells_nothing():
    stage = SkellamNoise(**SETTINGS, seeded=True)
    for bad in (np.nan, np.inf, 1e38):
        assert np.array_equal(encoded(stage, [bad, bad, 1.0]), encoded(stage, np.zeros(3))) or bad == 1e38
        assert np.isfinite(encoded(stage, [bad, bad, 1.0])).all()


def test_a_limit_cuts_coordinates_off():
    stage = SkellamNoise(**SETTINGS, limit=0.25, seeded=True)
    whole = encoded(stage, [3.0, 0.0]) - skellam(2, stage.share(2), STREAMS)
    assert whole.tolist() == [0.25 / stage.step, 0.0]


@pytest.mark.parametrize(("size", "c", "expected"), [(2**20, 2.0**7, 528.3635), (2**20, 2.0**10, 1145.5374)])
def test_how_much_longer_rounding_makes_it(size, c, expected):
    """Kairouz, Liu and Steinke, ICML 2021, with β = e^(-1/2), worked out by hand."""
    assert SkellamNoise(**SETTINGS, bits=round(math.log2(c))).longest(size) == pytest.approx(expected, abs=1e-3)


def test_a_cohort_whose_sums_could_leave_the_ring_is_refused_and_the_next_smaller_setting_is_not():
    stage = SkellamNoise(**SETTINGS | {"survivors": 100})
    payload = stage.payload(layout(1000))
    stage.fits(payload.weighted(2000))
    with pytest.raises(StrategyError, match=r"sums of 30000 clients .* do not fit 32 bits .*bits=16\); set bits=14"):
        stage.fits(payload.weighted(30_000))
    coarser = replace(stage, bits=14)
    coarser.fits(coarser.payload(layout(1000)).weighted(30_000))


def test_all_clients_at_their_bound_do_not_overflow():
    stage = SkellamNoise(**SETTINGS | {"survivors": 100})
    terms = stage.payload(layout(3)).weighted(2000)
    most = terms.runs[0][2] / stage.step
    assert most * 2000 < 2**31
    assert most > (1.0 + 11 * stage.longest(3) / 10 * stage.step) / stage.step


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"clip": 0.0}, "clip must be above 0 and finite, got 0.0"),
        ({"noise_multiplier": math.nan}, "noise_multiplier must be above 0 and finite, got nan"),
        ({"delta": 1.0}, r"delta must be in \(0, 1\), got 1.0"),
        ({"survivors": 0}, "survivors must be at least 1, got 0"),
        ({"bits": 3}, "bits must be 4 to 22, got 3"),
        ({"limit": 2.0}, "limit must be from a step of .* to the clip, got 2.0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, text):
    with pytest.raises(StrategyError, match=f"SkellamNoise.{text}"):
        SkellamNoise(**SETTINGS | changes)


def test_noise_as_coarse_as_its_grid_or_too_wide_for_it_is_refused_with_the_setting_that_works():
    coarse = SkellamNoise(**SETTINGS | {"noise_multiplier": 0.01}, bits=8)
    with pytest.raises(StrategyError, match=r"as coarse as the steps; set bits=12"):
        coarse.payload(layout(4))
    replace(coarse, bits=12).payload(layout(4))
    wide = SkellamNoise(**SETTINGS | {"noise_multiplier": 50.0}, bits=18)
    with pytest.raises(StrategyError, match=r"float32 holds whole numbers of 24; set bits=15"):
        wide.payload(layout(4))
    replace(wide, bits=15).payload(layout(4))


@pytest.mark.parametrize("kind", ["buffer", "count"])
def test_what_is_no_parameter_is_refused(kind):
    with pytest.raises(StrategyError, match=f"'n' is a {kind} and not a parameter"):
        SkellamNoise(**SETTINGS).payload(Layout((Leaf("w"), Leaf("n", kind=kind))))


def test_a_cohort_or_a_sum_of_too_few_is_refused():
    stage = SkellamNoise(**SETTINGS)
    terms = stage.payload(layout(2)).weighted(3)
    with pytest.raises(StrategyError, match="counts on 4 honest clients in a sum, and the cohort is 3"):
        stage.fits(terms)
    with pytest.raises(QuorumLost, match="a sum of 3 clients has less noise than was promised"):
        stage.finish(Update(np.zeros(3), terms, 3), None, STREAMS)
    empty = Update(np.zeros(3), terms, 0)
    assert stage.finish(empty, None, STREAMS)[0] is empty


def test_only_unseeded_noise_claims_anything():
    event = SkellamNoise(**SETTINGS).event()
    assert event.private
    assert event.values == {"noise_multiplier": 1.0, "delta": 1e-5, "survivors": 4, "steps": 2.0**16}
    assert not SkellamNoise(**SETTINGS, seeded=True).event().private
