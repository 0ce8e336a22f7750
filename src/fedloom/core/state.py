"""The state of a run as a value: saved, restored and continued, it gives the same bits."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import RunError
from .layout import EXACT, Layout, Leaf, Vector
from .metrics import Metrics
from .task import Fault
from .tree import Tree

VERSION = 2
_KEPT = ("seed", "vector", "round", "dispatched", "optimizer", "stages", "schedule", "stop")


@dataclass(frozen=True, eq=False)
class Record:
    """What happened in one closed round.

    Args:
        round: counted from 1.
        first: dispatch number of the first task sent in it.
        cohort: who was asked, in order of dispatch; in a buffered schedule who was counted, in order of acceptance.
        counted: dispatch numbers whose updates are in the sum, in the order of acceptance.
        faults: what went wrong, and where.
        training: pooled training metrics, as figures.
        bytes_down, bytes_up: of models sent and updates received.
        seconds: on the federation's clock.
        parties: who was counted, in the order of `counted`.
        staleness: of a buffered schedule: how often the server had moved since each counted task was sent.
    """

    round: int
    first: int
    cohort: tuple[str, ...]
    counted: tuple[int, ...]
    faults: tuple[Fault, ...] = ()
    training: dict[str, float] = field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0
    parties: tuple[str, ...] = ()
    staleness: tuple[int, ...] = ()

    def but(self, **changes: Any) -> "Record":
        """Return this record with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True, eq=False, repr=False)
class State:
    """Everything that the next round depends on.

    Args:
        seed: of the coordinator's draws: the app's, or a secret where differential privacy is claimed.
        layout: of `vector`: the payload (shared leaves and further blocks) without the weight.
        vector: the shared vector, shape `(layout.size,)`.
        round: rounds closed so far.
        dispatched: tasks sent so far; the next has number `dispatched + 1`.
        optimizer: the server optimizer's state, a tree.
        stages: the stages' server memories, in order.
        schedule: what the schedule has to remember between rounds, a tree: who trains, and from which model.
        stop: the stopping rule's memory, a tree.
        record: the last closed round.
        metrics: this round's evaluation, pooled; `sites` by name; None if this round was not evaluated.
        central: are the pooled figures of the source's test part, not of the sites' held-out rows?
        measured_at: of which round's model a site's figures are, where that is an earlier one: it was training.
        status: "running", or how the run ended; `reason` is a sentence.
        epsilon, delta: differential privacy spent so far; infinity and None where nothing is claimed.
        epsilons: epsilon by site, where each accounts for its own examples.
    """

    seed: int
    layout: Layout
    vector: Vector
    round: int = 0
    dispatched: int = 0
    optimizer: Tree = None
    stages: tuple[Tree, ...] = ()
    schedule: Tree = None
    stop: Tree = None
    record: Record | None = None
    metrics: Metrics | None = None
    sites: dict[str, Metrics] = field(default_factory=dict)
    central: bool = False
    measured_at: dict[str, int] = field(default_factory=dict)
    status: str = "running"
    reason: str = ""
    epsilon: float = math.inf
    delta: float | None = None
    epsilons: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Say where the run stands, without its arrays."""
        seen = "" if self.metrics is None else f", {self.metrics.view()}"
        return f"State(round {self.round}, {self.status}, {self.layout.size:,} values{seen})"

    def tree(self) -> Tree:
        """Return what has to be stored to continue, as a tree; the records of the past are not part of it."""
        leaves = [[x.name, x.shape, x.dtype, x.kind, x.bound, x.block] for x in self.layout.leaves]
        kept = {name: getattr(self, name) for name in _KEPT}
        bits = {} if self.layout.bits == EXACT else {"bits": self.layout.bits}
        return {"version": VERSION, "leaves": leaves, "cohort": self.layout.cohort, **bits, **kept}

    @staticmethod
    def of(tree: Tree) -> "State":
        """Return the state that `tree` was made from; raises `RunError` for anything else."""
        if not isinstance(tree, dict) or tree.get("version") != VERSION:
            raise RunError(f"this is not a state of version {VERSION}; it was written by something else.")
        leaves = tuple(Leaf(*row) for row in tree["leaves"])
        return State(
            layout=Layout(leaves, tree["cohort"], tree.get("bits", EXACT)), **{name: tree[name] for name in _KEPT}
        )

    def but(self, **changes: Any) -> "State":
        """Return this state with some fields changed."""
        return replace(self, **changes)
