"""`fedloom status`: which run, which round, who is awaited and why; also where no coordinator runs."""

import time
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..core.words import counted
from ..report.words import BAD, GOOD, NOTHING, called, duration, megabytes, number, plain
from .told import out_console, tell

if TYPE_CHECKING:
    from ..status import Standing

AGAIN_S = 1.0


def command(
    home: Annotated[Path, typer.Option(help="The folder of `fedloom serve`, or of `fedloom relay`.")],
    run: Annotated[
        str | None,
        typer.Argument(help="A run's id, or last; by default the one that is being served, or else the newest."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again every second, until the run has ended.")
    ] = False,
) -> None:
    """Say how a federation stands: round, sites, who is awaited and why. Reads files; nobody has to be up."""
    from ..status import standing

    if not watch:
        _print(standing(home, run), json_)
        return
    try:
        _watched(home, run, json_)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _print(seen: "Standing", json_: bool) -> None:
    now = datetime.now(UTC)
    if json_:
        tell(seen.figures(now))
    else:
        out_console.print(view(seen, now))


def _watched(home: Path, run: str | None, json_: bool) -> None:
    from ..status import standing

    seen = standing(home, run)
    with nullcontext() if json_ else Live(console=out_console, auto_refresh=False, transient=True) as live:
        while not seen.ended:
            if live is None:
                _print(seen, json_)
            else:
                live.update(view(seen, datetime.now(UTC)), refresh=True)
            time.sleep(AGAIN_S)
            seen = standing(home, seen.run)
    _print(seen, json_)


def view(seen: "Standing", now: datetime) -> Group:
    """Return how a run stands, for people."""
    parts: list[Any] = [_head(seen), *(Text(line, style="yellow") for line in warnings(seen, now))]
    if sites := seen.sites():
        parts += [_sites(seen, sites, now), *(Text(line, style="dim") for line in counting(seen, now))]
    parts += [Text(awaiting(one, now)) for one in seen.awaited()]
    begun = seen.serving and seen.status != "waiting"  # before that, the reason why it waits names them
    parts += [Text(line, style="yellow") for site in sites if begun for line in refusing(site)]
    parts += [Text(turned_away(one, now), style="yellow") for one in seen.refused()]
    parts += [Text(cut(site), style="red") for site in sites if seen.serving and site.get("cut")]
    parts += [Text(line, style="red") for site in sites for line in _faults(site, now)]
    return Group(*parts)


def _head(seen: "Standing") -> Text:
    text = Text(plain(seen.run), style="bold").append(f"  {plain(seen.name)}: ", style="not bold")
    text.append(seen.status, style="green" if seen.status in GOOD else "red" if seen.status in BAD else "yellow")
    text.append(f"{', ' if seen.reason else ''}{plain(seen.reason)}", style="not bold")
    now = "" if seen.ended else f"; {seen.doing}"
    return text.append(f"\n{_closed(seen)}{now}{_measured(seen)}", style="not bold")


def _closed(seen: "Standing") -> str:
    if seen.above is not None:
        return f"passes on {plain(seen.above)}" if seen.above else "has not heard of a run above"
    closed = f"{seen.closed} of {counted(seen.total, 'round')}" if seen.total else counted(seen.closed, "round")
    return f"{closed} closed"


def _measured(seen: "Standing") -> str:
    event = next((event for event in reversed(seen.rounds) if event.get("metrics")), None)
    if event is None:
        return ""
    figures = {name: value for name, value in event["metrics"].items() if name != "examples"}
    told = ", ".join(f"{called(name)} {number(value, name)}" for name, value in figures.items())
    return f"\nround {event['round']}: {told}"


def warnings(seen: "Standing", now: datetime) -> list[str]:
    """Return why what is shown may not be so any more, or not all of it."""
    return [*_unread(seen, now), *_old(seen, now)]


def _unread(seen: "Standing", now: datetime) -> list[str]:
    if not seen.unread:
        return []
    wrote = f"its {seen.who} wrote {duration(seen.age_s(now))} ago" if seen.written else f"its {seen.who} wrote nothing"
    return [f"{plain(seen.unread.rstrip('.'))}; so this is no more than what {wrote}"]


def _old(seen: "Standing", now: datetime) -> list[str]:
    age = duration(seen.age_s(now))
    if seen.late(now):
        return [f"the {seen.who} has not written for {age}: it is there, and may hang, or its disk is full"]
    if seen.serving and seen.written is None:
        return [f"the {seen.who} is beginning, and has written nothing yet"]
    if seen.serving or seen.ended or seen.written is None:
        return []
    return [f"nobody serves this run; its {seen.who} wrote {age} ago, and what follows is as it was then"]


def _sites(seen: "Standing", sites: list[dict[str, Any]], now: datetime) -> Table:
    """Return the sites in a table that fits a terminal of 80; the JSON object has all figures."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    measured = {name for site in sites for member in site["metrics"].values() for name in member}
    names = [name for name in ("loss", *_TOLD) if name in measured][:2]
    if any(len(site["metrics"]) > 1 for site in sites):
        names = names[-1:]  # what is told from lowest to highest takes the room of two
    for name in ("site", "rows", "is", "silent", "received", "sent", "took", *map(called, names)):
        side: Any = "left" if name in ("site", "is") else "right"
        table.add_column(name, justify=side, no_wrap=name != "site", min_width=4, overflow="fold")
    for site in sites:
        cells = [site["name"], f"{site['examples']:,}", _is(seen, site), _ago(site["seen"], now)]
        cells += [megabytes(site["bytes_in"]), megabytes(site["bytes_out"])]
        cells += [duration(site["seconds"][-1] if site["seconds"] else None), *(_figure(site, name) for name in names)]
        style = "" if site["connected"] or not seen.serving else "red"
        table.add_row(*(Text(plain(cell), style=style) for cell in cells))
    return table


_TOLD = ("auc", "accuracy", "r2", "rmse", "mae")  # beside the loss one of them, the first that was measured


def _figure(site: dict[str, Any], name: str) -> str:
    """Return a site's figure; of a relay, which has several members, its lowest and highest."""
    found = [measured[name] for measured in site["metrics"].values() if measured.get(name) is not None]
    if len(found) < 2:
        return number(found[0] if found else None, name)
    return f"{number(min(found), name)} to {number(max(found), name)}"


def _is(seen: "Standing", site: dict[str, Any]) -> str:
    if site["left"] or seen.ended:
        return "has left" if site["left"] else NOTHING
    if site["connected"] and (refuses := site.get("refuses")):
        return "refuses" if len(refuses) == len(site["members"]) else f"{len(refuses)} of {len(site['members'])} refuse"
    return "connected" if site["connected"] else "away"


def awaiting(one: dict[str, Any], now: datetime) -> str:
    """Return in a sentence who is awaited, since when, why, and until when."""
    why = "connected, at work"
    if one["away_since"]:
        ago = _ago(one["away_since"], now)
        why = f"away for {ago}" if one.get("came", True) else f"away since the coordinator began {ago} ago, or longer"
    left = (datetime.fromisoformat(one["lease_until"]) - now).total_seconds()
    until = f"given up in {duration(left)}" if left > 0 else "given up now"
    times = f", attempt {one['attempt']}" if one["attempt"] > 1 else ""
    asked = f"asked {_ago(one['asked'], now)} ago{times}"
    return plain(f"awaiting {one['party']}: {one['task']} {one['number']}, {asked}; {why}; {until}")


def counting(seen: "Standing", now: datetime) -> list[str]:
    """Return since when bytes are counted, while somebody counts them."""
    began = seen.seen.get("began") if seen.serving else None
    return [f"received and sent since the {seen.who} began, {_ago(began, now)} ago"] if began else []


def refusing(site: dict[str, Any]) -> list[str]:
    """Return in sentences why a site, or who is behind a relay, takes no part yet.

    >>> refusing({"name": "north", "refuses": {"north": "nobody has approved this app"}})
    ['north takes no part yet: nobody has approved this app']
    """
    return [plain(f"{member} takes no part yet: {why}") for member, why in (site.get("refuses") or {}).items()]


def turned_away(one: dict[str, Any], now: datetime) -> str:
    """Return in a sentence who has called in vain, and why."""
    return plain(f"{one['name']} was refused {_ago(one['at'], now)} ago: {one['why']}")


def cut(site: dict[str, Any]) -> str:
    """Return in a sentence why the coordinator has ended a site's connection, and it is not back.

    >>> cut({"name": "north", "cut": "site 'north' is denied: it left the study."})
    "north was cut off: site 'north' is denied: it left the study."
    """
    return plain(f"{site['name']} was cut off: {site['cut']}")


def _ago(when: str | None, now: datetime) -> str:
    if when is None:
        return NOTHING
    return duration(max(0.0, (now - datetime.fromisoformat(when)).total_seconds()))


def _faults(site: dict[str, Any], now: datetime) -> list[str]:
    """Return a site's last faults, each once, with how long ago it was last so.

    What it refuses now is said where it is said why nobody waits for it.
    """
    faults = [fault for fault in site["faults"] if fault["message"] not in (site.get("refuses") or {}).values()]
    last = {_fault(fault): fault["at"] for fault in faults}
    return [f"{_ago(at, now)} ago: {said}" for said, at in last.items()]


def _fault(fault: dict[str, Any]) -> str:
    """Return a fault with the innermost places of its trace, which name no value and no path."""
    places = f"  [{' < '.join(reversed(fault['trace'][-3:]))}]" if fault["trace"] else ""
    return plain(f"{fault['site']}, {fault['phase']}: {fault['error']}: {fault['message']}{places}")
