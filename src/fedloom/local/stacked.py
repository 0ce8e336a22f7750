"""Local gradient descent for K clients at once: the loop of `Sgd.descend` with a leading client axis.

Clients that take the same number of steps go together; shorter batches are padded with the client's own first example,
so that no formula meets anything new, and padding weighs nothing.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ..core.examples import Examples
from ..core.layout import Array, Layout
from ..core.metrics import Metrics
from ..core.model import Batch, Resident, Stack
from ..core.rng import Streams
from ..optimize.arrays import add
from ..optimize.step import Step

if TYPE_CHECKING:
    from .sgd import Correction, Sgd


@dataclass(frozen=True, eq=False)
class Descents:
    """What local steps gave to K clients: deltas `(K, P)` as the stack keeps them, steps and metrics by client."""

    deltas: Any
    steps: tuple[int, ...]
    metrics: tuple[Metrics, ...]


def descend(
    sgd: "Sgd",
    stack: Stack,
    layout: Layout,
    start: Array,
    data: Sequence[Examples],
    *,
    round: int,
    streams: Sequence[Streams],
    correct: "Callable[[Sequence[int]], Correction] | None" = None,
) -> Descents:
    """Run every client's steps from `start`, `(P,)` for all or `(K, P)`.

    `correct`, given the positions of the clients that go together, returns what changes their gradients.
    """
    steps, metrics = [0] * len(data), [Metrics({"examples": 0, "loss": 0.0})] * len(data)
    parts: list[tuple[list[int], Any]] = []
    for group in groups(sgd, [one.size for one in data]):
        begun = start if start.ndim == 1 else start[group]
        taken = _Passes(sgd, stack, [data[i] for i in group], [streams[i] for i in group])
        moved, lost = _descend(sgd, stack, layout, begun, taken, round, correct(group) if correct else None)
        lost = stack.read(lost)
        parts.append((group, moved))
        for at, i in enumerate(group):
            steps[i] = taken.wanted
            metrics[i] = Metrics({"examples": taken.seen[at], "loss": float(lost[at])})
    alone = len(parts) == 1 and len(parts[0][0]) == len(data)
    return Descents(parts[0][1] if alone else stack.joined(parts, len(data)), tuple(steps), tuple(metrics))


def _descend(
    sgd: "Sgd", stack: Stack, layout: Layout, start: Array, steps: "_Passes", round: int, correct: "Correction | None"
) -> tuple[Any, Any]:
    """Return the deltas of clients that go together, and Σ losses by client."""
    scale, lost = sgd.rate(round), cast(Any, 0.0)
    if correct is None and not sgd.weight_decay and isinstance(sgd.optimizer, Step):
        return stack.descend(start, steps, sgd.optimizer.lr * scale)
    x = stack.load(start, steps.clients)
    state = sgd.optimizer.init(x, layout)
    for batch in steps:
        found = stack.grad(x, batch)
        gradient = add(found.vector, x, sgd.weight_decay) if sgd.weight_decay else found.vector
        if correct is not None:
            gradient = correct(x, gradient)
        moved, state = sgd.optimizer.step(x, gradient, state, scale=scale)
        if moved is not x:
            x[:] = moved
        lost = lost + found.loss
    return stack.moved(x, start), lost


def groups(sgd: "Sgd", sizes: Sequence[int]) -> Iterator[list[int]]:
    """Yield positions of clients that take the same steps; those without examples are left out.

    With whole-data steps, clients go together whose sizes differ by less than a quarter.

    >>> from fedloom.local import Sgd
    >>> list(groups(Sgd(batch_size=10), [60, 55, 0, 31]))
    [[0, 1], [3]]
    """
    found: dict[int, list[int]] = {}
    for i, n in enumerate(sizes):
        if n:
            found.setdefault(math.ceil(n / sgd.batch_size) if sgd.batch_size else _quarters(n), []).append(i)
    yield from found.values()


def _quarters(n: int) -> int:
    return math.floor(math.log(n) / math.log(1.25))


class _Passes:
    """The steps of clients that go together, as `Steps`; each pass is gathered once, so that a step is a view."""

    def __init__(self, sgd: "Sgd", stack: Stack, data: Sequence[Examples], streams: Sequence[Streams]) -> None:
        self.stack, self.data, self.streams, self.clients = stack, data, streams, len(data)
        most = max(one.size for one in data)
        self.size = min(sgd.batch_size or most, most)
        self.per_pass = -(-most // self.size)
        self.wanted = sgd.steps or self.per_pass * sgd.epochs
        sizes = np.array([one.size for one in data])
        self.weights = (np.arange(self.per_pass * self.size) < sizes[:, None]).astype(np.float32)
        counts = self.weights.reshape(len(data), self.per_pass, self.size).sum(axis=2).astype(int)
        self.seen = sum(counts[:, step % self.per_pass] for step in range(self.wanted)).tolist()

    def passes(self) -> Iterator[Batch]:
        room: Batch | None = None
        for number in range(-(-self.wanted // self.per_pass)):
            if room is None or self.per_pass > 1:  # a pass of one step is the same each time
                room = self._gathered(number, room)
            yield room

    def __iter__(self) -> Iterator[Batch]:
        steps = range(self.wanted)
        for number, passed in enumerate(self.passes()):
            for step in steps[number * self.per_pass : (number + 1) * self.per_pass]:
                at = slice(step % self.per_pass * self.size, (step % self.per_pass + 1) * self.size)
                yield Batch(passed.inputs[:, at], passed.targets[:, at], passed.weights[:, at])

    def _gathered(self, number: int, room: Batch | None) -> Batch:
        """Return the batches of a pass, in the memory of the last one where there is one."""
        if _resident(type(self.stack)):
            return cast(Resident, self.stack).gather(self.data, self._places(number), self.weights)
        first, shape = self.data[0], self.weights.shape
        room = room or Batch(_room(shape, first.inputs), _room(shape, first.targets), self.weights)
        for k, one in enumerate(self.data):
            order = self._order(k, number)
            _put(room.inputs[k], np.asarray(one.inputs), order)
            _put(room.targets[k], np.asarray(one.targets), order)
        return room

    def whole(self) -> Batch | None:
        if self.wanted > 1 or self.per_pass > 1 or _resident(type(self.stack)):
            return None
        targets = _room(self.weights.shape, self.data[0].targets)
        for row, one in zip(targets, self.data, strict=True):
            row[: one.size], row[one.size :] = one.targets, one.targets[0]
        return Batch(None, targets, self.weights)

    def _order(self, k: int, number: int) -> Any:
        if self.per_pass == 1:
            return np.arange(self.data[k].size)
        return self.streams[k].child("shuffle")(str(number)).permutation(self.data[k].size)

    def _places(self, number: int) -> NDArray[np.int64]:
        """Return where each batch's rows are in all clients' rows end to end, `(K, per_pass·B)`."""
        places, begin = np.zeros(self.weights.shape, np.int64), 0
        for k, one in enumerate(self.data):
            _put(places[k], np.arange(begin, begin + one.size), self._order(k, number))
            begin += one.size
        return places


def _put(target: NDArray[Any], rows: NDArray[Any], order: NDArray[np.int64]) -> None:
    """Write the rows in that order, and the first of them wherever there is padding."""
    np.take(rows, order, axis=0, out=target[: len(order)], mode="clip")
    target[len(order) :] = rows[order[0]]


def _room(shape: tuple[int, ...], like: Array) -> NDArray[Any]:
    return np.empty((*shape, *np.shape(like)[1:]), np.asarray(like).dtype)


@cache
def _resident(stack: type) -> bool:
    """Asked once for each type: of a protocol with so many methods, the answer takes a tenth of a millisecond."""
    return issubclass(stack, Resident)
