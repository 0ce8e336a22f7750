"""Clients of a hidden sum without models: each answers with a vector that was written down for it."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fedloom.core.hidden import Backing
from fedloom.core.layout import Layout, Leaf
from fedloom.core.metrics import Metrics
from fedloom.core.rng import stream
from fedloom.core.task import Ask, Fault, Member, Reply, Task, Train, Trained
from fedloom.core.update import Update, fold, weigh
from fedloom.gather import Encrypted, SecAgg
from fedloom.gather.secure.registry import Registry
from fedloom.stages import FixedPoint

STEPS = ("advertise", "share", "train", "confirm", "unmask")


def names(count):
    """Return that many names whose order is not that of their numbers."""
    return [f"c{(7 * i) % 1009:04d}-{i}" for i in range(count)]


def layout(size, cohort, bits=30, **leaf):
    """Return the layout of a sum in fixed point, of one leaf "w"."""
    return FixedPoint(bits=bits).payload(Layout((Leaf("w", (size,), **leaf),))).weighted(cohort)


@dataclass(eq=False)
class Clients:
    """A federation of clients with given updates; `spoil` may change tasks on their way, and lose or change replies.

    `lost(step, name)` says that a client falls silent at a step, and from then on.
    """

    updates: Mapping[str, Update]
    gather: SecAgg | Encrypted = SecAgg()
    metrics: Mapping[str, Metrics] = field(default_factory=dict)
    lost: Callable[[str, str], bool] = lambda step, name: False
    spoil: Callable[[Task], Task | None] = lambda task: task
    garble: Callable[[Task, Reply], Reply] = lambda task, reply: reply
    behind: Backing = Backing()
    priors: dict[str, Any] = field(default_factory=dict)
    queue: deque = field(default_factory=deque)
    silent: set[str] = field(default_factory=set)
    said: list[tuple[str, str, Any]] = field(default_factory=list)  # step, name, body of the answer
    refused: list[tuple[str, str, str]] = field(default_factory=list)  # step, name, message

    def __post_init__(self):
        secret = self.gather.fresh() if isinstance(self.gather, Encrypted) else b""
        self.registry = Registry(list(self.updates), shared=secret)

    def members(self):
        return [Member(name, 1) for name in self.updates]

    def now(self):
        return 0.0

    def send(self, tasks, ask=None):
        self.queue = deque(tasks)
        return Ask(1)

    def cancel(self, ask):
        self.queue.clear()

    def settle(self, numbers):
        pass

    def backing(self):
        return self.behind

    def receive(self, ask, timeout_s):
        while self.queue:
            task = self.queue.popleft()
            step = type(task.body).__name__.lower()
            if task.party in self.silent or self.lost(step, task.party):
                self.silent.add(task.party)
                continue
            asked = self.spoil(task)
            if asked is not None:
                return self.garble(task, self.ask(asked))
        return None

    def ask(self, task):
        """Let a client answer, as a party does: what it raises is a fault."""
        step, name = type(task.body).__name__.lower(), task.party
        metrics = self.metrics.get(name, Metrics({"examples": 1, "loss": 0.5}))
        work = lambda: Reply((task.number,), (name,), Trained(self.updates[name], metrics))  # noqa: E731
        try:
            reply, self.priors[name] = self.gather.answer(
                task, self.priors.get(name), work, self.registry.identity(name)
            )
        except Exception as error:  # noqa: BLE001
            self.refused.append((step, name, str(error)))
            return Reply((task.number,), (name,), Fault(name, step, type(error).__name__, str(error)))
        self.said.append((step, name, reply.body))
        return reply

    def collect(self, start=None, round=1, least=0):
        """Return all replies of one round."""
        total = next(iter(self.updates.values())).layout
        body = Train(round, np.zeros(1) if start is None else start, total.digest, 1, (), len(self.updates))
        tasks = [Task(number, name, body) for number, name in enumerate(self.updates, start=1)]
        return list(self.gather.collect(self, tasks, lambda: None, least))


def updates(count, size=5, seed=0, bits=30, **leaf):
    """Return updates by name, at the edges of their bounds too."""
    rng, total = np.random.default_rng(seed), layout(size, count, bits, **leaf)
    bound = total.leaves[0].bound
    drawn = [rng.uniform(-bound, bound, size).astype(np.float32) for _ in range(count)]
    drawn[0][:] = bound
    return {
        name: weigh(delta, total, (i % 4 + 1) / 4, stream(seed, i)("round"))
        for i, (name, delta) in enumerate(zip(names(count), drawn, strict=True))
    }


def plain_sum(given):
    """Return the sum as anybody may compute it."""
    return fold(None, *given)


def of(replies):
    """Return the hidden sum among replies, and the faults."""
    sums = [reply for reply in replies if isinstance(reply.body, Trained)]
    return (sums[0] if sums else None), [reply.body for reply in replies if isinstance(reply.body, Fault)]


def changed(task, **changes):
    """Return a task whose body says something else."""
    return replace(task, body=replace(task.body, **changes))
