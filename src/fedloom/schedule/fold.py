"""One round's replies become one step of the server: what every schedule does between asking and moving."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core import reused
from ..core.cores import on_blocks
from ..core.errors import LayoutMismatch, UpdateError
from ..core.layout import MODEL
from ..core.metrics import Metrics
from ..core.metrics import total as sum_of
from ..core.rng import Streams
from ..core.state import State
from ..core.strategy import Strategy, Terms
from ..core.task import Fault, Reply, Trained
from ..core.tree import copied
from ..core.update import Update, verify, weigh


@dataclass(eq=False)
class Intake:
    """The replies of one round as they come in: each task counts once, and what is not in order is a `Fault`.

    The one mutable record of a round; it holds one sum (or, for an aggregator that must, single updates). `treat`
    changes what was verified before it is added, given the reply's dispatch numbers.
    """

    strategy: Strategy
    terms: Terms
    awaited: dict[int, str]  # dispatch number -> who was asked
    total: Any = None
    counted: list[int] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    training: list[tuple[int, Metrics]] = field(default_factory=list)
    bytes_up: int = 0
    refused: set[int] = field(default_factory=set)  # dispatches whose answers are here and may not be added
    treat: Callable[[Update, tuple[int, ...]], Update] = lambda update, numbers: update

    def take(self, reply: Reply) -> None:
        """Count a reply, or record why it does not count."""
        site = ", ".join(reply.parties)
        if isinstance(reply.body, Fault):
            self.refused.update(reply.numbers if reply.body.phase == "admit" else ())
            self.faults.append(reply.body)
            self._answered(reply)
            return
        try:
            self._admit(reply)
        except UpdateError as error:
            self.refused.update(number for number in reply.numbers if number not in self.counted)
            self.faults.append(Fault(site, "admit", type(error).__name__, str(error)))

    def _admit(self, reply: Reply) -> None:
        if not isinstance(reply.body, Trained):
            raise UpdateError(f"expected a trained update, got {type(reply.body).__name__}; the reply is ignored.")
        if not set(reply.numbers) <= set(self.awaited):
            raise UpdateError(f"dispatch {reply.numbers} was not asked for, or was answered before; not counted again.")
        if reply.parties != tuple(self.awaited[number] for number in reply.numbers):
            raise UpdateError(f"dispatch {reply.numbers} was asked of somebody else; the reply is ignored.")
        self._answered(reply)
        if not reply.body.update.count == len(reply.numbers) == len(set(reply.numbers)):
            raise UpdateError(f"a sum of {reply.body.update.count} clients does not answer dispatch {reply.numbers}.")
        update = self.treat(decoded(reply.body.update, self.strategy, self.terms), reply.numbers)
        self.total = self.strategy.aggregate.add(self.total, update)
        self.counted.extend(reply.numbers)
        self.training.append((reply.numbers[0], reply.body.metrics))
        self.bytes_up += reply.body.update.size_bytes if reply.bytes_up is None else reply.bytes_up

    def _answered(self, reply: Reply) -> None:
        for number in reply.numbers:
            self.awaited.pop(number, None)

    @property
    def ordered(self) -> Any:
        """The total; where it is single updates, in order of dispatch, so that the order of answers changes nothing."""
        if not self.strategy.aggregate.each:
            return self.total
        return [update for _, update in sorted(zip(self.counted, self.total, strict=True), key=lambda pair: pair[0])]

    @property
    def figures(self) -> dict[str, float]:
        """Pooled training metrics, summed in order of dispatch."""
        return sum_of(metrics for _, metrics in sorted(self.training, key=lambda pair: pair[0])).view()


def decoded(update: Update, strategy: Strategy, terms: Terms) -> Update:
    """Return what may be added: undo the stages for one client where that is their way, and check all of it."""
    if not strategy.each:
        return verify(update, terms.total)
    weight = update.side.get("weight")
    if not isinstance(weight, float) or update.count != 1:
        raise UpdateError("an encoded update must come from one client, with its weight beside it.")
    if update.layout.digest != terms.payload.digest:
        mine, theirs = terms.payload.digest[:12], update.layout.digest[:12]
        raise LayoutMismatch(f"expected an encoded update of layout {mine}, got {theirs}.")
    for stage in reversed(strategy.stages):
        update = stage.decode(update)
    return verify(weigh(update.vector, terms.total, weight), terms.total)


def move(state: State, strategy: Strategy, intake: Intake, members: int, streams: Streams) -> State:
    """Return the state after the server's step; without any update it is the same vector, unless noise is added.

    Noise is added to an empty sum too: that nobody was drawn is as private as who was.
    """
    if intake.total is None and not strategy.noisy:
        return state
    nothing = Update(np.zeros(intake.terms.total.size), intake.terms.total, 0)
    total = nothing if intake.total is None else intake.ordered
    total, memories = _finished(total, strategy, state, streams)
    direction = strategy.aggregate.finish(total, members)
    vector, buffers = reused.copied(state.vector), state.layout.block(MODEL, "buffer")
    averaged = vector[buffers] + direction[buffers]
    direction[buffers] = 0
    on_blocks(lambda block: np.negative(direction[block], out=direction[block]), len(direction))
    vector, memory = strategy.optimizer.step(vector, direction, copied(state.optimizer))
    vector[buffers] = averaged
    return state.but(vector=vector, optimizer=memory, stages=memories)


def _finished(total: Any, strategy: Strategy, state: State, streams: Streams) -> tuple[Any, tuple[Any, ...]]:
    memories = list(state.stages)
    if strategy.aggregate.each:
        return total, tuple(memories)
    for i in reversed(range(len(memories))):
        total, memories[i] = strategy.stages[i].finish(total, memories[i], streams.child(i))
    return total, tuple(memories)


def publics(strategy: Strategy, state: State) -> tuple[Any, ...]:
    """Return what each stage's server half lets clients see this round."""
    return tuple(stage.public(memory) for stage, memory in zip(strategy.stages, state.stages, strict=True))


def summary(faults: Sequence[Fault], most: int = 3) -> str:
    """Return faults as one line for an error's text, those that say the same together.

    >>> summary([Fault("a", "train", "ValueError", "no."), Fault("b", "train", "ValueError", "no.")])
    'a, b (train): ValueError: no'
    """
    alike: dict[tuple[str, str, str], list[str]] = {}
    for fault in faults:
        alike.setdefault((fault.phase, fault.error, fault.message.rstrip(".")), []).append(fault.site)
    lines = [f"{_sites(sites)} ({phase}): {error}: {said}" for (phase, error, said), sites in alike.items()]
    more = [f"and {len(lines) - most} other faults"] if len(lines) > most else []
    return "; ".join([*lines[:most], *more]) or "no faults"


def _sites(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"
