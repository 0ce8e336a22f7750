import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedloom.core.errors import NotFinite, StrategyError
from fedloom.core.layout import Layout, Leaf
from fedloom.core.update import Update
from fedloom.stages import Clip

HUGE, TINY = 1.5 * 2.0**127, 2.0**-149
NORMS = st.floats(2.0**-20, 2.0**20)


def clip(norm, values, dtype="float32"):
    layout = Layout((Leaf("w", (len(values),), dtype),))
    return Clip(norm).encode(Update(np.array(values, dtype), layout), None, None, None)[0].vector


def length(vector):
    return float(np.sqrt(np.square(vector, dtype=np.float64).sum()))


@settings(max_examples=200)
@given(norm=NORMS, values=st.lists(st.floats(-HUGE, HUGE, width=32), max_size=20))
@example(norm=1.0, values=[0.0, 0.0])
@example(norm=1.0, values=[5.0])
@example(norm=0.1, values=[HUGE, -HUGE, HUGE])
@example(norm=0.0001, values=[HUGE] + [1.0] * 19)
@example(norm=1.0, values=[TINY, -TINY])
@example(norm=1.0, values=[])
def test_never_longer_than_the_limit_and_once_is_enough(norm, values):
    once = clip(norm, values)
    assert length(once) <= norm
    assert length(once) <= length(np.float32(values))
    assert clip(norm, once).tobytes() == once.tobytes()
    assert once.dtype == np.float32


@settings(max_examples=100)
@given(norm=NORMS, values=st.lists(st.floats(-1e100, 1e100), max_size=20))
def test_in_float64_too(norm, values):
    once = clip(norm, values, "float64")
    assert length(once) <= norm
    assert clip(norm, once, "float64").tobytes() == once.tobytes()


@settings(max_examples=100)
@given(norm=NORMS, values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20))
def test_the_direction_stays_and_short_ones_stay_as_they_are(norm, values):
    once, values = clip(norm, values), np.float32(values)
    if length(values) <= norm:
        assert once.tobytes() == values.tobytes()
    else:
        assert length(once) == pytest.approx(norm, rel=2e-6)
        np.testing.assert_allclose(once * (length(values) / norm), values, rtol=2e-6, atol=1e-20)


def test_all_blocks_count_together():
    layout = Layout((Leaf("w"),)).plus("control", Layout((Leaf("w"),)))
    clipped, _ = Clip(1.0).encode(Update(np.float32([3, 4]), layout), None, None, None)
    np.testing.assert_allclose(clipped.vector, [0.6, 0.8], rtol=2e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_has_no_norm_is_refused(value):
    with pytest.raises(NotFinite, match="the delta's norm is"):
        clip(1.0, [1.0, value])


def test_a_norm_beyond_float64_is_refused():
    with pytest.raises(NotFinite, match="the delta's norm is inf"):
        clip(1.0, [1e300, 1e300], "float64")


@pytest.mark.parametrize("norm", [0.0, -1.0, np.inf, np.nan])
def test_a_limit_that_limits_nothing_is_refused(norm):
    with pytest.raises(StrategyError, match=r"Clip\.norm must be above 0 and finite"):
        Clip(norm)
