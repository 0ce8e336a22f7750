from report_sample import HELD

from fedloom.data.holds import Held
from fedloom.report.holdings import colours, held, labels, shares


def test_bars_name_sites_and_labels():
    text = held(HELD)
    for name in ("switzerland", "healthy", "diseased", "held out"):
        assert f">{name}<" in text


def test_nobody_holds_anything():
    assert held([]) == held([Held("a", 0, 0, {})]) == ""


def test_regression_has_bars_without_labels():
    text = held([Held("a", 30, 10, {}), Held("b", 5, 0, {})])
    assert ">training<" in text


def test_many_sites_have_a_map_or_a_histogram():
    assert "<image" in held([Held(f"s{n}", 3, 1, {"x": n % 4, "y": 1}) for n in range(61)])
    assert "training rows of 61 sites" in held([Held(f"s{n}", n, 1, {}) for n in range(61)])


def test_many_labels_have_a_map():
    assert "30 labels" in held([Held("a", 30, 0, {str(n): 1 for n in range(30)}), Held("b", 0, 2, {})])


def test_labels_are_ordered_by_number_or_name():
    assert labels([]) == []
    assert labels([Held("a", 1, 0, {"b": 1, "10": 1, "9": 1})]) == ["10", "9", "b"]


def test_shares_of_an_empty_site_are_zero():
    assert shares([Held("a", 0, 3, {})], ["x"]).tolist() == [[0.0]]


def test_colours_grow_lighter():
    light = [sum(bytes.fromhex(colour[1:])) for colour in colours(12)]
    assert light == sorted(light)
    assert len(set(colours(12))) == 12
    assert len(colours(1)) == 1
    assert colours(0) == []
