"""`fedloom verify`: what anybody can check of a run's signed record, and what that shows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

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
        Path | None,
        typer.Option(
            "--keys", help="Public keys to believe: like the record's keys.json, or a site's HOME/pki/log.json."
        ),
    ] = None,
    witness: Annotated[
        list[Path], typer.Option("--witness", help="What a site has seen: its HOME/runs/RUN; repeatable.")
    ] = [],  # noqa: B006 (typer copies it)
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Check a run's signed record: entries, signatures, models from round to round, updates, and who co-signed."""
    from ..verify import figures, verify

    folder = _folder(run, out)
    with believed(keys, folder) as known:
        found = verify(folder, known, witness)
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


@contextmanager
def believed(keys: Path | None, folder: Path) -> Iterator[Path | None]:
    """Give keys in the form of a record's `keys.json`: as they are, or from what a site knows (`HOME/pki/log.json`)."""
    from ..store.files import write_json

    met: Any = {} if keys is None else _read(keys)
    form = {name: type(value) for name, value in met.items()} if isinstance(met, dict) else {}
    if keys is None or form != {"name": str, "key": str}:
        yield keys
        return
    with TemporaryDirectory() as place:
        write_json(Path(place) / keys.name, _known(met, keys.parent.parent, folder))
        yield Path(place) / keys.name


def _read(keys: Path) -> Any:
    from ..runtime.directory import handed

    return handed(keys, "like a record's keys.json, or a site's HOME/pki/log.json")


def _known(met: dict[str, str], home: Path, folder: Path) -> dict[str, object]:
    """Return the key that a coordinator signs this run's record with, and those of the sites that a site knows."""
    from ..runtime.identity import bytes_of
    from ..store.checkpoint import Key
    from ..store.record import FOLDER, newest

    note = newest(folder / FOLDER if (folder / FOLDER).is_dir() else folder)
    run = note.origin.rpartition("/")[2] if note is not None else ""
    log = Key(f"fedloom/{met['name']}/{run}", bytes_of(met["key"]))
    return {"version": 1, "log": log.text(), "witnesses": _sites(home)}


def _sites(home: Path) -> dict[str, str]:
    """Return the keys of the sites in a site's directory, or its own alone; none where this is no site's folder."""
    from ..runtime.credentials import Credentials
    from ..runtime.directory import DIRECTORY, directory
    from ..runtime.keys import PKI, TLS

    if not (home / PKI / TLS).exists():
        return {}
    own = Credentials(home).peer
    found = directory(home) if (home / DIRECTORY).exists() else {own.name: own.key}
    return {name: key.hex() for name, key in sorted(found.items())}


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
