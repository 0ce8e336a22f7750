"""The graph is regular and drawn by its seed; k and t keep to bounds that another library, and counting, confirm."""

from itertools import combinations
from math import comb

import pytest
from scipy.stats import hypergeom

from fedloom.core.errors import StrategyError
from fedloom.gather import SecAgg
from fedloom.gather.secure.graph import Graph, Rule, exposure, failure, fewest, shares_of

NAMES = tuple(f"c{i}" for i in range(31))


@pytest.mark.parametrize("neighbours", [2, 8, 28])
def test_everybody_has_as_many_neighbours_and_is_theirs(neighbours):
    graph = Graph(NAMES, neighbours, b"seed")
    for name in NAMES:
        assert len(graph.of(name)) == neighbours
        assert name not in graph.of(name)
        assert all(name in graph.of(other) for other in graph.of(name))


@pytest.mark.parametrize("neighbours", [0, 30, 32, 100])
def test_as_many_neighbours_as_there_are_others_is_everybody(neighbours):
    assert Graph(NAMES, neighbours, b"seed").of("c0") == set(NAMES) - {"c0"}


def test_another_seed_draws_another_graph():
    seen = {frozenset(Graph(NAMES, 4, bytes([seed])).of("c0")) for seed in range(50)}
    assert len(seen) == 50
    assert set().union(*seen) == set(NAMES) - {"c0"}


@pytest.mark.parametrize(
    ("clients", "corrupt", "neighbours", "shares"),
    [
        *((300, 30, 42, 22), (300, 60, 58, 36), (300, 100, 82, 57)),
        *((1000, 100, 52, 28), (1000, 200, 74, 45), (1000, 333, 114, 78)),
        *((10000, 1000, 60, 32), (10000, 2000, 90, 54), (10000, 3333, 140, 95)),
    ],
)
def test_the_fewest_neighbours_are_those_of_an_independent_derivation(clients, corrupt, neighbours, shares):
    """Worked out before this code, by other people, from tails and a union bound."""
    assert fewest(clients, corrupt, clients // 10) == neighbours
    assert shares_of(clients, neighbours, corrupt, clients // 10) == shares


@pytest.mark.parametrize(
    ("clients", "corrupt", "dropped"), [(60, 6, 6), (100, 20, 10), (300, 30, 30), (1000, 200, 100)]
)
def test_both_bounds_are_kept_and_just_so(clients, corrupt, dropped):
    k = fewest(clients, corrupt, dropped)
    t = shares_of(clients, k, corrupt, dropped)
    assert 2 * t > k
    held = clients * hypergeom.sf(t - 1, clients - 1, corrupt, k)
    lost = clients * hypergeom.sf(k - t, clients - 1, dropped, k)
    assert exposure(clients, k, t, corrupt, dropped) >= held * (1 - 1e-9)
    assert failure(clients, k, t, dropped) == pytest.approx(lost, rel=1e-6, abs=1e-300)
    assert exposure(clients, k, t, corrupt, dropped) <= 2.0**-40
    assert lost <= 2.0**-30
    assert all(shares_of(clients, fewer, corrupt, dropped) is None for fewer in range(2, k, 2))


def pieces(there, size, reach):
    """Return how many parts the ring falls into: walk from client to client."""
    left, found = set(there), 0
    while left:
        found, edge = found + 1, {left.pop()}
        while edge:
            one = edge.pop()
            near = {(one + away) % size for away in range(-reach, reach + 1)} & left
            left -= near
            edge |= near
    return found


@pytest.mark.parametrize(("size", "k", "gone"), [(10, 2, 3), (10, 4, 4), (12, 4, 5), (12, 6, 6)])
def test_the_bound_of_falling_apart_holds_when_all_is_counted(size, k, gone):
    apart = sum(pieces(set(range(size)) - set(some), size, k // 2) > 1 for some in combinations(range(size), gone))
    bound = exposure(size, k, k + 1, 0, gone)
    assert 0 < apart / comb(size, gone) <= bound


def test_up_to_200_clients_auto_is_everybody_and_beyond_it_is_not():
    auto = SecAgg(neighbours="auto")
    assert auto.rule(200) == SecAgg().rule(200)
    assert auto.rule(201).neighbours == fewest(201, 20, 20)
    assert auto.rule(201).survivors == 181


def test_a_cohort_too_small_to_choose_from_is_everybody():
    assert SecAgg(neighbours=8).rule(9) == SecAgg().rule(9)
    assert SecAgg(neighbours=300).rule(300) == SecAgg().rule(300)


@pytest.mark.parametrize(("neighbours", "clients"), [(10, 1000), (50, 1000), (40, 300)])
def test_fewer_neighbours_than_are_safe_are_refused(neighbours, clients):
    with pytest.raises(StrategyError, match=r"is not safe if \d+ of them help the coordinator"):
        SecAgg(neighbours=neighbours).rule(clients)


@pytest.mark.parametrize("neighbours", [0, 1, 3, -2, "all", 2.0, True])
def test_neighbours_that_are_none_are_refused(neighbours):
    with pytest.raises(StrategyError, match="must be an even number"):
        SecAgg(neighbours=neighbours)


@pytest.mark.parametrize("name", ["corrupt", "dropouts"])
@pytest.mark.parametrize("part", [-0.1, 0.5, float("nan")])
def test_parts_that_are_none_are_refused(name, part):
    with pytest.raises(StrategyError, match=rf"SecAgg.{name} must be in \[0, 1/2\)"):
        SecAgg(**{name: part})


def test_a_rule_is_a_value():
    assert SecAgg(survivors=9).rule(10) == Rule(0, 7, 9)
    with pytest.raises(StrategyError, match="survivors must be at least 3"):
        SecAgg(survivors=2)
