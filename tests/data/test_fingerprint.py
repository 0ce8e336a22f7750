"""The same rows are the same data set, whatever they are called and however they are saved; others are not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.core.errors import DataError
from fedloom.data.fingerprint import SKETCH, fingerprint
from fedloom.data.rows import ArrayRows, SiteRows, TableRows
from fedloom.data.schema import Column, Schema
from fedloom.data.table import read_table
from fedloom.data.texts import read_texts

NONE = np.array([], np.int64)
KEY = b"a key of the site"


def site(rows):
    return SiteRows(rows, rows.take(NONE))


def drawn(size, seed=0, width=3):
    draws = np.random.default_rng(seed)
    return ArrayRows(draws.normal(size=(size, width)).astype(np.float32), draws.integers(2, size=size), ("a", "b"))


def table(folder, text, features=("age",), name="rows.csv"):
    (folder / name).write_text(text)
    columns = tuple(Column(each, missing="drop") for each in features)
    return site(TableRows(read_table(read_texts(folder / name), Schema(columns, "sick", classes=("0", "1")))))


TEXT = "age,pulse,sick\n63,80,1\n41,60.50,0\n52,71,0\n"


def test_a_copy_under_another_name_is_the_same_data_set(tmp_path):
    assert fingerprint(table(tmp_path, TEXT), KEY) == fingerprint(table(tmp_path, TEXT, name="copy.csv"), KEY)


def test_order_of_rows_and_columns_and_the_spelling_of_numbers_do_not_matter(tmp_path):
    other = "sick,age,pulse\n0,52.0,71\n1,6.3e1,80\n0,41, 60.5\n"
    assert fingerprint(table(tmp_path, TEXT), KEY) == fingerprint(table(tmp_path, other, name="b.csv"), KEY)


def test_an_app_that_reads_other_columns_has_the_same_data_set(tmp_path):
    one, two = (fingerprint(table(tmp_path, TEXT, features), KEY) for features in (("age",), ("age", "pulse")))
    assert one == two


def test_a_changed_row_is_another_data_set_that_shares_rows(tmp_path):
    before = fingerprint(table(tmp_path, TEXT), KEY)
    after = fingerprint(table(tmp_path, TEXT.replace("41", "42"), name="b.csv"), KEY)
    assert before.digest != after.digest
    assert before.shares(after)


def test_rows_that_an_apps_schema_leaves_out_leave_a_data_set_that_shares_the_others(tmp_path):
    text = TEXT + ",90,1\n"
    assert fingerprint(table(tmp_path, text), KEY).shares(fingerprint(table(tmp_path, text, ("pulse",)), KEY))


def test_another_key_has_other_fingerprints():
    rows = site(drawn(5))
    assert not fingerprint(rows, KEY).shares(fingerprint(rows, b"another"))


def test_a_row_that_is_there_twice_counts_twice():
    rows = drawn(4)
    twice = fingerprint(site(rows.take(np.array([0, 1, 2, 3, 3]))), KEY)
    once = fingerprint(site(rows), KEY)
    assert twice.digest != once.digest
    assert (twice.rows, twice.sketch) == (5, once.sketch)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(0, 60))
def test_how_rows_are_divided_and_ordered_changes_nothing(seed, cut):
    rows = drawn(60)
    order = np.random.default_rng(seed).permutation(60)
    divided = SiteRows(rows.take(order[:cut]), rows.take(order[cut:]))
    assert fingerprint(divided, KEY) == fingerprint(site(rows), KEY)


@settings(max_examples=40)
@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_small_data_sets_share_exactly_what_they_share(one, two):
    rows = drawn(31)
    first, second = (fingerprint(site(rows.take(np.array(sorted(part), np.int64))), KEY) for part in (one, two))
    assert first.shares(second) == (bool(one & two) or one == two)


def test_large_data_sets_that_share_a_twentieth_are_found():
    rows = drawn(8000)
    first, second = (fingerprint(site(rows.take(np.arange(start, start + 4000))), KEY) for start in (0, 3800))
    assert len(first.sketch) == SKETCH
    assert first.shares(second)
    assert not first.shares(fingerprint(site(drawn(4000, seed=1)), KEY))


def test_rows_of_an_unknown_kind_are_refused():
    class Other:
        size = 1

    with pytest.raises(DataError, match="rows of type Other cannot be told apart"):
        fingerprint(SiteRows(Other(), Other()), KEY)
