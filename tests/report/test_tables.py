import io
import math

from report_sample import COMPARISON, HELD, around, events
from rich.console import Console

from fedloom.data.holds import Held
from fedloom.report.tables import comparison_table, fault_lines, held_table, rounds_table, runs_table
from fedloom.report.view import SiteRow


def shown(table):
    console = Console(file=io.StringIO(), width=140, color_system=None)
    console.print(table)
    return console.file.getvalue()


def test_held():
    text = shown(held_table(HELD))
    assert "diseased 46%  healthy 54%" in text
    assert "█" * 20 in text
    assert "97" not in shown(held_table([]))


def test_held_without_labels_and_with_many():
    assert "labels" not in shown(held_table([Held("a", 5, 1, {})]))
    assert "and 4 more" in shown(held_table([Held("a", 55, 1, {str(n): n + 1 for n in range(10)})]))
    assert "and" not in shown(held_table([Held("a", 0, 1, {"x": 0})]))


def test_names_cannot_steer_the_terminal():
    text = shown(held_table([Held("[red]a[/red]\x1b[2J", 5, 1, {"[bold]": 5})]))
    assert "[red]a[/red][2J" in text
    assert "[bold] 100%" in text
    assert "\x1b" not in text


def test_comparison():
    text = shown(comparison_table(COMPARISON, "auc"))
    assert "0.90*" in text
    assert "▼ −0.02" in text
    assert "beyond the intervals" in text
    assert "pooled" in text
    assert "personal" not in text
    assert "–" in shown(comparison_table([SiteRow("a", 3, None, around(0.5))], "auc"))


def test_runs():
    text = shown(runs_table([{"run": "r1", "status": "completed", "auc": 0.87654}, {"run": "r2", "status": "failed"}]))
    assert "0.8765" in text
    assert "–" in text
    assert shown(runs_table([]))


def test_rounds():
    rounds = [*events(["a"], 7), {"round": 8, "metrics": {"auc": math.nan}, "seconds": None}]
    text = shown(rounds_table(rounds))
    assert "61.4 kB" in text
    assert "AUC" in text
    assert text.splitlines()[-2].split() == ["8", "–", "–", "–", "–", "–", "–", "0"]
    assert shown(rounds_table([]))


def test_fault_lines():
    lines = fault_lines(events(["a"], 8))
    assert [str(line)[:30] for line in lines] == ["round 7: switzerland, train: T"]
    assert fault_lines([]) == []
