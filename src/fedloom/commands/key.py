"""`fedloom key`: the key that sites share and the coordinator has not, for encrypted sums."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..core.errors import ConfigError
from ..report.words import plain


def command(
    home: Annotated[Path, typer.Option("--home", help="The folder of this site, which has taken the list of sites.")],
    make: Annotated[bool, typer.Option("--make", help="Make a new key, and seal it for each other site.")] = False,
    open_: Annotated[
        Path | None, typer.Option("--open", help="Take the key from a file that a site has sealed.")
    ] = None,
) -> None:
    """Make the key that sites share for encrypted sums, at one site, and open it at the others."""
    from ..gather import Encrypted
    from ..runtime import shared

    if make == (open_ is not None):
        raise ConfigError("give one of --make, at one site, and --open FILE, at the others.")
    if open_ is not None:
        sender = shared.opened(home, open_)
        _say(f"{home / shared.KEY} is the key that {sender} has made")
        return
    for path in shared.make(home, Encrypted().fresh()):
        _say(f"{path} is for {path.stem}, which alone can open it: fedloom key --open FILE --home DIR")
    _say(f"{home / shared.KEY} is the key that sites share: whoever has it, and the coordinator's traffic, reads all.")


def _say(text: str) -> None:
    Console().print(plain(text), markup=False, soft_wrap=True, highlight=False)
