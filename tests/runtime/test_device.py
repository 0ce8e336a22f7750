"""Clients on a device: the sequential engine's answers in one sum a round; tried where every machine has a device."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fedloom.adapters.numpy import linear
from fedloom.adapters.torch import torch_model
from fedloom.adapters.torch_device import TorchResident
from fedloom.aggregate import Median
from fedloom.core.examples import Examples, Split
from fedloom.core.task import Evaluate, Fault, Task, Train, ask_all
from fedloom.core.weights import Equal
from fedloom.local import AtHome, Prox, Sgd
from fedloom.optimize import Adam, Momentum, Step
from fedloom.recipes import fedavg, scaffold
from fedloom.runtime.device import Device, Rows, fitting_device, on_device
from fedloom.schedule import Sync
from fedloom.stages import Clip, Quantize
from small import classification, regression, same_tree, small

SIZES = (12, 20, 7, 15, 9, 33, 1, 8)  # ragged: 1 to 9 batches of 4
SGD = Sgd(epochs=2, batch_size=4, optimizer=Step(0.05))
ANY = Sync(quorum=1)


def chain():
    return torch_model(lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double())


def whole():
    """Return a module that is not a chain, so that the general form is used."""
    return torch_model(lambda: nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 2)).double())


def line():
    return torch_model(lambda: nn.Linear(3, 1).double(), loss="mse")


def on(there, clients=3, budget=None):
    """Return the same federation with its parties on a device."""
    stack = replace(there.model.resident(), budget=budget)
    return replace(there, federation=Device(there.parties, there.federation, stack, there.terms.total, clients))


def both(factory, strategy, rounds=3, clients=3, splits=None):
    """Return the states of a sequential run and of one on the device, and the device's federation."""
    splits = classification(SIZES) if splits is None else splits
    alone = small(factory(), strategy, splits).run(rounds)
    there = on(small(factory(), strategy, splits), clients)
    return alone, there.run(rounds), there


STRATEGIES = {
    "fedavg": fedavg(SGD),
    "equal weights": replace(fedavg(SGD), weights=Equal()),
    "a cohort": fedavg(SGD, cohort=5),
    "whole data": fedavg(Sgd(epochs=3, optimizer=Step(0.1))),
    "exact steps": fedavg(Sgd(batch_size=4, steps=5, optimizer=Step(0.05))),
    "momentum": fedavg(Sgd(batch_size=4, weight_decay=0.01, optimizer=Momentum(0.05))),
    "adam": fedavg(Sgd(batch_size=4, optimizer=Adam(0.01))),
    "prox": replace(fedavg(SGD), local=Prox(mu=0.3, sgd=SGD)),
    "scaffold": scaffold(SGD, cohort=5),
    "a leaf at home": replace(fedavg(SGD), local=AtHome(local=SGD, leaves=("0.*",))),
    "prox with a leaf at home": replace(fedavg(SGD), local=AtHome(local=Prox(mu=0.3, sgd=SGD), leaves=("0.*",))),
    "clipped": replace(fedavg(SGD), stages=(Clip(0.1),)),
    "median": replace(fedavg(SGD), aggregate=Median(), weights=Equal()),
}


@pytest.mark.parametrize("factory", [chain, whole])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_device_has_the_sequential_answer(name, factory):
    alone, there, _ = both(factory, STRATEGIES[name])
    for one, other in zip(alone, there, strict=True):
        np.testing.assert_allclose(other.vector, one.vector, rtol=1e-10, atol=1e-12)
        assert sorted(other.record.counted) == sorted(one.record.counted)
        assert other.record.faults == ()
        assert other.record.training["loss"] == pytest.approx(one.record.training["loss"], rel=1e-9)
    assert np.abs(alone[-1].vector - alone[0].vector).max() > 1e-4


def test_quantised_updates_are_drawn_alike():
    """Quantisation draws from the client's own stream, so only a value on the edge of a level could fall elsewhere."""
    strategy = replace(fedavg(SGD), stages=(Clip(1.0), Quantize(8)))
    alone, there, _ = both(chain, strategy, rounds=1)
    assert np.mean(np.isclose(there[0].vector, alone[0].vector, rtol=0, atol=1e-9)) > 0.9


@pytest.mark.parametrize("name", ["fedavg", "scaffold", "a leaf at home"])
def test_memories_move_as_in_the_sequential_engine(name):
    alone, there = (small(chain(), STRATEGIES[name], classification(SIZES)) for _ in range(2))
    there = on(there)
    alone.run(3)
    there.run(3)
    for party, mine in alone.parties.items():
        other = there.parties[party]
        assert other.pending == {}
        if name == "scaffold" and mine.memory is not None:
            np.testing.assert_allclose(other.memory["local"], mine.memory["local"], rtol=1e-8, atol=1e-11)


def test_one_sum_a_round_leaves_the_device(monkeypatch):
    read = []

    def counted(self, x):
        read.append(tuple(x.shape))
        return self.stack.read(x)

    monkeypatch.setattr(TorchResident, "read", counted)
    there = on(small(chain(), fedavg(SGD), classification(SIZES)))
    there.run(1)
    vectors = [shape for shape in read if shape[-1] > len(SIZES)]  # losses of a few clients are read too
    assert vectors == [(there.terms.total.size,)]


@pytest.mark.parametrize("clients", [1, 2, 8])
def test_the_answer_does_not_depend_on_how_many_train_at_once(clients):
    alone, there, _ = both(chain, fedavg(SGD), clients=clients)
    np.testing.assert_allclose(there[-1].vector, alone[-1].vector, rtol=1e-10, atol=1e-12)


def test_a_client_that_fails_is_alone_at_fault():
    splits = classification(SIZES)
    bad = splits["site2"].train
    splits["site2"] = Split(Examples(bad.inputs, bad.targets + 5), splits["site2"].held_out)
    splits["site4"] = Split(splits["site4"].train.take(slice(0, 0)), splits["site4"].held_out)
    there = on(small(chain(), replace(fedavg(SGD), schedule=ANY), splits))
    (state,) = there.run(1)
    said = {fault.site: fault.message for fault in state.record.faults}
    assert set(said) == {"site2", "site4"}
    assert "class numbers must be 0 to 1, for 2 outputs; got 5 to 6" in said["site2"]
    assert "no examples to train on" in said["site4"]
    assert len(state.record.counted) == len(SIZES) - 2


def test_values_beyond_their_bound_are_their_own_clients_fault():
    splits = regression(SIZES)
    wild = splits["site1"].train
    splits["site1"] = Split(Examples(wild.inputs, wild.targets * 1e4), splits["site1"].held_out)
    there = on(small(line(), replace(fedavg(SGD), schedule=ANY), splits))
    (state,) = there.run(1)
    assert [(fault.site, fault.error) for fault in state.record.faults] == [("site1", "OutOfBound")]
    assert len(state.record.counted) == len(SIZES) - 1


class Full:
    """A stack whose device is full with more than so many clients."""

    def __init__(self, stack, most):
        self.stack, self.most, self.tried = stack, most, []

    def __getattr__(self, name):
        return getattr(self.stack, name)

    def load(self, vectors, clients):
        self.tried.append(clients)
        if clients > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.stack.load(vectors, clients)

    read = property(lambda self: self.stack.read)
    moved = property(lambda self: self.stack.moved)
    grad = property(lambda self: self.stack.grad)

    def descend(self, start, steps, rate):
        self.load(start, steps.clients)
        return self.stack.descend(start, steps, rate)

    put = property(lambda self: self.stack.put)
    gather = property(lambda self: self.stack.gather)
    weigh = property(lambda self: self.stack.weigh)
    free = property(lambda self: self.stack.free)
    exhausted = property(lambda self: self.stack.exhausted)


ALIKE = (12,) * 8  # all in one group, so that a stack is as large as the chunk


def test_a_full_device_halves_the_stack_and_says_so():
    strategy = fedavg(SGD)
    alone = small(chain(), strategy, classification(ALIKE)).run(2)
    there = on(small(chain(), strategy, classification(ALIKE)), clients=8)
    there.federation.stack = Full(there.federation.stack, 2)
    with pytest.warns(RuntimeWarning, match=r"full with . clients at once; from now on") as said:
        states = there.run(2)
    assert [str(one.message).split("from now on ")[1] for one in said] == ["4 train at once.", "2 train at once."]
    assert there.federation.clients == 2
    np.testing.assert_allclose(states[-1].vector, alone[-1].vector, rtol=1e-10, atol=1e-12)
    assert states[-1].record.faults == ()


def test_a_client_too_large_for_the_device_is_a_fault():
    there = on(small(chain(), replace(fedavg(SGD), schedule=ANY), classification((12, 3))), clients=1)
    there.federation.stack = Full(there.federation.stack, 0)
    tasks = train_tasks(there)
    ask = there.federation.send(tasks)
    first, second = (there.federation.receive(ask, None) for _ in tasks)
    assert isinstance(first.body, Fault)
    assert isinstance(second.body, Fault)
    assert first.body.error == "OutOfMemoryError"


def train_tasks(there):
    body = Train(1, there.state.vector, there.terms.total.digest, there.terms.cap)
    return [Task(number, name, body, there.strategy.merges) for number, name in enumerate(there.parties, start=1)]


def test_stacks_that_end_after_the_deadline_do_not_count():
    there = on(small(chain(), fedavg(SGD), classification(ALIKE)), clients=3)
    times = iter([0.0, 0.5, 2.0, 9.0])  # begun, after the first three clients, after the next three
    there.federation.inner.now = lambda: next(times)
    ask = there.federation.send(train_tasks(there))
    reply = there.federation.receive(ask, 1.0)
    assert reply.numbers == (1, 2, 3)
    there.federation.cancel(ask)
    assert there.federation.receive(ask, None) is None
    there.federation.settle(reply.numbers)
    assert [party.pending for party in there.parties.values()] == [{}] * len(ALIKE)


def test_what_is_not_training_is_done_one_by_one():
    there = on(small(chain(), fedavg(SGD), classification(SIZES)))
    body = Evaluate(there.state.vector)
    replies = ask_all(there.federation, list(there.parties), body)
    alone = ask_all(there.federation.inner, list(there.parties), body)
    assert all(
        same_tree(dict(a.body.metrics.sums), dict(b.body.metrics.sums)) for a, b in zip(replies, alone, strict=True)
    )


def test_rows_are_put_once_and_bounded():
    puts = []
    one, two, three = (Examples(np.zeros((4, 2)), np.zeros(4)) for _ in range(3))  # 96 bytes each

    def put(examples):
        puts.append(examples)
        return examples

    rows = Rows(put, room=200)
    for name, examples in (("a", one), ("b", two), ("a", one), ("c", three), ("a", one)):
        assert rows.of(name, examples) is examples
    assert puts == [one, two, three]
    assert (list(rows.kept), rows.used) == (["c", "a"], 192)
    assert rows.of("a", two) is two  # other rows under the same name
    large = Examples(np.zeros((40, 2)), np.zeros(40))
    assert rows.of("d", large) is large
    assert "d" not in rows.kept
    rows.clear()
    assert rows.used == 0


def test_as_many_clients_train_at_once_as_memory_holds():
    model, examples = chain(), classification((10,))["site0"].train
    layout = model.layout.weighted(100)
    sizes = [
        fitting_device(replace(model.resident(), budget=budget), layout, examples, 100) for budget in (0, 20_000, 10**9)
    ]
    each = 6 * layout.size * 8 + 3 * (10 * 4 * 8 + 10 * 8)
    assert sizes == [1, 15_000 // each, 100]


def test_only_a_model_on_a_device_is_on_a_device():
    assert not on_device(chain())
    assert not on_device(linear(3))
    assert on_device(replace(chain(), device="cuda:0"))


def test_a_regression_on_a_device():
    alone, there, _ = both(line, fedavg(SGD), splits=regression(SIZES))
    np.testing.assert_allclose(there[-1].vector, alone[-1].vector, rtol=1e-10, atol=1e-12)
