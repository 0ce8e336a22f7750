"""The list of sites' keys for hidden sums: drawn up beside `fedloom provision`, taken by `fedloom approve`."""

from pathlib import Path

import typer
from rich.console import Console

from ..core.errors import ConfigError
from ..core.words import counted
from ..report.words import plain
from ..store.folders import writable


def draw_up(home: Path, path: Path, root_key: Path | None) -> None:
    """Write the list of those who have enrolled, and say how it is handed out."""
    from ..runtime import introduction

    writable(path, option="--directory")
    keys = introduction.listed(home)
    introduction.write(path, keys, home, root_key)
    _say(f"{path} lists {counted(len(keys), 'site')}: {', '.join(sorted(keys))}")
    _say(f"check number: {introduction.number(keys)}")
    signed = "It is signed with the root key. Take that away again." if root_key is not None else "It is not signed."
    _say(f"{signed} Send it to every site, by any way; there: fedloom approve --directory FILE --home DIR")


def take(home: Path, path: Path, told: str | None, yes: bool) -> None:
    """Show a list, compare what vouches for it, and keep it."""
    from ..runtime import introduction
    from ..runtime.directory import DIRECTORY, directory

    keys, signed = introduction.read(path, home)
    before = directory(home) if (home / DIRECTORY).exists() else {}
    found = introduction.number(keys)
    _say(f"{counted(len(keys), 'site')}: {', '.join(sorted(keys))}; this site's own key is right")
    for line in introduction.changes(before, keys) if before else ():
        _say(line)
    _say("signed with the federation's root key" if signed else "not signed with the federation's root key")
    _say(f"check number: {found}")
    if told is not None and not introduction.same(told, keys):
        raise ConfigError(f"the number {told} was read to you, and this list has {found}; do not take it.")
    if told is None and not signed and yes:
        raise ConfigError(
            "nobody vouches for this list: give the --number that another site reads to you, or have it signed."
        )
    if told is None and not signed:
        heard = typer.prompt("Call another site, and type the check number that it reads to you")
        if not introduction.same(heard, keys):
            raise ConfigError(f"the number {heard} was read to you, and this list has {found}; do not take it.")
    if not yes:
        typer.confirm("Are these the sites of the federation, all of them and no other?", abort=True)
    _say(f"taken: {introduction.keep(home, keys)}")


def _say(text: str) -> None:
    Console().print(plain(text), markup=False, soft_wrap=True, highlight=False)
