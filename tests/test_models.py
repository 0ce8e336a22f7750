import sys

import pytest

import fedloom
from fedloom.core.errors import ConfigError, MissingExtra

ARRAYS = {
    "two": fedloom.Arrays([[0.0, 1.0]] * 4, [0, 1, 0, 1], classes=2),
    "three": fedloom.Arrays([[0.0, 1.0]] * 4, [0, 1, 2, 1], classes=3),
    "numbers": fedloom.Arrays([[0.0, 1.0]] * 4, [0.0, 1.5, 2.0, 1.0], classes=0),
}
SIZES = {
    ("logistic", "two"): 3,
    ("logistic", "three"): 9,
    ("linear", "numbers"): 3,
    ("linear", "three"): 9,
    ("mlp", "two"): 2 * 200 + 200 + 200 * 200 + 200 + 200 * 2 + 2,
    ("mlp", "numbers"): 2 * 200 + 200 + 200 * 200 + 200 + 200 + 1,
}


@pytest.mark.parametrize(("name", "label"), SIZES)
def test_the_data_decides_the_size(name, label):
    assert fedloom.BuiltIn(name=name)(ARRAYS[label]).layout.size == SIZES[name, label]


def test_images():
    image = fedloom.Npz("x.npz", shape=(1, 28, 28))
    assert fedloom.BuiltIn(name="cnn")(image).layout.size == 1_663_370  # McMahan et al. 2017, section 3
    assert fedloom.BuiltIn(name="mlp")(image).layout.size == 199_210  # the same, 2NN
    assert fedloom.BuiltIn(name="logistic")(image).layout.size == 7_850


REFUSED = {
    ("lgistic", "two", None): "there is no built-in model 'lgistic'; did you mean 'logistic'?",
    ("xxx", "two", None): "there is no built-in model 'xxx'; there are logistic, linear, mlp, cnn.",
    ("logistic", "numbers", None): "a logistic model needs classes, and this label is a number; take model 'linear'.",
    ("mlp", "two", "mse"): "the loss 'mse' does not fit a label of 2 classes; take 'cross_entropy'.",
    ("mlp", "numbers", "cross_entropy"): "the loss 'cross_entropy' does not fit a label of numbers; take 'mse'.",
}


@pytest.mark.parametrize(("name", "label", "loss"), REFUSED)
def test_what_does_not_fit_is_refused(name, label, loss):
    with pytest.raises(ConfigError) as caught:
        fedloom.BuiltIn(name=name, loss=loss)(ARRAYS[label])
    assert str(caught.value) == REFUSED[name, label, loss]


@pytest.mark.parametrize("name", ["logistic", "mlp", "cnn", "linear"])
def test_a_loss_that_is_not_known_is_refused(name):
    with pytest.raises(ConfigError, match="crossentropy"):
        fedloom.BuiltIn(name=name, loss="crossentropy")(fedloom.Npz("x.npz"))


def test_a_loss_for_two_classes_and_three():
    with pytest.raises(ConfigError, match="binary_cross_entropy"):
        fedloom.BuiltIn(name="mlp", loss="binary_cross_entropy")(ARRAYS["three"])
    assert fedloom.BuiltIn(name="mlp", loss="binary_cross_entropy", hidden=(2,))(ARRAYS["two"]).layout.size == 9


def test_settings_reach_the_model():
    model = fedloom.BuiltIn(name="logistic", l2=0.5, bound=4.0)(ARRAYS["two"])
    assert (model.l2, {leaf.bound for leaf in model.layout.leaves}) == (0.5, {4.0})
    model = fedloom.BuiltIn(name="linear", bound=4.0)(ARRAYS["numbers"])
    assert {leaf.bound for leaf in model.layout.leaves} == {4.0}


def test_a_penalty_that_would_be_ignored_is_refused():
    with pytest.raises(ConfigError, match="l2"):
        fedloom.BuiltIn(name="mlp", l2=0.5)(ARRAYS["two"])
    with pytest.raises(ConfigError, match="l2"):
        fedloom.BuiltIn(name="linear", l2=0.5)(ARRAYS["numbers"])


def test_layers_that_would_be_ignored_are_refused():
    with pytest.raises(ConfigError, match="hidden"):
        fedloom.BuiltIn(name="logistic", hidden=(5,))(ARRAYS["two"])


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fedloom.adapters.torch", None)
    monkeypatch.delattr("fedloom.adapters.torch", raising=False)
    with pytest.raises(MissingExtra, match=r"the model 'mlp' needs torch: pip install 'fedloom\[torch\]'"):
        fedloom.BuiltIn(name="mlp")(ARRAYS["two"])
