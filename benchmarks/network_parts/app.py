"""An app whose model is as large as wanted, and whose training adds a constant."""

import os
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

import fedloom
from fedloom.core.layout import Layout, Leaf
from fedloom.core.metrics import Metrics
from fedloom.core.parts import Work
from fedloom.local.memoryless import Memoryless

VALUES, SITES, ROUNDS = (int(os.environ.get(name, "4")) for name in ("VALUES", "SITES", "ROUNDS"))


@dataclass(frozen=True)
class Weight:
    """A model that is nothing but numbers."""

    values: int = VALUES
    figures = frozenset({"loss"})

    @property
    def layout(self):
        """One leaf."""
        return Layout((Leaf("w", (self.values,)),))

    def init(self, streams):
        """Zeros."""
        return np.zeros(self.values, np.float32)

    def load(self, vector):
        """The vector."""
        return vector

    read = load

    def grad(self, x, batch, streams):
        """Not asked."""
        raise NotImplementedError

    evaluate_many = predict = stack = clipping = grad

    def evaluate(self, x, data):
        """Nothing is measured."""
        return Metrics({"examples": data.size, "loss": 0.0})

    def export(self, vector):
        """The leaf."""
        return {"w": vector}


@cache
def constant(size, which):
    """One of a few arrays, made once: what training itself would take is not measured."""
    return np.full(size, (1 + which) * 2.0**-12, np.float32)


@dataclass(frozen=True)
class Constant(Memoryless):
    """Adds a constant to every number."""

    stacks = False

    def train(self, model, start, data, memory, *, round, streams):
        """Return a constant as delta; no two rounds in a row send the same bytes, as they never do."""
        return Work(constant(start.size, round % 3), data.size, Metrics({"examples": data.size}))


source = fedloom.Arrays(np.zeros((8 * SITES, 1), np.float32), np.arange(8 * SITES) % 2, classes=2)
app = fedloom.App(
    model=Weight(),
    data=fedloom.Data(source=source, partition=fedloom.Iid(SITES), holdout=0.25),
    strategy=replace(fedloom.fedavg(), local=Constant()),
    rounds=ROUNDS,
    evaluate_every=ROUNDS,
)
