"""`fedloom curve`: what privacy costs in quality, by one command."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..core.errors import ConfigError
from ..core.words import counted
from ..curve import curve
from ..load import load
from ..report.curve import Curve, drawn
from ..store.files import write_whole
from ..store.folders import filled
from .told import console, out_console, say, tell


def command(
    app: Annotated[str, typer.Argument(help="An app with dp_fedavg or dp_sgd_fedavg: a .toml or a .py file.")],
    epsilon: Annotated[
        str, typer.Option(help="Budgets of all rounds together, with commas; inf is without noise.")
    ] = "0.5,1,2,4,8,inf",
    seeds: Annotated[int, typer.Option(help="Runs at each budget, with seeds from the app's on.")] = 1,
    set_: Annotated[list[str], typer.Option("--set", help="Change a setting: key=value; repeatable.")] = [],  # noqa: B006
    out: Annotated[Path, typer.Option(help="Where curve.json and curve.png go.")] = Path("curve"),
    engine: Annotated[str, typer.Option(help="As for `fedloom run`.")] = "auto",
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Train an app at several privacy budgets, each with the noise that it needs, and draw what that costs."""
    budgets, loaded = parsed(epsilon), load(app, set_)
    with filled(out, "choose another --out"), console.status("") as status:
        found = curve(loaded.app, budgets, seeds=seeds, engine=engine, tick=status.update)
    write_whole(out / "curve.json", json.dumps(found.figures(), indent=1).encode())
    drawn(found, out / "curve.png")
    if json_:
        tell(found.figures())
        return
    out_console.print(_table(found))
    part = "the official test part" if found.measured_on == "test" else "all sites' held-out rows"
    say(f"{found.app}: {found.figure} on {part} after {counted(found.rounds, 'round')}; one {found.unit} is protected.")
    say(f"Each line is a run of its own on the same rows; to publish several spends their sum. {out / 'curve.png'}")


def parsed(text: str) -> list[float]:
    """Return budgets; raises `ConfigError` for what is no number above 0.

    >>> parsed("0.5, 2,inf")
    [0.5, 2.0, inf]
    """
    try:
        budgets = [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--epsilon takes numbers with commas between them, such as 0.5,1,2,inf; got {text!r}."
        ) from None
    if not all(budget > 0 for budget in budgets):
        raise ConfigError(f"--epsilon takes numbers above 0, got {text!r}.")
    return budgets


def _table(found: Curve) -> Table:
    table = Table(box=SIMPLE_HEAD)
    several = "median" if len(found.seeds) > 1 else ""
    for name in ("budget ε", "noise multiplier", f"ε spent at δ {found.delta:g}", f"{found.figure} {several}".strip()):
        table.add_column(name, justify="right")
    if several:
        table.add_column("least to most", justify="right")
    for point in found.points:
        spent = "∞" if point.epsilon == float("inf") else f"{point.epsilon:.3f}"
        budget = "∞" if point.budget == float("inf") else f"{point.budget:g}"
        noise = f"{point.noise_multiplier:.3f}" if point.noise_multiplier else "none"
        span = [f"{min(point.values):.4f} to {max(point.values):.4f}"] if several else []
        table.add_row(budget, noise, spent, f"{point.median:.4f}", *span)
    return table
