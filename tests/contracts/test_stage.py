"""What every stage must do; a new one joins with one line in STAGES."""

from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest

from fedloom.adapters.numpy import logistic
from fedloom.core.event import NOT_PRIVATE, DpEvent
from fedloom.core.layout import Layout, Leaf
from fedloom.core.rng import stream
from fedloom.core.update import Update
from fedloom.core.weights import Equal
from fedloom.recipes import fedavg, sgd
from fedloom.stages import (
    AdaptiveNoise,
    BandNoise,
    Clip,
    FixedPoint,
    GaussianNoise,
    LaplaceNoise,
    LocalGaussianNoise,
    LocalLaplaceNoise,
    NormBound,
    Quantize,
    Rotate,
    SkellamNoise,
    TreeNoise,
)
from fedloom.store.files import dump, restore
from small import classification, same_tree, small

STAGES = [
    *(FixedPoint(), FixedPoint(limit=0.25)),
    *(Clip(0.5), Clip(1e6), NormBound(0.5), Quantize(2), Quantize(8), Quantize(13)),
    GaussianNoise(clip=0.5, noise_multiplier=1e-3, delta=1e-5, seeded=True),
    GaussianNoise(clip=0.5, noise_multiplier=1e-3, delta=1e-5),
    LaplaceNoise(clip=0.5, noise_multiplier=1e-3, delta=1e-5, seeded=True),
    AdaptiveNoise(noise_multiplier=1e-3, delta=1e-5, bit_noise=0.5, seeded=True),
    *(Rotate(), Rotate(seed=3)),
    TreeNoise(clip=0.5, noise_multiplier=1e-3, delta=1e-5, steps=4, seeded=True),
    BandNoise(clip=0.5, noise_multiplier=1e-3, delta=1e-5, seeded=True),
    LocalGaussianNoise(clip=0.5, noise_multiplier=0.1, delta=1e-5, seeded=True),
    LocalLaplaceNoise(clip=0.5, noise_multiplier=0.1, delta=1e-5, seeded=True),
    SkellamNoise(clip=0.5, noise_multiplier=0.1, delta=1e-5, survivors=2, seeded=True),
]
LAYOUTS = [
    Layout((Leaf("w", (3, 4)), Leaf("b", (5,)), Leaf("mean", (2,), kind="buffer"))),
    Layout((Leaf("w", (6,)),)).plus("control", Layout((Leaf("w", (6,)),)), bound=1024.0),
    Layout((Leaf("w", (9,), "float64"),)),
    Layout((Leaf("w"),)),
]
STREAMS = stream(0, 1).child("stage").child(0)


@pytest.fixture(params=STAGES, ids=repr)
def stage(request):
    return request.param


@pytest.fixture(params=range(len(LAYOUTS)))
def layout(request, stage):
    """Return a layout; buffers are refused by stages that add noise."""
    found = LAYOUTS[request.param]
    noisy = stage.event() != NOT_PRIVATE or isinstance(stage, Rotate)
    return found.take(lambda leaf: leaf.kind == "parameter") if noisy else found


def delta(layout, side=None):
    vector = np.random.default_rng(0).normal(size=layout.size).astype(layout.dtype)
    return Update(vector, layout, side=side or {})


def sent(stage, update, streams=STREAMS):
    layout = stage.payload(update.layout)
    return stage.encode(update, stage.init(layout), stage.public(stage.start(layout)), streams)


def test_it_says_what_it_needs(stage):
    assert isinstance(type(stage).each, bool)
    assert isinstance(type(stage).sums, bool)
    assert isinstance(stage.event(), DpEvent)
    for field in fields(stage):
        with pytest.raises(FrozenInstanceError):
            setattr(stage, field.name, 1)


def test_encode_does_not_write_into_what_it_was_given(stage, layout):
    update = delta(layout)
    kept = update.vector.copy()
    update.vector.flags.writeable = False
    sent(stage, update)
    np.testing.assert_array_equal(update.vector, kept)


def test_decode_does_not_write_into_what_came(stage, layout):
    encoded, _ = sent(stage, delta(layout))
    kept, side = encoded.vector.copy(), dump(dict(encoded.side))
    encoded.vector.flags.writeable = False
    stage.decode(encoded)
    np.testing.assert_array_equal(encoded.vector, kept)
    assert dump(dict(encoded.side)) == side


def test_there_and_back_keeps_layout_dtype_and_shape(stage, layout):
    back = stage.decode(sent(stage, delta(layout))[0])
    assert back.layout == stage.payload(layout)
    assert (back.vector.dtype, back.vector.shape, back.count) == (layout.dtype, (back.layout.size,), 1)
    assert np.isfinite(back.vector).all()


def test_a_zero_delta_stays_zero_unless_the_client_adds_noise(stage, layout):
    if isinstance(stage, SkellamNoise | LocalGaussianNoise | LocalLaplaceNoise):
        return
    zero = Update(np.zeros(layout.size, layout.dtype), layout)
    assert not stage.decode(sent(stage, zero)[0]).vector[: layout.size].any()


def test_the_streams_alone_decide(stage, layout):
    one, other = sent(stage, delta(layout))[0], sent(stage, delta(layout))[0]
    assert one.vector.tobytes() == other.vector.tobytes()
    assert same_tree(dict(one.side), dict(other.side))


def test_side_values_of_others_survive(stage, layout):
    back = stage.decode(sent(stage, delta(layout, {"weight": 0.25}))[0])
    assert dict(back.side) == {"weight": 0.25}


def test_what_is_sent_can_be_stored_and_so_can_the_memories(stage, layout):
    encoded, memory = sent(stage, delta(layout))
    parts = {"vector": encoded.vector, "side": dict(encoded.side), "memory": memory, "server": stage.start(layout)}
    assert same_tree(restore(dump(parts)), parts)


def test_finish_leaves_its_input_alone_and_keeps_the_layout(stage, layout):
    totals = stage.payload(layout).weighted(3)
    total = Update(np.random.default_rng(1).normal(size=totals.size), totals, 3)
    kept = total.vector.copy()
    finished, _ = stage.finish(total, stage.start(layout), STREAMS)
    np.testing.assert_array_equal(total.vector, kept)
    assert finished.layout == totals
    assert stage.sums or finished.vector.tobytes() == kept.tobytes()


def test_a_small_federation_learns_with_it(stage):
    from dataclasses import replace

    strategy = replace(fedavg(sgd(0.5)), weights=Equal(), stages=(stage,))
    made = small(logistic(4), strategy, classification())
    strategy.fits(made.terms.total)
    states = made.run(3)
    assert all(not s.record.faults and len(s.record.counted) == 5 for s in states)
    assert np.abs(states[-1].vector).max() > 0
