from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.adapters.numpy import linear
from fedloom.aggregate import Krum, clients
from fedloom.aggregate.clients import Deltas
from fedloom.aggregate.krum import distances
from fedloom.core.errors import NotFinite, QuorumLost, StrategyError, UpdateError
from fedloom.core.layout import Layout, Leaf
from fedloom.core.update import Update
from fedloom.core.weights import Equal
from fedloom.recipes import fedavg, geometric_median, median, multi_krum, sgd, trimmed_mean
from fedloom.recipes import krum as recipe
from fedloom.schedule import Sync
from small import regression, small, updates


def krum(deltas, byzantine=1, keep=1, weights=None):
    return Krum(byzantine, keep).finish(updates(np.float64(deltas), weights, dtype="float64"), len(deltas))


def literal(deltas, byzantine, keep):
    """Blanchard et al., section 4, in plain loops over whole numbers, which Python adds exactly."""
    clients, scores = len(deltas), []
    for i in range(clients):
        apart = sorted(
            sum((a - b) ** 2 for a, b in zip(deltas[i], deltas[j], strict=True)) for j in range(clients) if j != i
        )
        scores.append(sum(apart[: clients - byzantine - 2]))
    best = sorted(range(clients), key=lambda i: (scores[i], i))[:keep]
    return best, scores


@st.composite
def crowds(draw):
    byzantine = draw(st.integers(0, 3))
    clients = draw(st.integers(2 * byzantine + 3, 2 * byzantine + 9))
    row = st.lists(st.integers(-6, 6), min_size=2, max_size=2)
    return byzantine, draw(st.lists(row, min_size=clients, max_size=clients)), draw(st.integers(1, clients - byzantine))


@settings(max_examples=200)
@given(crowd=crowds())
def test_it_is_the_definition_with_ties_in_order_of_dispatch(crowd):
    byzantine, deltas, keep = crowd
    best, _ = literal(deltas, byzantine, keep)
    parts = updates(np.float32(deltas))
    assert Krum(byzantine, keep).chosen(parts) == best
    expected = np.mean(np.float64(deltas)[best], axis=0)
    np.testing.assert_allclose(Krum(byzantine, keep).finish(parts, len(parts)), expected, rtol=1e-14)


@settings(max_examples=100)
@given(crowd=crowds(), shift=st.integers(-3, 3), seed=st.integers(0, 99))
def test_translation_moves_it_and_permutation_does_not_up_to_ties(crowd, shift, seed):
    byzantine, deltas, keep = crowd
    found = krum(deltas, byzantine, keep)
    np.testing.assert_allclose(krum(np.add(deltas, shift), byzantine, keep), found + shift, rtol=1e-13, atol=1e-14)
    _, scores = literal(deltas, byzantine, keep)
    if len(set(scores)) == len(scores):
        order = np.random.default_rng(seed).permutation(len(deltas))
        assert krum(np.array(deltas)[order], byzantine, keep).tobytes() == found.tobytes()


def test_two_that_score_alike_are_told_apart_by_who_was_dispatched_first():
    near = [[0.0], [1.0], [8.0]]
    assert [krum([near[i] for i in order], 0).tolist() for order in permutations(range(3))] == [
        [0.0],
        [0.0],
        [1.0],
        [1.0],
        [0.0],
        [1.0],
    ]


def test_colluding_clients_do_not_win():
    rng = np.random.default_rng(0)
    honest = np.round(rng.normal(1, 0.1, size=(7, 20)) * 2**20) / 2**20
    together = np.full((3, 20), -15.0) + rng.normal(0, 1e-3, size=(3, 20))
    for keep in (1, 4, None):
        found = krum([*together, *honest], byzantine=3, keep=keep)
        assert (np.abs(found - 1) < 0.5).all()
    assert krum([*together, *honest], 3).tolist() in honest.tolist()
    np.testing.assert_allclose(krum([*together, *honest], 3, None), honest.mean(axis=0), rtol=1e-9)


def test_weights_do_not_count():
    deltas = np.random.default_rng(0).normal(size=(9, 6))
    weights = 2.0 ** -np.arange(9)
    assert krum(deltas, 2, 3, weights) == pytest.approx(krum(deltas, 2, 3), rel=1e-8)


def test_clients_that_nearly_agree_far_from_zero_are_told_apart():
    """‖x‖² + ‖y‖² - 2x·y of these has no correct digit: they differ by 2^-31 to 63·2^-31."""
    steps = np.array([0, 1, 3, 7, 15, 31, 63])
    rows = 1.0 + steps[:, None] * 2.0**-31 * np.ones((1, 50))
    parts = [Update(np.append(row, 1.0), Layout((Leaf("w", (50,), "float64"),)).weighted(7)) for row in rows]
    expected = (np.subtract.outer(steps, steps) ** 2) * 50 * 2.0**-62
    found = distances(Deltas(parts))
    np.testing.assert_array_equal(found[~np.eye(7, dtype=bool)], expected[~np.eye(7, dtype=bool)])
    gram = rows @ rows.T
    squared = gram.diagonal()[:, None] + gram.diagonal() - 2 * gram
    assert np.abs(squared - expected).max() > expected.max() / 2


def test_the_largest_values_that_a_layout_allows_do_not_overflow():
    layout = Layout((Leaf("w", (4,), "float64", bound=2.0**96),)).weighted(5)
    parts = [Update(np.append(np.full(4, sign * 2.0**96), 2.0**-40), layout) for sign in (1, -1, 1, -1)]
    parts.append(Update(np.append(np.zeros(4), 1.0), layout))
    assert np.isfinite(distances(Deltas(parts))).all()
    assert np.isfinite(Krum(1).finish(parts, 5)).all()


@pytest.mark.parametrize("far", [1e155, 1.7e308])
def test_a_distance_beyond_float64_is_refused(far):
    layout = Layout((Leaf("w", (1,), "float64"),)).weighted(5)
    parts = [Update(np.array([x, 1.0]), layout) for x in (0.0, far, -far, 1.0, 2.0)]
    with pytest.raises(NotFinite, match="squared distances of clients are beyond float64"):
        Krum(1).finish(parts, 5)


def test_so_few_that_it_would_not_protect_are_refused():
    assert [Krum(f).least for f in (0, 1, 2, 5)] == [3, 5, 7, 13]
    assert (Krum(1, keep=9).least, Krum(1, keep=None).least) == (10, 5)
    with pytest.raises(QuorumLost, match=r"Krum\(byzantine=2, keep=1\) protects from 7 clients on, 6 were counted"):
        krum(np.zeros((6, 1)), 2)
    with pytest.raises(QuorumLost, match=r"protects from 7 clients on, 6 were counted"):
        krum(np.zeros((6, 1)), 1, keep=6)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(StrategyError, match=r"Krum.byzantine must be a number of clients, 0 or more, got -1"):
        Krum(-1)
    with pytest.raises(StrategyError, match=r"Krum.keep must be at least 1, or None for all but byzantine, got 0"):
        Krum(1, 0)


def test_a_sum_of_clients_is_refused():
    one, two = updates([[1.0], [2.0]])
    with pytest.raises(UpdateError, match="Krum needs every client's update, got a sum of 2; do not merge"):
        Krum().add(None, one + two)


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_distances_at_the_edges_of_blocks(more, monkeypatch):
    monkeypatch.setattr(clients, "BLOCK", 35)
    deltas = np.random.default_rng(0).integers(-9, 9, size=(7, 3 * 64 * 5 + more))
    found = distances(Deltas(updates(np.float32(deltas))))
    for i in range(7):
        for j in range(7):
            assert found[i, j] == (-1 if i == j else ((deltas[i] - deltas[j]) ** 2).sum())


@pytest.mark.parametrize("turn", [lambda replies: replies[::-1], lambda replies: [*replies[1:], replies[0]]])
def test_of_two_nearest_neighbours_the_first_dispatched_wins_in_whatever_order_they_answer(turn):
    """Of three clients the nearest two always score alike."""
    strategy, splits = recipe(sgd(0.1), byzantine=0), regression((12, 20, 7))
    straight = small(linear(3), strategy, splits).run(3)
    turned = small(linear(3), strategy, splits, change=turn).run(3)
    assert [state.vector.tobytes() for state in turned] == [state.vector.tobytes() for state in straight]
    assert turned[0].record.counted != straight[0].record.counted


def test_a_cohort_that_krum_cannot_protect_is_refused_when_it_meets_its_members():
    with pytest.raises(
        StrategyError, match=r"Krum\(byzantine=2, keep=1\) needs at least 7 clients in a round, but the "
    ):
        small(linear(3), recipe(byzantine=2), regression())
    with pytest.raises(StrategyError, match="but the cohort is 4; ask more, or set it for fewer that misbehave"):
        small(linear(3), recipe(cohort=4), regression())


def test_a_round_that_lost_too_many_for_krum_does_not_move():
    strategy = replace(recipe(), schedule=Sync(quorum=1))
    made = small(linear(3), strategy, regression(), change=lambda replies: replies[1:])
    with pytest.raises(QuorumLost, match="protects from 5 clients on, 4 were counted; mend the sites"):
        made.run(1)
    assert made.federation.settled == []


def test_it_keeps_learning_where_a_client_spoils_the_mean():
    def spoiled(replies):
        update = replies[0].body.update
        vector = np.append(np.full(4, 8.0), update.vector[-1]).astype(update.vector.dtype)
        return [replace(replies[0], body=replace(replies[0].body, update=replace(update, vector=vector))), *replies[1:]]

    def loss(strategy):
        made = small(linear(3), strategy, regression(shift=0.1), change=spoiled)
        (*_, last) = made.run(10)
        assert not last.record.faults
        sums = [made.model.evaluate(last.vector, party.split.train).sums for party in made.parties.values()]
        return sum(one["loss"] for one in sums) / sum(one["examples"] for one in sums)

    local = sgd(0.1, epochs=3)
    assert loss(replace(fedavg(local), weights=Equal())) > 10
    for robust in (recipe(local), multi_krum(local), trimmed_mean(local), geometric_median(local), median(local)):
        assert loss(robust) < 0.2, robust.aggregate
