"""The server's own clip: what a client leaves out is done here."""

import numpy as np
import pytest

from fedloom.core.errors import NotFinite, StrategyError
from fedloom.core.layout import Layout, Leaf
from fedloom.core.rng import stream
from fedloom.core.update import Update
from fedloom.stages import NormBound
from fedloom.stages.clip import clipped

LAYOUT = Layout((Leaf("w", (50,)),))


@pytest.mark.parametrize("length", [0.0, 1e-3, 0.999, 1.0, 7.0, 1e12])
def test_it_bounds_what_comes_and_touches_nothing_shorter(length):
    vector = np.random.default_rng(0).normal(size=50)
    sent = Update((vector / np.linalg.norm(vector) * length).astype(np.float32), LAYOUT)
    encoded, _ = NormBound(1.0).encode(sent, None, None, stream(0, 1))
    assert encoded is sent
    found = NormBound(1.0).decode(sent).vector
    assert np.linalg.norm(found) <= 1
    np.testing.assert_array_equal(found, clipped(sent.vector, 1.0)[0])


def test_without_a_norm_it_refuses():
    with pytest.raises(NotFinite):
        NormBound(1.0).decode(Update(np.full(50, np.nan, np.float32), LAYOUT))
    for norm in (0, -1, float("inf"), float("nan")):
        with pytest.raises(StrategyError, match=r"NormBound.norm must be above 0 and finite"):
            NormBound(norm)
