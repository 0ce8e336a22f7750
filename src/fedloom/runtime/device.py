"""A federation in one process whose clients train many at a time on one device; of a round, only its sum leaves it."""

import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile
from typing import Protocol, TypeGuard, runtime_checkable

from ..core.errors import RunError
from ..core.examples import Examples
from ..core.hidden import Backing
from ..core.layout import Layout
from ..core.model import Resident
from ..core.task import Ask, Member, Reply, Task, Train, Trained
from .inprocess import InProcess
from .together import train_together
from .trainer import Trainer

ROWS = 0.25  # of the device's free memory is for clients' rows, the rest for stacks
VECTORS = 6  # for each client of a stack: itself, its gradient, its delta, an optimizer's two, and a spare one


@runtime_checkable
class OnDevice(Protocol):
    """A model that may live on a device."""

    device: str

    def resident(self) -> Resident:
        """Return a stack that lives there."""
        ...


def on_device(model: object) -> TypeGuard[OnDevice]:
    """Does the model live elsewhere than in this process's memory?"""
    return isinstance(model, OnDevice) and not model.device.startswith("cpu")


def fitting_device(stack: Resident, layout: Layout, examples: Examples, cohort: int) -> int:
    """Return how many clients like this one train at once in the memory that is free: from 1 to the cohort."""
    each = VECTORS * layout.size * layout.dtype.itemsize + 3 * _bytes(examples)
    return int(max(1, min(cohort, stack.free() * (1 - ROWS) // each)))


def _bytes(examples: Examples) -> int:
    return int(examples.inputs.nbytes + examples.targets.nbytes)


@dataclass(eq=False)
class Rows:
    """Clients' rows on the device; those that were used last are kept, up to `room` bytes.

    >>> import numpy as np
    >>> one, two = (Examples(np.zeros((4, 2)), np.zeros(4)) for _ in range(2))
    >>> rows = Rows(lambda examples: examples, room=96)
    >>> [rows.of("a", one) is one, rows.of("b", two) is two], list(rows.kept), rows.used
    ([True, True], ['b'], 96)
    """

    put: Callable[[Examples], Examples]
    room: float
    kept: OrderedDict[str, tuple[Examples, Examples]] = field(default_factory=OrderedDict)
    used: int = 0

    def of(self, name: str, examples: Examples) -> Examples:
        """Return a client's examples on the device."""
        source, there = self.kept.get(name, (None, None))
        if source is examples and there is not None:
            self.kept.move_to_end(name)
            return there
        self._drop(name)
        there, size = self.put(examples), _bytes(examples)
        while self.kept and self.used + size > self.room:
            self._drop(next(iter(self.kept)))
        if size <= self.room:
            self.kept[name] = (examples, there)
            self.used += size
        return there

    def clear(self) -> None:
        """Keep nothing."""
        self.kept.clear()
        self.used = 0

    def _drop(self, name: str) -> None:
        source, _ = self.kept.pop(name, (None, None))
        self.used -= _bytes(source) if source is not None else 0


@dataclass(eq=False)
class Device:
    """The vectorized engine of a model on a device: no process is forked, and what is not training is sequential.

    Args:
        parties: by name, prepared.
        inner: the same parties, one after the other: it holds the queues and does all but train.
        stack: what trains clients on the device.
        totals: layout of a sum.
        clients: how many train at once; halved, with a warning, when the device's memory is full.
    """

    parties: Mapping[str, Trainer]
    inner: InProcess
    stack: Resident
    totals: Layout
    clients: int
    ready: dict[int, deque[Reply]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rows = Rows(self.stack.put, self.stack.free() * ROWS)

    def members(self) -> Sequence[Member]:
        """Return the roster."""
        return self.inner.members()

    def now(self) -> float:
        """Return seconds on the clock."""
        return self.inner.now()

    def send(self, tasks: Sequence[Task], ask: Ask | None = None) -> Ask:
        """Queue the tasks; raises `RunError` for a party that is not there, and for an ask that is open already."""
        if ask is not None:
            raise RunError("a stack trains one round's clients, so no task joins an open ask; take sequential.")
        return self.inner.send(tasks)

    def receive(self, ask: Ask, timeout_s: float | None) -> Reply | None:
        """Let all that are asked to train do so, and return their sum; a stack that ends after the timeout is late."""
        ready = self.ready.setdefault(ask.id, deque())
        queue = self.inner.waiting.get(ask.id)
        if not ready and queue and isinstance(queue[0].body, Train):
            ready.extend(self._trained(queue, timeout_s))
            return ready.popleft() if ready else None
        return ready.popleft() if ready else self.inner.receive(ask, timeout_s)

    def cancel(self, ask: Ask) -> None:
        """Drop what nobody has begun, and what nobody has received."""
        self.ready.pop(ask.id, None)
        self.inner.cancel(ask)

    def give_up(self, ask: Ask, numbers: Collection[int]) -> None:
        """What comes late is passed over by who asked."""

    def asked(self, number: int) -> None:
        """Nobody has been: parties end with this process."""

    def settle(self, numbers: Collection[int]) -> None:
        """Tell every party that was asked to train since the last time."""
        self.inner.settle(numbers)

    def backing(self) -> Backing:
        """Return that of the inner one."""
        return self.inner.backing()

    def _trained(self, queue: deque[Task], timeout_s: float | None) -> list[Reply]:
        """Return what training gives in time: the sum of all that may be merged, up to the first that may not."""
        began, merge, summed = self.now(), queue[0].merge, None
        single: list[Reply] = []
        while queue and not single:
            replies = self._stack(queue)
            if timeout_s is not None and self.now() - began > timeout_s:
                break
            for reply in replies:
                if merge and _is_sum(reply) and (summed is None or _alike(summed, reply)):
                    summed = reply if summed is None else _joined(summed, reply)
                else:
                    single.append(reply)
        return [self._home(reply) for reply in ([summed] if summed else []) + single]

    def _stack(self, queue: deque[Task]) -> list[Reply]:
        """Train the next clients of one body, as many as fit, and take them from the queue."""
        body = queue[0].body
        assert isinstance(body, Train), "only training is stacked"
        while True:
            tasks = list(islice(takewhile(lambda task: task.body is body, queue), self.clients))
            try:
                replies = self._together(tasks, body)
            except Exception as error:
                if not self.stack.exhausted(error):
                    raise
            else:
                break
            self._less(len(tasks))
        for task in tasks:
            self.inner.unsettled[task.number] = task.party
            queue.popleft()
        return replies

    def _together(self, tasks: Sequence[Task], body: Train) -> list[Reply]:
        parties = [self.parties[task.party] for task in tasks]
        with self.inner.calm():
            found = train_together(
                parties,
                tasks,
                body,
                self.stack,
                rows=lambda party: self.rows.of(party.name, party.prepared().train),
                ends=self.stack.exhausted,
            )
            return list(found)

    def _less(self, tried: int) -> None:
        self.clients = max(1, tried // 2)
        self.rows.clear()
        warnings.warn(
            f"the device's memory was full with {tried} clients at once; from now on {self.clients} train at once.",
            RuntimeWarning,
            stacklevel=2,
        )

    def _home(self, reply: Reply) -> Reply:
        """Return the reply with its vector on the host; that of one client in the layout's dtype."""
        if not isinstance(reply.body, Trained) or not _is_sum(reply):
            return reply
        update = reply.body.update
        vector = self.stack.read(update.vector)
        if update.count == 1:
            vector = vector.astype(self.totals.dtype)
        return replace(reply, body=replace(reply.body, update=replace(update, vector=vector)))


def _is_sum(reply: Reply) -> bool:
    """Is this what `weigh` gave, in float64 on host or device, and no encoded update or fault?"""
    if not isinstance(reply.body, Trained) or reply.body.update.side:
        return False
    return str(reply.body.update.vector.dtype).endswith("float64")


def _alike(one: Reply, other: Reply) -> bool:
    """Do both vectors lie on the same side?"""
    assert isinstance(one.body, Trained) and isinstance(other.body, Trained), "both are sums"  # noqa: PT018
    return type(one.body.update.vector) is type(other.body.update.vector)


def _joined(one: Reply, other: Reply) -> Reply:
    """Return both sums as one, in the memory of the first."""
    assert isinstance(one.body, Trained) and isinstance(other.body, Trained), "both are sums"  # noqa: PT018
    update, vector = one.body.update, one.body.update.vector
    vector += other.body.update.vector
    whole = replace(update, vector=vector, count=update.count + other.body.update.count)
    body = Trained(whole, one.body.metrics + other.body.metrics)
    return Reply(one.numbers + other.numbers, one.parties + other.parties, body, one.seconds + other.seconds)
