"""Leaves that stay home: personal layers, batch normalisation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core.errors import StrategyError
from ..core.event import DpEvent
from ..core.examples import Examples
from ..core.layout import Layout, Leaf, Vector
from ..core.model import Model, Stack
from ..core.parts import Local, Work, Works
from ..core.rng import Streams
from ..core.tree import Tree


@dataclass(frozen=True, kw_only=True)
class AtHome:
    """Train with `local`, but some leaves are the client's own: never sent, never stored elsewhere.

    FedPer keeps the last layers (Arivazhagan et al. 2019, arXiv 1912.00818v1, Algorithm 1), FedBN the batch
    normalisation (Li et al., ICLR 2021, arXiv 2102.07623v2, Algorithm 1). A client's own leaves start at the app's
    initial values and move only when its update was counted.

    Args:
        local: what to do; must send the plain model (`Sgd`, `Prox`, `Custom`).
        leaves: shell patterns of the names that stay home, such as ("head.*",). Empty means batch normalisation: every
            leaf of a module that has running statistics.
    """

    population: ClassVar[tuple[str, ...]] = ()
    local: Local[Tree]
    leaves: tuple[str, ...] = ()

    @property
    def stacks(self) -> bool:
        """As the inner work."""
        return self.local.stacks

    def payload(self, layout: Layout) -> Layout:
        """What is left of the model when the home leaves are taken out."""
        home = {leaf.name for leaf in self._home(layout).leaves}
        shared = layout.take(lambda leaf: leaf.name not in home)
        if not shared.leaves:
            raise StrategyError(f"nothing is left to share when {sorted(home)} stay home; name fewer leaves.")
        if self.local.payload(shared) != shared:
            raise StrategyError(f"{type(self.local).__name__} sends more than the model, so no leaf can stay home.")
        return shared

    def init(self, layout: Layout, initial: Vector) -> dict[str, Tree]:
        """Return the client's own leaves and the inner memory."""
        own = layout.unpack(initial)
        home = {leaf.name: np.array(own[leaf.name]) for leaf in self._home(layout).leaves}
        return {"home": home, "inner": self.local.init(layout, initial)}

    def train(
        self, model: Model, start: Vector, data: Examples, memory: dict[str, Any], *, round: int, streams: Streams
    ) -> Work:
        """Put the shared and the own leaves together, train, and take them apart."""
        whole = self.personal(model.layout, start, memory)
        work = self.local.train(model, whole, data, memory["inner"], round=round, streams=streams)
        sent, new = self._parted(model.layout, whole, work.delta, work.memory)
        return Work(sent, work.examples, work.metrics, new)

    def train_many(
        self,
        stack: Stack,
        layout: Layout,
        start: Vector,
        data: Sequence[Examples],
        memories: Sequence[dict[str, Any]],
        *,
        round: int,
        streams: Sequence[Streams],
    ) -> Works:
        """Put every client's shared and own leaves together, train all at once, and take them apart."""
        wholes = np.stack([self.personal(layout, start, memory) for memory in memories])
        inner = [memory["inner"] for memory in memories]
        done = self.local.train_many(stack, layout, wholes, data, inner, round=round, streams=streams)
        parts = zip(wholes, stack.read(done.deltas), done.memories, strict=True)
        sent, new = zip(*(self._parted(layout, *part) for part in parts), strict=True)
        return Works(np.stack(sent), done.examples, done.metrics, tuple(new))

    def _parted(self, layout: Layout, whole: Vector, delta: Vector, inner: Tree) -> tuple[Vector, dict[str, Tree]]:
        """Return what is sent, and the client's new memory."""
        moved, change, shared = layout.unpack(whole + delta), layout.unpack(delta), self.payload(layout)
        home = {leaf.name for leaf in self._home(layout).leaves}
        sent = shared.pack({leaf.name: change[leaf.name] for leaf in shared.leaves})
        return sent, {"home": {name: np.array(moved[name]) for name in sorted(home)}, "inner": inner}

    def personal(self, layout: Layout, start: Vector, memory: dict[str, Any]) -> Vector:
        """Return the shared leaves of `start` with the client's own."""
        return layout.pack(self.payload(layout).unpack(start) | memory["home"])

    def event(self) -> DpEvent:
        """As the inner work's."""
        return self.local.event()

    def _home(self, layout: Layout) -> Layout:
        return layout.matching(self.leaves) if self.leaves else _batch_norm(layout)


def _batch_norm(layout: Layout) -> Layout:
    running = {leaf.name.removesuffix("running_mean") for leaf in layout.leaves if leaf.name.endswith("running_mean")}

    def belongs(leaf: Leaf) -> bool:
        return leaf.name.rpartition(".")[0] + "." in running or (leaf.name.rpartition(".")[0] == "" and "" in running)

    if not running:
        raise StrategyError("no batch normalisation was found; name the leaves that stay home, such as ('norm.*',).")
    return layout.take(belongs)
