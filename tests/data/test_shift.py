"""Feature skew: what a client's inputs look like, the same however its rows are taken."""

from typing import Any

import numpy as np
import pytest

from fedloom.core.errors import ConfigError, DataError
from fedloom.core.rng import stream
from fedloom.data.holds import holdings
from fedloom.data.partition import Dirichlet, Iid, Whole
from fedloom.data.rows import ArrayRows, Rows, TableRows
from fedloom.data.schema import Column, Schema
from fedloom.data.shift import Shifted
from fedloom.data.table import read_table
from fedloom.data.texts import Texts

STREAMS = stream(3, "partition")
KNOWN = {"age": {"mean": 1.0, "scale": 2.0}}


def images(count: int = 400) -> ArrayRows:
    inputs = np.arange(count * 16, dtype=np.uint8).reshape(count, 1, 4, 4)
    return ArrayRows(inputs, np.arange(count) % 2, ("no", "yes"), scale=1 / 255)


def table(count: int = 400) -> TableRows:
    columns = {
        "sex": ["f", "m"] * (count // 2),
        "age": ["", *map(str, range(count - 1))],
        "sick": ["no", "no", "yes", "yes"] * (count // 4),
    }
    features = (Column("sex", "categorical", ("f", "m")), Column("age", missing="mean", indicator=True))
    schema = Schema(features, "sick", classes=("no", "yes"))
    return TableRows(read_table(Texts(columns, range(2, count + 2), "my.csv"), schema))


def seen(rows: Rows, partition: Any, holdout: float = 0.0, seed: int = 3) -> dict[str, Any]:
    sites = holdings(rows, partition, holdout, stream(seed, "partition"))
    return {name: site.train.examples(KNOWN).inputs for name, site in sites.items()}


@pytest.mark.parametrize("rows", [images(), table()], ids=["images", "table"])
def test_rows_labels_and_sums_are_those_of_the_inner_partition(rows: Rows) -> None:
    inner = Dirichlet(3, alpha=1.0, min_size=2)
    plain, shifted = holdings(rows, inner, 0.25, STREAMS), holdings(rows, Shifted(inner, noise=0.5), 0.25, STREAMS)
    assert list(plain) == list(shifted)
    for name, site in plain.items():
        own = shifted[name].train
        assert own.class_names == site.train.class_names
        np.testing.assert_array_equal(own.labels(), site.train.labels())
        assert own.examples(KNOWN).inputs.dtype == np.float32
        assert own.examples(KNOWN).inputs.shape == site.train.examples(KNOWN).inputs.shape
        if isinstance(rows, TableRows):
            np.testing.assert_array_equal(own.column("age"), site.train.column("age"))
            assert own.measure("mean", {}).vector.tolist() == site.train.measure("mean", {}).vector.tolist()


@pytest.mark.parametrize("rows", [images(), table()], ids=["images", "table"])
def test_no_shift_is_no_shift(rows: Rows) -> None:
    plain, shifted = seen(rows, Iid(3)), seen(rows, Shifted(Iid(3)))
    for name, inputs in plain.items():
        np.testing.assert_array_equal(shifted[name], inputs)


def test_noise_has_the_variance_that_the_paper_gives_to_client_i_of_n() -> None:
    rows, clients, noise = ArrayRows(np.zeros((8000, 25)), np.zeros(8000)), 4, 0.2
    for at, inputs in enumerate(seen(rows, Shifted(Iid(clients), noise=noise)).values()):
        assert inputs.var() == pytest.approx(noise * (at + 1) / clients, rel=0.04)
        assert abs(inputs.mean()) < 0.01


def test_of_a_table_only_numbers_get_noise() -> None:
    plain, shifted = seen(table(), Iid(2)), seen(table(), Shifted(Iid(2), noise=1.0))
    for name, inputs in plain.items():
        beside = shifted[name] - inputs
        assert (beside[:, [0, 1, 3]] == 0).all()
        assert beside[:, 2].std() == pytest.approx(np.sqrt((int(name[-1]) + 1) / 2), rel=0.2)


def test_brightness_and_contrast_are_one_change_for_a_whole_client() -> None:
    plain, shifted = seen(images(), Iid(3)), seen(images(), Shifted(Iid(3), brightness=0.3, contrast=0.5))
    changes = []
    for name, inputs in plain.items():
        mean, now = inputs.mean((1, 2, 3), keepdims=True), shifted[name].mean((1, 2, 3), keepdims=True)
        assert np.ptp(now - mean) < 1e-5
        slope = ((shifted[name] - now) * (inputs - mean)).sum() / ((inputs - mean) ** 2).sum()
        np.testing.assert_allclose(shifted[name] - now, slope * (inputs - mean), atol=1e-5)
        changes.append((float((now - mean).mean()), float(slope)))
    assert all(abs(b) <= 0.3 and 0.5 <= c <= 1.5 for b, c in changes)
    assert len({round(b, 4) for b, _ in changes}) == len({round(c, 4) for _, c in changes}) == 3


def test_held_out_rows_are_shifted_as_if_nothing_had_been_held_out() -> None:
    partition = Shifted(Iid(2), noise=0.3, brightness=0.1, contrast=0.2)
    whole = holdings(images(), partition, 0.0, STREAMS)
    for name, site in holdings(images(), partition, 0.25, STREAMS).items():
        every = {row.tobytes() for row in whole[name].train.examples({}).inputs}
        parts = [row.tobytes() for part in (site.train, site.held_out) for row in part.examples({}).inputs]
        assert set(parts) == every


def test_a_shift_depends_on_seed_and_name_and_not_on_the_others_rows() -> None:
    parts = {name: images().take(np.arange(10)) for name in ("north", "south")}
    partition = Shifted(Whole(), noise=0.3, brightness=0.1)
    both = {name: part.examples({}).inputs for name, part in partition.shift(parts, STREAMS).items()}
    again = partition.shift({"east": images(2), "south": parts["south"]}, STREAMS)["south"].examples({}).inputs
    np.testing.assert_array_equal(both["south"], again)
    assert (both["north"] != both["south"]).all()
    other = partition.shift(parts, stream(4, "partition"))["south"].examples({}).inputs
    assert (other != both["south"]).all()


def test_taking_and_joining_keep_what_each_client_sees() -> None:
    first, second = Shifted(Iid(2), noise=0.3).shift({"a": images(6), "b": images(6)}, STREAMS).values()
    rows = images(6)
    first, second = (
        Shifted(Iid(2), noise=0.3)
        .shift({"a": rows.take(np.arange(3)), "b": rows.take(np.arange(3, 6))}, STREAMS)
        .values()
    )
    a, b = (part.examples({}).inputs for part in (first, second))
    joined = first.join([second])
    np.testing.assert_array_equal(joined.examples({}).inputs, np.concatenate([a, b]))
    np.testing.assert_array_equal(joined.take(np.array([4, 0])).examples({}).inputs, np.stack([b[1], a[0]]))
    assert joined.take(np.array([], np.int64)).examples({}).inputs.shape == (0, 1, 4, 4)
    with pytest.raises(DataError, match="shifted together"):
        first.join([rows])


@pytest.mark.parametrize("rows", [images(8), table(8)], ids=["images", "table"])
def test_the_rows_themselves_are_untouched(rows: Rows) -> None:
    before = rows.examples(KNOWN).inputs.tolist()
    seen(rows, Shifted(Whole(), noise=1.0))
    assert rows.examples(KNOWN).inputs.tolist() == before


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"noise": -0.1}, "noise must be a number of at least 0"),
        ({"noise": float("nan")}, "noise must be a number of at least 0"),
        ({"brightness": float("inf")}, "brightness must be a number of at least 0"),
        ({"contrast": 1.0}, r"contrast must be in \[0, 1\)"),
    ],
)
def test_settings_beyond_their_range_are_refused(settings: dict[str, float], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Shifted(Whole(), **settings)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="its inner partition is shifted already"):
        Shifted(Shifted(Whole()))
    with pytest.raises(ConfigError, match="brightness and contrast are for arrays"):
        seen(table(), Shifted(Whole(), brightness=0.1))
