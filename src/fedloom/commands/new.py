"""`fedloom new`: a first app for one's own rows."""

from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import ConfigError
from .told import say


def command(
    csv: Annotated[Path, typer.Argument(help="Your own CSV file, with a header.")],
    label: Annotated[str | None, typer.Option(help="The column to predict; by default it is guessed.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where to write; by default beside the CSV.")] = None,
    force: Annotated[bool, typer.Option(help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented TOML app for your own CSV file, to be read, corrected and run."""
    from ..new import write_app

    path = write_app(csv, label, output or beside(csv), force)
    say(f"wrote {path}; read it, correct it, then `fedloom run {path}`")


def beside(csv: Path) -> Path:
    """Return where the app of a CSV file goes; raises `ConfigError` for a folder, which may not even have a name.

    >>> beside(Path("data/rows.csv.gz")).as_posix()
    'data/rows.toml'
    """
    if csv.is_dir():
        raise ConfigError(f"{csv} is a folder; name a CSV file in it.")
    return csv.with_name(csv.name.split(".")[0] + ".toml")
