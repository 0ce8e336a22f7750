"""Held-out rows and the account of who holds what."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.core.errors import ConfigError
from fedloom.core.rng import stream
from fedloom.data.holds import Held, hold_out, holdings, who_holds_what
from fedloom.data.partition import Iid, Whole
from fedloom.data.rows import ArrayRows

STREAMS = stream(3, "partition")


def rows_of(labels: list[int], size: int = 0) -> ArrayRows:
    return ArrayRows(np.arange(len(labels))[:, None], np.array(labels, np.int64), ("a", "b", "c"))


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.floats(0, 0.99), st.integers(0, 2**32))
def test_each_class_gives_its_fraction_to_within_one_row(labels: list[int], fraction: float, seed: int) -> None:
    site = hold_out(rows_of(labels), fraction, stream(seed, "p"), "north")
    train, held = site.train.examples({}).inputs[:, 0], site.held_out.examples({}).inputs[:, 0]
    assert sorted([*train, *held]) == list(range(len(labels)))
    assert len(train) >= 1
    given, kept = np.bincount(labels, minlength=3), np.bincount(site.held_out.labels(), minlength=3)
    assert (np.abs(kept - fraction * given) <= 1 + 1e-6).all()


def test_nothing_is_held_out_of_nothing() -> None:
    site = hold_out(rows_of([0, 1]).take(np.array([], np.int64)), 0.5, STREAMS, "north")
    assert (site.train.size, site.held_out.size) == (0, 0)


def test_the_choice_depends_on_the_site_and_not_on_the_others() -> None:
    rows = rows_of([0, 1] * 50)

    def held(site: str, seed: int = 3) -> list[float]:
        return hold_out(rows, 0.2, stream(seed, "p"), site).held_out.examples({}).inputs[:, 0].tolist()  # type: ignore[no-any-return]

    assert held("north") == held("north")
    assert held("north") != held("south")
    assert held("north") != held("north", seed=4)


def test_a_simulation_holds_out_what_a_lone_site_would() -> None:
    rows = rows_of([0, 1, 2] * 20)
    sites = holdings(rows, Iid(3), 0.25, STREAMS)
    parts = Iid(3).split(rows, STREAMS)
    for name, site in sites.items():
        alone = hold_out(rows.take(parts[name]), 0.25, STREAMS, name)
        np.testing.assert_array_equal(site.held_out.examples({}).inputs, alone.held_out.examples({}).inputs)


def test_values_are_held_out_along_their_whole_range() -> None:
    rows = ArrayRows(np.zeros((100, 1)), np.arange(100.0))
    held = np.sort(hold_out(rows, 0.1, STREAMS, "north").held_out.labels())
    assert len(held) == 10
    assert set(np.diff(held)) == {10.0}


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2, float("nan")])
def test_a_fraction_beyond_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"must be in \[0, 1\)"):
        holdings(rows_of([0, 1]), Whole(), fraction, STREAMS)


def test_the_account_counts_every_class_and_none_for_regression() -> None:
    sites = holdings(rows_of([0, 0, 1, 0]), Whole("north"), 0.25, STREAMS)
    assert who_holds_what(sites) == [Held("north", 3, 1, {"a": 2, "b": 1, "c": 0})]
    values = ArrayRows(np.zeros((4, 1)), np.arange(4.0))
    assert who_holds_what(holdings(values, Whole(), 0, STREAMS)) == [Held("all", 4, 0, {})]
