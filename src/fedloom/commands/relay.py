"""`fedloom relay`: a party of one federation that holds another."""

import signal
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from ..core.words import counted
from ..load import load
from .logs import code_of, logged, stoppable, telling
from .serve import Log, Set, address

EXAMPLE = (
    "Example, with the token in FEDLOOM_TOKEN the first time: fedloom relay app.toml --server coordinator.example:8443 "
    "--as east --home east --listen 0.0.0.0:8444 --sites 2"
)


def command(
    app: Annotated[str, typer.Argument(help="An app: the same above and below, a .toml or a .py file.")],
    server: Annotated[str, typer.Option(help="HOST:PORT of the coordinator, or of the relay above.")],
    as_: Annotated[str, typer.Option("--as", help="This relay's name above.")],
    home: Annotated[Path, typer.Option(help="This relay's folder, made by `fedloom provision` for its own sites.")],
    listen: Annotated[str, typer.Option(help="HOST:PORT for its sites; port 0 lets the system choose.")],
    sites: Annotated[int, typer.Option(min=1, help="How many members it waits for before it calls above.")] = 2,
    names: Annotated[str, typer.Option(help="pass: members' names are told above; number: NAME/0001, …")] = "pass",
    deadline: Annotated[
        float | None, typer.Option(help="Seconds after which the sum of those who have answered goes up.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar="FEDLOOM_TOKEN", show_envvar=True, help="The join token from above, the first time."),
    ] = None,
    set_: Set = [],  # noqa: B006 (typer copies it)
    away: Annotated[float, typer.Option(help="Seconds that a site may be gone before its task is given up.")] = 600,
    evaluate: Annotated[float, typer.Option(help="Seconds that an evaluation waits for a site.")] = 120,
    lease: Annotated[float, typer.Option(help="Seconds that a task may take.")] = 86_400,
    log: Log = None,
) -> None:
    """Hold a federation and be one party of another: sites call in here, and what they answer goes up as one sum."""
    from ..relay import Relaying, relay
    from ..runtime.net.leases import Leases

    relaying = Relaying(
        name=as_,
        home=home,
        server=address(server),
        sites=sites,
        names=cast(Any, names),
        deadline_s=deadline,
        leases=Leases(away_s=away, task_s=lease, evaluate_s=evaluate),
        token=token,
    )
    with logged(log) as logger, stoppable(logger, "start this relay again to go on"):
        passing, port = relay(load(app, set_), relaying, *address(listen))
        where = f"{listen.rpartition(':')[0]}:{port}"
        said = f"for {counted(sites, 'member')}; above is {server}"
        logger.info("listening", extra={"address": where, "run": passing.folder.name, "said": said})
        signal.signal(signal.SIGTERM, lambda *_: passing.stop())
        try:
            ended = passing.live(telling(logger, server))
        except KeyboardInterrupt:
            passing.stop()
            raise
        logger.info("ended", extra={"status": ended.status, "said": ended.reason})
    if code := code_of(ended.status):
        raise typer.Exit(code)
