import math
from dataclasses import replace

import pytest
from report_sample import events, hospitals

from fedloom.report.words import bounds, difference, duration, megabytes, number, outcome


def test_outcome_is_one_sentence():
    said = "After 20 rounds the federated model reaches AUC 0.87 on held-out data of 4 sites"
    assert outcome(hospitals()) == said


def test_outcome_of_one_round_at_one_site():
    view = replace(hospitals(), rounds=events(["oslo"], 1))
    assert outcome(view) == "After 1 round the federated model reaches AUC 0.67 on held-out data of 1 site"


def test_outcome_names_the_round_that_was_measured_last():
    rounds = [*events(["oslo"], 1), {"round": 2}, {"round": 3, "metrics": {"auc": math.nan}}]
    assert outcome(replace(hospitals(), rounds=rounds)).endswith("of 1 site, as measured in round 1")


def test_outcome_without_a_figure():
    view = replace(hospitals(), rounds=[{"round": 1, "metrics": {"auc": None}}], figure="auc")
    assert outcome(view) == "After 1 round the AUC of the federated model has not been measured"


def test_outcome_of_a_run_that_failed_later():
    assert outcome(replace(hospitals(), status="failed")).startswith("After 20 rounds (status: failed) the federated")


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("failed", "The run failed before its first round was complete"),
        ("running", "No round has been completed yet"),
        ("stopped", "The run ended without a round"),
    ],
)
def test_outcome_without_rounds(status, told):
    assert outcome(replace(hospitals(), rounds=[], status=status)) == told


def test_what_is_not_a_number_is_a_dash():
    nothing = {number(math.nan, "auc"), difference(math.inf, "auc"), megabytes(math.nan), duration(math.nan)}
    assert nothing == {"–"}
    assert bounds(None, "auc") == ""


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.00"), (3.14159, "3.14"), (-25.31, "−25.3"), (150.2, "150"), (1e-5, "0.000010")]
)
def test_three_digits_of_a_figure_without_limits(value, text):
    assert number(value, "loss") == text
