"""Linear models against scikit-learn: the same objective has the same optimum."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import StandardScaler

from fedloom.adapters.numpy import linear, logistic
from fedloom.core.errors import ConfigError, LayoutMismatch
from fedloom.core.examples import Examples
from fedloom.core.rng import stream

STREAMS = stream(0, 1)


def converged(model, data, rate, steps):
    """Gradient descent with Nesterov's momentum, until nothing moves."""
    x = model.load(model.init(STREAMS))
    before = x.copy()
    for step in range(steps):
        ahead = x + step / (step + 3) * (x - before)
        before, x = x, ahead - rate * model.grad(ahead, data, STREAMS).vector
    return x


def standard(load):
    inputs, targets = load(return_X_y=True)
    return Examples(StandardScaler().fit_transform(inputs), targets)


def test_linear_is_least_squares():
    raw = standard(load_diabetes)
    data = Examples(raw.inputs[:, :4], raw.targets)
    model = linear(4, dtype="float64")
    found = model.export(converged(model, data, 0.2, 2000))
    expected = LinearRegression().fit(data.inputs, data.targets)
    np.testing.assert_allclose(found["weight"][0], expected.coef_, rtol=1e-8)
    np.testing.assert_allclose(found["bias"], [expected.intercept_], rtol=1e-8)
    view = model.evaluate(model.layout.pack(found), data).view()
    assert view["r2"] == pytest.approx(expected.score(data.inputs, data.targets))


@pytest.mark.parametrize(("load", "classes"), [(load_breast_cancer, 2), (load_iris, 3)])
def test_logistic_has_the_optimum_of_scikit_learn(load, classes):
    data, l2 = standard(load), 0.01
    model = logistic(data.inputs.shape[1], classes, l2=l2, dtype="float64")
    x = converged(model, data, 0.25, 6000)
    found = model.export(x)
    expected = LogisticRegression(C=1 / (data.size * l2), tol=1e-12, max_iter=10_000).fit(data.inputs, data.targets)
    np.testing.assert_allclose(found["weight"], expected.coef_, atol=1e-6)
    np.testing.assert_allclose(
        found["bias"] - found["bias"].mean() * (classes > 2),
        expected.intercept_ - expected.intercept_.mean() * (classes > 2),
        atol=1e-6,
    )
    np.testing.assert_allclose(model.predict(x, data.inputs), expected.predict_proba(data.inputs), atol=1e-6)


def test_l2_pulls_on_the_weights_and_not_on_the_bias():
    x = np.array([2.0, -1.0, 5.0], np.float32)
    data = Examples(np.ones((4, 2)), np.array([0, 1, 0, 1]))
    plain, pulled = (logistic(2, l2=l2).grad(x, data, STREAMS) for l2 in (0.0, 0.5))
    np.testing.assert_allclose(pulled.vector - plain.vector, [1.0, -0.5, 0.0], atol=1e-7)
    assert pulled.loss == plain.loss


def test_inputs_of_any_shape_are_flattened():
    model = linear(6)
    x = np.arange(7, dtype=np.float32)
    inputs = np.random.default_rng(0).normal(size=(5, 2, 3))
    np.testing.assert_array_equal(model.predict(x, inputs), model.predict(x, inputs.reshape(5, 6)))


def test_nothing_but_zeros_at_first():
    assert not logistic(3, classes=4).init(STREAMS).any()


def test_figures_of_each_kind():
    assert linear(2).figures == {"loss", "mae", "rmse", "r2"}
    assert logistic(2).figures == {"loss", "accuracy", "auc", "average_precision"}
    assert logistic(2, classes=3).figures == {"loss", "accuracy"}


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="needs two classes or more, got classes=1"):
        logistic(3, classes=1)
    with pytest.raises(ConfigError, match="needs inputs and outputs, got inputs=0"):
        linear(0)
    with pytest.raises(ConfigError, match=r"l2 must be zero or positive, got -1\.0"):
        logistic(3, l2=-1.0)
    with pytest.raises(ConfigError, match="dtype must be 'float32' or 'float64', got 'float16'"):
        linear(3, dtype="float16")
    with pytest.raises(ConfigError, match=r"takes 3 inputs for each example, got shape \(2, 4\)"):
        linear(3).predict(np.zeros(4), np.zeros((2, 4)))
    with pytest.raises(LayoutMismatch, match=r"the model has 4 values, got shape \(3,\)"):
        linear(3).load(np.zeros(3))


def test_importing_it_does_not_import_torch():
    code = "import sys, fedloom.adapters.numpy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
