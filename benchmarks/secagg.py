"""What a hidden sum costs: a client's CPU in each step, the coordinator's with dropouts, and bytes beside a plain sum.

    python benchmarks/secagg.py [--quick] [--neighbours K | --encrypted] [--clients N] [--size D]

100 clients of one million parameters in one process, ten of which fall silent after they have shared their keys, so
that their masks with ninety others must be found again. Times are of the processor, not of the clock: a client's are
medians over clients, the coordinator's are all that is left. The sum is compared with the plain one, bit for bit.
"""

import argparse
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import process_time
from typing import Any

import numpy as np

from fedloom.core.hidden import Backing
from fedloom.core.layout import Layout, Leaf
from fedloom.core.metrics import Metrics
from fedloom.core.rng import stream
from fedloom.core.task import Ask, Member, Reply, Task, Train, Trained
from fedloom.core.update import Update, fold, weigh
from fedloom.gather import Encrypted, SecAgg
from fedloom.gather.secure.registry import Registry
from fedloom.stages import FixedPoint


@dataclass(eq=False)
class Clients:
    """A federation of clients that have trained already: what is measured is what hiding adds."""

    updates: Mapping[str, Update]
    lost: frozenset[str]
    gather: SecAgg | Encrypted = SecAgg()
    priors: dict[str, Any] = field(default_factory=dict)
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    queue: deque[Task] = field(default_factory=deque)

    def __post_init__(self) -> None:
        secret = self.gather.fresh() if isinstance(self.gather, Encrypted) else b""
        registry = Registry(list(self.updates), shared=secret)
        self.identities = {name: registry.identity(name) for name in self.updates}
        for name in self.updates:
            registry.directory[name]  # derived beforehand: between institutions they lie in a file

    def members(self) -> list[Member]:
        return [Member(name, 1) for name in self.updates]

    def now(self) -> float:
        return 0.0

    def send(self, tasks: Sequence[Task], ask: Ask | None = None) -> Ask:
        self.queue = deque(tasks)
        return Ask(1)

    def cancel(self, ask: Ask) -> None:
        self.queue.clear()

    def settle(self, numbers: object) -> None:
        pass

    def backing(self) -> Backing:
        return Backing()

    def receive(self, ask: Ask, timeout_s: float | None) -> Reply | None:
        while self.queue:
            task = self.queue.popleft()
            if not (isinstance(task.body, Train) and task.party in self.lost):
                return self._answer(task)
        return None

    def _answer(self, task: Task) -> Reply:
        name = task.party
        reply = Reply((task.number,), (name,), Trained(self.updates[name], Metrics({"examples": 1, "loss": 0.5})))
        began = process_time()
        answer, self.priors[name] = self.gather.answer(
            task, self.priors.get(name), lambda: reply, self.identities[name]
        )
        self.times[type(task.body).__name__].append(process_time() - began)
        return answer


def trained(count: int, size: int, bits: int) -> tuple[dict[str, Update], float]:
    """Return clients' updates in fixed point, and the seconds that weighing one took."""
    layout = FixedPoint(limit=1.0, bits=bits).payload(Layout((Leaf("w", (size,)),))).weighted(count)
    made, times = {}, []
    for i in range(count):
        delta = stream(0, i)("delta").normal(scale=0.01, size=size).astype(np.float32)
        began = process_time()
        made[f"c{i:04d}"] = weigh(delta, layout, 1.0, stream(0, i)("round"))
        times.append(process_time() - began)
    return made, median(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 clients of 10,000 parameters")
    parser.add_argument("--neighbours", help="with whom a client masks: an even number, or auto")
    parser.add_argument("--encrypted", action="store_true", help="ciphertexts in place of masks")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--size", type=int, default=1_000_000, help="parameters")
    given = parser.parse_args()
    count, size = (10, 10_000) if given.quick else (given.clients, given.size)
    few: Any = given.neighbours if given.neighbours in (None, "auto") else int(given.neighbours)
    gather = Encrypted() if given.encrypted else SecAgg(neighbours=few)
    updates, weighing = trained(count, size, 24 if given.encrypted else 30)
    clients = Clients(updates, frozenset(list(updates)[3::10]), gather)
    body = Train(1, np.zeros(size, np.float32), next(iter(updates.values())).layout.digest, 1, (), count)
    tasks = [Task(number, name, body) for number, name in enumerate(updates, start=1)]
    began = process_time()
    reply = next(r for r in clients.gather.collect(clients, tasks, lambda: None) if isinstance(r.body, Trained))
    took = process_time() - began
    assert isinstance(reply.body, Trained)
    plain = fold(None, *(updates[name] for name in reply.parties))
    same = reply.body.update.vector.tobytes() == plain.vector.tobytes()
    server = took - sum(sum(times) for times in clients.times.values())
    print(f"{count} clients, {size:,} parameters, {count - len(reply.parties)} dropped out; bits as plain: {same}")
    for step, times in clients.times.items():
        print(f"client, {step.lower():10} {1e3 * median(times):8.1f} ms")
    print(f"client, together   {1e3 * sum(median(times) for times in clients.times.values()):8.1f} ms")
    print(f"client, rounding   {1e3 * weighing:8.1f} ms, with and without masks")
    print(f"coordinator        {server:8.2f} s")
    print(f"upload             {(reply.bytes_up or 0) / (4 * (size + 1) * len(reply.parties)):8.4f} of the plain one")
    raise SystemExit(not same)


if __name__ == "__main__":
    main()
