import builtins

import matplotlib
import pytest

from fedloom.core.errors import MissingExtra
from fedloom.report.canvas import FEDERATED, blank, panel, short, style, svg


def test_the_caller_keeps_its_settings(monkeypatch):
    with matplotlib.rc_context({"font.size": 31.0}):
        with style():
            assert matplotlib.rcParams["font.size"] == 9.0
        assert matplotlib.rcParams["font.size"] == 31.0


def test_svg_takes_the_colours_and_font_of_the_page():
    with style():
        drawn = blank(2)
        panel(drawn.subplots(), title="<b> $x$ & 病院").plot([1, 2], [3, 4], color=FEDERATED)
        text = svg(drawn, "p1")
    assert text.startswith('<svg aria-hidden="true"')
    assert "var(--federated)" in text
    assert "#0a0b" not in text
    assert "&lt;b&gt; $x$ &amp; 病院" in text
    assert text.count(' id="') == text.count(' id="p1-') > 0
    assert text.count("url(#") == text.count("url(#p1-") > 0
    assert "<style" not in text
    assert "DejaVu" not in text


def test_names_are_cut():
    assert short("a\nb\x00c") == "a bc"
    assert len(short("x" * 100)) == 22


def test_missing_library(monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtra, match=r"pip install 'fedloom\[report\]'"), style():
        pass
