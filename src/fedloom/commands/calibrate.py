"""`fedloom calibrate`: how much noise a privacy budget needs."""

from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..core.errors import ConfigError
from ..core.event import DpEvent
from ..core.words import counted
from ..privacy.accountant import checked_delta, spent
from ..privacy.calibrate import least, noise_multiplier
from ..privacy.guarantee import Guarantee
from ..select import Cyclic, Everyone, Poisson
from .told import out_console, say, tell

SCALES = (0.75, 1.0, 1.5, 2.0, 3.0)  # of the noise, in the table; much less takes long


class Mechanism(StrEnum):
    """What adds the noise."""

    gaussian = "gaussian"
    skellam = "skellam"
    local = "local"
    tree = "tree"
    bands = "bands"


@dataclass(frozen=True)
class Noise:
    """What noise is to be found, and for whom.

    Args:
        mechanism: what adds it; select: who takes part, where that is not in turn.
        every: each client in one of so many rounds; bands: of correlated noise; survivors: of hidden sums.
    """

    mechanism: Mechanism
    select: Everyone | Poisson
    every: int
    bands: int
    survivors: int

    def __post_init__(self) -> None:
        if self.mechanism is not Mechanism.gaussian and isinstance(self.select, Poisson):
            raise ConfigError(f"sampling amplifies nothing for {self.mechanism}; leave --rate out.")
        if self.every != 1 and (isinstance(self.select, Poisson) or self.mechanism in ("skellam", "local")):
            raise ConfigError("--every is for gaussian, tree and bands, and without --rate.")
        for name, value in (("every", self.every), ("bands", self.bands), ("survivors", self.survivors)):
            _least_one(name, value)

    def event(self, z: float) -> DpEvent:
        """Return what a round releases with that noise multiplier, as the strategy's parts describe it."""
        values = {"noise_multiplier": z}
        turns = Cyclic(self.every)
        match self.mechanism:
            case Mechanism.skellam:
                return DpEvent("skellam", {**values, "survivors": self.survivors, "steps": 2.0**16})
            case Mechanism.local:
                return DpEvent("local gaussian", values)
            case Mechanism.tree:
                return turns.event(DpEvent("tree", {**values, "rounds": self.every}))
            case Mechanism.bands:
                return turns.event(DpEvent("bands", {**values, "every": self.every, "bands": self.bands}))
        return (self.select if self.every == 1 else turns).event(DpEvent("gaussian", values))

    def deviation(self, clients: int) -> float:
        """Return the deviation of fresh noise on the mean of a round, for a multiplier and a clip of one."""
        share = self.select.rate if isinstance(self.select, Poisson) else 1 / self.every
        return float(2 / clients**0.5 if self.mechanism is Mechanism.local else 1 / (clients * share))


def command(
    epsilon: Annotated[float, typer.Option(help="The budget of all rounds together.")],
    rounds: Annotated[int, typer.Option(help="How many rounds.")],
    delta: Annotated[float, typer.Option(help="The probability that goes with epsilon, below one over the clients.")],
    rate: Annotated[
        float | None, typer.Option(help="Each client takes part in a round with this probability (Poisson sampling).")
    ] = None,
    everyone: Annotated[bool, typer.Option("--everyone", help="All clients take part in every round.")] = False,
    clients: Annotated[int | None, typer.Option(help="How many there are: checks delta, tells the noise.")] = None,
    mechanism: Annotated[
        Mechanism,
        typer.Option(
            help="Who adds which noise: the coordinator (gaussian; tree and bands take parts of it back in later "
            "rounds), clients together, hidden (skellam), each client by itself (local)."
        ),
    ] = Mechanism.gaussian,
    every: Annotated[int | None, typer.Option(help="Each client takes part in one of so many rounds (Cyclic).")] = None,
    bands: Annotated[int, typer.Option(help="Of bands: how many rounds' noise is mixed.")] = 8,
    survivors: Annotated[int, typer.Option(help="Of skellam: the fewest honest clients in a sum.")] = 3,
    clip: Annotated[float, typer.Option(help="With --clients: the limit of a client's delta.")] = 1.0,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Say which noise multiplier keeps so many rounds within epsilon, and what that assumes."""
    if everyone and rate is not None:
        raise ConfigError("give one of --rate and --everyone.")
    _least_one("clients", clients)
    if not 0 < clip < inf:
        raise ConfigError(f"--clip is a number above 0, got {clip:g}.")
    checked_delta(delta, clients)
    how = Noise(mechanism, Everyone() if rate is None else Poisson(rate), _every(mechanism, every), bands, survivors)
    sampled = mechanism is Mechanism.gaussian and how.every == 1
    z = (
        noise_multiplier(epsilon, delta, rounds, sampled=how.select.event)
        if sampled
        else least(epsilon, delta, rounds, how.event)
    )

    def cost(multiplier: float) -> Guarantee:
        return spent(how.event(multiplier), rounds, delta, clients)

    found, others = cost(z), [(scale * z, cost(scale * z)) for scale in SCALES]
    noise = None if clients is None else clip * how.deviation(clients)
    if json_:
        rows: list[dict[str, Any]] = [{"noise_multiplier": m, "epsilon": c.epsilon} for m, c in others]
        said = {"noise_multiplier": z, "budget": epsilon, "noise_of_mean": noise and z * noise}
        tell(said | {"guarantee": found.figures(), "table": rows})
        return
    if sampled and rate is None and not everyone:
        say("Neither --rate nor --everyone is given, so this is for all clients in every round.")
    out_console.print(f"noise multiplier {z:.3f}", highlight=False)
    _tell(found, epsilon)
    out_console.print(_table(others, noise))


def _least_one(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ConfigError(f"--{name} is 1 or more, got {value}.")


def _every(mechanism: Mechanism, every: int | None) -> int:
    if every is None and mechanism is Mechanism.tree:
        raise ConfigError(
            "--mechanism tree needs --every: a tree is over so many rounds, and each client takes part in one of them, "
            "such as --every 8 with 80 clients of whom 10 train in a round."
        )
    return 1 if every is None else every


def _tell(found: Guarantee, budget: float) -> None:
    say(f"keeps {counted(found.rounds, 'round')} within ε = {budget:g} at δ = {found.delta:g}.")
    say(f"Who is told apart: {found.adjacency}. Unit: {found.unit}.")
    secret = "; nobody but the coordinator may know who was drawn" if "sampling" in found.sampling else ""
    say(f"Who takes part: {found.sampling}{secret}.")
    say(f"Released: {found.covers}. Noise: {found.mechanism}, relative to the sensitivity.")
    say(f"Against: {found.against}.")
    check = "" if found.cross_check is None else f"; by RDP it would be {found.cross_check:.3f}"
    say(f"ε = {found.epsilon:.4f} by {found.accountant}{check}.")
    for warning in found.warnings:
        say(f"Warning: {warning}")


def _table(rows: list[tuple[float, Guarantee]], noise: float | None) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("noise multiplier", justify="right")
    table.add_column("ε", justify="right")
    if noise is not None:
        table.add_column("deviation of each value of the mean", justify="right")
    for multiplier, cost in rows:
        deviation = [] if noise is None else [f"{multiplier * noise:.4g}"]
        table.add_row(f"{multiplier:.3f}", f"{cost.epsilon:.3f}", *deviation)
    return table
