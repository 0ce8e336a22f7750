"""A coordinator that attacks: what it gets where nothing protects, and which of our refusals and noises stop it.

That other models for other clients, and lies about who dropped out, give nothing under a hidden sum is shown in
`tests/gather/secure/test_hidden_client.py`.
"""

from dataclasses import replace

import numpy as np
import pytest

from fedloom.adapters.torch import torch_model
from fedloom.adapters.torch_nets import mlp
from fedloom.core.errors import StrategyError
from fedloom.core.examples import Examples, Split
from fedloom.core.task import Fault, Task, Train
from fedloom.core.weights import Equal
from fedloom.recipes import fedsgd
from fedloom.schedule.fold import publics
from fedloom.stages import FixedPoint, GaussianNoise
from small import small

PIXELS, BINS, CLASSES = 16, 200, 3
IMAGES = np.random.default_rng(0).random((6, PIXELS)).astype(np.float32)


def sites():
    """Return six sites of one image each."""
    rows = [Examples(IMAGES[at : at + 1], np.array([at % CLASSES])) for at in range(len(IMAGES))]
    return {f"site{at}": Split(row, row) for at, row in enumerate(rows)}


def there(strategy, hidden=(BINS,)):
    return small(torch_model(mlp((PIXELS,), CLASSES, hidden=hidden), bound=1024.0), strategy, sites())


def crafted(layout):
    """Return a model that sorts images into bins by their brightness: Fowl et al., ICLR 2022 (arXiv 2110.13057).

    Unit k is on for images brighter than edge k, and all units act alike on what comes behind them; so what changes
    from one unit to the next is due to the images of one bin.
    """
    vector = np.zeros(layout.size, np.float32)
    parts = layout.unpack(vector)
    parts["hidden1.weight"][...] = 1 / PIXELS
    parts["hidden1.bias"][...] = -np.linspace(0.2, 0.8, BINS)
    parts["output.weight"][...] = np.array([[0.1], [-0.2], [0.05]])
    return vector


def unsorted(update, layout):
    """Return an image for each bin that one image fell into: differences of neighbouring units."""
    parts = layout.unpack(np.asarray(update, np.float64)[: layout.size])
    weight = np.diff(np.vstack([parts["hidden1.weight"], np.zeros(PIXELS)]), axis=0)
    bias = np.diff(np.append(parts["hidden1.bias"], 0.0))
    full = np.abs(bias) > 1e-9
    return weight[full] / bias[full, None]


def stolen(update, layout):
    """Return how many of the images are among those that were reconstructed."""
    found = unsorted(update, layout)
    return sum(any(np.abs(image - each).max() < 0.02 for each in found) for image in IMAGES)


def asked(made, start, number=1):
    body = Train(1, start, made.terms.total.digest, made.terms.cap, publics(made.strategy, made.state))
    return [next(p.answer([Task(number + at, name, body)])).body for at, (name, p) in enumerate(made.parties.items())]


def summed(made, replies):
    total = None
    for reply in replies:
        total = made.strategy.aggregate.add(total, reply.update)
    return total


EQUAL = replace(fedsgd(1.0), weights=Equal())


def test_a_crafted_layer_gives_every_image_away_also_in_a_sum():
    """Nothing protects: and a hidden sum is the same sum, so secure aggregation alone does not stop it either."""
    for strategy in (EQUAL, replace(EQUAL, stages=(FixedPoint(),))):
        made = there(strategy)
        total = summed(made, asked(made, crafted(made.model.layout)))
        assert stolen(total.vector, made.model.layout) == len(IMAGES)


def test_an_honest_layer_gives_fewer_away_and_not_none():
    """Six images and two hundred units: some unit is on for one image alone. A hidden sum of few hides little."""
    made = there(EQUAL)
    found = stolen(summed(made, asked(made, made.state.vector)).vector, made.model.layout)
    assert 0 < found < len(IMAGES)


def test_noise_of_differential_privacy_limits_it():
    noise = GaussianNoise(clip=1.0, noise_multiplier=1.0, delta=1e-3)
    made = there(replace(EQUAL, stages=(noise,)))
    total = summed(made, asked(made, crafted(made.model.layout)))
    noised, _ = noise.finish(total, None, None)
    assert stolen(noised.vector, made.model.layout) == 0


def test_a_layer_that_was_not_agreed_on_is_refused():
    """A coordinator that puts a wider layer in front, or asks as if there were one, is told why not."""
    honest, wider = there(EQUAL, hidden=(8,)), there(EQUAL)
    body = Train(1, crafted(wider.model.layout), wider.terms.total.digest, wider.terms.cap)
    reply = next(honest.parties["site0"].answer([Task(1, "site0", body)])).body
    assert isinstance(reply, Fault)
    assert (reply.error, "compare the apps" in reply.message) == ("DigestMismatch", True)
    told = Train(1, crafted(wider.model.layout), honest.terms.total.digest, honest.terms.cap)
    reply = next(honest.parties["site0"].answer([Task(1, "site0", told)])).body
    assert (reply.error, "the shared vector must have" in reply.message) == ("LayoutMismatch", True)


def test_nor_can_the_protection_be_talked_out_of_a_client():
    """The stage is in the client's own copy: the same task, its delta is clipped."""
    noise = GaussianNoise(clip=1.0, noise_multiplier=1.0, delta=1e-3)
    made = there(replace(EQUAL, stages=(noise,)))
    for reply in asked(made, crafted(made.model.layout)):
        assert np.linalg.norm(reply.update.vector[:-1]) <= 1 + 1e-6


def test_a_strategy_that_checks_single_clients_is_refused_with_a_hidden_sum():
    from fedloom import NormBound, SecAgg

    with pytest.raises(StrategyError, match="SecAgg hides single clients, but NormBound must see them"):
        replace(EQUAL, stages=(FixedPoint(), NormBound(1.0)), gather=SecAgg())
