import numpy as np
import pytest

from fedloom.aggregate import clients
from fedloom.aggregate.clients import Deltas, squares, whole
from fedloom.core import cores
from fedloom.core.errors import NotFinite
from small import updates

DELTAS = np.random.default_rng(0).normal(size=(3, 1000)).astype(np.float32)


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 128, 129, 1000])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_coordinate_is_seen_once(size, threads, monkeypatch):
    monkeypatch.setattr(cores, "THREADS", threads)
    monkeypatch.setattr(clients, "BLOCK", 6)  # two coordinates
    deltas = Deltas(updates(DELTAS[:, :size]))
    np.testing.assert_array_equal(deltas.fill(lambda block: deltas.rows(block)[1]), DELTAS[1, :size])
    np.testing.assert_array_equal(deltas.total(lambda block: np.ones(2) * (block.stop - block.start)), [size, size])


def test_partial_sums_do_not_grow_with_the_vector(monkeypatch):
    monkeypatch.setattr(clients, "BLOCK", 3)
    seen = []
    monkeypatch.setattr(clients, "spread", lambda work, pieces: seen.append(pieces) or map(work, pieces))
    Deltas(updates(DELTAS)).total(lambda block: np.ones(1))
    assert len(seen[0]) <= clients.STRETCHES


def test_weights_are_divided_out():
    deltas = Deltas(updates(DELTAS, [1.0, 0.5, 0.25]))
    np.testing.assert_array_equal(deltas.rows(slice(3, 7)), DELTAS[:, 3:7])
    np.testing.assert_array_equal(deltas.ordered(slice(3, 7)), np.sort(DELTAS[:, 3:7].T, axis=1))


@pytest.mark.parametrize("far", [1e154, 1e200, 1e308])
def test_a_distance_beyond_float64_is_refused(far):
    rows = np.array([[0.0], [far], [-far]])
    parts = updates(np.zeros((3, 1)))
    with pytest.raises(NotFinite, match="beyond float64; declare smaller bounds"):
        Deltas(parts).total(lambda block: squares(rows - rows[::-1]))


@pytest.mark.parametrize(("share", "expected"), [(0.29 * 100, 29), (0.1 * 30, 3), (0.2 * 4, 0), (0.2 * 5, 1), (1.5, 1)])
def test_a_fraction_of_clients_is_what_it_looks_like(share, expected):
    assert whole(share) == expected
