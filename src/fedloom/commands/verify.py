"""`fedloom verify`: what anybody can check of a run's signed record, and what that shows."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..report.words import NOTHING, plain
from .told import out_console, tell

if TYPE_CHECKING:
    from ..verify import Finding, Verified


def command(
    run: Annotated[str, typer.Argument(help="A run's id, `last`, or the folder of a run or of its record.")],
    out: Annotated[Path, typer.Option("--out", help="The folder where runs live.")] = Path("runs"),
    keys: Annotated[
        Path | None, typer.Option("--keys", help="Public keys to believe, in the form of the record's keys.json.")
    ] = None,
    witness: Annotated[
        list[Path], typer.Option("--witness", help="What a site has seen: its HOME/runs/RUN; repeatable.")
    ] = [],  # noqa: B006 (typer copies it)
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Check a run's signed record: entries, signatures, models from round to round, updates, and who co-signed."""
    from ..verify import figures, verify

    found = verify(_folder(run, out), keys, witness)
    if json_:
        tell(figures(found))
    else:
        _show(found)
    if not found.holds:
        raise typer.Exit(1)


def _folder(run: str, out: Path) -> Path:
    if Path(run).is_dir():
        return Path(run)
    if run != "last" and (out / run).is_dir():
        return out / run
    from ..store.runs import opened

    folder, journal = opened(out, run)
    journal.close()
    return folder


def _show(found: "Verified") -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("check", "holds", "what was found"):
        table.add_column(name, overflow="fold")
    for finding in found.findings:
        table.add_row(finding.what, _holds(finding), Text(plain(finding.said)))
    out_console.print(table)
    said = "every check holds" if found.holds else "THE RECORD DOES NOT HOLD"
    for line in (f"{said}: {found.entries} entries, root {found.root}", *found.limits):
        Console().print(plain(line), markup=False, soft_wrap=True, highlight=False)


def _holds(finding: "Finding") -> Text:
    from ..verify import NOBODY

    if finding.said == NOBODY:
        return Text(NOTHING)
    return Text("yes", style="green") if finding.holds else Text("NO", style="bold red")
