"""Gradient inversion: exact where arithmetic says so, and measures of likeness against their formulas."""

import numpy as np
import pytest

from fedloom.adapters.numpy import logistic
from fedloom.core.errors import ConfigError
from fedloom.core.examples import Examples
from fedloom.core.layout import Layout, Leaf
from fedloom.core.rng import stream
from fedloom.privacy.inversion import closest, first_layer, psnr, ssim

RNG = np.random.default_rng(0)


def update(*rows, classes=4):
    model = logistic(36, classes, dtype="float64")
    batch = Examples(np.array(rows), np.arange(len(rows)) % classes)
    return -model.grad(model.init(stream(0, "init")), batch, stream(0, 1)).vector, model.layout


def test_a_single_input_is_found_exactly():
    image = RNG.random((6, 6))
    sent, layout = update(image)
    for found in first_layer(sent, layout, 36):
        np.testing.assert_allclose(found.reshape(6, 6), image, atol=1e-9)


def test_of_several_inputs_a_mixture_is_found():
    images = RNG.random((3, 6, 6))
    sent, layout = update(*images)
    best = closest(first_layer(sent, layout, 36), images[0])
    assert ssim(best, images[0]) < 0.9


def test_units_that_did_not_move_say_nothing():
    layout = Layout((Leaf("weight", (2, 3)), Leaf("bias", (2,))))
    assert first_layer(np.array([1.0, 2, 3, 0, 0, 0, 0.5, 0]), layout, 3).tolist() == [[2, 4, 6]]


def test_a_model_without_a_linear_layer_in_front_is_refused():
    with pytest.raises(ConfigError, match=r"'conv' of shape \(2, 1, 3, 3\), is no linear layer on 36 inputs"):
        first_layer(np.zeros(20), Layout((Leaf("conv", (2, 1, 3, 3)), Leaf("bias", (2,)))), 36)


def test_psnr_is_its_formula():
    truth = RNG.random((8, 8))
    assert psnr(truth, truth) == 100
    assert psnr(truth + 0.01, truth) == pytest.approx(40)


def test_ssim_is_one_for_equal_pictures_falls_with_noise_and_is_its_formula_for_one_window():
    truth, other = RNG.random((7, 7)), RNG.random((7, 7))
    assert ssim(truth, truth) == pytest.approx(1)
    noise = RNG.normal(size=(28, 28))
    picture = RNG.random((28, 28))
    found = [ssim(picture + level * noise, picture) for level in (0, 0.05, 0.2, 1)]
    assert found == sorted(found, reverse=True)
    (mx, my), (vx, vy) = (truth.mean(), other.mean()), (truth.var(), other.var())
    both = ((truth - mx) * (other - my)).mean()
    expected = (2 * mx * my + 1e-4) * (2 * both + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    assert ssim(truth, other) == pytest.approx(expected)
