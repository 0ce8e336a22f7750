"""Hard cases of training in stacks and in pools: every engine has the sequential engine's answer, or refuses."""

import time
from dataclasses import replace

import numpy as np
import pytest
from torch import nn

import fedloom
from fedloom import ConfigError, tuning
from fedloom.adapters.numpy import linear, logistic
from fedloom.adapters.torch import torch_model
from fedloom.core.examples import Examples, Split
from fedloom.core.rng import stream
from fedloom.core.task import Fault, Prepare, Task, Train, Trained, ask_all
from fedloom.local import Sgd
from fedloom.optimize import Adam, Momentum, PerBlock, Step
from fedloom.recipes import fedavg
from fedloom.runtime.together import train_together
from fedloom.simulation import simulate
from small import classification, small

SIZES = (12, 20, 7, 15, 9)
SGD = Sgd(epochs=2, batch_size=8, optimizer=Step(0.1))


def rows(k: int, n: int, shape: tuple[int, ...] = (4,), targets: tuple[int, ...] = ()) -> Examples:
    drawn = np.random.default_rng(k)
    return Examples(drawn.normal(size=(n, *shape)), drawn.normal(size=(n, *targets)))


def classes(data: Examples, axes: tuple[int, ...] = (1,)) -> Examples:
    return Examples(data.inputs, (data.inputs.sum(axis=axes) > 0).astype(np.int64))


def both(model: object, data: list[Examples], sgd: Sgd = SGD, round: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return what clients of a model come to alone and in a stack, (K, P) each."""
    start = model.init(stream(0, "init"))
    streams = [stream(0, number) for number in range(1, len(data) + 1)]
    alone = [
        sgd.train(model, start, one, None, round=round, streams=own) for one, own in zip(data, streams, strict=True)
    ]
    nothing = [None] * len(data)
    works = sgd.train_many(model.stack(), model.layout, start, data, nothing, round=round, streams=streams)
    np.testing.assert_allclose(
        [one.sums["loss"] for one in works.metrics], [one.metrics.sums["loss"] for one in alone], rtol=1e-9
    )
    return np.stack([work.delta for work in alone]), model.stack().read(works.deltas)


def alike(model: object, data: list[Examples], sgd: Sgd = SGD, round: int = 1) -> None:
    alone, stacked = both(model, data, sgd, round)
    np.testing.assert_allclose(stacked, alone, rtol=1e-9, atol=1e-12)
    assert np.abs(alone).max() > 0


class Doubled(nn.Linear):
    def forward(self, inputs):
        return 2 * super().forward(inputs)


class Unit(nn.Module):
    """Divides by the length of the input, which padding does not have."""

    def forward(self, inputs):
        return inputs / inputs.norm(dim=1, keepdim=True)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(5, 3), nn.Linear(3, 2)

    def forward(self, inputs):
        return self.out(self.table(inputs).mean(1))


def frozen_bias():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    net[0].bias.requires_grad_(False)
    return net


def frozen_layer():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    net[0].requires_grad_(False)
    return net


def one_activation():
    act = nn.Tanh()
    return nn.Sequential(nn.Linear(4, 3), act, nn.Linear(3, 3), act, nn.Linear(3, 2))


def one_layer_twice():
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(4, 2))


def tied():
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    net[2].weight = net[0].weight
    return net


def hooked():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    net[0].register_forward_hook(lambda module, inputs, outputs: 3 * outputs)
    return net


def hooked_chain():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    net.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 3,))
    return net


def weight_normed():
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.ReLU(), nn.Linear(3, 2))


NETS = {
    "frozen bias": frozen_bias,
    "frozen layer": frozen_layer,
    "one activation in two places": one_activation,
    "one layer in two places": one_layer_twice,
    "tied weights": tied,
    "hook": hooked,
    "hook of the chain": hooked_chain,
    "weight norm": weight_normed,
    "subclass of Linear": lambda: nn.Sequential(Doubled(4, 3), nn.ReLU(), nn.Linear(3, 2)),
    "subclass of Sequential": lambda: type("Mine", (nn.Sequential,), {})(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)),
    "in place": lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2)),
    "division by a length": lambda: nn.Sequential(Unit(), nn.Linear(4, 2)),
    "no bias": lambda: nn.Sequential(nn.Linear(4, 3, bias=False), nn.Sigmoid(), nn.Linear(3, 2)),
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Linear(4, 3), nn.Tanh()), nn.Identity(), nn.Linear(3, 2)),
    "layer norm": lambda: nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2)),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", NETS)
def test_a_stack_is_the_module_that_was_given(name: str) -> None:
    alike(torch_model(lambda: NETS[name]().double()), [classes(rows(k, n)) for k, n in enumerate(SIZES)])


@pytest.mark.parametrize("factory", [
    lambda: nn.Sequential(nn.Linear(4, 1)), lambda: nn.Sequential(nn.Linear(4, 1), nn.LayerNorm(1), nn.Linear(1, 1))
], ids=["direct", "general"])  # fmt: skip
@pytest.mark.parametrize("targets", [(), (1,)])
@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy"])
def test_single_outputs_stack(factory, targets, loss) -> None:
    data = [rows(k, n, targets=targets) for k, n in enumerate((8, 8, 7))]
    if loss == "binary_cross_entropy":
        data = [Examples(one.inputs, (one.targets > 0).astype(np.int64)) for one in data]
    alike(torch_model(lambda: factory().double(), loss), data)


@pytest.mark.parametrize("outputs", [2, 3])
@pytest.mark.parametrize("factory", [
    lambda o: nn.Sequential(nn.Linear(4, o)), lambda o: nn.Sequential(nn.LayerNorm(4), nn.Linear(4, o))
], ids=["direct", "general"])  # fmt: skip
def test_several_values_for_an_example_stack(factory, outputs) -> None:
    data = [rows(k, 3, targets=(outputs,)) for k in range(3)]
    alike(torch_model(lambda: factory(outputs).double(), "mse"), data)


def test_a_linear_layer_on_matrices_stacks() -> None:
    data = [rows(k, n, (5, 4), (5,)) for k, n in enumerate(SIZES)]
    alike(torch_model(lambda: nn.Sequential(nn.Linear(4, 1)).double(), "mse"), data)


def test_flattened_images_stack() -> None:
    data = [classes(rows(k, n, (2, 2)), (1, 2)) for k, n in enumerate(SIZES)]
    alike(torch_model(lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()), data)


def test_token_numbers_stay_whole_in_a_stack() -> None:
    drawn = np.random.default_rng(0)
    data = [Examples(drawn.integers(0, 5, (n, 6)), drawn.integers(0, 2, n)) for n in SIZES]
    alike(torch_model(lambda: Tokens().double()), data)


OPTIMIZERS = {
    "momentum": Momentum(0.05, 0.9),
    "nesterov": Momentum(0.05, 0.9, nesterov=True),
    "adam": Adam(0.05, bias_correction=True, tau=1e-8),
    "by block": PerBlock(Momentum(0.05, 0.9)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("batch_size", [8, None, 1000])
def test_optimizers_keep_their_state_by_client(name: str, batch_size: int | None) -> None:
    sgd = Sgd(epochs=3, batch_size=batch_size, optimizer=OPTIMIZERS[name], weight_decay=0.01, rate=lambda r: 1 / r)
    alike(linear(2, dtype="float64"), [rows(k, n, (2,)) for k, n in enumerate(SIZES)], sgd, round=3)
    model = torch_model(lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double())
    alike(model, [classes(rows(k, n)) for k, n in enumerate(SIZES)], sgd, round=3)


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        (
            lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 2)),
            "Batch",
        ),
    ],
)
def test_what_mixes_examples_is_refused(factory, says) -> None:
    with pytest.raises(ConfigError, match=says):
        torch_model(factory).stack()


def answers(model, strategy, splits):
    there = small(model, strategy, splits)
    parties = list(there.parties.values())
    body = Train(1, there.state.vector, there.terms.total.digest, there.terms.cap, ())
    tasks = [Task(number, party.name, body, strategy.merges) for number, party in enumerate(parties, 1)]
    replies = list(train_together(parties, tasks, body, model.stack()))
    return {name: reply.body for reply in replies for name in reply.parties}


def spoiled(splits, change):
    one = splits["site1"]
    return {**splits, "site1": Split(change(one.train), one.held_out)}


SPOILT = {
    "NotFinite": lambda data: Examples(data.inputs * np.nan, data.targets),
    "OutOfBound": lambda data: Examples(data.inputs * 1e6, data.targets),
    "DataError": lambda data: Examples(data.inputs, data.targets + 5),
    "ValueError": lambda data: Examples(data.inputs[:, :3], data.targets),
}


@pytest.mark.parametrize("error", SPOILT)
def test_only_who_is_at_fault_is_at_fault(error: str) -> None:
    strategy = fedavg(Sgd(epochs=3, batch_size=8, optimizer=Step(1.0)))
    found = answers(logistic(4, 3), strategy, spoiled(classification(), SPOILT[error]))
    assert {name for name, body in found.items() if isinstance(body, Fault)} == {"site1"}
    assert found["site1"].error == error


def test_a_client_without_examples_does_not_count_in_a_stack() -> None:
    strategy = replace(fedavg(SGD), weights=fedloom.Equal())
    empty = spoiled(classification(), lambda data: data.take(slice(0, 0)))
    found = answers(logistic(4), strategy, empty)
    assert isinstance(found["site1"], Fault)
    assert isinstance(found["site0"], Trained)


def test_an_operation_in_place_does_not_change_a_partys_rows() -> None:
    model = torch_model(lambda: nn.Sequential(nn.Dropout(0.5, inplace=True), nn.Linear(4, 2)))
    splits = classification()
    narrow = lambda data: Examples(data.inputs.astype(np.float32), data.targets)  # noqa: E731
    splits = {name: Split(narrow(split.train), narrow(split.held_out)) for name, split in splits.items()}
    before = {name: split.train.inputs.copy() for name, split in splits.items()}
    there = small(model, fedavg(Sgd(batch_size=None)), splits)
    ask_all(there.federation, splits, Prepare({}))
    there.run(1)
    for name, split in splits.items():
        np.testing.assert_array_equal(split.train.inputs, before[name])


def test_a_slow_client_is_measured_once() -> None:
    calls = []

    def slow(params, data, config):
        calls.append(config["round"])
        time.sleep(0.03)
        return params

    app = fedloom.App(
        model=fedloom.BuiltIn(name="logistic"),
        data=fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Iid(4)),
        strategy=replace(fedavg(), local=fedloom.Custom(function=slow)),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "LONG_S", 0.02)
        patch.setattr(tuning, "SOON_S", 9.0)
        simulate(app, engine="auto").close()
    assert len(calls) == 1


def test_a_subclass_with_a_train_of_its_own_is_not_trained_as_its_parent() -> None:
    class Own(fedloom.Sgd):
        def train(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            return super().train(*args, **kwargs)

    strategy = replace(fedavg(), local=Own())
    app = fedloom.App(
        model=fedloom.BuiltIn(name="logistic"),
        data=fedloom.Data(source=fedloom.SklearnSet("wine"), partition=fedloom.Iid(3)),
        strategy=strategy,
    )
    with pytest.raises(fedloom.ConfigError, match="Own has a train of its own; give it a train_many, or take the pool"):
        simulate(app, engine="vectorized")
