"""`fedloom audit`: what an attacker gets, tried out."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from ..app import App
from ..auditing import CANARIES, Audit, audit
from ..core.errors import ConfigError
from ..core.words import counted
from ..exposure import expose, keep
from ..load import load
from ..publish import publish
from ..report.exposed import lines
from ..running import resume
from ..store.runs import opened
from .told import console, out_console, say, tell


def command(
    target: Annotated[str, typer.Argument(help="An app (.toml or .py), or a run's id, or `last`.")],
    set_: Annotated[list[str], typer.Option("--set", help="Change a setting of an app: key=value; repeatable.")] = [],  # noqa: B006
    canaries: Annotated[int, typer.Option(help="How many canary clients; more prove more.")] = CANARIES,
    rounds: Annotated[int | None, typer.Option(help="How many rounds, if not the app's own number.")] = None,
    confidence: Annotated[float, typer.Option(help="That a build as declared is not called broken.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Of the audit's coins.")] = 0,
    out: Annotated[Path, typer.Option("--out", help="The folder where runs live.")] = Path("runs"),
    report: Annotated[
        bool, typer.Option("--report", help="Of a run: also infer members and invert gradients; write its report anew.")
    ] = False,
    shadows: Annotated[
        int, typer.Option(help="With --report: shadow models; each trains the whole app. 0: none.")
    ] = 16,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Attack an app's protections with canary clients: a lower bound on epsilon, beside what is accounted for.

    Exits with 1 if the bound is above it: then clip, noise or sampling are not what they are said to be.
    """
    if report:
        _report(target, out, json_, canaries=canaries, shadows=shadows, seed=seed)
        return
    app = _app(target, set_, out)
    with console.status("canaries"):
        found = audit(app, canaries=canaries, rounds=rounds, confidence=confidence, seed=seed)
    if json_:
        tell({"event": "audit", "app": app.name, "digest": app.digest, **found.figures()})
    else:
        _tell(app, found)
    if found.broken:
        raise typer.Exit(1)


def _report(target: str, out: Path, json_: bool, *, canaries: int, shadows: int, seed: int) -> None:
    if target.endswith((".toml", ".py")):
        raise ConfigError("--report writes into a run's report, so name a run: `fedloom run` makes one.")
    folder, journal = opened(out, target)
    with closing(journal):
        row = journal.row()
    loaded = load(row.app, row.overrides)
    with closing(resume(loaded.app, folder, identity=loaded.identity, ended=True)) as recording:
        with console.status("") as status:
            found = expose(loaded.app, canaries=canaries, shadows=shadows, seed=seed, tick=status.update)
        keep(folder, found)
        made = publish(recording, recording.state, wanted=False)
    if json_:
        tell({"event": "exposure", "run": row.run, **found.figures()})
    else:
        _tell(loaded.app, found.private or found.bare)
        for line in lines(found.figures()):
            out_console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
        out_console.print(f"report  {made.path}", markup=False, soft_wrap=True, highlight=False)
    if found.private is not None and found.private.broken:
        raise typer.Exit(1)


def _app(target: str, set_: list[str], out: Path) -> App:
    if target.endswith((".toml", ".py")):
        return load(target, set_).app
    _, journal = opened(out, target)
    with closing(journal):
        row = journal.row()
    return load(row.app, row.overrides).app


def _tell(app: App, found: Audit) -> None:
    spread = f"{counted(found.runs, 'run')} of {counted(found.rounds, 'round')}"
    out_console.print(
        f"{app.name}: {found.canaries:,} canary clients, {found.included:,} of them in, over {spread}", highlight=False
    )
    width = "  {:46} {}"
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
