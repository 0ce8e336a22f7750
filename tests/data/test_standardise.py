"""Federated means and scales against NumPy on pooled rows, and the same bits in any order and grouping."""

from collections.abc import Sequence
from fractions import Fraction
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.core.errors import ConfigError, DataError, LayoutMismatch, QuorumLost, UpdateError
from fedloom.core.task import Measure
from fedloom.core.update import Update, fold
from fedloom.data.schema import Column, Schema
from fedloom.data.standardise import LIMBS, exact_sum, layout_of, measure, statistics

Site = dict[str, np.ndarray]
SCHEMA = Schema((Column("x", missing="mean"), Column("z", missing="mean")), "y", "regression")


def asked(sites: Sequence[Site], groups: int = 0):
    def ask(body: Measure) -> list[Update]:
        updates = [measure(site, body.what, body.known) for site in sites]
        parts = [updates[at::groups] for at in range(groups)] if groups else [[update] for update in updates]
        return [reduce(fold, part, None) if groups else part[0] for part in parts if part]

    return ask


def some_sites(scale: float, shift: float) -> list[Site]:
    generator = np.random.default_rng(5)
    sites = [{name: generator.normal(shift, scale, size) for name in ("x", "z")} for size in (3, 40, 1, 17, 8)]
    sites[1]["x"][::3] = np.nan
    sites[2]["x"][:] = np.nan
    return sites


@pytest.mark.parametrize(
    ("scale", "shift"), [(1.0, 0.0), (2.0, 300.0), (1e-6, 0.0), (1e12, 1e15), (3.0, 1.7e9), (1e-9, 1e-3)]
)
def test_the_result_is_that_of_pooled_rows(scale: float, shift: float) -> None:
    sites = some_sites(scale, shift)
    found = statistics(asked(sites), SCHEMA)
    for name in ("x", "z"):
        pooled = np.concatenate([site[name] for site in sites])
        pooled = pooled[~np.isnan(pooled)].astype(np.longdouble)
        assert found[name]["mean"] == pytest.approx(float(pooled.mean()), rel=1e-9, abs=1e-9 * scale)
        assert found[name]["scale"] == pytest.approx(float(pooled.std()), rel=1e-9)


@given(st.permutations(range(5)), st.integers(0, 4))
def test_order_and_grouping_of_sites_do_not_change_a_bit(order: list[int], groups: int) -> None:
    sites = some_sites(0.1, 1 / 3)
    assert statistics(asked([sites[at] for at in order], groups), SCHEMA) == statistics(asked(sites), SCHEMA)


@given(st.lists(st.floats(-(2.0**62), 2.0**62), min_size=1, max_size=20), st.integers(1, 5))
def test_dividing_rows_among_sites_keeps_the_mean(values: list[float], cuts: int) -> None:
    schema = Schema((Column("x"),), "y", "regression")
    sites = [{"x": part} for part in np.array_split(np.array(values), cuts)]
    exact = float(sum(map(Fraction, values), Fraction()) / len(values))
    assert statistics(asked(sites), schema)["x"]["mean"] == pytest.approx(exact, rel=1e-12, abs=1e-40)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e9, 3.3e17])
def test_a_constant_column_keeps_its_value_and_a_scale_of_one(value: float) -> None:
    sites = [{"x": np.full(size, value)} for size in (10, 3)]
    assert statistics(asked(sites), Schema((Column("x"),), "y", "regression")) == {"x": {"mean": value, "scale": 1.0}}


def test_exact_sums_survive_cancellation() -> None:
    assert exact_sum([1e17, 0.1, -1e17]) == Fraction(0.1)
    assert exact_sum([]) == 0


def test_a_column_that_nobody_has_is_refused() -> None:
    sites = [{"x": np.array([np.nan, np.nan]), "z": np.ones(2)}, {"x": np.array([]), "z": np.ones(0)}]
    with pytest.raises(DataError, match="column 'x': the cell is missing in every training row of every site"):
        statistics(asked(sites), SCHEMA)


def test_sources_without_numeric_columns_ask_nothing() -> None:
    def ask(body: Measure) -> list[Update]:
        raise AssertionError(body)

    assert statistics(ask, None) == {}
    assert statistics(ask, Schema((Column("s", "categorical", ("a",)),), "y", "regression")) == {}


def test_malformed_answers_are_refused() -> None:
    with pytest.raises(QuorumLost, match="no site answered"):
        statistics(lambda body: [], SCHEMA)
    other = Schema((Column("x"), Column("w")), "y", "regression")
    with pytest.raises(LayoutMismatch):
        statistics(asked(some_sites(1, 0)), other)
    with pytest.raises(ConfigError, match="got 'median'"):
        layout_of("median", ("x",))

    def negative(body: Measure) -> list[Update]:
        update = measure({"x": np.array([1.0]), "z": np.array([1.0])}, body.what, body.known)
        if body.what == "variance":
            update.vector[LIMBS - 1] = -1
        return [update]

    with pytest.raises(UpdateError, match="squared deviations is negative"):
        statistics(negative, SCHEMA)


def test_numbers_beyond_the_range_are_refused_not_wrapped() -> None:
    with pytest.raises(DataError, match="not below 2"):
        measure({"x": np.array([1e60])}, "mean", {})
