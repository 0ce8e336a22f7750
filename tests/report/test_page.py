import builtins
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from report_sample import COMPARISON, HELD, around, events, hospitals, many

from fedloom.core.errors import MissingExtra
from fedloom.data.holds import Held
from fedloom.report.gains import gained
from fedloom.report.page import render
from fedloom.report.view import Estimate, SiteRow

VOID = {"meta", "br", "link", "img", "hr", "input"}
NAMESPACES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


class Balanced(HTMLParser):
    """Notes elements that are not closed in order, ids that occur twice, and the text outside pictures and styles."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.words, self.tags = [], [], [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_data(self, data):
        if not {"svg", "style"} & set(self.open):
            self.words.append(data)


def read(page):
    """Return the visible text of a page, having checked that it is sound and refers to nothing outside."""
    parser = Balanced()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))
    assert set(re.findall(r"""https?://[^"'\s<]*""", page)) <= NAMESPACES
    assert not {"script", "link", "img", "iframe"} & parser.tags
    assert "@import" not in page
    return re.sub(r"\s+", " ", " ".join(parser.words))


def test_four_hospitals():
    page = render(hospitals())
    text = read(page)
    assert "After 20 rounds the federated model reaches AUC 0.87 on held-out data of 4 sites." in text
    assert gained(COMPARISON, "auc") in text
    assert "✓ completed" in text
    assert "2.4 MB" in text
    assert "61.4 kB" in text
    assert "no answer within 60 s" in text
    assert "ε = ∞ (no differential privacy)" in text
    assert "fedloom resume heart-20250301-7f3a" in text
    assert "whose digest is sha256:51c07be2a9" in text
    assert "personal" not in text
    assert page.count("<svg") == 4
    assert page.count('class="best"') == 4
    order = [
        text.index(words) for words in ("Who gained", "Who holds", "Traffic", "Faults", "Who could learn", "How to")
    ]
    assert order == sorted(order)


def test_equal_views_give_equal_pages():
    view = replace(hospitals(), rounds=events(["a", "b"], 2))
    assert render(view) == render(view)


def test_names_are_text():
    evil = '<script>alert("x")</script>&$\\frac{$'
    view = replace(
        hospitals(),
        run=f"{evil} run",
        app=evil,
        reason=evil,
        trust=evil,
        settings={evil: evil},
        rounds=[{**events([evil], 1)[0], "faults": [{"site": evil, "phase": evil, "error": evil, "message": evil}]}],
        held=[Held(evil, 5, 1, {evil: 5})],
        comparison=[SiteRow(evil, 5, around(0.5), around(0.6), around(0.7))],
        comparison_note=evil,
    )
    page = render(view)
    assert evil in read(page)
    assert "<script" not in page
    assert "personal" in page


def test_a_run_that_failed_at_once():
    view = replace(hospitals(), status="failed", reason="1 of 4 sites answered.", rounds=[], held=[], comparison=[])
    page = render(view)
    text = read(page)
    assert "The run failed before its first round was complete." in text
    assert "✗ failed 1 of 4 sites answered." in re.sub(r" (started|engine|seed) \S+( \d\d:\d\d)?", "", text)
    assert "None recorded." in text
    assert hospitals().comparison_note in text
    assert "<svg" not in page


def test_without_a_comparison_or_a_note():
    assert "No comparison was made." in read(render(replace(hospitals(), rounds=[], comparison=[], comparison_note="")))


def test_figures_that_are_not_numbers():
    unknown = Estimate(math.nan, math.nan, math.nan)
    rounds = [{"round": 1, "metrics": {"mae": math.nan}, "sites": {"a": {"mae": None}}, "training": None}]
    rows = [SiteRow("a", 0, unknown, None), SiteRow("b", 1, around(0.5), Estimate(0.4, math.nan, math.nan))]
    view = replace(hospitals(), figure="mae", rounds=rounds, held=[Held("a", 7, 0, {})], comparison=rows)
    text = read(render(view))
    assert "has not been measured" in text
    assert "lower is better" in text
    assert "intervals unknown" in text
    assert "nan" not in text.lower()


def test_many_sites_and_rounds():
    page = render(many())
    text = read(page)
    assert "After 500 rounds" in text
    assert "client-199" in text
    assert "What federating changed" in text
    assert len(page) < 600_000


def test_one_site_and_one_round():
    view = replace(hospitals(), rounds=events(["oslo"], 1), held=HELD[:1], comparison=COMPARISON[:1])
    assert "on held-out data of 1 site." in read(render(view))


def test_missing_library(monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name == "jinja2":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtra, match=r"pip install 'fedloom\[report\]'"):
        render(hospitals())
