import math

from report_sample import around, events

from fedloom.report import pictures
from fedloom.report.view import Estimate, SiteRow


def test_nothing_to_draw_is_empty_text():
    nothing = [{"round": 1, "metrics": {"auc": math.nan}, "sites": {"a": {"auc": None}}}]
    assert pictures.learning([], "auc") == pictures.learning(nothing, "auc") == ""
    assert pictures.sites([], "auc") == pictures.sites(nothing, "auc") == ""
    assert pictures.intervals([], "auc") == pictures.intervals([SiteRow("a", 1)], "auc") == ""


def test_one_round_shows_a_mark():
    text = pictures.learning(events(["a"], 1), "loss")
    assert "<use" in text
    assert text.count(">loss<") == 1


def test_up_to_twelve_sites_have_panels_and_more_share_a_band():
    rounds = events([f"s{place}" for place in range(13)], 3)
    assert ">median site<" in pictures.sites(rounds, "auc")
    rounds[0]["sites"].pop("s12"), rounds[1]["sites"].pop("s12"), rounds[2]["sites"].pop("s12")
    text = pictures.sites(rounds, "auc")
    assert ">s11<" in text
    assert ">median site<" not in text


def test_intervals_name_only_what_was_trained():
    text = pictures.intervals([SiteRow("a", 9, around(0.6), Estimate(0.7, math.nan, math.nan))], "auc")
    assert ">alone<" in text
    assert ">federated<" in text
    assert ">pooled<" not in text


def test_many_sites_are_ranked():
    rows = [SiteRow(f"s{place}", 9, around(0.6), around(0.6 + place / 1000)) for place in range(41)]
    assert "federated minus alone, 41 sites" in pictures.intervals(rows, "auc")
