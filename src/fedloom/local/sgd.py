"""Local gradient descent: the loop that every gradient-based `Local` runs."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ..core.errors import StrategyError
from ..core.examples import Examples
from ..core.layout import MODEL, Array, Layout, Vector
from ..core.metrics import Metrics
from ..core.model import Model, Stack
from ..core.parts import Optimizer, Work, Works
from ..core.rng import Streams
from ..core.tree import Tree
from ..optimize.arrays import add
from ..optimize.rate import Constant
from ..optimize.step import Step
from .memoryless import Memoryless
from .stacked import descend

Correction = Callable[[Array, Array], Array]  # (parameters, gradient) -> gradient, maybe in place


@dataclass(frozen=True)
class Descent:
    """What local steps gave: the new model vector as NumPy, how many steps, and the sums of the training metrics."""

    vector: Vector
    steps: int
    metrics: Metrics


@dataclass(frozen=True, kw_only=True)
class Sgd(Memoryless):
    """Passes over the client's examples in shuffled mini-batches.

    McMahan et al., AISTATS 2017 (arXiv 1602.05629v4), Algorithm 1, ClientUpdate: w ← w - η·∇ℓ(w; b). The last batch of
    a pass may be smaller. FedSGD is `Sgd(batch_size=None)`: one step on everything.

    Args:
        epochs: passes, at least 1.
        batch_size: examples a step; None is all of them.
        steps: if given, exactly so many steps instead of whole passes.
        optimizer: any `Optimizer`; its state starts anew in every round.
        weight_decay: λ ≥ 0, adds λ·w to the gradient (L2).
        rate: multiplies the learning rate, by round; see `fedloom.optimize`.
    """

    stacks: ClassVar[bool] = True
    epochs: int = 1
    batch_size: int | None = 32
    steps: int | None = None
    optimizer: Optimizer[Tree] = field(default_factory=lambda: Step(0.1))
    weight_decay: float = 0.0
    rate: Callable[[int], float] = field(default_factory=Constant)

    def __post_init__(self) -> None:
        for name, value in (("epochs", self.epochs), ("batch_size", self.batch_size), ("steps", self.steps)):
            if value is not None and value < 1:
                raise StrategyError(f"Sgd.{name} must be at least 1, got {value}.")
        if not 0 <= self.weight_decay < math.inf:
            raise StrategyError(f"Sgd.weight_decay must not be negative, got {self.weight_decay}.")

    def train(self, model: Model, start: Vector, data: Examples, memory: None, *, round: int, streams: Streams) -> Work:
        """Descend from `start`."""
        done = self.descend(model, start, data, round=round, streams=streams)
        return Work(done.vector - start, data.size, done.metrics)

    def train_many(
        self,
        stack: Stack,
        layout: Layout,
        start: Vector,
        data: Sequence[Examples],
        memories: Sequence[None],
        *,
        round: int,
        streams: Sequence[Streams],
    ) -> Works:
        """Descend from `start`, all at once."""
        done = descend(self, stack, layout, start, data, round=round, streams=streams)
        return Works(done.deltas, tuple(one.size for one in data), done.metrics, (None,) * len(data))

    def descend(
        self,
        model: Model,
        start: Vector,
        data: Examples,
        *,
        round: int,
        streams: Streams,
        correct: Correction | None = None,
    ) -> Descent:
        """Run the steps from `start` (the model's layout); `correct` may change each gradient before it is used."""
        x, layout = model.load(start), model.layout
        params, buffers = x[layout.block(MODEL, "parameter")], layout.block(MODEL, "buffer")
        state, scale, loss, seen, step = self.optimizer.init(params, layout), self.rate(round), 0.0, 0, 0
        for step, batch in enumerate(self.batches(data, streams), start=1):
            found = model.grad(x, batch, streams.child(step))
            gradient = found.vector
            if self.weight_decay:
                gradient = add(gradient, params, self.weight_decay)
            if correct is not None:
                gradient = correct(params, gradient)
            moved, state = self.optimizer.step(params, gradient, state, scale=scale)
            if moved is not params:
                params[:] = moved
            if buffers.start != buffers.stop:
                x[buffers] = found.buffers
            loss, seen = loss + found.loss, seen + batch.size
        return Descent(model.read(x).copy(), step, Metrics({"examples": seen, "loss": loss}))

    def batches(self, data: Examples, streams: Streams) -> Iterator[Examples]:
        """Yield the batches; nothing for a client without examples."""
        size, n = self.batch_size or data.size, data.size
        per_pass = -(-n // size) if n else 0
        wanted = min(per_pass, 1) * self.steps if self.steps else per_pass * self.epochs
        for step in range(wanted):
            begin = step % per_pass * size
            if begin == 0:
                order = streams.child("shuffle")(str(step // per_pass)).permutation(n)
                shuffled = data.take(order) if per_pass > 1 else data
            yield Examples(shuffled.inputs[begin : begin + size], shuffled.targets[begin : begin + size])
