"""Federations small enough to check by hand: a few sites in one process, and one that garbles what they answer."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic
from typing import Any

import numpy as np

from fedloom.core.examples import Examples, Split
from fedloom.core.layout import Layout, Leaf
from fedloom.core.rng import stream
from fedloom.core.state import State
from fedloom.core.strategy import Strategy, Terms
from fedloom.core.task import Member, Reply
from fedloom.core.update import Update, weigh
from fedloom.gather.secure.registry import Registry
from fedloom.runtime.inprocess import InProcess
from fedloom.runtime.trainer import Trainer

SIZES = (12, 20, 7, 15, 9)


@dataclass(frozen=True, eq=False)
class Rows:
    """A `Holding` whose rows are numbers already."""

    split: Split

    @property
    def train_size(self):
        return self.split.train.size

    def measure(self, what, known):
        if what != "sums":
            raise ValueError(f"there is no {what}")
        return Update(np.array([float(self.train_size)]), Layout((Leaf("n", (1,), "float64"),)))

    def prepare(self, statistics):
        return self.split


def regression(sizes=SIZES, inputs=3, seed=0, shift=1.0):
    """Return sites of a noisy linear problem, each with its own slope: non-IID, so that drift shows."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=inputs)
    return {f"site{i}": _regression(rng, n, common + shift * rng.normal(size=inputs)) for i, n in enumerate(sizes)}


def _regression(rng, n, slope):
    inputs = rng.normal(size=(n + 4, len(slope)))
    both = Examples(inputs, inputs @ slope + 0.1 * rng.normal(size=n + 4))
    return Split(both.take(slice(0, n)), both.take(slice(n, None)))


def classification(sizes=SIZES, inputs=4, seed=0):
    """Return sites of a binary problem that a line separates well."""
    splits = regression(sizes, inputs, seed, shift=0.2)
    binary = lambda data: Examples(data.inputs, (data.targets > 0).astype(np.int64))  # noqa: E731
    return {name: Split(binary(split.train), binary(split.held_out)) for name, split in splits.items()}


def pooled(splits):
    """Return everybody's training rows."""
    parts = [split.train for split in splits.values()]
    return Examples(np.concatenate([p.inputs for p in parts]), np.concatenate([p.targets for p in parts]))


@dataclass(eq=False)
class Small:
    """A strategy met with its members, before round 1."""

    model: Any
    strategy: Strategy
    parties: Mapping[str, Trainer]
    terms: Terms
    federation: Any
    state: State

    def run(self, rounds):
        """Return the states after each of so many rounds."""
        schedule = self.strategy.schedule
        return list(islice(schedule.run(self.strategy, self.terms, self.federation, self.state), rounds))


def small(model, strategy, splits, *, seed=0, now: Callable[[], float] = monotonic, change=None, slow=None):
    """Return a federation of those sites; `change` garbles replies; `slow(name)` is called before a site answers."""
    members = [Member(name, split.train.size) for name, split in splits.items()]
    terms = strategy.bind(model.layout, members)
    kind = Trainer if slow is None else Slow
    parties = {
        name: kind(name, model, strategy, Rows(split), seed, terms, split=split) for name, split in splits.items()
    }
    for party in parties.values() if slow else ():
        party.before = slow
    if strategy.gather.hides and len(members) >= 3:
        registry = Registry(list(parties))
        for name, party in parties.items():
            party.identity = registry.identity(name)
    federation = InProcess(parties, members, now)
    state = strategy.first(terms, model.init(stream(seed, "init")), seed)
    return Small(model, strategy, parties, terms, federation if change is None else Changed(federation, change), state)


@dataclass(eq=False)
class Slow(Trainer):
    """A party before whose answers something happens."""

    before: Callable[[str], None] | None = None

    def answer(self, tasks):
        self.before(self.name)
        yield from super().answer(tasks)


@dataclass(eq=False)
class Changed:
    """A federation that collects all replies of an ask and hands on what `change` makes of that list."""

    inner: InProcess
    change: Callable[[list[Reply]], list[Reply]]
    replies: dict[Any, deque[Reply]] = field(default_factory=dict)
    settled: list[tuple[int, ...]] = field(default_factory=list)

    def members(self):
        return self.inner.members()

    def now(self):
        return self.inner.now()

    def send(self, tasks):
        ask = self.inner.send(tasks)
        self.replies[ask] = deque(self.change([self.inner.receive(ask, None) for _ in tasks]))
        return ask

    def receive(self, ask, timeout_s):
        return self.replies[ask].popleft() if self.replies[ask] else None

    def cancel(self, ask):
        self.inner.cancel(ask)

    def settle(self, numbers):
        self.settled.append(tuple(numbers))
        self.inner.settle(numbers)

    def backing(self):
        return self.inner.backing()


def updates(deltas, weights=None, *, cohort=None, **leaf):
    """Return one weighed update for each delta, as single leaves "w"."""
    layout = Layout((Leaf("w", (len(deltas[0]),), **leaf),)).weighted(cohort or len(deltas))
    weights = weights if weights is not None else [1.0] * len(deltas)
    return [weigh(np.asarray(d, layout.dtype), layout, w) for d, w in zip(deltas, weights, strict=True)]


def same_tree(one, other):
    """Are two trees the same, bit for bit?"""
    if isinstance(one, np.ndarray):
        same_kind = isinstance(other, np.ndarray) and one.dtype == other.dtype and one.shape == other.shape
        return same_kind and one.tobytes() == other.tobytes()
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same_tree(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        alike = type(one) is type(other) and len(one) == len(other)
        return alike and all(same_tree(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and (one == other or (one != one and other != other))
