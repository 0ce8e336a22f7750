"""Clipped gradients of single examples, against a literal loop over single examples, and against Opacus."""

import numpy as np
import pytest
import torch
from torch import nn

from fedloom.adapters import torch_clipped
from fedloom.adapters.numpy import linear, logistic
from fedloom.adapters.torch import torch_model
from fedloom.adapters.torch_nets import cnn, mlp
from fedloom.core.errors import ConfigError
from fedloom.core.examples import Examples
from fedloom.core.model import Batch
from fedloom.core.rng import stream

RNG = np.random.default_rng(0)


class Attends(nn.Module):
    """Tokens, attention, a Transformer layer, dropout of nothing."""

    def __init__(self):
        super().__init__()
        self.embed, self.attend = nn.Embedding(9, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.layer, self.out = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), nn.Linear(8, 3)

    def forward(self, tokens):
        seen = self.embed(tokens)
        seen = seen + self.attend(seen, seen, seen, need_weights=False)[0]
        return self.out(self.layer(seen).mean(1))


class Recurs(nn.Module):
    """Tokens through a recurrent layer."""

    def __init__(self, kind):
        super().__init__()
        self.embed, self.loop = nn.Embedding(9, 5), kind(5, 4, batch_first=True)
        self.out = nn.Linear(4, 3)

    def forward(self, tokens):
        return self.out(self.loop(self.embed(tokens))[0][:, -1])


class Last(nn.Module):
    """The last of what a recurrent layer gives for values."""

    def __init__(self):
        super().__init__()
        self.loop = nn.GRU(2, 2, batch_first=True)

    def forward(self, rows):
        return self.loop(rows)[0][:, -1]


class Normed(nn.Module):
    """Convolutions between group and layer norms."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 3)
        )

    def forward(self, images):
        return self.body(images.unsqueeze(1))


def each_loss(outputs, targets):
    return torch.nn.functional.cross_entropy(outputs, targets, reduction="none", label_smoothing=0.1)


def tokens(n):
    return RNG.integers(0, 9, (n, 6))


def values(*shape):
    return lambda n: RNG.normal(size=(n, *shape)).astype(np.float32)


CASES = {
    "logistic, two classes": (lambda: logistic(4), values(4), 2),
    "logistic, three classes": (lambda: logistic(4, 3), values(4), 3),
    "least squares": (lambda: linear(4), values(4), 0),
    "one layer": (lambda: torch_model(lambda: nn.Linear(4, 3, bias=False)), values(4), 3),
    "mlp": (lambda: torch_model(mlp((2, 3), 3, hidden=(5, 4))), values(2, 3), 3),
    "mlp, one logit": (lambda: torch_model(mlp((6,), 1, hidden=(5,)), "binary_cross_entropy"), values(6), 2),
    "mlp, values": (lambda: torch_model(mlp((6,), 1, hidden=(5,)), "mse"), values(6), 0),
    "sequences through a layer": (
        lambda: torch_model(lambda: nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))),
        values(4, 3),
        3,
    ),
    "cnn": (lambda: torch_model(cnn((8, 8), 3)), values(8, 8), 3),
    "norms of one example": (lambda: torch_model(Normed), values(6, 6), 3),
    "attention": (lambda: torch_model(Attends), tokens, 3),
    "a loss of one's own": (lambda: torch_model(mlp((4,), 3, hidden=(5,)), each_loss), values(4), 3),
    "LSTM": (lambda: torch_model(lambda: Recurs(nn.LSTM)), tokens, 3),
    "GRU": (lambda: torch_model(lambda: Recurs(nn.GRU)), tokens, 3),
    "RNN": (lambda: torch_model(lambda: Recurs(nn.RNN)), tokens, 3),
}


def targets(n, classes):
    return RNG.integers(0, classes, n) if classes else RNG.normal(size=n).astype(np.float32)


def literal(model, start, data, weights, clip):
    """Σ weight·g·min(1, clip/‖g‖), one example after the other, by the model's ordinary gradient."""
    total = np.zeros(len(start))
    for i, weight in enumerate(weights):
        x = model.load(start)
        found = model.grad(x, data.take(slice(i, i + 1)), stream(0, 1)).vector
        gradient = np.array(model.read(found), np.float64)
        total += weight * gradient * min(1.0, clip / max(np.linalg.norm(gradient), 1e-30))
    return total


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_it_is_what_a_loop_over_single_examples_gives(name):
    build, inputs, classes = CASES[name]
    model, n, clients = build(), 7, 2
    data = [Examples(inputs(n), targets(n, classes)) for _ in range(clients)]
    start = model.init(stream(0, "init"))
    start = (start + 0.05 * RNG.normal(size=(clients, len(start)))).astype(np.float32)
    weights = np.float32([[1, 1, 0.5, 0, 2, 1, 0.25]] * clients)
    clipping = model.clipping()
    norms = [np.linalg.norm(literal(model, start[0], data[0].take([i]), [1.0], 1e9)) for i in range(n)]
    clip = float(np.median(norms))  # some are clipped, some are not
    batch = Batch(np.stack([d.inputs for d in data]), np.stack([d.targets for d in data]), weights)
    found = clipping.read(clipping.clipped(clipping.load(start, clients), batch, clip, 0))
    for k in range(clients):
        expected = literal(model, start[k], data[k], weights[k], clip)
        np.testing.assert_allclose(found[k], expected, atol=2e-6 * max(1.0, clip), rtol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "cnn", "attention"])
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_pieces_that_fit_memory_add_up_to_the_same(name, monkeypatch):
    build, inputs, classes = CASES[name]
    model = build()
    start = model.init(stream(0, "init"))
    batch = Batch(inputs(7)[None], targets(7, classes)[None], np.ones((1, 7), np.float32))
    clipping = model.clipping()
    whole = clipping.read(clipping.clipped(clipping.load(start, 1), batch, 0.5, 0))
    monkeypatch.setattr(torch_clipped, "ELEMENTS", 2 * len(start))
    pieces = clipping.read(clipping.clipped(clipping.load(start, 1), batch, 0.5, 0))
    np.testing.assert_allclose(pieces, whole, atol=1e-6)


@pytest.mark.parametrize("name", ["logistic, two classes", "mlp", "cnn"])
def test_a_zero_gradient_and_an_empty_lot_give_zero(name):
    build, inputs, classes = CASES[name]
    model = build()
    clipping, size = model.clipping(), model.layout.size
    x = clipping.load(np.zeros(size, np.float32), 1)
    nothing = Batch(inputs(3)[None], targets(3, classes)[None], np.zeros((1, 3), np.float32))
    assert not clipping.read(clipping.clipped(x, nothing, 1.0, 0)).any()
    still = torch_model(mlp((2,), 1, hidden=()), "mse").clipping()
    batch = Batch(np.zeros((1, 2, 2), np.float32), np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32))
    assert still.read(still.clipped(still.load(np.zeros(3, np.float32), 1), batch, 1.0, 0)).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][1] is not tokens])
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_an_example_without_a_finite_gradient_counts_as_zero(name, value, weight):
    """Else the whole update would be no number, with which one row shows that it is there; padding repeats a row."""
    build, inputs, classes = CASES[name]
    model, rows, wanted = build(), inputs(4), targets(4, classes)
    broken = rows.copy()
    broken[0] = value
    start = (model.init(stream(0, "init")) + 0.05 * RNG.normal(size=model.layout.size)).astype(np.float32)
    clipping = model.clipping()

    def found(given, weights):
        x = clipping.load(start, 1)
        return clipping.read(clipping.clipped(x, Batch(given[None], wanted[None], weights), 0.5, 0))[0]

    there, without = (np.float32([[first, 1, 1, 1]]) for first in (weight, 0.0))
    moved = found(broken, there) - found(rows, without)
    assert np.isfinite(moved).all()
    assert np.linalg.norm(moved) <= 0.5 * weight * 1.001 + 1e-6


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_rows_do_not_decide_what_opacus_refuses():
    model = torch_model(lambda: nn.Sequential(nn.Linear(2, 2), Last()))
    batch = Batch(values(4, 2)(3)[None], targets(3, 2)[None], np.ones((1, 3), np.float32))
    batch.inputs[0, 0] = np.nan
    clipping = model.clipping()
    x = clipping.load(model.init(stream(0, "init")), 1)
    assert np.isfinite(clipping.read(clipping.clipped(x, batch, 0.5, 0))).all()


def test_dropout_draws_for_every_example_and_from_the_seed():
    model = torch_model(lambda: nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 3)))
    clipping = model.clipping()
    x = clipping.load(model.init(stream(0, "init")), 1)
    batch = Batch(np.ones((1, 6, 8), np.float32), np.zeros((1, 6), np.int64), np.ones((1, 6), np.float32))
    one, again, other = (clipping.read(clipping.clipped(x, batch, 1.0, seed)) for seed in (1, 1, 2))
    assert one.tobytes() == again.tobytes() != other.tobytes()


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_opacus_gives_the_same_gradients():
    import opacus

    model = torch_model(cnn((8, 8), 3))
    start, images, classes = model.init(stream(0, "init")), values(8, 8)(5), targets(5, 3)
    sampled = opacus.GradSampleModule(cnn((8, 8), 3)(), loss_reduction="sum")
    for name, array in model.layout.unpack(start).items():
        dict(sampled._module.named_parameters())[name].data.copy_(torch.tensor(array))
    loss = torch.nn.functional.cross_entropy(sampled(torch.tensor(images)), torch.tensor(classes), reduction="sum")
    loss.backward()
    theirs = torch.cat([p.grad_sample.reshape(5, -1) for p in sampled._module.parameters()], 1)
    stack = model.clipping()
    each = torch_clipped.general(stack.module, stack.objective, stack.layout)
    ours = each(torch.tensor(start), torch.tensor(images), torch.tensor(classes))
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), atol=1e-6)


class Mixes(nn.Module):
    """A recurrent module whose forward subtracts the mean of the batch."""

    def __init__(self):
        super().__init__()
        self.inner = Recurs(nn.GRU)

    def forward(self, tokens):
        outputs = self.inner(tokens)
        return outputs - outputs.mean(0)


REFUSED = {
    "batch normalisation": (
        lambda: torch_model(lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))).clipping(),
        r"BatchNorm1d \(1\) mixes the examples of a batch.*take GroupNorm or LayerNorm",
    ),
    "running statistics": (
        lambda: torch_model(lambda: nn.InstanceNorm1d(4, affine=True, track_running_stats=True)).clipping(),
        r"InstanceNorm1d \(the module\) keeps running statistics; switch them off",
    ),
    "a penalty": (lambda: logistic(4, l2=0.1).clipping(), "belongs to no example; set weight_decay"),
    "a projected LSTM": (
        lambda: torch_model(lambda: nn.LSTM(4, 4, proj_size=2)).clipping(),
        r"LSTM \(the module\) projects its output; leave proj_size out",
    ),
    "a cell": (
        lambda: torch_model(lambda: nn.Sequential(nn.GRUCell(4, 4))).clipping(),
        r"GRUCell \(0\) is not known here; take LSTM, GRU or RNN",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_gradients_of_single_examples_is_refused(name):
    build, text = REFUSED[name]
    with pytest.raises(ConfigError, match=text):
        build()


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_a_forward_pass_that_mixes_examples_is_found_out():
    clipping = torch_model(Mixes).clipping()
    x = clipping.load(torch_model(Mixes).init(stream(0, "init")), 1)
    batch = Batch(tokens(4)[None], targets(4, 3)[None], np.ones((1, 4), np.float32))
    with pytest.raises(ConfigError, match="forward mixes the examples of a batch"):
        clipping.clipped(x, batch, 1.0, 0)
