"""The PyTorch adapter against plain PyTorch, and what it refuses."""

import copy
import importlib
import pickle
import sys
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fedloom.adapters.torch import EVALUATE_BATCH, torch_model
from fedloom.adapters.torch_nets import cnn, mlp
from fedloom.core.errors import ConfigError, DataError, LayoutMismatch, MissingExtra
from fedloom.core.examples import Examples
from fedloom.core.rng import stream

STREAMS = stream(2, 1)


def data(n=12, features=4, classes=3):
    rng = np.random.default_rng(0)
    return Examples(rng.normal(size=(n, features)).astype(np.float32), rng.integers(0, classes, n))


def busy():
    """BatchNorm, dropout, a tied and a frozen layer, and a branch that no example takes."""
    net = nn.Sequential(
        nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
    )
    net.append(nn.Linear(4, 3))
    net[4].weight = net[0].weight
    net[3].requires_grad_(False)
    return Branch(net)


class Branch(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.never = net, nn.Linear(2, 2)

    def forward(self, inputs):
        return self.net(inputs)


def test_training_equals_plain_pytorch():
    """Ten steps of gradient descent: the same weights and statistics as torch.optim.SGD with the same seeds."""
    model, batch = torch_model(busy), data()
    vector = model.init(STREAMS)
    plain = busy()
    plain.load_state_dict({name: torch.from_numpy(a) for name, a in model.export(vector).items()})
    optimizer = torch.optim.SGD([p for p in plain.parameters() if p.requires_grad], lr=0.1)
    x = model.load(vector)
    for step in range(10):
        found = model.grad(x, batch, STREAMS.child(step))
        x[: len(found.vector)] -= 0.1 * found.vector
        torch.manual_seed(STREAMS.child(step).integer("torch"))
        optimizer.zero_grad()
        loss = functional.cross_entropy(plain(torch.from_numpy(batch.inputs)), torch.from_numpy(batch.targets))
        loss.backward()
        optimizer.step()
        assert found.loss == pytest.approx(loss.item() * batch.size, rel=1e-5)
    expected = plain.state_dict()
    for name, value in model.export(model.read(x)).items():
        if "num_batches" not in name:
            np.testing.assert_allclose(value, expected[name].numpy(), rtol=1e-4, atol=1e-6, err_msg=name)


def test_what_travels():
    leaves = torch_model(busy).layout.leaves
    assert [(leaf.name, leaf.kind) for leaf in leaves] == [
        ("net.0.weight", "parameter"),
        ("net.0.bias", "parameter"),
        ("net.1.weight", "parameter"),
        ("net.1.bias", "parameter"),
        ("net.5.weight", "parameter"),
        ("net.5.bias", "parameter"),
        ("never.weight", "parameter"),
        ("never.bias", "parameter"),
        ("net.1.running_mean", "buffer"),
        ("net.1.running_var", "buffer"),
    ]


def test_parameters_gradients_and_buffers_are_views():
    model = torch_model(busy)
    x = model.load(model.init(STREAMS))
    model.grad(x, data(), STREAMS)
    values, grads = model.flat.values.untyped_storage().data_ptr(), model.flat.grads.untyped_storage().data_ptr()
    for parameter in model.module.parameters():
        if parameter.requires_grad:
            assert parameter.untyped_storage().data_ptr() == values
            assert parameter.grad.untyped_storage().data_ptr() == grads
    assert model.module.net[1].running_mean.untyped_storage().data_ptr() == values
    assert x is model.flat.values


def test_a_parameter_without_a_gradient_has_zeros():
    model = torch_model(busy)
    x = model.load(model.init(STREAMS))
    model.flat.grads.fill_(9.0)
    tree = dict(zip([leaf.name for leaf in model.layout.leaves], model.layout.offsets, strict=False))
    found = model.grad(x, data(), STREAMS).vector
    assert not found[tree["never.weight"] : tree["net.1.running_mean"]].any()
    assert found[: tree["never.weight"]].any()


def test_dropout_follows_the_streams():
    model = torch_model(nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3)))
    x = model.load(model.init(STREAMS))
    first, again, other = (model.grad(x, data(), s).vector.clone() for s in (STREAMS, STREAMS, stream(2, 2)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_integer_buffers_stay_home_and_begin_again_at_every_load():
    model = torch_model(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)))
    vector = model.init(STREAMS)
    x = model.load(vector)
    for _ in range(3):
        model.grad(x, data(), STREAMS)
    assert model.module[0].num_batches_tracked == 3
    model.evaluate(vector, data())
    assert model.module[0].num_batches_tracked == 3
    assert model.export(vector)["0.num_batches_tracked"] == 0
    model.load(vector)
    assert model.module[0].num_batches_tracked == 0


def test_a_buffer_that_forward_replaces_comes_back():
    class Average(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)
            self.register_buffer("mean", torch.zeros(4))
            self.register_buffer("cache", torch.zeros(1), persistent=False)

        def forward(self, inputs):
            if self.training:
                self.mean = 0.5 * self.mean + 0.5 * inputs.mean(dim=0)
                self.cache = torch.ones(len(self.cache) + 1)
            return self.layer(inputs - self.mean)

    model, batch = torch_model(Average), data()
    x = model.load(model.init(STREAMS))
    found = [np.array(model.read(model.grad(x, batch, STREAMS).buffers)) for _ in range(2)]
    np.testing.assert_allclose(found[0], 0.5 * batch.inputs.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found[1], 0.75 * batch.inputs.mean(axis=0), rtol=1e-5)
    assert len(model.module.cache) == 3
    model.evaluate(model.init(STREAMS), batch)
    assert len(model.module.cache) == 3
    model.load(model.init(STREAMS))
    assert len(model.module.cache) == 1


def test_a_module_keeps_the_weights_it_came_with_and_is_not_touched():
    module = nn.Linear(4, 3)
    before = module.weight.detach().clone()
    model = torch_model(module)
    np.testing.assert_array_equal(model.init(stream(1, 1)), model.init(stream(2, 1)))
    model.load(np.zeros(15, np.float32))
    assert torch.equal(module.weight, before)
    assert module.weight.grad is None


def test_a_factory_draws_from_the_streams():
    model = torch_model(partial(nn.Linear, 4, 3))
    assert not np.array_equal(model.init(stream(1, 1)), model.init(stream(2, 1)))


def test_it_can_be_pickled_and_copied():
    model = torch_model(partial(nn.Linear, 4, 3), bound=2.0)
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):  # noqa: S301
        assert twin.layout.digest == model.layout.digest
        x = twin.load(model.init(STREAMS))
        found = twin.grad(x, data(), STREAMS)
        assert torch.equal(found.vector, model.grad(model.load(model.init(STREAMS)), data(), STREAMS).vector)


def test_evaluation_in_batches_is_the_whole():
    model, many = torch_model(nn.Linear(4, 3)), data(n=2 * EVALUATE_BATCH + 5)
    x = model.load(model.init(STREAMS))
    figures = model.evaluate(x, many).view()
    outputs = model.module(torch.from_numpy(many.inputs))
    loss = functional.cross_entropy(outputs, torch.from_numpy(many.targets)).item()
    assert figures["examples"] == many.size
    assert figures["loss"] == pytest.approx(loss, rel=1e-5)
    assert model.predict(x, many.inputs).shape == (many.size, 3)


def test_the_mode_of_the_module_does_not_leak_into_training():
    model = torch_model(nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3)))
    x = model.load(model.init(STREAMS))
    first = model.grad(x, data(), STREAMS).vector.clone()
    model.evaluate(x, data())
    assert torch.equal(model.grad(x, data(), STREAMS).vector, first)


@pytest.mark.parametrize("kind", ["read-only", "strided", "float64", "bytes", "tensor"])
def test_arrays_of_other_kinds_are_taken(kind):
    model, batch = torch_model(nn.Linear(4, 3)), data()
    if kind == "bytes":
        batch = Examples(np.round(batch.inputs * 10) + 100, batch.targets)
    kinds = {
        "read-only": batch.inputs.copy(),
        "strided": np.repeat(batch.inputs, 2, axis=0)[::2][::-1][::-1],
        "float64": batch.inputs.astype(np.float64),
        "bytes": batch.inputs.astype(np.uint8),
        "tensor": torch.tensor(batch.inputs),
    }
    kinds["read-only"].flags.writeable = False
    x = model.load(model.init(STREAMS))
    expected = model.grad(x, Examples(batch.inputs.astype(np.float32), batch.targets), STREAMS).vector.clone()
    found = model.grad(x, Examples(kinds[kind], batch.targets.astype(np.int32)), STREAMS).vector
    assert torch.equal(found, expected)


def test_own_loss_and_metrics():
    def absolute(outputs, targets):
        return (outputs[:, 0] - targets).abs()

    model = torch_model(nn.Linear(4, 1), absolute, {"big": lambda o, t: (o[:, 0] - t).abs() > 1})
    batch = Examples(data().inputs, data().targets.astype(np.float64))
    x = model.load(model.init(STREAMS))
    figures, away = model.evaluate(x, batch).view(), np.abs(model.predict(x, batch.inputs)[:, 0] - batch.targets)
    assert figures["loss"] == pytest.approx(away.mean(), rel=1e-5)
    assert figures["big"] == pytest.approx((away > 1).mean())
    assert model.figures == {"loss", "big"}
    assert model.grad(x, batch, STREAMS).loss == pytest.approx(away.sum(), rel=1e-5)


def test_a_loss_that_is_already_a_mean_is_refused_with_the_right_code():
    model = torch_model(nn.Linear(4, 3), functional.cross_entropy)
    x = model.load(model.init(STREAMS))
    with pytest.raises(ConfigError) as refused:
        model.grad(x, data(), STREAMS)
    assert str(refused.value) == (
        "the loss must return one number for each example, shape (12,), got shape ().\n"
        "  wrong:  return functional.cross_entropy(outputs, targets)\n"
        "  right:  return functional.cross_entropy(outputs, targets, reduction='none')"
    )


def test_what_cannot_be_a_model_is_refused():
    frozen = nn.Linear(2, 2).requires_grad_(False)
    for source, sentence in [
        (
            nn.Linear(2, 2).half(),
            r"must all be float32, or all float64, .* 'weight' is float16\. Call module\.float\(\)",
        ),
        (nn.Linear(2, 2).bfloat16(), "'weight' is bfloat16"),
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()), "'1.weight' is float64"),
        (frozen, "Linear has no trainable parameters: nothing could be learned"),
        (nn.LazyLinear(3), "lazy parameters without a shape; run one batch through it first"),
        ("resnet", "needs a module or a factory of one, got str"),
        (dict, "the factory must return a torch.nn.Module, got dict"),
    ]:
        with pytest.raises(ConfigError, match=sentence):
            torch_model(source)


def test_a_module_that_cannot_be_copied_is_refused():
    layer = nn.Linear(2, 2)
    layer.register_buffer("made", layer.weight * 2)
    with pytest.raises(ConfigError, match="Linear cannot be copied; pass a factory instead"):
        torch_model(layer)


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="there is no loss 'bce'; the known ones are"):
        torch_model(nn.Linear(2, 2), "bce")
    with pytest.raises(ConfigError, match="a loss is a name or a function"):
        torch_model(nn.Linear(2, 2), 3)
    with pytest.raises(ConfigError, match="the metric name 'correct' is taken"):
        torch_model(nn.Linear(2, 2), metrics={"correct": lambda o, t: t})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_missing_device_is_refused():
    with pytest.raises(ConfigError, match="device 'cuda:0': this machine has no CUDA device"):
        torch_model(nn.Linear(2, 2), device="cuda:0")


def test_outputs_and_targets_that_do_not_fit_are_refused():
    def grad(model, batch):
        return model.grad(model.load(model.init(STREAMS)), batch, STREAMS)

    class Two(nn.Linear):
        def forward(self, inputs):
            return inputs, inputs

    with pytest.raises(ConfigError, match="forward must return one tensor, got tuple"):
        grad(torch_model(Two(4, 3)), data())
    with pytest.raises(DataError, match="class numbers must be 0 to 1, for 2 outputs"):
        grad(torch_model(nn.Linear(4, 2)), data())
    with pytest.raises(DataError, match="class numbers must be integers, got float32"):
        grad(torch_model(nn.Linear(4, 3)), Examples(data().inputs, data().targets.astype(np.float32)))
    with pytest.raises(ConfigError, match="a single logit is for binary_cross_entropy"):
        grad(torch_model(nn.Linear(4, 1)), data())
    for loss in ("mse", "binary_cross_entropy"):
        with pytest.raises(ConfigError, match=rf"{loss} needs one output for each target, got outputs \(12, 3\)"):
            grad(torch_model(nn.Linear(4, 3), loss), data())
    with pytest.raises(LayoutMismatch, match=r"the model has 15 values, got shape \(1,\)"):
        torch_model(nn.Linear(4, 3)).load(np.zeros(1, np.float32))


def test_frozen_half_precision_and_float64_modules():
    lora = nn.Sequential(nn.Linear(4, 4).bfloat16().requires_grad_(False), nn.Linear(4, 3))
    model = torch_model(lora)
    assert [leaf.name for leaf in model.layout.leaves] == ["1.weight", "1.bias"]
    exported = {name: torch.from_numpy(a) for name, a in model.export(model.init(STREAMS)).items()}
    lora.load_state_dict(exported, strict=True)
    assert torch_model(nn.Linear(2, 2).double()).layout.dtype == np.float64


def test_the_networks_of_the_paper_have_their_size():
    """McMahan et al. 2017, arXiv 1602.05629v4, section 3: 199,210 and 1,663,370 parameters."""
    assert torch_model(mlp((28, 28), 10)).layout.size == 199_210
    assert torch_model(cnn((28, 28), 10)).layout.size == 1_663_370
    assert torch_model(cnn((1, 28, 28), 10)).layout.size == 1_663_370


def test_networks_refuse_impossible_sizes():
    with pytest.raises(ConfigError, match=r"cnn needs images of shape .* got \(784,\)"):
        cnn((784,), 10)
    with pytest.raises(ConfigError, match=r"4 pixels or more each way, got \(28, 28, 1\)"):
        cnn((28, 28, 1), 10)
    with pytest.raises(ConfigError, match=r"outputs of 1 or more, got \(4,\) and 0"):
        mlp((4,), 0)


def test_missing_torch_names_the_line_to_run(monkeypatch):
    for name in [name for name in sys.modules if name == "torch" or name.startswith("fedloom.adapters.torch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in ("torch", "torch_nets"):
        with pytest.raises(MissingExtra, match=r"pip install 'fedloom\[torch\]'"):
            importlib.import_module(f"fedloom.adapters.{name}")
