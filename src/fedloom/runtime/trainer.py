"""A party that trains: it holds rows, a model and its own memory, and answers tasks about them."""

import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from time import perf_counter
from typing import Any

from ..core.errors import DataError, DigestMismatch
from ..core.layout import Vector
from ..core.parts import Examples, Holding, Model, Split
from ..core.rng import stream
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
        memory: {"local": …, "stages": […], "gather": …}; empty until the first task.
        bootstrap: (model, vector, examples, figure, resamples, seed) -> (value, low, high).
    """

    name: str
    model: Model
    strategy: Strategy
    holding: Holding
    seed: int
    terms: Terms | None = None
    memory: Tree = None
    bootstrap: Bootstrap | None = None
    split: Split | None = None
    pending: dict[int, Tree] = field(default_factory=dict)

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
        for number in numbers:
            if number in self.pending:
                self.memory = self.pending[number]
        self.pending.clear()

    def _answer(self, task: Task) -> ReplyBody:
        match task.body:
            case Train() as body:
                return self._train(task, body)
            case Evaluate() as body:
                return self._evaluate(body)
            case Measure() as body:
                return self.holding.measure(body.what, body.known)
            case Prepare() as body:
                self.split = self.holding.prepare(body.statistics)
                return Ready(self.split.train.size, self.split.held_out.size)
        raise DataError(f"a task of type {type(task.body).__name__} is not known here; it is refused.")

    def _train(self, task: Task, body: Train) -> ReplyBody:
        terms, memory = self._agreed(body), self._remembered()

        def work() -> Reply:
            streams, data = stream(self.seed, task.number), self._prepared().train
            local = self.strategy.local
            done = local.train(
                self.model, body.start, data, memory["local"], round=body.round, streams=streams.child("local")
            )
            update, stages = Update(done.delta, terms.payload), list(memory["stages"])
            for i, stage in enumerate(self.strategy.stages):
                update, stages[i] = stage.encode(update, stages[i], body.public[i], streams.child("stage").child(i))
            weight = self.strategy.weights.weigh(self.name, done.examples, body.cap)
            sent = self._weighed(update, terms, weight)
            self.pending[task.number] = {"local": done.memory, "stages": stages, "gather": memory["gather"]}
            return Reply((task.number,), (self.name,), Trained(sent, done.metrics))

        reply, prior = self.strategy.gather.answer(task, memory["gather"], work)
        self.pending[task.number]["gather"] = prior
        return reply.body

    def _weighed(self, update: Update, terms: Terms, weight: float) -> Update:
        if self.strategy.each:
            return Update(update.vector, update.layout, side={**update.side, "weight": weight})
        return weigh(update.vector, terms.total, weight)

    def _evaluate(self, body: Evaluate) -> Evaluated:
        held_out, vector = self._prepared().held_out, self.personal(body.start)
        metrics = self.model.evaluate(self.model.load(vector), held_out)
        if not body.resamples:
            return Evaluated(metrics)
        if self.bootstrap is None:
            raise DataError("this party was set up without a bootstrap; ask for the metrics alone.")
        drawn = self.bootstrap(self.model, vector, held_out, body.figure, body.resamples, self.seed)
        return Evaluated(metrics, drawn)

    def personal(self, start: Vector) -> Vector:
        """Return what this party would deploy, in the model's layout, given the shared vector."""
        return self.strategy.local.personal(self.model.layout, start, self._remembered()["local"])

    def _prepared(self) -> Split:
        if self.split is None:
            raise DataError("the rows are not prepared yet; send a Prepare task first.")
        return self.split

    def _agreed(self, body: Train) -> Terms:
        if self.terms is None or body.layout != self.terms.total.digest:
            mine = self.terms.total.digest[:12] if self.terms else "none"
            raise DigestMismatch(f"the task is for layout {body.layout[:12]}, this party has {mine}; compare the apps.")
        return self.terms

    def _remembered(self) -> dict[str, Any]:
        if self.memory is None:
            initial = self.model.init(stream(self.seed, "init"))
            layout = self.model.layout
            stages = [stage.init(self.strategy.payload(layout)) for stage in self.strategy.stages]
            self.memory = {"local": self.strategy.local.init(layout, initial), "stages": stages, "gather": None}
        memory: dict[str, Any] = self.memory
        return memory


def fault(site: str, task: Task, error: Exception) -> Fault:
    """Return an exception as a value: where it happened by function and line, without values and folders."""
    frames = traceback.extract_tb(error.__traceback__)
    trace = tuple(f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
    return Fault(site, type(task.body).__name__.lower(), type(error).__name__, str(error) or "no message", trace)
