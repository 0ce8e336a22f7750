"""`fedloom audit`: what an attacker gets, tried out."""

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from ..app import App
from ..auditing import CANARIES, Audit, audit
from ..load import load
from ..store.runs import opened
from .told import console, out_console, say


def command(
    target: Annotated[str, typer.Argument(help="An app (.toml or .py), or a run's id, or `last`.")],
    set_: Annotated[list[str], typer.Option("--set", help="Change a setting of an app: key=value; repeatable.")] = [],  # noqa: B006
    canaries: Annotated[int, typer.Option(help="How many canary clients; more prove more.")] = CANARIES,
    rounds: Annotated[int | None, typer.Option(help="How many rounds, if not the app's own number.")] = None,
    confidence: Annotated[float, typer.Option(help="That a build as declared is not called broken.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Of the audit's coins.")] = 0,
    out: Annotated[Path, typer.Option("--out", help="The folder where runs live.")] = Path("runs"),
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Attack an app's protections with canary clients: a lower bound on epsilon, beside what is accounted for.

    Exits with 1 if the bound is above it: then clip, noise or sampling are not what they are said to be.
    """
    app = _app(target, set_, out)
    with console.status("canaries"):
        found = audit(app, canaries=canaries, rounds=rounds, confidence=confidence, seed=seed)
    if json_:
        print(json.dumps({"event": "audit", "app": app.name, "digest": app.digest, **found.figures()}))
    else:
        _tell(app, found)
    if found.broken:
        raise typer.Exit(1)


def _app(target: str, set_: list[str], out: Path) -> App:
    if target.endswith((".toml", ".py")):
        return load(target, set_).app
    _, journal = opened(out, target)
    with closing(journal):
        row = journal.row()
    return load(row.app, row.overrides).app


def _tell(app: App, found: Audit) -> None:
    spread = f"{found.runs} runs of {found.rounds} rounds"
    out_console.print(
        f"{app.name}: {found.canaries:,} canary clients, {found.included:,} of them in, over {spread}", highlight=False
    )
    width = "  {:44} {}"
    accounted = "∞ (nothing is claimed)" if found.accounted is None else f"{found.epsilon:.3f}"
    rows = [("ε accounted for", accounted), ("ε proved, whatever the mechanism is (one run)", f"{found.one_run:.3f}")]
    if found.independent is not None:
        rows.append(("ε proved, for noise of the declared kind", f"{found.independent:.3f}"))
    for name, value in rows:
        out_console.print(width.format(name, value), markup=False, highlight=False)
    if found.broken:
        out_console.print(f"[bold red]{found.sentence()}[/]", soft_wrap=True, highlight=False)
    else:
        say(found.sentence())
