"""Plain steps of clients that begin from one vector, without a copy of it for each: chains of Linear layers.

After some steps of rate η a client's weight is W - η·Σ_s d_s h_sᵀ over the rows s that it has seen: h_s went into the
layer, d_s is ∂loss/∂output. Hence

    output of a row h    h·Wᵀ + b - η·Σ_s (h·h_s + 1)·d_s      (without a bias, without the 1)
    slope below a d      d·W - η·Σ_s (d·d_s)·h_s
    what has moved       -η·Σ_s d_s h_sᵀ, and the bias -η·Σ_s d_s

The products with W are one matrix product for all clients, and no client's weights are copied, or written in every
step. The values are those of the steps themselves, to rounding. What it adds is Σ_s: see `worth`. How far a client has
moved need not be written out to be added: Σ_k w_k·δ_k is one product over the rows of all clients, see `Moved`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .torch_direct import Dense, activate, losses, slope_below
from .torch_objective import Objective

NARROW = 16  # outputs

Own = tuple[Sequence[Tensor], Sequence[float]]  # by client: inputs (n, d), and the largest magnitude among them


def worth(layers: Sequence[Dense], rows: int, size: int) -> bool:
    """Do so many rows of a client, `size` in a step, take no more multiplications this way than steps themselves?

    >>> layer = Dense(slice(0, 100), None, 10, 10)
    >>> worth([layer], 10, 10), worth([layer], 15, 5), worth([layer], 20, 5)
    (True, True, False)
    """
    more = (rows - size) * sum(layer.inputs + layer.outputs for layer in layers)
    return more <= 2 * sum(layer.inputs * layer.outputs for layer in layers)


@dataclass(frozen=True, eq=False)
class Seen:
    """One layer and what went through it: T rows of each of K clients.

    Args:
        layer: where its parameters lie.
        weight: W (o, d); bias: b (o,), or zero.
        rows: h_s (K, T, d), written step by step.
        slopes: d_s (K, T, o), written step by step.
        rate: η.
        ahead: h·Wᵀ + b of all rows (K, T, o), where all rows are known before the first step.
        alike: h·h_s (+ 1) of all pairs (K, T, T), likewise.
    """

    layer: Dense
    weight: Tensor
    bias: Tensor
    rows: Tensor
    slopes: Tensor
    rate: float
    ahead: Tensor | None = None
    alike: Tensor | None = None

    def output(self, now: slice) -> Tensor:
        """Return the outputs (K, B, o) of the rows `now`, before the activation."""
        found = self._shared(self.rows[:, now]) if self.ahead is None else self.ahead[:, now]
        if not now.start:
            return found
        before = slice(0, now.start)
        alike = self._alike(self.rows[:, now], before) if self.alike is None else self.alike[:, now, before]
        return torch.baddbmm(found, alike, self.slopes[:, before], alpha=-self.rate)

    def below(self, now: slice) -> Tensor:
        """Return the slope (K, B, d) of the rows `now`, from that of their outputs."""
        slope = self.slopes[:, now]
        found = (slope.reshape(-1, self.layer.outputs) @ self.weight).view(*slope.shape[:2], -1)
        if not now.start:
            return found
        before = slice(0, now.start)
        alike = torch.bmm(slope, self.slopes[:, before].transpose(1, 2))
        return found.baddbmm_(alike, self.rows[:, before], alpha=-self.rate)

    def known(self, steps: bool) -> "Seen":
        """Return the same with all that follows from rows that are known; `steps`: are there several?"""
        everything = slice(0, self.rows.shape[1])
        alike = self._alike(self.rows, everything) if steps else None
        return replace(self, ahead=self._shared(self.rows), alike=alike)

    def move(self, deltas: Tensor) -> None:
        """Write how far the layer's parameters have moved into the rows of `deltas` (K, P)."""
        out = deltas[:, self.layer.weight].view(len(deltas), self.layer.outputs, self.layer.inputs)
        self._products(out)
        out.mul_(-self.rate)
        if self.layer.bias:
            torch.sum(self.slopes, 1, out=deltas[:, self.layer.bias]).mul_(-self.rate)

    def add(self, weights: Tensor, total: Tensor) -> None:
        """Add Σ_k w_k·δ_k of the layer's parameters to `total` (P,), given w (K,); the slopes are used up."""
        self.slopes.mul_(-self.rate * weights[:, None, None])
        self._sum(total[self.layer.weight].view(self.layer.outputs, self.layer.inputs))
        if self.layer.bias:
            total[self.layer.bias] += self.slopes.sum((0, 1))

    def reach(self) -> Tensor:
        """Return what no value of a client's δ exceeds (K,): Σ_s max|η·d_s| · max(|h|, 1); NaN if one is NaN."""
        return _largest(self.slopes).sum(1) * self._height().clamp(min=1) * abs(self.rate)

    def _products(self, out: Tensor) -> None:
        """Write Σ_s d_s h_sᵀ by client (K, o, d)."""
        torch.bmm(self.slopes.transpose(1, 2), self.rows, out=out)

    def _sum(self, out: Tensor) -> None:
        """Add Σ_s d_s h_sᵀ over all clients to `out` (o, d)."""
        out.addmm_(self.slopes.view(-1, self.layer.outputs).t(), self.rows.reshape(-1, self.layer.inputs))

    def _height(self) -> Tensor:
        """Return max|h| by client (K,); NaN if there is one."""
        return _largest(self.rows.flatten(1))

    def _shared(self, rows: Tensor) -> Tensor:
        """Return h·Wᵀ + b (K, B, o). Few outputs come transposed out of the product: libraries are twice as quick."""
        flat = rows.reshape(-1, self.layer.inputs)
        if self.layer.outputs < NARROW:
            found = torch.mm(self.weight, flat.t()).t().add_(self.bias)
        else:
            found = torch.addmm(self.bias, flat, self.weight.t())
        return found.view(*rows.shape[:2], self.layer.outputs)

    def _alike(self, rows: Tensor, others: slice) -> Tensor:
        found = torch.bmm(rows, self.rows[:, others].transpose(1, 2))
        return found.add_(1) if self.layer.bias else found


def _largest(values: Tensor) -> Tensor:
    """Return the largest magnitude along the last axis; NaN if there is one."""
    return torch.maximum(values.amax(-1), values.amin(-1).neg_())


@dataclass(frozen=True, eq=False)
class Apart(Seen):
    """A first layer that sees all rows of a client in one step: they are read where they lie, and never copied.

    For layers with few outputs, whose time is that of reading the rows. `rows` holds none, and `ahead` is known.

    Args:
        own: h_s (T or less, d) by client; slopes beyond are zero.
        heights: max|h| (K,).
    """

    own: Sequence[Tensor] = ()
    heights: Tensor = field(default_factory=lambda: torch.empty(0))

    def known(self, steps: bool) -> Seen:
        """Return the same with h·Wᵀ + b of all rows."""
        found = self.slopes.new_zeros(len(self.own), self.layer.outputs, self.slopes.shape[1])
        for out, rows in zip(found, self.own, strict=True):
            torch.mm(self.weight, rows.t(), out=out[:, : rows.shape[0]])
        return replace(self, ahead=found.transpose(1, 2).add_(self.bias))

    def _products(self, out: Tensor) -> None:
        for one, slopes, rows in zip(out, self.slopes, self.own, strict=True):
            torch.mm(slopes[: rows.shape[0]].t(), rows, out=one)

    def _sum(self, out: Tensor) -> None:
        for slopes, rows in zip(self.slopes, self.own, strict=True):
            out.addmm_(slopes[: rows.shape[0]].t(), rows)

    def _height(self) -> Tensor:
        return self.heights


@dataclass(frozen=True, eq=False)
class Moved:
    """How far K clients have moved, kept as what went through their layers until somebody wants it written out.

    Args:
        groups: positions of clients that went together, and what they have seen, by layer; the others have not moved.
        clients: K; size: P.
        like: nothing, in their type and on their device.
    """

    groups: Sequence[tuple[Sequence[int], Sequence[Seen]]]
    clients: int
    size: int
    like: Tensor

    def written(self) -> Tensor:
        """Return δ by client (K, P)."""
        deltas = self.like.new_zeros(self.clients, self.size)
        for members, seen in self.groups:
            part = deltas if len(members) == self.clients else self.like.new_empty(len(members), self.size)
            for one in seen:
                one.move(part)
            if part is not deltas:
                deltas[list(members)] = part
        return deltas

    def summed(self, weights: Tensor) -> Tensor:
        """Return Σ_k w_k·δ_k (P,), given w (K,); nothing else can be asked afterwards."""
        total = self.like.new_zeros(self.size)
        for members, seen in self.groups:
            for one in seen:
                one.add(weights[list(members)], total)
        return total

    def within(self, weights: Tensor, bound: float) -> bool:
        """Is |w_k·δ_k| ≤ bound for certain, for every client and value? "No" may only mean that it is not certain."""
        reach = [one.reach() * weights[list(members)] for members, seen in self.groups for one in seen]
        return all(bool((each <= bound / 2).all()) for each in reach)  # half: the sums are rounded

    @staticmethod
    def joined(parts: Sequence[tuple[Sequence[int], "Moved"]], clients: int) -> "Moved":
        """Return clients that went in several groups as one, given the positions of each part's clients."""
        groups = [([where[i] for i in members], seen) for where, one in parts for members, seen in one.groups]
        return replace(parts[0][1], groups=groups, clients=clients)


def descend(
    layers: Sequence[Dense],
    objective: Objective,
    start: Tensor,
    data: tuple[Tensor | Own, Tensor, Tensor],
    *,
    size: int,
    rate: float,
) -> tuple[Moved, Tensor]:
    """Return how far clients have moved, and Σ of their losses (K,) in float64.

    Args:
        layers: of the chain; objective: a named loss.
        start: the vector that all begin from, (P,).
        data: inputs (K, T, d), targets (K, T, …) and weights (K, T), in the order of the steps; or, for one step,
            every client's own inputs and the largest magnitude among them.
        size: rows of a step; rate: η.
    """
    inputs, targets, weights = data
    clients, rows = weights.shape
    seen = _laid_out(layers, start, inputs, weights.shape, rate, several=rows > size)
    lost = start.new_zeros(clients, dtype=torch.float64)
    for at in range(0, rows, size):
        now = slice(at, at + size)
        outputs = [
            activate(one.output(now), one.layer.activation, after.rows[:, now] if after else None)
            for one, after in zip(seen, [*seen[1:], None], strict=True)
        ]
        step, slope = losses(objective, outputs[-1], targets[:, now], weights[:, now])
        lost += step.double()
        for depth in reversed(range(len(seen))):
            one = seen[depth]
            slope_below(slope, outputs[depth], one.layer.activation, one.slopes[:, now])
            if depth:
                slope = one.below(now)
    return Moved([(range(clients), seen)], clients, len(start), start[:0]), lost


def _laid_out(
    layers: Sequence[Dense], start: Tensor, inputs: Tensor | Own, shape: Sequence[int], rate: float, *, several: bool
) -> list[Seen]:
    """Return room for what goes through every layer; `shape` is (K, T)."""
    seen: list[Seen] = []
    for layer in layers:
        weight = start[layer.weight].view(layer.outputs, layer.inputs)
        bias = start[layer.bias] if layer.bias else start.new_zeros(1)
        slopes = start.new_empty(*shape, layer.outputs)
        if seen:
            seen.append(Seen(layer, weight, bias, start.new_empty(*shape, layer.inputs), slopes, rate))
        elif isinstance(inputs, Tensor):
            seen.append(Seen(layer, weight, bias, inputs, slopes, rate))
        else:
            own, heights = inputs
            seen.append(Apart(layer, weight, bias, start[:0], slopes, rate, own=own, heights=start.new_tensor(heights)))
    return [seen[0].known(several), *seen[1:]]
