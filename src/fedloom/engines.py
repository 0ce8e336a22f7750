"""What carries a simulation's tasks: one process, a pool of them, stacks of clients, or a Ray cluster.

"sequential", "pool" and "ray" give the same bits on one type of machine. "vectorized" gives the same model to rounding,
and says so by being asked for: `auto` measures, takes the faster of the first two, and tells what it would bring.
Shorter batches are padded there with rows that weigh nothing; a module that mixes a batch's examples (x - x.mean(0))
would see them, and belongs in the pool.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .adapters.threads import forkable, gpus, one_thread
from .core.errors import ConfigError
from .core.model import Resident, Stack
from .core.needs import Needs, Resources
from .core.strategy import Terms
from .core.task import Federation
from .runtime.chunk import Together
from .runtime.cluster import Cluster
from .runtime.device import Device, on_device
from .runtime.inprocess import InProcess
from .runtime.machine import cores, memory
from .runtime.pool import Pool
from .runtime.processes import Processes
from .runtime.trainer import Trainer

ENGINES = ("auto", "sequential", "pool", "vectorized", "ray")

Parties = Mapping[str, Trainer]


@dataclass(frozen=True)
class Engine:
    """An engine and why it was taken.

    Args:
        name: one of `ENGINES`.
        chunk: how many clients the vectorized one trains at a time; 0 stands for as many as fit.
        why: for people.
        address: of a running Ray cluster, "HOST:PORT" or "auto"; "" starts Ray on this machine.
    """

    name: str
    chunk: int = 1
    why: str = ""
    address: str = ""

    def __str__(self) -> str:
        if self.name == "vectorized":
            return f"{self.name}/{self.chunk}"
        return f"{self.name}@{self.address}" if self.address else self.name

    @staticmethod
    def of(text: str) -> "Engine":
        """Return the engine that `str` wrote; raises `ConfigError` for any other text.

        >>> Engine.of("vectorized/5").chunk, Engine.of("ray@head:6379").address
        (5, 'head:6379')
        """
        name, mark, given = re.fullmatch(r"([^/@]*)([/@]?)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
        if name not in ENGINES:
            raise ConfigError(f"there is no engine {name!r}; there are {', '.join(ENGINES)}.")
        match name, mark:
            case _, "":
                return Engine(name, 0)
            case "vectorized", "/":
                return Engine(name, _size(text, given))
            case "ray", "@":
                return Engine(name, 0, address=_address(text, given))
        raise ConfigError(f"the engine {text!r} says too much; write {name!r}, 'vectorized/5' or 'ray@HOST:PORT'.")


def _size(text: str, given: str) -> int:
    if not (given.isascii() and given.isdecimal()):
        raise ConfigError(f"the engine {text!r} needs a number of clients after the stroke, such as 'vectorized/5'.")
    return int(given)


def _address(text: str, given: str) -> str:
    _, _, port = given.rpartition(":")
    if given != "auto" and not (re.fullmatch(r"[\w.-]+:\d{1,5}", given, re.ASCII) and 0 < int(port) < 65536):
        raise ConfigError(f"the engine {text!r} needs an address, such as 'ray@10.0.0.1:6379', or 'ray@auto'.")
    return given


def carried(
    engine: Engine, sequential: InProcess, parties: Parties, terms: Terms, needs: Needs = Needs()
) -> Federation:
    """Return the federation of that engine; raises `ConfigError` for what it cannot do, by name."""
    if engine.name == "ray":
        host = Cluster(parties, terms.payload, terms.total, one_thread, needs, engine.address)
        return Pool(host, parties, sequential.roster, terms.payload, terms.total, sequential.now)
    fits(needs, parties)
    if engine.name == "sequential":
        return sequential
    stack = stack_of(parties) if engine.name == "vectorized" else None
    if isinstance(stack, Resident):
        return Device(parties, sequential, stack, terms.total, engine.chunk)
    if not forkable():
        raise ConfigError(
            f"{engine.name} forks processes, which cannot use a CUDA device; take vectorized or sequential."
        )
    together = Together(stack, engine.chunk) if stack is not None else None
    size = workers(engine, parties, needs)
    processes = Processes(parties, terms.payload, terms.total, one_thread, together, size)
    stacked = max(1, engine.chunk) if stack is not None else 1
    return Pool(processes, parties, sequential.roster, terms.payload, terms.total, sequential.now, stacked)


def machine(need: Resources) -> Resources:
    """Return what this machine has of what is needed; nobody waits for torch where no GPU is."""
    return Resources(cpus=cores(), gpus=gpus() if need.gpus else 0, memory=memory() if need.memory else 0)


def narrowed(engine: Engine, needs: Needs) -> Engine:
    """Return the engine without a choice that the needs leave no more: of forked processes, none can use a GPU."""
    if engine.name == "auto" and any(own.gpus for own in (needs, *needs.clients.values())):
        return Engine("sequential", why="clients need a GPU")
    return engine


def fits(needs: Needs, parties: Parties) -> None:
    """Raise `ConfigError` for a client that needs more than this machine has."""
    needs.check(parties.keys(), [machine(needs.most(parties.keys()))], "this machine")


def workers(engine: Engine, parties: Parties, needs: Needs) -> int:
    """Return how many forked processes fit the machine at once; raises `ConfigError` if none does."""
    need = needs.most(parties.keys())
    if need.gpus:
        raise ConfigError(f"{engine.name} forks processes, which cannot use a GPU; take ray or sequential.")
    each, there = need.times(max(1, engine.chunk if engine.name == "vectorized" else 1)), machine(need)
    if not there.holds(each):
        what = f"{engine.chunk} clients in a stack need {each.said(each)}, and this machine has {there.said(each)}"
        raise ConfigError(f"{what}; take a smaller one, such as --engine vectorized/1, or the pool.")
    return min(there.holds(each), len(parties))


def stack_of(parties: Parties) -> Stack:
    """Return what trains several clients at once, `Resident` if the model lives on a device; else refuses by name."""
    first = next(iter(parties.values()))
    local = first.strategy.local
    if not local.stacks:
        raise ConfigError(f"{type(local).__name__} trains one client at a time; take the engine pool or sequential.")
    if _definer(local, "train") is not _definer(local, "train_many"):
        raise ConfigError(f"{type(local).__name__} has a train of its own; give it a train_many, or take the pool.")
    return first.model.resident() if on_device(first.model) else first.model.stack()


def _definer(part: object, name: str) -> type | None:
    return next((kind for kind in type(part).__mro__ if name in vars(kind)), None)
