"""A hostile client's stages: limits are gone, and what the server needs to decode is there."""

import numpy as np

from fedloom.core.layout import Layout, Leaf
from fedloom.core.rng import stream
from fedloom.core.update import Update
from fedloom.stages import AdaptiveNoise, Clip, FixedPoint, Quantize
from fedloom.stages.ignored import Ignored

LAYOUT = Layout((Leaf("w", (4,)),))
DELTA = Update(np.float32([3, -4, 0, 1]), LAYOUT)


def sent(stage, public=None):
    return Ignored(stage).encode(DELTA, None, public, stream(0, 1))[0]


def test_limits_are_ignored():
    assert sent(Clip(0.1)).vector.tolist() == [3, -4, 0, 1]
    fixed = sent(FixedPoint(limit=0.5))
    assert fixed.vector.tolist() == [3, -4, 0, 1]
    assert fixed.layout == FixedPoint(limit=0.5).payload(LAYOUT)
    noise = AdaptiveNoise(noise_multiplier=1.0, delta=1e-5, bit_noise=1.0, clip=0.1)
    assert sent(noise, 0.1).vector.tolist() == [3, -4, 0, 1, -0.5]


def test_what_is_decoded_is_encoded_as_by_anybody():
    honest = Quantize(8).encode(DELTA, None, None, stream(0, 1))[0]
    assert sent(Quantize(8)).vector.tobytes() == honest.vector.tobytes()


def test_it_answers_as_the_stage_that_it_hides():
    for stage in (Clip(0.1), Quantize(8), FixedPoint()):
        hidden = Ignored(stage)
        assert (hidden.each, hidden.sums, hidden.event()) == (stage.each, stage.sums, stage.event())
        assert hidden.payload(LAYOUT) == stage.payload(LAYOUT)
        assert (hidden.init(LAYOUT), hidden.start(LAYOUT), hidden.public(None)) == (None, None, None)
