import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.aggregate import GeometricMedian
from fedloom.core.errors import NotFinite, StrategyError, UpdateError
from fedloom.core.layout import Layout, Leaf
from fedloom.core.update import Update
from small import updates

PATIENT = GeometricMedian(iterations=2000, tolerance=0.0)


def geometric(deltas, rule=PATIENT, weights=None):
    return rule.finish(updates(np.float64(deltas), weights, dtype="float64"), len(deltas))


def spread(deltas, point):
    """Σ of the distances."""
    return math.fsum(math.dist(delta, point) for delta in deltas)


def literal(deltas, start, steps, smoothing):
    """Algorithm 2 in plain loops, as it is printed: z ← Σ βᵢ·wᵢ / Σ βᵢ."""
    point = list(start)
    for _ in range(steps):
        betas = [1 / len(deltas) / max(smoothing, math.dist(delta, point)) for delta in deltas]
        point = [
            sum(beta * delta[k] for beta, delta in zip(betas, deltas, strict=True)) / sum(betas)
            for k in range(len(point))
        ]
    return point


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
@pytest.mark.parametrize("smoothing", [1e-6, 1.0])
def test_it_takes_the_papers_steps(steps, smoothing):
    deltas = np.random.default_rng(steps).normal(size=(8, 5))
    expected = literal(deltas.tolist(), np.median(deltas, axis=0).tolist(), steps, smoothing)
    found = geometric(deltas, GeometricMedian(steps, 0.0, smoothing))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("clients", "size"), [(3, 2), (5, 2), (8, 3), (12, 5)])
def test_nothing_that_scipy_finds_is_better_but_for_the_smoothing(clients, size):
    """The smoothed sum is above the plain one by at most half of the smoothing for each client."""
    import scipy.optimize as optimize

    deltas = np.random.default_rng(clients).normal(size=(clients, size))
    best = optimize.minimize(
        lambda point: spread(deltas, point), deltas.mean(axis=0), method="Nelder-Mead", options={"xatol": 1e-9}
    )
    found = geometric(deltas)
    assert spread(deltas, found) <= best.fun + clients * PATIENT.smoothing / 2
    np.testing.assert_allclose(found, best.x, atol=1e-4)


def test_in_one_dimension_it_is_the_median():
    deltas = np.random.default_rng(0).normal(size=(9, 1))
    np.testing.assert_allclose(geometric(deltas), np.median(deltas, axis=0), atol=1e-9)


def test_the_point_of_a_triangle_is_fermats():
    """Every angle below 120°: the sides are seen from it under 120° each."""
    corners = np.array([[0.0, 0.0], [4.0, 0.0], [1.0, 3.0]])
    away = corners - geometric(corners)
    away /= np.linalg.norm(away, axis=1)[:, None]
    np.testing.assert_allclose((away @ away.T)[np.triu_indices(3, 1)], -0.5, atol=1e-6)


@pytest.mark.parametrize("far", [2.0, 16.0, 2.0**40, 2.0**90])
def test_a_minority_cannot_move_it_far_in_the_usual_number_of_steps(far):
    honest = np.random.default_rng(0).normal(size=(6, 4))
    layout = Layout((Leaf("w", (4,), "float64", bound=2.0**96),)).weighted(10)
    rows = [*honest, *np.full((4, 4), far)]
    found = GeometricMedian().finish([Update(np.append(row, 1.0), layout) for row in rows], 10)
    within = np.linalg.norm(honest - honest.mean(axis=0), axis=1).max()
    assert np.linalg.norm(found - honest.mean(axis=0)) < 4 * within


@settings(max_examples=20)
@given(order=st.permutations(range(7)), shift=st.floats(-5, 5), turn=st.floats(0, 6))
def test_it_moves_and_turns_with_the_clients_and_their_order_does_not_count(order, shift, turn):
    deltas = np.random.default_rng(0).normal(size=(7, 2))
    found = geometric(deltas)
    assert geometric(deltas[list(order)]).tobytes() == found.tobytes()
    np.testing.assert_allclose(geometric(deltas + shift), found + shift, atol=1e-6)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    np.testing.assert_allclose(geometric(deltas @ rotation), found @ rotation, atol=1e-6)


def test_it_lands_on_a_client_that_pulls_less_than_it_weighs():
    deltas = [[0.0, 0.0]] * 3 + [[1.0, 0.0], [0.0, 1.0]]
    np.testing.assert_allclose(geometric(deltas), [0, 0], atol=1e-6)


def test_more_steps_are_never_worse_and_the_tolerance_ends_them():
    deltas = np.random.default_rng(3).normal(size=(9, 4))
    sums = [spread(deltas, geometric(deltas, GeometricMedian(steps, 0.0))) for steps in (1, 2, 4, 8, 16)]
    assert sums == sorted(sums, reverse=True)
    once, many = (geometric(deltas, GeometricMedian(steps, 0.999)) for steps in (1, 50))
    assert once.tobytes() == many.tobytes()
    assert geometric(deltas, GeometricMedian(50, 0.0)).tobytes() != many.tobytes()


def test_weights_do_not_count():
    deltas = np.random.default_rng(0).normal(size=(6, 3))
    np.testing.assert_allclose(geometric(deltas, weights=2.0 ** -np.arange(6)), geometric(deltas), atol=1e-9)


def test_a_distance_beyond_float64_is_refused():
    layout = Layout((Leaf("w", (1,), "float64"),)).weighted(3)
    parts = [Update(np.array([x, 1.0]), layout) for x in (0.0, 1e200, 1.0)]
    with pytest.raises(NotFinite, match="squared distances of clients are beyond float64"):
        GeometricMedian().finish(parts, 3)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: GeometricMedian(0), "iterations must be at least 1, got 0"),
        (lambda: GeometricMedian(tolerance=-0.1), r"tolerance must be in \[0, 1\), got -0.1"),
        (lambda: GeometricMedian(tolerance=1.0), r"tolerance must be in \[0, 1\), got 1.0"),
        (lambda: GeometricMedian(smoothing=0.0), "smoothing must be above 0 and finite, got 0.0"),
        (lambda: GeometricMedian(smoothing=math.inf), "smoothing must be above 0 and finite, got inf"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, says):
    with pytest.raises(StrategyError, match=says):
        make()


def test_a_sum_of_clients_is_refused():
    one, two = updates([[1.0], [2.0]])
    with pytest.raises(UpdateError, match="the geometric median needs every client's update, got a sum of 2"):
        GeometricMedian().add(None, one + two)
