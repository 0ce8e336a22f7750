import numpy as np
import pytest

from fedloom.core.errors import LayoutMismatch
from fedloom.core.layout import Layout, Leaf
from fedloom.optimize import Adam, Momentum, PerBlock, Step

MODEL = Layout((Leaf("w", (3,)),))
LAYOUT = MODEL.plus("control", MODEL)


def test_each_block_moves_as_if_it_were_alone():
    rng = np.random.default_rng(0)
    both = PerBlock(Adam(0.1), {"control": Momentum(0.5)})
    x, model, control = np.ones(6), np.ones(3), np.ones(3)
    state, adam, momentum = both.init(x, LAYOUT), Adam(0.1).init(model, MODEL), Momentum(0.5).init(control, MODEL)
    for gradient in rng.normal(size=(5, 6)):
        x, state = both.step(x, gradient, state, scale=0.5)
        model, adam = Adam(0.1).step(model, gradient[:3], adam, scale=0.5)
        control, momentum = Momentum(0.5).step(control, gradient[3:], momentum, scale=0.5)
        np.testing.assert_array_equal(x, np.concatenate([model, control]))


def test_a_block_that_is_not_there_is_refused():
    with pytest.raises(LayoutMismatch, match="there is no block 'kontrol'"):
        PerBlock(Step(), {"kontrol": Step()}).init(np.zeros(6), LAYOUT)
