"""What every local work must do; a new one joins with one line in LOCALS."""

from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest

from fedloom.adapters.numpy import logistic
from fedloom.adapters.torch import torch_model
from fedloom.adapters.torch_nets import mlp
from fedloom.aggregate import Mean
from fedloom.core.event import DpEvent
from fedloom.core.examples import Examples, Split
from fedloom.core.rng import stream
from fedloom.core.weights import Equal
from fedloom.local import AtHome, Custom, DpSgd, Prox, Scaffold, Sgd
from fedloom.optimize import Adam, Cosine, Momentum, Step
from fedloom.recipes import fedavg
from fedloom.schedule import Sync
from fedloom.store.files import dump, restore
from small import classification, same_tree, small


def towards_zero(params, data, config):
    return {name: 0.9 * array + 0.01 for name, array in params.items()}


LOCALS = [
    Sgd(),
    Sgd(steps=3, batch_size=5, optimizer=Momentum(0.1), weight_decay=0.01),
    Sgd(batch_size=None, optimizer=Adam(0.05, bias_correction=True), rate=Cosine(10)),
    Prox(mu=0.5),
    Scaffold(sgd=Sgd(optimizer=Step(0.05))),
    AtHome(local=Sgd(), leaves=("*bias",)),
    AtHome(local=Prox(mu=0.1), leaves=("*weight",)),
    Custom(function=towards_zero),
    DpSgd(lot=0.5, clip=1.0, noise_multiplier=0.5, delta=1e-3, seeded=True),
    DpSgd(lot=5, steps=2, clip=1.0, noise_multiplier=0.5, delta=1e-3, optimizer=Momentum(0.1), seeded=True),
]
MODELS = {"numpy": lambda: logistic(4), "torch": lambda: torch_model(mlp((4,), 2, hidden=(3,)))}
SPLIT = classification()["site0"]


@pytest.fixture(params=LOCALS, ids=lambda local: type(local).__name__)
def local(request):
    return request.param


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def begun(local, model):
    """Return (start, memory) as a run would have them."""
    initial = model.init(stream(0, "init"))
    payload = local.payload(model.layout)
    start, values = np.zeros(payload.size, payload.dtype), model.layout.unpack(initial)
    for key, place in payload.unpack(start).items():
        place[...] = values.get(key, 0)
    return start, local.init(model.layout, initial)


def train(local, model, start, memory, data=SPLIT.train, dispatch=1):
    return local.train(model, start, data, memory, round=1, streams=stream(0, dispatch).child("local"))


def test_it_says_what_it_is(local):
    assert isinstance(local.stacks, bool)
    assert isinstance(local.event(), DpEvent)
    for field in fields(local):
        with pytest.raises(FrozenInstanceError):
            setattr(local, field.name, 1)


def test_the_delta_is_packed_by_the_payload(local, model):
    start, memory = begun(local, model)
    work, payload = train(local, model, start, memory), local.payload(model.layout)
    assert (work.delta.shape, work.delta.dtype) == ((payload.size,), payload.dtype)
    assert np.isfinite(work.delta).all()
    assert work.delta.any()
    assert work.examples == SPLIT.train.size


def test_what_it_is_given_is_not_written_to(local, model):
    start, memory = begun(local, model)
    kept, remembered = start.copy(), restore(dump(memory))
    inputs, targets = SPLIT.train.inputs.copy(), SPLIT.train.targets.copy()
    start.flags.writeable = False
    train(local, model, start, memory)
    np.testing.assert_array_equal(start, kept)
    assert same_tree(memory, remembered)
    np.testing.assert_array_equal(SPLIT.train.inputs, inputs)
    np.testing.assert_array_equal(SPLIT.train.targets, targets)


def test_the_streams_alone_decide(local, model):
    start, memory = begun(local, model)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again = train(local, model, start, memory), train(local, model, start, memory)
    assert first.delta.tobytes() == again.delta.tobytes()
    assert same_tree(first.memory, again.memory)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_what_was_trained_before_leaves_no_trace(local, model):
    """The model is shared by the clients of a process."""
    start, memory = begun(local, model)
    alone = train(local, model, start, memory).delta
    train(local, model, start * 0.5, memory, classification()["site1"].train, dispatch=2)
    assert train(local, model, start, memory).delta.tobytes() == alone.tobytes()


def test_earlier_results_survive_later_training(local, model):
    start, memory = begun(local, model)
    work = train(local, model, start, memory)
    kept, remembered = work.delta.copy(), restore(dump(work.memory))
    train(local, model, start * 0.5, memory, classification()["site1"].train, dispatch=2)
    np.testing.assert_array_equal(work.delta, kept)
    assert same_tree(work.memory, remembered)


def test_memory_is_a_tree_that_goes_on_with_the_same_bits(local, model):
    start, memory = begun(local, model)
    memory = train(local, model, start, memory).memory
    stored = restore(dump(memory))
    assert same_tree(stored, memory)
    one, other = train(local, model, start, memory), train(local, model, start, stored)
    assert one.delta.tobytes() == other.delta.tobytes()


def test_personal_is_a_whole_model(local, model):
    start, memory = begun(local, model)
    whole = local.personal(model.layout, start, memory)
    assert whole.shape == (model.layout.size,)
    np.testing.assert_array_equal(whole, model.init(stream(0, "init")))
    assert np.isfinite(list(model.evaluate(model.load(whole), SPLIT.held_out).view().values())).sum() > 1


def test_one_example_is_enough_and_none_moves_nothing_by_gradient(local, model):
    start, memory = begun(local, model)
    one = train(local, model, start, memory, SPLIT.train.take(slice(0, 1)))
    assert np.isfinite(one.delta).all()
    none = train(local, model, start, memory, SPLIT.train.take(slice(0, 0)))
    assert none.examples == 0
    assert isinstance(local, Custom) or not none.delta.any()


def test_bad_rows_are_a_fault_and_never_reach_the_sum(local, model):
    if isinstance(local, Custom):
        pytest.skip("this function does not look at the rows")
    splits = classification()
    bad = Examples(np.full_like(SPLIT.train.inputs, np.nan), SPLIT.train.targets)
    splits["site2"] = Split(bad, SPLIT.held_out)
    equal = {"weights": Equal(), "aggregate": Mean(over=dict.fromkeys(local.population, "members"))}
    strategy = replace(fedavg(), local=local, **equal)
    made = small(model, replace(strategy, schedule=Sync(quorum=1)), splits)
    private = isinstance(local, DpSgd)  # a fault would tell of a row: there it counts as zero
    for state in made.run(2):
        faults = [(fault.site, fault.error) for fault in state.record.faults]
        assert faults == ([] if private else [("site2", "NotFinite")])
        assert np.isfinite(state.vector).all()
