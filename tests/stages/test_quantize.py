import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedloom.core.errors import LayoutMismatch, NotFinite, StrategyError, UpdateError
from fedloom.core.layout import Layout, Leaf
from fedloom.core.rng import stream
from fedloom.core.update import Update
from fedloom.stages import Quantize

LAYOUT = Layout((Leaf("a", (7,)), Leaf("none", (0,)), Leaf("b", (3, 2)), Leaf("c")))
SCALES = "quantize.scales"


def delta(seed=0, layout=LAYOUT):
    vector = np.random.default_rng(seed).normal(size=layout.size).astype(layout.dtype)
    vector[7:13] *= 100
    return Update(vector, layout)


def there_and_back(bits, update, dispatch=1):
    sent, _ = Quantize(bits).encode(update, None, None, stream(0, dispatch))
    return Quantize(bits).decode(sent)


def level(update, bits):
    """Return scale/s for every element: the distance of two levels."""
    parts = [np.abs(part).max(initial=0) for part in np.split(update.vector, [7, 13])]
    return np.repeat(parts, [7, 6, 1]) / (2 ** (bits - 1) - 1)


@pytest.mark.parametrize("bits", range(2, 17))
def test_size_error_and_top_level(bits):
    update = delta()
    sent, memory = Quantize(bits).encode(update, None, None, stream(0, 1))
    assert memory is None
    assert (sent.vector.dtype, sent.vector.nbytes) == (np.uint8, math.ceil(14 * bits / 8))
    assert sent.size_bytes == math.ceil(14 * bits / 8) + 3 * 4
    back = Quantize(bits).decode(sent)
    assert back.side == {}
    assert (back.vector.dtype, back.layout) == (np.float32, LAYOUT)
    np.testing.assert_array_less(np.abs(back.vector - update.vector), level(update, bits) * (1 + 1e-3) + 1e-30)
    for part in (slice(0, 7), slice(7, 13), slice(13, 14)):
        top = part.start + np.abs(update.vector[part]).argmax()
        assert back.vector[top] == update.vector[top]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_it_is_unbiased(bits):
    """The mean of 4000 draws: a draw deviates by at most half a level, so 0.04 levels are five standard errors."""
    update, total = delta(), np.zeros(14)
    for dispatch in range(4000):
        total += there_and_back(bits, update, dispatch).vector.astype(np.float64)
    np.testing.assert_array_less(np.abs(total / 4000 - update.vector), 0.04 * level(update, bits) + 1e-9)


@settings(max_examples=150)
@given(values=st.lists(st.floats(-(2.0**127), 2.0**127, width=32), min_size=1, max_size=12), bits=st.integers(2, 16))
@example(values=[1e-45, -1e-45, 0.0], bits=8)
@example(values=[1e-37, 3e-38], bits=16)
@example(values=[3e38, -3e38, 1.0], bits=16)
def test_any_finite_delta_survives(values, bits):
    update = Update(np.float32(values), Layout((Leaf("w", (len(values),)),)))
    back = there_and_back(bits, update).vector
    distance = float(np.abs(update.vector).max()) / (2 ** (bits - 1) - 1)
    error = np.abs(back.astype(np.float64) - update.vector.astype(np.float64))
    assert (error <= distance * (1 + 1e-2) + 1e-45).all()
    assert np.abs(back).max() <= np.abs(update.vector).max()


def test_zeros_stay_zeros():
    update = Update(np.zeros(14, np.float32), LAYOUT)
    assert not there_and_back(4, update).vector.any()


def test_float64_layouts_stay_float64():
    layout = Layout((Leaf("a", (14,), "float64"),))
    assert there_and_back(16, delta(layout=layout)).vector.dtype == np.float64


def test_an_empty_layout():
    update = Update(np.zeros(0, np.float32), Layout(()))
    assert there_and_back(8, update).vector.size == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value):
    update = delta()
    update.vector[3] = value
    with pytest.raises(NotFinite, match="the delta holds NaN or infinity"):
        there_and_back(8, update)


@pytest.mark.parametrize("bits", [1, 0, 17])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(StrategyError, match=r"Quantize\.bits must be 2 to 16"):
        Quantize(bits)


def side(**changes):
    return lambda sent: replace(sent, side={**sent.side, **changes})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: replace(s, vector=s.vector[:-1]), "expected 7 bytes with codes of 4 bits, got uint8 of shape"),
        (lambda s: replace(s, vector=s.vector.astype(np.int8)), "got int8 of shape"),
        (lambda s: replace(s, vector=s.vector[None]), "expected 7 bytes"),
        (lambda s: replace(s, vector=s.vector.tolist()), "got list of shape"),
        (lambda s: replace(s, vector=np.full(7, 255, np.uint8)), "expected codes of 0 to 14, got 15"),
        (lambda s: replace(s, side={}), "expected a scale for each of 3 leaves, got None"),
        (side(**{SCALES: np.float32([1, 2])}), "expected a scale for each of 3 leaves"),
        (side(**{SCALES: [1.0, 2.0, 3.0]}), "expected a scale for each of 3 leaves"),
        (side(**{SCALES: np.array(["1", "2", "3"])}), "expected a scale for each of 3 leaves"),
        (side(**{SCALES: np.array([1.0, 2.0, 3.0])}), "expected a scale for each of 3 leaves"),
        (side(**{SCALES: np.float32([1, np.nan, 3])}), "a scale is NaN or infinite"),
        (side(**{SCALES: np.float32([1, np.inf, 3])}), "a scale is NaN or infinite"),
    ],
)
def test_malformed_codes_and_scales_are_refused(change, text):
    sent, _ = Quantize(4).encode(delta(), None, None, stream(0, 1))
    with pytest.raises(UpdateError, match=text):
        Quantize(4).decode(change(sent))


def test_codes_of_other_widths_are_refused():
    sent, _ = Quantize(8).encode(delta(), None, None, stream(0, 1))
    with pytest.raises(LayoutMismatch):
        Quantize(4).decode(sent)
