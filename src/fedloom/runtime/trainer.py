"""A party that trains: it holds rows, a model and its own memory, and answers tasks about them."""

import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from time import perf_counter
from typing import Any

import numpy as np

from ..core.errors import DataError, DigestMismatch, LayoutMismatch
from ..core.examples import Examples, Holding, Split, scalars
from ..core.hidden import Advertise, Confirm, Decrypt, Identity, Share, Unmask
from ..core.layout import EXACT, Layout, Vector
from ..core.metrics import Metrics
from ..core.model import Model
from ..core.parts import Work
from ..core.rng import Streams, stream
from ..core.strategy import Strategy, Terms
from ..core.task import Evaluate, Evaluated, Fault, Measure, Prepare, Ready, Reply, ReplyBody, Task, Train, Trained
from ..core.tree import Tree
from ..core.update import Update, weigh

Bootstrap = Callable[[Model, Vector, Examples, str, int, int], tuple[float, float, float]]


@dataclass(eq=False)
class Trainer:
    """One party's side of a strategy.

    It builds the client halves from its own copy of the app and refuses a task for another layout, so a coordinator
    cannot talk it out of a stage. Its memory moves only when it learns that its reply was counted.

    Args:
        name: as the federation knows it.
        model: shared by the parties of one process; each `load`s its own vector.
        strategy: the app's.
        holding: its rows.
        seed: the app's.
        terms: what everybody agreed on; initial: the model's first values, where they are known already.
        memories: where it remembers, by name: {"local": …, "stages": […], "gather": …}; nothing before the first task.
        statistics: what rows become numbers with, where that is known already; else a `Prepare` task brings them.
        bootstrap: (model, vector, examples, figure, resamples, seed) -> (value, low, high).
        identity: its own, where updates are hidden in a sum.
    """

    name: str
    model: Model
    strategy: Strategy
    holding: Holding
    seed: int
    terms: Terms | None = None
    initial: Vector | None = None
    memories: MutableMapping[str, Tree] = field(default_factory=dict)
    statistics: Mapping[str, Any] | None = None
    bootstrap: Bootstrap | None = None
    identity: Identity | None = None
    split: Split | None = None
    pending: dict[int, Tree] = field(default_factory=dict)

    @property
    def memory(self) -> Tree:
        """What it remembers; None before the first task."""
        return self.memories.get(self.name)

    @memory.setter
    def memory(self, tree: Tree) -> None:
        """Remember this from now on."""
        self.memories[self.name] = tree

    @cached_property
    def layouts(self) -> tuple[Layout, ...]:
        """What each stage is given, and last what travels."""
        return self.strategy.layouts(self.model.layout)

    def answer(self, tasks: Sequence[Task]) -> Iterator[Reply]:
        """Yield a reply for each task; whatever the user's code raises becomes a `Fault`."""
        for task in tasks:
            began = perf_counter()
            try:
                body = self._answer(task)
            except Exception as error:  # noqa: BLE001 (the border to the user's code: a failing party is a value)
                body = fault(self.name, task, error)
            yield Reply((task.number,), (self.name,), body, perf_counter() - began)

    def settle(self, numbers: Collection[int]) -> None:
        """Take over the memory of counted dispatches and forget the others'."""
        if not self.pending:
            return
        counted = [number for number in self.pending if number in numbers]
        if counted:
            moved = self.pending[max(counted)]  # asked twice in a cohort, the later dispatch decides
            self.memory = moved if self.memory is None else {**moved, "gather": self.memory["gather"]}
        self.pending.clear()

    def _answer(self, task: Task) -> ReplyBody:
        match task.body:
            case Train() as body:
                return self._train(task, body)
            case Evaluate() as body:
                return self._evaluate(body)
            case Measure() as body:
                return self.holding.measure(body.what, scalars(body.known))
            case Prepare() as body:
                self.split = _guarded(self.holding.prepare(scalars(body.statistics)))
                return Ready(self.split.train.size, self.split.held_out.size)
            case Advertise() | Share() | Confirm() | Unmask() | Decrypt() if self.strategy.gather.hides:
                return self._gathered(task, _nothing).body
        raise DataError(f"a task of type {type(task.body).__name__} is not known here; it is refused.")

    def _train(self, task: Task, body: Train) -> ReplyBody:
        self.agreed(body)
        memory, streams = self.remembered(), stream(self.seed, task.number)
        done = self.strategy.local.train(
            self.model,
            body.start[: self.layouts[0].size],
            self.prepared().train,
            memory["local"],
            round=body.round,
            streams=streams.child("local"),
        )
        return self.concluded(task, body, done, streams)

    def concluded(self, task: Task, body: Train, done: Work, streams: Streams) -> ReplyBody:
        """Return what is sent after local work: encoded by the stages, weighed, gathered; the memory waits."""
        memory, terms = self.remembered(), self.agreed(body)
        if not done.examples:
            raise DataError("there are no examples to train on here; leave this site out of the cohort.")
        update, stages = Update(done.delta, self.layouts[0]), list(memory["stages"])
        for i, stage in enumerate(self.strategy.stages):
            update, stages[i] = stage.encode(update, stages[i], body.public[i], streams.child("stage").child(i))
        sent = self._weighed(update, terms, self.strategy.weights.weigh(self.name, done.examples, body.cap), streams)
        # Where privacy is claimed nobody uses training metrics, and nothing accounts for them: they stay here.
        told = Metrics({"examples": 0}) if self.strategy.private else done.metrics
        reply = Reply((task.number,), (self.name,), Trained(sent, told))
        reply = self._gathered(task, lambda: reply)
        self.pending[task.number] = {"local": done.memory, "stages": stages, "gather": None}
        return reply.body

    def _gathered(self, task: Task, work: Callable[[], Reply]) -> Reply:
        """Return the gather's answer; what it must remember moves at once, for it says what was revealed."""
        memory = self.remembered()
        reply, prior = self.strategy.gather.answer(task, memory["gather"], work, self.identity)
        if prior is not memory["gather"]:
            self.memory = {**memory, "gather": prior}
        return reply

    def _weighed(self, update: Update, terms: Terms, weight: float, streams: Streams) -> Update:
        if self.strategy.each:
            return Update(update.vector, update.layout, side={**update.side, "weight": weight})
        return weigh(update.vector, terms.total, weight, streams("round") if terms.total.bits < EXACT else None)

    def _evaluate(self, body: Evaluate) -> Evaluated:
        held_out, vector = self.prepared().held_out, self.personal(body.start)
        metrics = self.model.evaluate(self.model.load(vector), held_out)
        if not body.resamples:
            return Evaluated(metrics)
        if self.bootstrap is None:
            raise DataError("this party was set up without a bootstrap; ask for the metrics alone.")
        drawn = self.bootstrap(self.model, vector, held_out, body.figure, body.resamples, self.seed)
        return Evaluated(metrics, drawn)

    def personal(self, start: Vector) -> Vector:
        """Return what this party would deploy, in the model's layout, given the shared vector."""
        self._fitting(start)
        return self.strategy.local.personal(
            self.model.layout, start[: self.layouts[0].size], self.remembered()["local"]
        )

    def prepared(self) -> Split:
        """Return the rows as numbers; raises `DataError` while nothing says how."""
        if self.split is None and self.statistics is None:
            raise DataError("the rows are not prepared yet; send a Prepare task first.")
        if self.split is None:
            self.split = _guarded(self.holding.prepare(self.statistics or {}))
        return self.split

    def agreed(self, body: Train) -> Terms:
        """Return the terms; raises `DigestMismatch` or `LayoutMismatch` if the task is for other ones."""
        if self.terms is None or body.layout != self.terms.total.digest:
            mine = self.terms.total.digest[:12] if self.terms else "none"
            raise DigestMismatch(f"the task is for layout {body.layout[:12]}, this party has {mine}; compare the apps.")
        self._fitting(body.start)
        return self.terms

    def _fitting(self, start: Vector) -> None:
        size = self.layouts[-1].size
        if start.shape != (size,):
            raise LayoutMismatch(f"the shared vector must have {size} elements, got shape {start.shape}.")

    def remembered(self) -> dict[str, Any]:
        """Return the memory, a new one before the first task."""
        known: dict[str, Any] | None = self.memory
        if known is not None:
            return known
        initial = self.model.init(stream(self.seed, "init")) if self.initial is None else self.initial
        local = self.strategy.local.init(self.model.layout, initial)
        stages = [stage.init(given) for stage, given in zip(self.strategy.stages, self.layouts, strict=False)]
        return {"local": local, "stages": stages, "gather": None}


def _nothing() -> Reply:
    raise DataError("this task asks for no work; report this.")


def _guarded(split: Split) -> Split:
    """Return the same rows, read-only: a module that works in place would change what the next round trains on."""
    return Split(
        *(Examples(_read_only(part.inputs), _read_only(part.targets)) for part in (split.train, split.held_out))
    )


def _read_only(array: Any) -> Any:
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


def fault(site: str, task: Task, error: Exception) -> Fault:
    """Return an exception as a value: where it happened by function and line, without values and folders."""
    frames = traceback.extract_tb(error.__traceback__)
    trace = tuple(f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
    return Fault(site, type(task.body).__name__.lower(), type(error).__name__, str(error) or "no message", trace)
