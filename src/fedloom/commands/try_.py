"""`fedloom try`: a coordinator and its sites as processes of this machine, over the real network code."""

import signal
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live

from ..core.errors import RunError
from ..core.words import counted
from ..load import load
from ..store.folders import filled
from .logs import interrupted
from .serve import Set
from .status import view
from .told import complain, console, out_console, say

if TYPE_CHECKING:
    from ..status import Standing
    from ..trial import Trial

LOOK_S, FAREWELL_S = 0.5, 15.0
EXAMPLE = "Example: fedloom try app.toml --sites 3 --set rounds=5"


def command(
    app: Annotated[str, typer.Argument(help="An app: a .toml or a .py file.")],
    sites: Annotated[
        int | None,
        typer.Option(
            min=2, help="How many sites, the first of the app's own partition; by default 3, or all of fewer."
        ),
    ] = None,
    set_: Set = [],  # noqa: B006 (typer copies it)
    home: Annotated[Path | None, typer.Option(help="A new folder for everything; by default a temporary one.")] = None,
) -> None:
    """Try an app over the network on this machine: keys, tokens, approvals, mutual TLS, a process for each site."""
    from ..trial import prepared, running

    loaded = load(app, set_)
    folder = Path(mkdtemp(prefix="fedloom-try-")) if home is None else home
    with filled(folder, "choose another --home"):
        trial, tokens = prepared(loaded, app, set_, sites, folder.resolve())
    say(f"{loaded.app.name}: a coordinator and {counted(len(trial.names), 'site')} in {folder}; Ctrl-C ends them all")
    signal.signal(signal.SIGTERM, interrupted)
    try:
        with running(trial, tokens):
            seen = _watched(trial)
    except KeyboardInterrupt:
        say(f"stopped, and nothing runs any more; what was reached lies in {folder}")
        raise typer.Exit(130) from None
    except RunError as error:
        complain(error)
        raise typer.Exit(1) from error
    _conclude(trial, seen)


def _watched(trial: "Trial") -> "Standing":
    """Show the federation while it trains; return how it ended. Raises `RunError` if one of its processes is lost."""
    from ..status import standing
    from ..trial import COORDINATOR

    coordinator = trial.processes[COORDINATOR]
    live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else nullcontext()
    with live as shown:
        while coordinator.poll() is None:
            seen = standing(trial.coordinator)
            if shown is not None:
                shown.update(view(seen, datetime.now(UTC)), refresh=True)
            if not seen.ended and (lost := trial.lost()):
                raise RunError(f"{lost}; its log is in {trial.folder}.")
            time.sleep(LOOK_S)
    seen = standing(trial.coordinator)
    if not seen.ended:
        raise RunError(f"the coordinator has ended: {trial.last(trial.coordinator)}; its log is in {trial.folder}.")
    _farewell(trial)
    return seen


def _farewell(trial: "Trial") -> None:
    """Wait until the sites have heard how it ended, and have gone home by themselves."""
    until = time.monotonic() + FAREWELL_S
    while time.monotonic() < until and any(process.poll() is None for process in trial.processes.values()):
        time.sleep(LOOK_S / 5)


def _conclude(trial: "Trial", seen: "Standing") -> None:
    from ..recording import MODEL_FILE

    out_console.print(view(seen, datetime.now(UTC)))
    model = seen.folder / MODEL_FILE
    for what, path in (("model", model), ("coordinator", trial.coordinator), ("sites", trial.site(""))):
        out_console.print(f"{what:12} {path}", markup=False, soft_wrap=True, highlight=False)
    say(f"`fedloom show {seen.run} --out {seen.folder.parent}` tells it round by round")
    if seen.status == "failed":
        raise typer.Exit(1)
