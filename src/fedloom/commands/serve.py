"""`fedloom serve`: the coordinator of a federation between institutions."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from logging import Logger
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.errors import ConfigError, DataError, FedloomError, MissingExtra, QuorumLost
from ..core.state import State
from ..core.words import counted
from ..load import load
from .logs import STOPPED, logged, named, stoppable
from .told import console, tell, trained

if TYPE_CHECKING:
    from ..serve import Coordinator

Set = Annotated[
    list[str],
    typer.Option("--set", help="Change a setting: key=value, such as rounds=5; repeatable, the same at all sites."),
]
Log = Annotated[Path | None, typer.Option("--log", help="Add JSON lines to this file, instead of saying it here.")]
Closed = Callable[[State], None]
PORTS = 65_535
EXAMPLE = "Example: fedloom serve app.toml --home coordinator --listen 0.0.0.0:8443 --sites 3 --metrics 127.0.0.1:9090"


def command(
    app: Annotated[str, typer.Argument(help="An app: a .toml or a .py file, the same at every site.")],
    home: Annotated[Path, typer.Option(help="The coordinator's folder, made by `fedloom provision`.")],
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 lets the system choose.")] = "0.0.0.0:8443",
    sites: Annotated[int, typer.Option(min=1, help="How many sites the run begins with.")] = 2,
    least: Annotated[
        int | None, typer.Option(min=1, help="With how many it begins when --start is over; by default --sites.")
    ] = None,
    start: Annotated[float, typer.Option(help="Seconds in which the run must have begun.")] = 604_800,
    capacity: Annotated[int | None, typer.Option(help="How many it may grow to while it runs.")] = None,
    set_: Set = [],  # noqa: B006 (typer copies it)
    test: Annotated[bool, typer.Option("--test", help="Measure on the app's test part, which must be here.")] = False,
    away: Annotated[float, typer.Option(help="Seconds that a site may be gone before its task is given up.")] = 600,
    evaluate: Annotated[float, typer.Option(help="Seconds that an evaluation waits for a site.")] = 120,
    lease: Annotated[float, typer.Option(help="Seconds that a task may take.")] = 86_400,
    database: Annotated[
        str | None,
        typer.Option(
            envvar="FEDLOOM_DATABASE", help="URL of a database for the journal: postgresql+pg8000://USER@HOST/DB."
        ),
    ] = None,
    keep_updates: Annotated[bool, typer.Option(help="Keep the updates of closed rounds.")] = False,
    metrics: Annotated[str | None, typer.Option(help="HOST:PORT where figures are given to Prometheus.")] = None,
    log: Log = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object per line, for programs.")] = False,
) -> None:
    """Coordinate a federation: sites call in, train on their rows, and send updates. Goes on where it was cut off."""
    from ..resuming import unfinished
    from ..runtime.net.leases import Leases
    from ..serve import Serving, serve

    with logged(log) as logger, stoppable(logger, "serve again to go on"):
        host, port = address(listen)
        if database is not None:
            check_database(database)
        serving = Serving(
            sites=sites,
            least=least,
            start_s=start,
            capacity=capacity,
            leases=Leases(away_s=away, task_s=lease, evaluate_s=evaluate),
            test=test,
            keep_updates=keep_updates,
            database=database,
        )
        loaded = load(app, set_)
        coordinator, port = serve(loaded, home, host, port, serving)
        with coordinator.held, measured(coordinator, metrics, logger) as closed:
            if coordinator.again is None and (said := unfinished(home, loaded)):
                logger.warning("unfinished", extra={"said": said})
            where = {"address": f"{host}:{port}", "run": coordinator.folder.name}
            logger.info("listening", extra=where | {"said": f"`fedloom status --home {home}` says how it goes"})
            code = _served(coordinator, json_, closed, logger)
    if code:
        raise typer.Exit(code)


def _served(coordinator: "Coordinator", json_: bool, closed: Closed, logger: Logger) -> int:
    """Wait for the sites and run the rounds; return the exit code."""
    try:
        recording = coordinator.recording(lambda said: logger.info("waiting", extra={"said": said}))
    except (QuorumLost, ConfigError, DataError) as error:  # whatever else it was, it may be better another time
        coordinator.give_up(str(error))
        raise
    except KeyboardInterrupt:
        coordinator.hall.pause("it was stopped before the run had begun")
        raise
    code = 0

    def told(state: State) -> None:
        coordinator.closed(state)
        closed(state)

    with closing(recording):
        try:
            trained(recording, json_, told, bar=console.is_terminal)
        except KeyboardInterrupt:
            code = STOPPED
        except FedloomError as error:
            logger.error("error", extra={"code": error.code, "said": str(error)})
            code = 1
        finally:  # whatever it was, the sites are told
            coordinator.close(recording.state, recording.broken)
    if json_:
        tell(recording.summary)
    logger.info("ended", extra={"status": recording.state.status, "said": recording.state.reason})
    if coordinator.record is not None:
        seen = coordinator.record.summary()
        signers = {"said": f"co-signed by {counted(seen['cosigned'], 'site')}"}
        logger.info("record", extra={name: seen[name] for name in ("entries", "root", "cosigned")} | signers)
    return code


@contextmanager
def measured(coordinator: "Coordinator", where: str | None, logger: Logger) -> Iterator[Closed]:
    """Give figures to Prometheus while the block runs, and hand out what is to be told of each closed round."""
    if where is None:
        yield lambda state: _told(state, logger)
        return
    try:
        from ..runtime.net.meter import Meter
    except ModuleNotFoundError as error:
        raise MissingExtra("--metrics needs prometheus-client: pip install 'fedloom[network]'") from error
    meter = Meter(coordinator.hall)
    host, port = address(where)
    with closing(meter.serve(host, port)) as given:
        logger.info("figures", extra={"said": f"for Prometheus on http://{host}:{given.number}/metrics"})

        def closed(state: State) -> None:
            meter.closed(state.round, state.record.seconds if state.record else 0.0, figures(state))
            _told(state, logger)

        yield closed


def figures(state: State) -> dict[str, float]:
    """Return what was measured of the model after a round; nothing where it was not."""
    return dict(state.metrics.view()) if state.metrics is not None else {}


def _told(state: State, logger: Logger) -> None:
    """Log a closed round, where no bar shows it."""
    if state.record is not None and not console.is_terminal:
        told = {"round": state.round, "seconds": round(state.record.seconds, 3), "faults": len(state.record.faults)}
        seen = {name: round(value, 6) for name, value in named(figures(state)).items()}  # names come from sites
        logger.info("round closed", extra=seen | told)


def address(text: str) -> tuple[str, int]:
    """Return host and port; raises `ConfigError`.

    >>> address("localhost:8443"), address("[::1]:0")
    (('localhost', 8443), ('::1', 0))
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"expected HOST:PORT, such as coordinator.example:8443, got {text!r}.")
    if int(port) > PORTS:
        raise ConfigError(f"a port is 0 to {PORTS}, got {port} in {text!r}.")
    return host.removeprefix("[").removesuffix("]"), int(port)


def check_database(url: str) -> None:
    """Refuse a URL of anything but PostgreSQL; what it says is not repeated, since it may hold a password."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    form = "it is postgresql+pg8000://USER@HOST/NAME; without --database the journal is in SQLite, in the run's folder."
    try:
        found = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError(f"--database is no URL: {form}") from None
    if found.get_backend_name() != "postgresql":
        raise ConfigError(f"--database is one of PostgreSQL, got one of {found.get_backend_name()}: {form}")
    if found.username is None:
        raise ConfigError(f"--database names no user: {form}")
