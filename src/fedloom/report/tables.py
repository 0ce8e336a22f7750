"""The same facts for the terminal, as rich tables. Names are shown as they are: no markup, no control characters."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ..data.holds import Held
from .gains import best, change, said, used_columns
from .history import Rounds, faults, finite
from .holdings import labels
from .view import Estimate, SiteRow
from .words import BAD, GOOD, NOTHING, bounds, called, duration, megabytes, number, plain

BAR = 20  # characters of the longest bar
_EIGHTHS = " ▏▎▍▌▋▊▉"
_STYLES = {1: "green", 0: "", -1: "red"}
_ARROWS = {1: "▲", 0: "=", -1: "▼"}


def bar(value: float, most: float, width: int = BAR) -> str:
    """Return a bar of unicode blocks, `width` characters long for the largest value.

    >>> bar(3, 8, width=4), bar(0, 8), bar(0, 0)
    ('█▌', '', '')
    """
    eighths = round(value / most * width * 8) if most > 0 else 0
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def held_table(held: Sequence[Held]) -> Table:
    """Return who holds what: rows, a bar, and the share of each label."""
    table = _table("site", "train", "held out", left=("site",))
    table.padding = (0, 1, 0, 0)  # so that two labels fit a terminal of 80
    table.add_column("", no_wrap=True)
    names = labels(held)
    if names:
        table.add_column("labels")
    most = max((site.train for site in held), default=0)
    for site in held:
        cells = [_name(site.site), Text(f"{site.train:,}"), Text(f"{site.held_out:,}"), Text(bar(site.train, most))]
        table.add_row(*cells, *([Text(_shares(site, names), style="dim")] if names else []))
    return table


def comparison_table(rows: Sequence[SiteRow], figure: str) -> Table:
    """Return each site's figure by how the model was trained, with intervals; * marks a site's best without pooling."""
    used = used_columns(rows)
    table = _table("site", "n", *used, "difference", left=("site",), title=called(figure))
    table.caption, table.caption_justify = "* best of what a site can have without pooling rows", "left"
    for row in rows:
        winners = best(row, figure)
        cells = [_estimate(getattr(row, name), figure, name in winners) for name in used]
        table.add_row(_name(row.site), Text(f"{row.examples:,}"), *cells, _change(row, figure))
    return table


def runs_table(runs: Sequence[Mapping[str, Any]]) -> Table:
    """Return one line per run; the columns are the keys of the first, and "status" is coloured."""
    names = list(runs[0]) if runs else ["run"]
    table = _table(*names, left=names)
    table.columns[0].no_wrap = True  # what other commands take
    for run in runs:
        table.add_row(*(_status(run.get(n)) if n == "status" else _name(_brief(_shown(run.get(n)))) for n in names))
    return table


def rounds_table(rounds: Rounds) -> Table:
    """Return one line per round: pooled figures, training loss, traffic, time and the number of faults."""
    names = list(dict.fromkeys(name for event in rounds for name in event.get("metrics") or () if name != "examples"))
    table = _table("round", *(called(name) for name in names), "training loss", "down", "up", "time", "faults")
    table.padding = (0, 0)  # so that eleven columns fit a terminal of 80
    for event in rounds:
        figures = event.get("metrics") or {}
        trained = (event.get("training") or {}).get("loss")
        cells = [number(figures[name] if finite(figures.get(name)) else None, name) for name in names]
        wire = [megabytes(event.get("bytes_down")), megabytes(event.get("bytes_up")), duration(event.get("seconds"))]
        lost = len(event.get("faults") or ())
        told = Text(str(lost), style="red" if lost else "dim")
        table.add_row(str(event["round"]), *cells, number(trained if finite(trained) else None, "loss"), *wire, told)
    return table


def privacy_lines(rounds: Rounds) -> list[Text]:
    """Return what the rounds have spent in privacy, as a line; nothing where nothing is claimed.

    >>> print(privacy_lines([{"round": 5, "epsilon": 1.5, "delta": 1e-3, "epsilons": {"oslo": 1.5, "bonn": 1.25}}])[0])
    ε = 1.5 at δ = 0.001 after round 5; by site: oslo 1.5, bonn 1.25
    """
    last = rounds[-1] if rounds else {}
    if "delta" not in last:
        return []
    sites = ", ".join(f"{plain(site)} {epsilon:.4g}" for site, epsilon in (last.get("epsilons") or {}).items())
    told = f"ε = {last['epsilon']:.4g} at δ = {last['delta']:g} after round {last['round']}"
    return [Text(f"{told}; by site: {sites}" if sites else told)]


def fault_lines(rounds: Rounds) -> list[Text]:
    """Return a line per fault.

    >>> lost = {"site": "oslo", "phase": "train", "error": "TimeoutError", "message": "no answer in 60 s"}
    >>> print(fault_lines([{"round": 3, "faults": [lost]}])[0])
    round 3: oslo, train: TimeoutError: no answer in 60 s
    """
    found = faults(rounds)
    return [Text(plain(f"round {f.round}: {f.site}, {f.phase}: {f.error}: {f.message}"), style="red") for f in found]


def _table(*names: str, left: Sequence[str] = (), title: str | None = None) -> Table:
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for name in names:
        table.add_column(Text(plain(name)), justify="left" if name in left else "right")
    return table


def _shares(site: Held, names: Sequence[str]) -> str:
    """Return the labels a site holds with their shares, the six largest where there are more."""
    whole = sum(site.labels.values())
    held = [name for name in names if site.labels.get(name, 0)]
    shown = sorted(held, key=lambda name: -site.labels[name])[:6] if len(held) > 6 else held
    told = [f"{plain(name)} {site.labels[name] / whole:.0%}" for name in shown]
    return "  ".join([*told, f"and {len(held) - 6} more"] if len(held) > 6 else told)


def _estimate(estimate: Estimate | None, figure: str, wins: bool) -> Text:
    value = number(estimate.value if estimate else None, figure)
    text = Text(f"{value}{'*' if wins else ''}", style="bold" if wins else "")
    limits = bounds(estimate, figure)
    return text.append(f"\n{limits}", style="not bold dim") if limits else text


def _change(row: SiteRow, figure: str) -> Text:
    made = change(row, figure)
    if made is None:
        return Text(NOTHING)
    text = Text(f"{_ARROWS[made.direction]} {said(made)}", style=_STYLES[made.direction])
    return text.append("\nbeyond the intervals", style="dim") if made.clear else text


def _status(value: Any) -> Text:
    text = _shown(value)
    return Text(plain(text), style="green" if text in GOOD else "red" if text in BAD else "yellow")


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and not finite(value)):
        return NOTHING
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _brief(text: str) -> str:
    """Return the text up to its first semicolon: a failed run tells of every client, and `show` has it all."""
    first, rest, _ = text.partition(";")
    return f"{first} …" if rest else first


def _name(text: str) -> Text:
    return Text(plain(text))


def predictions_table(lines: Sequence[Sequence[str]], total: int) -> Table:
    """Return a header and some rows of predictions, out of `total`."""
    table = _table(*lines[0])
    for line in lines[1:]:
        table.add_row(*(_name(cell) for cell in line))
    if total > len(lines) - 1:
        table.caption = f"the first {len(lines) - 1} of {total} rows; --output FILE writes them all"
    return table


def plan_table(plans: Sequence[Mapping[str, Any]]) -> Table:
    """Return plans beside one another; columns are the keys of the first."""
    table = _table(*plans[0], left=(next(iter(plans[0])),))
    for column in table.columns:
        column.no_wrap = True
    for plan in plans:
        table.add_row(*(_name(str(value)) for value in plan.values()))
    return table
