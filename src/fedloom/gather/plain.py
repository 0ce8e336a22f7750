"""Updates as they are, one client at a time: the server sees each of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..core.hidden import Identity
from ..core.layout import Layout
from ..core.task import Federation, Reply, Task


@dataclass(frozen=True)
class Plain:
    """No protection on the way beyond the transport's own; the coordinator can read every client's update."""

    hides: ClassVar[bool] = False

    def fits(self, total: Layout) -> None:
        """Every sum fits."""

    def collect(
        self, federation: Federation, tasks: Sequence[Task], close: Callable[[], float | None], least: int = 0
    ) -> Iterator[Reply]:
        """Yield replies as they come, until every task is answered, no time is left, or nothing more will come."""
        ask, waiting = federation.send(tasks), {task.number for task in tasks}
        try:
            while waiting:
                left = close()
                if left is not None and left <= 0:
                    return
                reply = federation.receive(ask, left)
                if reply is not None:
                    waiting -= set(reply.numbers)
                    yield reply
                elif left is None:
                    return
        finally:
            federation.cancel(ask)

    def answer(
        self, task: Task, prior: Any, work: Callable[[], Reply], identity: Identity | None = None
    ) -> tuple[Reply, Any]:
        """Do the work and send it as it is; there is nothing to remember."""
        return work(), prior
