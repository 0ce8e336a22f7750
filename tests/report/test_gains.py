import math

import pytest
from report_sample import COMPARISON, around, many

from fedloom.report.gains import best, change, gained, said, used_columns
from fedloom.report.view import Estimate, SiteRow

UNKNOWN = Estimate(math.nan, math.nan, math.nan)


def site(name, alone, federated):
    return SiteRow(name, 10, None if alone is None else around(alone), None if federated is None else around(federated))


def test_four_hospitals():
    said = gained(COMPARISON, "auc")
    assert said.startswith("3 of 4 sites gain: switzerland +0.28 (alone 0.43 → federated 0.71), beyond the intervals; ")
    assert "cleveland +0.03 (alone 0.87 → federated 0.90), within the intervals" in said
    assert "long beach loses −0.02 (alone 0.74 → federated 0.72), within the intervals." in said
    assert said.endswith("Worst off with the federated model is switzerland, at AUC 0.71.")


def test_a_difference_is_shown_as_nothing_where_the_values_read_the_same():
    same, gain = (change(site("a", 0.7746, federated), "auc") for federated in (0.7654, 0.7846))
    assert (same.direction, said(same)) == (0, "0.00")
    assert (gain.direction, said(gain)) == (1, "+0.01")


def test_columns_that_no_site_fills_are_left_out():
    assert used_columns([site("a", 0.8, 0.9)]) == ("alone", "federated")
    assert used_columns([]) == ("alone", "federated")
    own = SiteRow("a", 10, around(0.8), None, personal=around(0.9), pooled=around(0.9))
    assert used_columns([own]) == ("alone", "personal", "pooled")


def test_one_site():
    assert gained([site("oslo", 0.8, 0.7)], "auc") == (
        "oslo loses −0.10 (alone 0.80 → federated 0.70), within the intervals."
    )


def test_lower_is_better():
    said = gained([site("oslo", 0.5, 0.4), site("bergen", 0.5, 0.9)], "mae")
    assert "oslo gains −0.10 (alone 0.500 → federated 0.400)" in said
    assert "bergen loses +0.40 (alone 0.500 → federated 0.900), beyond the intervals." in said
    assert said.endswith("Worst off with the federated model is bergen, at MAE 0.900. (For MAE, lower is better.)")


def test_ties_and_nobody_lost():
    said = gained([site("a", 0.80, 0.801), site("b", 0.7, 0.7)], "auc")
    assert said.startswith("Nobody lost. Unchanged: a (0.80), b (0.70). Worst off")


def test_values_that_read_the_same_are_ties():
    assert change(site("a", 0.846, 0.854), "auc").direction == 0
    assert change(site("a", 0.8549, 0.8551), "auc").direction == 0


def test_missing_estimates_are_named():
    said = gained([site("a", 0.8, 0.9), site("b", None, 0.9), SiteRow("c", 5, UNKNOWN, around(0.5))], "auc")
    assert said.endswith("Not compared, because an estimate is missing: b, c.")


@pytest.mark.parametrize("rows", [[], [site("a", None, 0.9)], [SiteRow("a", 5, UNKNOWN, UNKNOWN)]])
def test_nothing_to_compare(rows):
    assert gained(rows, "auc").startswith("Alone and federated cannot be compared")


def test_unknown_bounds():
    rows = [SiteRow("a", 1, Estimate(0.5, math.nan, math.nan), around(0.9))]
    assert "intervals unknown" in gained(rows, "auc")
    assert change(rows[0], "auc").clear is None


def test_many_sites_are_counted():
    said = gained(many(rounds=0).comparison, "auc")
    assert "of 200 sites gain, " in said
    assert said.count("client-") <= 7
    assert len(said) < 800


def test_best_leaves_pooled_out_and_shares_ties():
    row = SiteRow("a", 9, around(0.8), around(0.851), around(0.852), around(0.99))
    assert best(row, "auc") == {"federated", "personal"}
    assert best(row, "loss") == {"alone"}
    assert best(SiteRow("a", 9, None, around(0.8), None, around(0.7)), "auc") == frozenset()
