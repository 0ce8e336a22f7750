from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kstest

from fedloom.core.draws import gaussian_of
from fedloom.core.errors import StrategyError
from fedloom.core.layout import Layout, Leaf
from fedloom.core.rng import stream
from fedloom.core.update import Update
from fedloom.stages import TreeNoise
from fedloom.stages.noise import slack

STAGE = TreeNoise(clip=1.0, noise_multiplier=2.0, delta=1e-5, steps=16)
SIZE = 50


def rounds(stage, count, size=SIZE, seed=0):
    """Yield the noise of each round on an empty sum, and the server's memory after it."""
    layout = Layout((Leaf("w", (size,)),))
    server, total = stage.start(layout), Update(np.zeros(size + 1), layout.weighted(10), 0)
    for at in range(count):
        done, server = stage.finish(total, server, stream(seed, at))
        yield done.vector[:size], server


def scale(stage, size=SIZE):
    return stage.noise_multiplier * (stage.clip + slack(Layout((Leaf("w", (size,)),)).weighted(10)))


@pytest.mark.parametrize("seeded", [True, False])
def test_the_noise_on_all_rounds_is_that_of_the_nodes_whose_keys_are_kept(seeded):
    """What is left after t rounds is one vector for each binary digit of t, whatever was taken back on the way."""
    stage, left = replace(STAGE, seeded=seeded), np.zeros(SIZE)
    for at, (noise, server) in enumerate(rounds(stage, 16), 1):
        left += noise
        assert len(server["keys"]) == at.bit_count()
        nodes = sum(gaussian_of(SIZE, bytes(key)) for key in server["keys"])
        np.testing.assert_allclose(left, scale(stage) * nodes, atol=1e-9)


def test_every_node_is_fresh_and_one_that_is_taken_back_is_forgotten():
    seen, before = set(), set()
    for _, server in rounds(STAGE, 16):
        keys = {bytes(key) for key in server["keys"]}
        assert len(keys - before) == 1
        assert not (keys - before) & seen
        seen, before = seen | keys, keys


def test_a_new_tree_begins_with_nothing_to_take_back():
    stage = replace(STAGE, steps=3)
    noises = list(rounds(stage, 7))
    assert [len(server["keys"]) for _, server in noises] == [1, 1, 2, 1, 1, 2, 1]
    assert [server["step"] for _, server in noises] == [1, 2, 3, 1, 2, 3, 1]
    first = gaussian_of(SIZE, bytes(noises[3][1]["keys"][0]))
    np.testing.assert_allclose(noises[3][0], scale(stage) * first, atol=1e-9)


def test_a_round_has_the_law_and_the_scale_that_it_says():
    """Unseeded; fails once in 10^6 runs. Round 2 adds a node and takes one back."""
    one, two = (noise for noise, _ in rounds(STAGE, 2, 20_000))
    assert kstest(one / scale(STAGE, 20_000), "norm").pvalue > 1e-6
    assert kstest(two / scale(STAGE, 20_000) / np.sqrt(2), "norm").pvalue > 1e-6
    assert kstest((one + two) / scale(STAGE, 20_000), "norm").pvalue > 1e-6


def test_a_round_that_is_done_again_has_other_noise():
    """As after a crash: the state before it is the same, and what was not shown is drawn anew."""
    *_, (_, server) = rounds(STAGE, 3)
    layout = Layout((Leaf("w", (SIZE,)),)).weighted(10)
    ends = [STAGE.finish(Update(np.zeros(SIZE + 1), layout, 0), server, stream(0, 1))[0].vector for _ in range(2)]
    assert not np.any(ends[0][:SIZE] == ends[1][:SIZE])
    seeded = replace(STAGE, seeded=True)
    assert [n.tobytes() for n, _ in rounds(seeded, 5)] == [n.tobytes() for n, _ in rounds(seeded, 5)]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"clip": 0.0}, "clip must be above 0"),
        ({"noise_multiplier": 0.0}, "noise_multiplier must be above 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
    ],
)
def test_settings_that_protect_nobody_are_refused(changes, text):
    with pytest.raises(StrategyError, match=f"TreeNoise.{text}"):
        replace(STAGE, **changes)


def test_only_keys_from_the_operating_system_claim_anything():
    assert STAGE.event().private
    assert not replace(STAGE, seeded=True).event().private
