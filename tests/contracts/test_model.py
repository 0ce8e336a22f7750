"""What every model must do; a new one joins with one line in MODELS."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from torch import nn

from fedloom.adapters.losses import named
from fedloom.adapters.numpy import linear, logistic
from fedloom.adapters.torch import torch_model
from fedloom.adapters.torch_nets import cnn, mlp
from fedloom.adapters.torch_nets import linear as torch_linear
from fedloom.core.errors import LayoutMismatch
from fedloom.core.examples import Examples
from fedloom.core.metrics import SCORE_BINS
from fedloom.core.rng import stream

STREAMS = stream(5, 1)


class BatchNorms(nn.Module):
    def __init__(self):
        super().__init__()
        self.image = nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(12, 5), nn.BatchNorm1d(5, momentum=None), nn.Tanh(), nn.Linear(5, 3))

    def forward(self, inputs):
        return self.head(self.image(inputs))


class Tied(nn.Module):
    """A language model of one token: the embedding is the output layer too."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.output = nn.Linear(4, 7)
        self.output.weight = self.embedding.weight

    def forward(self, tokens):
        return self.output(torch.tanh(self.embedding(tokens)))


def dropout():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 20), nn.Dropout(0.5), nn.ReLU(), nn.Linear(20, 3))


def per_example(outputs, targets):
    return torch.nn.functional.cross_entropy(outputs, targets, reduction="none", label_smoothing=0.1)


def images(n=23, classes=3):
    rng = np.random.default_rng(3)
    return Examples(rng.normal(size=(n, 4, 4)).astype(np.float32), rng.integers(0, classes, n))


def values():
    data = images()
    return Examples(data.inputs, data.inputs.sum(axis=(1, 2)) + data.targets)


def tokens():
    rng = np.random.default_rng(3)
    return Examples(rng.integers(0, 7, 23), rng.integers(0, 7, 23))


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[str], Any]  # dtype to model
    plain: Callable[[], nn.Module]  # what an exported file loads into
    data: Examples
    loss: str | None = "cross_entropy"


def torch_case(name, factory, data, loss="cross_entropy", named_loss=None):
    def make(dtype):
        return torch_model(lambda: factory().to(getattr(torch, dtype)), loss)

    return Case(name, make, factory, data, loss if isinstance(loss, str) else named_loss)


def flat_linear(outputs):
    return lambda: nn.Linear(16, outputs)


MODELS = [
    Case("numpy linear", lambda dtype: linear(16, dtype=dtype), flat_linear(1), values(), "mse"),
    Case("numpy logistic", lambda d: logistic(16, dtype=d), flat_linear(1), images(classes=2), "binary_cross_entropy"),
    Case("numpy softmax", lambda dtype: logistic(16, 3, dtype=dtype), flat_linear(3), images()),
    torch_case("torch linear", torch_linear((4, 4), 1), values(), "mse"),
    torch_case("torch mlp", mlp((4, 4), 3, hidden=(8, 8)), images()),
    torch_case("torch mlp of two classes", mlp((4, 4), 2, hidden=(8,)), images(classes=2)),
    torch_case("torch mlp of one logit", mlp((4, 4), 1, hidden=(8,)), images(classes=2), "binary_cross_entropy"),
    torch_case("torch cnn", cnn((4, 4), 3), images(n=9)),
    torch_case("torch batch norm", BatchNorms, images()),
    torch_case("torch dropout", dropout, images()),
    torch_case("torch tied weights", Tied, tokens()),
    torch_case("torch float64", lambda: mlp((4, 4), 3, hidden=(8,))().double(), images()),
    torch_case("torch own loss", mlp((4, 4), 3, hidden=(8,)), images(), per_example),
]


@pytest.fixture(params=MODELS, ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.fixture
def model(case):
    return case.make("float64" if "float64" in case.name else "float32")


def start(model):
    """Values that are not zero anywhere, as after some training."""
    vector = model.init(STREAMS)
    vector += np.random.default_rng(1).normal(scale=0.1, size=vector.shape).astype(vector.dtype) ** 2
    return vector


def parameters(model):
    return model.layout.block("model", "parameter")


def test_parameters_lie_before_buffers(model):
    kinds = [leaf.kind for leaf in model.layout.leaves]
    assert kinds == sorted(kinds, key=["parameter", "buffer"].index)
    assert parameters(model).start == 0


def test_pack_undoes_unpack(model):
    vector = start(model)
    assert vector.shape == (model.layout.size,)
    assert vector.dtype == model.layout.dtype
    np.testing.assert_array_equal(model.layout.pack(model.layout.unpack(vector)), vector)


def test_init_follows_the_streams_alone(model):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, again = model.init(stream(1, "init")), model.init(stream(1, "init"))
    assert first.tobytes() == again.tobytes()
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert isinstance(first, np.ndarray)


def test_grad_equals_finite_differences_of_the_loss(case):
    """(L(x + εd) - L(x - εd)) / 2ε = g·d, in float64 and train mode, with the same random numbers."""
    model = case.make("float64")
    x, where, epsilon = start(model).astype(np.float64), parameters(model), 1e-6
    mean = lambda at: model.grad(model.load(at), case.data, STREAMS).loss / case.data.size  # noqa: E731
    gradient = np.array(model.read(model.grad(model.load(x), case.data, STREAMS).vector))
    assert gradient.shape == (where.stop,)
    for seed in range(4):
        direction = np.zeros_like(x)
        direction[where] = np.random.default_rng(seed).normal(size=where.stop)
        slope = (mean(x + epsilon * direction) - mean(x - epsilon * direction)) / (2 * epsilon)
        assert gradient @ direction[where] == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_grad_twice_gives_the_same_bits(case, model):
    def once():
        found = model.grad(model.load(start(model)), case.data, STREAMS)
        return model.read(found.vector).tobytes(), found.loss, model.read(found.buffers).tobytes()

    assert once() == once()


def test_a_step_in_place_is_seen(case, model):
    x = model.load(start(model))
    found = model.grad(x, case.data, STREAMS)
    x[parameters(model)] -= 0.05 * found.vector
    elsewhere = case.make(str(model.layout.dtype))
    after = np.array(model.read(x))
    assert model.evaluate(x, case.data).view() == pytest.approx(elsewhere.evaluate(after, case.data).view())


def test_load_never_writes_to_what_it_was_given(case, model):
    vector = start(model)
    kept = vector.copy()
    vector.flags.writeable = False
    x = model.load(vector)
    model.grad(x, case.data, STREAMS)
    x[:] = 0.0
    np.testing.assert_array_equal(vector, kept)


def test_grad_and_evaluate_leave_another_vector_alone(case, model):
    """A NumPy vector, or another client's, can be measured while one is being trained."""
    x = model.load(start(model))
    before, other = np.array(model.read(x)), start(model) * 0.5
    kept = other.copy()
    visited = model.grad(other, case.data, STREAMS)
    found = np.array(model.read(visited.vector)), np.array(model.read(visited.buffers))
    model.evaluate(other, case.data)
    model.predict(other, case.data.inputs)
    model.export(other)
    np.testing.assert_array_equal(model.read(x), before)
    np.testing.assert_array_equal(other, kept)
    resident = model.grad(model.load(other), case.data, STREAMS)
    np.testing.assert_array_equal(found[0], model.read(resident.vector))
    np.testing.assert_array_equal(found[1], model.read(resident.buffers))


def test_metrics_add_up(case, model):
    x, data = model.load(start(model)), case.data
    whole = model.evaluate(x, data).sums
    halves = (model.evaluate(x, data.take(slice(0, 7))) + model.evaluate(x, data.take(slice(7, None)))).sums
    assert set(whole) == set(halves)
    for name, value in whole.items():
        exact = isinstance(value, int | np.ndarray)
        np.testing.assert_allclose(halves[name], value, rtol=0 if exact else 1e-6, err_msg=name)
    assert whole["examples"] == data.size


def test_many_are_evaluated_as_each_is(case, model):
    """Together or not: the sums are each one's own, also of nothing and of more than goes through at once."""
    x, whole = model.load(start(model)), case.data
    parts = [whole.take(slice(0, 3)), whole.take(slice(0, 0)), whole.take(slice(3, None)), whole.take([0] * 1030)]
    for part, found in zip(parts, model.evaluate_many(x, parts), strict=True):
        alone = model.evaluate(x, part).sums
        assert set(found.sums) == set(alone)
        for name, value in alone.items():
            exact = isinstance(value, int)
            np.testing.assert_allclose(found.sums[name], value, rtol=0 if exact else 1e-5, atol=1e-6, err_msg=name)


def test_figures_are_announced(case, model):
    seen = set(model.evaluate(model.load(start(model)), case.data).view()) - {"examples"}
    assert seen <= model.figures
    assert model.figures - seen <= {"auc", "average_precision"}


def test_evaluate_and_predict_change_nothing(case, model):
    x = model.load(start(model))
    before = np.array(model.read(x))
    first = model.evaluate(x, case.data).view()
    np.testing.assert_array_equal(model.predict(x, case.data.inputs), model.predict(x, case.data.inputs))
    assert model.evaluate(x, case.data).view() == first
    np.testing.assert_array_equal(model.read(x), before)


def test_predict_agrees_with_evaluate(case, model):
    x = model.load(start(model))
    predicted, figures = model.predict(x, case.data.inputs), model.evaluate(x, case.data).view()
    if predicted.ndim == 2:
        if case.loss:
            np.testing.assert_allclose(predicted.sum(axis=1), 1, rtol=1e-6)
        if "accuracy" in figures:
            assert np.mean(predicted.argmax(axis=1) == case.data.targets) == pytest.approx(figures["accuracy"])
    else:
        assert np.abs(predicted - case.data.targets).mean() == pytest.approx(figures["mae"], rel=1e-5)


def test_export_loads_into_the_plain_framework(case, model, tmp_path):
    vector = start(model)
    safetensors.numpy.save_file(model.export(vector), tmp_path / "model.safetensors")
    plain = case.plain()
    plain.load_state_dict(safetensors.torch.load_file(tmp_path / "model.safetensors"), strict=True)
    inputs = torch.from_numpy(case.data.inputs)
    if isinstance(plain, nn.Linear):
        inputs = inputs.flatten(1)
    with torch.no_grad():
        outputs = plain.eval()(inputs.to(next(plain.parameters()).dtype) if inputs.is_floating_point() else inputs)
    expected = named(case.loss).predict(outputs.double().numpy()) if case.loss else outputs.numpy()
    np.testing.assert_allclose(model.predict(model.load(vector), case.data.inputs), expected, rtol=1e-4, atol=1e-6)


def test_one_example_is_a_batch(case, model):
    one = case.data.take(slice(0, 1))
    x = model.load(start(model))
    found = model.grad(x, one, STREAMS)
    assert np.isfinite(model.read(found.vector)).all()
    assert found.loss > 0
    assert model.evaluate(x, one).examples == 1
    assert len(model.predict(x, one.inputs)) == 1


def test_no_examples_give_a_zero_gradient_and_empty_metrics(case, model):
    nothing = case.data.take(slice(0, 0))
    x = model.load(start(model))
    found = model.grad(x, nothing, STREAMS)
    assert not model.read(found.vector).any()
    assert found.loss == 0.0
    assert model.evaluate(x, nothing).view() == {"examples": 0}
    assert len(model.predict(x, nothing.inputs)) == 0


def test_nan_inputs_give_nan_not_a_crash(case, model):
    if case.data.inputs.dtype.kind == "i":
        pytest.skip("token numbers cannot be NaN")
    bad = Examples(np.full_like(case.data.inputs, np.nan), case.data.targets)
    x = model.load(start(model))
    sums = model.evaluate(x, bad).sums
    assert np.isnan(sums["loss"])
    assert sums.get("correct", 0) == 0
    assert sum(len(sums[name]) for name in ("positives", "negatives") if name in sums) in (0, 2 * SCORE_BINS)
    assert np.isnan(model.predict(x, bad.inputs)).any()
    assert np.isnan(model.grad(x, bad, STREAMS).loss)


def test_a_vector_of_another_size_is_refused(case, model):
    with pytest.raises(LayoutMismatch, match=f"the model has {model.layout.size} values"):
        model.load(np.zeros(model.layout.size + 1, np.float32))
