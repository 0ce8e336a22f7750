"""`fedloom join`: one institution's side of a federation."""

import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from ..load import load
from .logs import code_of, logged, stoppable, telling
from .serve import Log, Set, address

EXAMPLE = (
    "Example, with the token in FEDLOOM_TOKEN the first time: fedloom join app.toml --server coordinator.example:8443 "
    "--as north --home north --data rows.csv"
)


def command(
    app: Annotated[str, typer.Argument(help="An app: this site's own copy, a .toml or a .py file.")],
    server: Annotated[str, typer.Option(help="The coordinator's HOST:PORT.")],
    as_: Annotated[str, typer.Option("--as", help="This site's name.")],
    home: Annotated[Path, typer.Option(help="This site's folder: keys, policy, approvals, its journal.")],
    data: Annotated[
        Path | None,
        typer.Option(help="This site's rows; without it, the part of the app's own data that it gives to this name."),
    ] = None,
    token: Annotated[
        str | None, typer.Option(envvar="FEDLOOM_TOKEN", show_envvar=True, help="The join token, the first time.")
    ] = None,
    set_: Set = [],  # noqa: B006 (typer copies it)
    leave: Annotated[bool, typer.Option("--leave", help="Leave the run for good, and do no more.")] = False,
    log: Log = None,
) -> None:
    """Take part in a federation: call the coordinator, train on this site's rows, send updates. Rows never leave."""
    from ..join import Joining, alone, join
    from ..policyfile import admit

    with logged(log) as logger, stoppable(logger, "join again to go on"), ExitStack() as held:
        joining = Joining(name=as_, home=home, server=address(server), data=data, token=token)
        joining.check()
        held.enter_context(alone(home))
        admit(home, app)
        site = join(load(app, set_), joining, telling(logger, server))
        site.leaving = leave
        signal.signal(signal.SIGTERM, lambda *_: site.stop())
        try:
            ended = site.live()
        except KeyboardInterrupt:
            site.stop()
            raise
        logger.info("ended", extra={"status": ended.status, "said": ended.reason})
    if code := code_of(ended.status):
        raise typer.Exit(code)
