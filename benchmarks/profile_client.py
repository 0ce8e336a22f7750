"""Where each microsecond of a client goes, on one core: the worker's side and the coordinator's.

    python benchmarks/profile_client.py [--work W1|W3] [--chunk CLIENTS]

The works are described in engines.py. The chunks of one round are done in this process, as a worker of the vectorized
engine does them, under a timer for each part (best of several rounds); then what the coordinator does with answers.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from peers.works import WORKS, app_of

from fedloom.adapters.threads import one_thread
from fedloom.core.rng import stream
from fedloom.engines import Engine, stack_of
from fedloom.local import stacked
from fedloom.runtime import chunk, together
from fedloom.runtime.pool import MOST
from fedloom.schedule.fold import Intake, move
from fedloom.schedule.sync import _tasks
from fedloom.simulation import simulate
from fedloom.store.files import dump, restore
from fedloom.tuning import chosen

ROUNDS = 7


class Timers:
    """Seconds by part; a timed function's own time leaves out the timed functions that it calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            began = time.perf_counter()
            result = function(*args, **kwargs)
            whole = time.perf_counter() - began
            self.seconds[name] = self.seconds.get(name, 0.0) + whole - self._inner.pop()
            self._inner[-1] += whole
            return result

        return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", choices=["W1", "W3"], default="W3")
    parser.add_argument("--chunk", type=int, default=0, help="clients at a time; by default what the engine takes")
    asked = parser.parse_args()
    work = WORKS[asked.work]
    one_thread()
    app = app_of(work)
    simulation = simulate(app)
    state, members = simulation.first(), simulation.federation.members()
    streams, stack = stream(state.seed, "round 1"), stack_of(simulation.parties)
    tasks, _ = _tasks(app.strategy, simulation.terms, state, members[: work.cohort], len(members), streams)
    engine = chosen(Engine("vectorized", 0), app.strategy, simulation.parties, simulation.terms, state)
    group = chunk.Together(stack, asked.chunk or engine.chunk)
    out, each = np.zeros(simulation.terms.total.size), max(MOST, group.clients)
    best: dict[str, float] = {}
    kept = type(stack).taken, stacked._Passes._gathered, together._merged
    for _ in range(ROUNDS):
        timers = Timers()
        type(stack).taken = timers.timed("forward, backward and step", kept[0])
        stacked._Passes._gathered = timers.timed("gathering the examples", kept[1])
        together._merged = timers.timed("weighing, rounding to the grid, adding", kept[2])
        work = timers.timed("the rest of a worker: streams, tasks, metrics", chunk.work)
        send = timers.timed("messages: JSON and arrays, both ways", lambda value: restore(dump(value)))
        intake = Intake(app.strategy, simulation.terms, {task.number: task.party for task in tasks})
        take = timers.timed("coordinator: checking and adding partial sums", intake.take)
        for at in range(0, len(tasks), each):
            wanted = send(chunk.request(tasks[at : at + each], simulation.parties))
            done = send(work(simulation.parties, wanted, state.vector, out, group))
            terms = simulation.terms
            for reply in chunk.replies(wanted, done, out, simulation.parties, terms.total, terms.payload):
                take(reply)
        timers.timed("coordinator: the server's step", move)(state, app.strategy, intake, len(members), stream(0, 1))
        best = {name: min(value, best.get(name, value)) for name, value in timers.seconds.items()}
    type(stack).taken, stacked._Passes._gathered, together._merged = kept
    print(f"{group.clients} clients at a time\n")
    print("| part | µs per client |\n|---|---|")
    for name, seconds in sorted(best.items(), key=lambda pair: -pair[1]):
        print(f"| {name} | {seconds / len(tasks) * 1e6:.1f} |")
    print(f"| all, on one core | {sum(best.values()) / len(tasks) * 1e6:.1f} |")


if __name__ == "__main__":
    main()
