"""`fedloom plan`: what a run will send, how long it takes, and what would help."""

from typing import Annotated

import typer

from ..core.words import counted
from ..load import load
from .serve import Set
from .told import out_console, say, tell


def command(
    app: Annotated[str, typer.Argument(help="An app: a .toml or a .py file.")],
    set_: Set = [],  # noqa: B006 (typer copies it)
    clients: Annotated[int | None, typer.Option(help="Clients in a round, if not the app's own number.")] = None,
    mbps: Annotated[float, typer.Option(help="A client's link, in Mbit/s.")] = 10.0,
    coordinator_mbps: Annotated[float, typer.Option(help="The coordinator's link, in Mbit/s.")] = 1000.0,
    engine: Annotated[str, typer.Option(help="As for `fedloom run`.")] = "auto",
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object per line, for programs.")] = False,
) -> None:
    """Say before a run what it will send, how long it takes, and what would help; runs a few rounds to measure."""
    from ..plan import plan as planned
    from ..plan import rows
    from ..report.tables import plan_table
    from ..report.words import megabytes

    made = planned(load(app, set_).app, clients=clients, mbps=mbps, coordinator_mbps=coordinator_mbps, engine=engine)
    if json_:
        for one in made:
            tell(one.figures())
        return
    out_console.print(plan_table(rows(made)))
    first = made[0]
    vectors, coordinator = megabytes(first.client_mb * 1e6), megabytes(first.coordinator_mb * 1e6)
    say(
        f"{counted(first.rounds, 'round')} of {counted(first.cohort, 'client')}, each of which receives "
        f"{megabytes(first.down)} a round and sends what stands under up. Vectors take {vectors} of "
        f"memory at a client, {coordinator} at the coordinator. "
        f"Here: a round simulated on this machine, from a few that were measured. Round and run: over a network with "
        f"{mbps:g} Mbit/s a client and {coordinator_mbps:g} at the coordinator, clients in parallel."
    )
