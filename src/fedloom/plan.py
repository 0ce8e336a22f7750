"""Before a run: what it will send, how long it takes, and what would help; from a few rounds that are really run."""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice

from .app import App
from .core.errors import ConfigError
from .core.rng import stream
from .core.state import State
from .core.strategy import Strategy
from .core.task import Task, Train, Trained
from .gather import Plain
from .report.words import duration, megabytes
from .schedule.fold import publics
from .simulation import Simulation, simulate
from .stages import Quantize

SAMPLE = 3  # rounds that are run to measure, after one for warming up
MBIT = 1e6 / 8  # bytes in a second


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run costs, by round and in all.

    Args:
        what: which variant this is.
        rounds, cohort: how many rounds, and clients in each.
        down, up: bytes that one client receives and sends in a round.
        training_s: seconds of a round on this machine, with evaluation and the server's step.
        client_s: seconds that one client trains in a round.
        mbps: of a client's link, in Mbit/s; the coordinator's is taken as `coordinator_mbps`.
        coordinator_mb: memory of vectors at the coordinator, in MB: shared, summed, and the optimizer's.
        client_mb: memory of vectors at one client that trains.
    """

    what: str
    rounds: int
    cohort: int
    down: int
    up: int
    training_s: float
    client_s: float
    mbps: float
    coordinator_mbps: float
    coordinator_mb: float
    client_mb: float

    @property
    def round_bytes(self) -> int:
        """Bytes of a round, both ways, over all clients."""
        return (self.down + self.up) * self.cohort

    @property
    def wire_s(self) -> float:
        """Seconds on the wire in a round: clients in parallel, but all through the coordinator's link."""
        own = (self.down + self.up) / (self.mbps * MBIT)
        return max(own, self.round_bytes / (self.coordinator_mbps * MBIT))

    @property
    def network_s(self) -> float:
        """Seconds of a round over the network: wire, then clients that all train at once."""
        return self.wire_s + self.client_s

    def figures(self) -> dict[str, float | int | str]:
        """Return all of it as plain values, derived figures included."""
        derived = {"round_bytes": self.round_bytes, "wire_s": self.wire_s, "network_s": self.network_s}
        return asdict(self) | derived | {"total_bytes": self.round_bytes * self.rounds}


def rows(plans: Sequence[Plan]) -> list[dict[str, str]]:
    """Return plans as people read them, by column."""
    return [
        {
            "variant": one.what,
            "up": megabytes(one.up),
            "in all": megabytes(one.round_bytes * one.rounds),
            "here": duration(one.training_s),
            "round": duration(one.network_s),
            "run": duration(one.network_s * one.rounds),
        }
        for one in plans
    ]


def plan(
    app: App, *, clients: int | None = None, mbps: float = 10.0, coordinator_mbps: float = 1000.0, engine: str = "auto"
) -> list[Plan]:
    """Return the app's plan, then variants of it that may help.

    Args:
        app: as it would run.
        clients: size of a round's cohort, if not the app's; times and bytes are scaled to it.
        mbps, coordinator_mbps: links, in Mbit/s.
        engine: what trains here.
    """
    if not (mbps > 0 and coordinator_mbps > 0):
        raise ConfigError(f"a plan needs links above 0 Mbit/s, got {mbps:g} and {coordinator_mbps:g} Mbit/s.")
    if clients is not None and clients < 1:
        raise ConfigError(f"a plan needs at least one client, got {clients}.")
    simulation = simulate(app, engine=engine)
    try:
        measured, last = _rounds(simulation)
    finally:
        simulation.close()
    asked = last.record.cohort if last.record is not None else ()
    size = len(asked) or 1
    cohort = clients or app.strategy.cohort(len(simulation.parties))
    alone = _client_s(simulation)
    base = Plan(
        what="as it is",
        rounds=app.rounds,
        cohort=cohort,
        down=last.vector.nbytes,
        up=_up(simulation, app.strategy),
        training_s=measured * cohort / size,
        client_s=alone,
        mbps=mbps,
        coordinator_mbps=coordinator_mbps,
        coordinator_mb=_coordinator(last) / 1e6,
        client_mb=3 * simulation.model.layout.size * simulation.model.layout.dtype.itemsize / 1e6,
    )
    return [base, *_variants(simulation, base)]


def _rounds(simulation: Simulation) -> tuple[float, State]:
    times, began = [], time.perf_counter()
    last = simulation.first()
    for state in simulation.rounds(last):
        last = state
        times.append(time.perf_counter() - began)
        began = time.perf_counter()
        if len(times) > SAMPLE:
            break
    return statistics.median(times[1:] or times), last


def _client_s(simulation: Simulation) -> float:
    times = []
    for number, party in enumerate(islice(simulation.parties.values(), 5), start=1):
        began = time.perf_counter()
        next(party.answer([_task(simulation, simulation.app.strategy, number, party.name)]))
        times.append(time.perf_counter() - began)
        party.pending.clear()
    return statistics.median(times)


def _task(simulation: Simulation, strategy: Strategy, number: int, name: str) -> Task:
    first = strategy.first(simulation.terms, simulation.model.init(stream(simulation.app.seed, "init")), 0)
    body = Train(1, first.vector, simulation.terms.total.digest, simulation.terms.cap, publics(strategy, first))
    return Task(number, name, body)


def _up(simulation: Simulation, strategy: Strategy) -> int:
    """Return the bytes of one client's update under a strategy, by encoding one; what hides it adds a few for each."""
    name, party = next(iter(simulation.parties.items()))
    asked = replace(party, strategy=replace(strategy, gather=Plain()), pending={}, memories={})
    reply = next(asked.answer([_task(simulation, strategy, 1, name)]))
    if not isinstance(reply.body, Trained):
        raise ConfigError(f"{name} could not train: {getattr(reply.body, 'message', reply.body)}")
    return reply.body.update.size_bytes


def _coordinator(state: State) -> int:
    from .core.tree import split

    _, arrays = split([state.optimizer, list(state.stages)])
    return int(state.vector.nbytes) + 8 * state.layout.size + sum(int(array.nbytes) for array in arrays.values())


def _variants(simulation: Simulation, base: Plan) -> Iterator[Plan]:
    strategy = simulation.app.strategy
    if not strategy.each and not strategy.gather.hides:
        for bits in (8, 4):
            smaller = replace(strategy, stages=(*strategy.stages, Quantize(bits)))
            yield replace(base, what=f"{bits} bits up", up=_up(simulation, smaller))
    if base.cohort > 1:
        half = base.cohort // 2
        share = half / base.cohort
        yield replace(base, what=f"{half} clients", cohort=half, training_s=base.training_s * share)
