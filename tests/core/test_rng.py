import copy
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import kstest, pearsonr

from fedloom.core.rng import Streams, stream


def test_the_same_question_gives_the_same_numbers():
    first, again = stream(3, 1)("batches"), stream(3, 1)("batches")
    assert first.random(8).tobytes() == again.random(8).tobytes()
    assert stream(3, 1).integer("seed") == stream(3, 1).integer("seed")


def test_every_point_of_the_tree_is_another():
    points = [stream(seed, dispatch) for seed in range(20) for dispatch in (*range(20), "init", "1", "round 1")]
    points += [point.child(name) for point in points for name in (0, "0", "shuffle")]
    assert len({point.key for point in points}) == len(points)
    drawn = {point(purpose).integers(2**63) for point in points for purpose in ("a", "b")}
    assert len(drawn) == 2 * len(points)


def test_a_child_and_a_draw_of_one_name_do_not_share_numbers():
    point = stream(1, 1)
    draws = [point("x").random(), point.child("x")("x").random(), point.child("x").child("x")("x").random()]
    assert len(set(draws)) == 3


def test_neighbouring_streams_are_uniform_and_uncorrelated():
    """2 × 20 000 numbers; thresholds of a test that fails once in 10^4 seeds, and these seeds are fixed."""
    one, two = stream(0, 1)("batches").random(20_000), stream(0, 2)("batches").random(20_000)
    firsts = np.array([stream(0, dispatch)("batches").random() for dispatch in range(1, 2001)])
    assert kstest(one, "uniform").pvalue > 1e-4
    assert kstest(firsts, "uniform").pvalue > 1e-4
    assert pearsonr(one, two).pvalue > 1e-4


def test_integers_have_63_bits():
    seeds = [stream(0, dispatch).integer("seed") for dispatch in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62


def test_numbers_are_those_of_philox_with_the_key():
    point = stream(5, 9)
    philox = np.random.Philox(key=int.from_bytes(point.child("x").key, "little"))
    assert point("x").bytes(100) == np.random.Generator(philox).bytes(100)
    assert copy.deepcopy(point("x")).random() == point("x").random()


def test_a_stream_is_its_key_alone():
    point = stream(5, 9)
    assert Streams(point.key) == point
    assert len(point.key) == 16


@pytest.mark.parametrize("seed", ["0", "1", "4242"])
def test_other_processes_draw_the_same(seed):
    code = (
        "from fedloom.core.rng import stream; s = stream(7, 3); print(s('x').integers(2**62), s.child('y').integer(1))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    here = stream(7, 3)
    assert found == [str(here("x").integers(2**62)), str(here.child("y").integer(1))]


def test_the_global_generator_is_not_touched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    stream(1, 1)("x").normal(size=100)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
