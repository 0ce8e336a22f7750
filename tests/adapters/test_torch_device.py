"""The resident stack: what it weighs has the host's bits, what it gathers are the client's rows, refusals are named."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedloom.adapters.torch import torch_model
from fedloom.core.errors import DataError, OutOfBound
from fedloom.core.examples import Examples
from fedloom.core.layout import Layout, Leaf
from fedloom.core.model import Resident
from fedloom.core.update import weigh_many

MODEL = torch_model(lambda: nn.Linear(2, 3))
STACK = MODEL.resident()


@st.composite
def sums(draw):
    """Return a layout of one to three leaves with bounds of their own, deltas (K, P) within them, and weights."""
    dtype = draw(st.sampled_from(["float32", "float64"]))
    bounds = draw(st.lists(st.sampled_from([0.125, 1.0, 3.7, 16.0, 1024.0]), min_size=1, max_size=3))
    leaves = tuple(Leaf(f"w{i}", (2,), dtype, bound=bound) for i, bound in enumerate(bounds))
    clients = draw(st.integers(1, 5))
    unit = st.floats(-0.984375, 0.984375, width=32)
    rows = draw(st.lists(st.lists(unit, min_size=2 * len(bounds), max_size=2 * len(bounds)), min_size=clients,
                         max_size=clients))  # fmt: skip
    weights = draw(st.lists(st.floats(2.0**-20, 1.0), min_size=clients, max_size=clients))
    return Layout(leaves).weighted(100), np.array(rows, dtype) * np.repeat(bounds, 2).astype(dtype), weights


@given(sums())
def test_a_sum_has_the_same_bits_on_device_and_host(drawn):
    layout, deltas, weights = drawn
    deltas += 0.0  # a sum of negative zeros is one on the host only
    host = weigh_many(deltas, layout, weights)
    device = STACK.weigh(torch.tensor(deltas), layout, weights)
    assert (STACK.read(device.vector) + 0.0).tobytes() == (host.vector + 0.0).tobytes()
    assert (device.count, device.layout) == (host.count, host.layout)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 17.0, -1e30])
def test_what_may_not_be_added_is_refused_and_left_as_it_was(bad):
    layout = Layout((Leaf("w", (3,)),)).weighted(4)
    deltas = torch.tensor([[1.0, 2.0, 3.0], [0.0, bad, 0.0]])
    before = deltas.clone()
    with pytest.raises(OutOfBound, match="beyond its bound, or not finite"):
        STACK.weigh(deltas, layout, [0.5, 1.0])
    assert deltas.numpy().tobytes() == before.numpy().tobytes()


def test_a_weight_makes_a_large_delta_fit():
    layout = Layout((Leaf("w", (1,)),)).weighted(4)
    assert STACK.weigh(torch.tensor([[31.0]]), layout, [0.5]).vector.tolist() == [15.5, 0.5]
    with pytest.raises(OutOfBound):
        STACK.weigh(torch.tensor([[33.0]]), layout, [0.5])


@pytest.mark.parametrize("weights", [[0.0, 1.0], [0.5, 1.5], [float("nan"), 1.0]])
def test_weights_are_in_the_half_open_unit_interval(weights):
    with pytest.raises(OutOfBound, match=r"weights must be in \(0, 1\]"):
        STACK.weigh(torch.zeros(2, 1), Layout((Leaf("w", (1,)),)).weighted(4), weights)


def test_batches_are_gathered_from_all_clients_rows():
    data = [Examples(np.full((n, 2), n, np.float64), np.arange(n) % 3) for n in (2, 3)]
    places = np.array([[[0, 1], [4, 2]]])
    batch = STACK.gather([STACK.put(one) for one in data], places, np.ones((1, 2, 2), np.float32))
    assert batch.inputs.dtype == torch.float32
    assert batch.inputs[0, :, :, 0].tolist() == [[2, 2], [3, 3]]
    assert batch.targets[0].tolist() == [[0, 1], [2, 0]]


@pytest.mark.parametrize(("targets", "told"), [([0, 3], "got 0 to 3"), ([-1, 2], "got -1 to 2")])
@pytest.mark.parametrize("factory", [lambda: nn.Linear(2, 3), lambda: nn.Sequential(nn.Linear(2, 3))])
def test_class_numbers_are_judged_before_they_reach_the_device(factory, targets, told):
    with pytest.raises(DataError, match=f"class numbers must be 0 to 2, for 3 outputs; {told}"):
        torch_model(factory).resident().put(Examples(np.zeros((2, 2)), np.array(targets)))


def test_one_row_for_all_and_a_row_for_each():
    start = np.arange(9, dtype=np.float32)
    x = STACK.load(start, 3)
    x[1] += 1
    assert STACK.moved(x, start).tolist() == [[0] * 9, [1] * 9, [0] * 9]
    own = np.stack([start, start * 2])
    assert STACK.moved(STACK.load(own, 2), own).tolist() == [[0] * 9] * 2


def test_memory_is_a_budget_or_what_the_device_says():
    assert replace(STACK, budget=7).free() == 7
    assert STACK.free() == 1 << 30
    assert STACK.exhausted(torch.OutOfMemoryError("CUDA out of memory."))
    assert not STACK.exhausted(RuntimeError("something else"))
    assert isinstance(STACK, Resident)
    assert not isinstance(MODEL.stack(), Resident)
