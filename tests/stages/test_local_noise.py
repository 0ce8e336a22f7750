import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from fedloom.core.errors import StrategyError
from fedloom.core.layout import Layout, Leaf
from fedloom.core.rng import stream
from fedloom.core.update import Update, verify, weigh
from fedloom.stages import LocalGaussianNoise, LocalLaplaceNoise

SETTINGS = {"clip": 1.0, "noise_multiplier": 2.0, "delta": 1e-5}
KINDS = [(LocalGaussianNoise, 2), (LocalLaplaceNoise, 1)]
STREAMS = stream(0, 1)


def layout(size):
    return Layout((Leaf("w", (size,), "float64"),))


def report(stage, values):
    update = Update(np.asarray(values, np.float64), layout(len(values)))
    return stage.encode(update, None, None, STREAMS)[0].vector


@settings(max_examples=60)
@given(
    clip=st.floats(2.0**-10, 8.0),
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20),
    others=st.lists(st.floats(-1e6, 1e6), min_size=20, max_size=20),
)
@pytest.mark.parametrize(("kind", "order"), KINDS)
def test_no_two_reports_are_further_apart_than_the_sensitivity(kind, order, clip, values, others):
    """The same seeded noise on both, so that only what is noised differs."""
    stage = kind(**SETTINGS | {"clip": clip}, seeded=True)
    apart = np.linalg.norm(report(stage, values) - report(stage, others[: len(values)]), order)
    assert apart <= stage.scale(len(values)) / 2.0 * (1 + 1e-9)


@pytest.mark.parametrize("seeded", [True, False])
@pytest.mark.parametrize(("kind", "law"), [(LocalGaussianNoise, "norm"), (LocalLaplaceNoise, "laplace")])
def test_the_noise_has_the_law_and_the_scale_that_it_says(kind, law, seeded):
    """30,000 draws against the distribution; unseeded ones fail this once in 10^6 runs."""
    stage = kind(**SETTINGS, seeded=seeded)
    noise = report(stage, np.zeros(30_000)) / stage.scale(30_000)
    assert kstest(noise, law).pvalue > 1e-6
    assert 4.0 <= stage.scale(30_000) < 4.01


@pytest.mark.parametrize(("kind", "bits"), [(LocalGaussianNoise, 20), (LocalLaplaceNoise, 30)])
def test_reports_are_on_a_grid(kind, bits):
    steps = report(kind(**SETTINGS), np.full(100, 0.01)) * 2.0**bits
    assert np.array_equal(steps, np.rint(steps))


@pytest.mark.parametrize(("kind", "order"), KINDS)
def test_a_report_is_within_its_bound_and_enters_the_sum(kind, order):
    stage = kind(**SETTINGS | {"noise_multiplier": 100.0})
    total = stage.payload(layout(1000)).weighted(50)
    verify(weigh(report(stage, np.zeros(1000)), total, 1.0), total)


@pytest.mark.parametrize(("kind", "order"), KINDS)
def test_a_delta_that_is_no_number_tells_nothing(kind, order):
    stage = kind(**SETTINGS, seeded=True)
    for bad in (math.nan, math.inf):
        assert np.array_equal(report(stage, [bad, 1.0]), report(stage, [0.0, 0.0]))


@pytest.mark.parametrize(("kind", "order"), KINDS)
def test_noise_of_the_operating_system_is_never_the_same(kind, order):
    assert not np.any(report(kind(**SETTINGS), np.zeros(9)) == report(kind(**SETTINGS), np.zeros(9)))
    assert kind(**SETTINGS).event().private
    assert not kind(**SETTINGS, seeded=True).event().private


@pytest.mark.parametrize(("kind", "order"), KINDS)
@pytest.mark.parametrize("changes", [{"clip": 0.0}, {"noise_multiplier": math.nan}, {"delta": 1.0}])
def test_settings_that_protect_nobody_are_refused(kind, order, changes):
    with pytest.raises(StrategyError, match=f"{kind.__name__}.{next(iter(changes))} must be"):
        kind(**SETTINGS | changes)


@pytest.mark.parametrize(("kind", "order"), KINDS)
def test_what_is_no_parameter_is_refused(kind, order):
    with pytest.raises(StrategyError, match="'n' is a buffer and not a parameter"):
        kind(**SETTINGS).payload(Layout((Leaf("w"), Leaf("n", kind="buffer"))))
