"""What goes to parties: tasks as messages, and the arrays in them as bodies.

A small body follows the first task that names it on a connection, unasked; a larger one is fetched, from any byte on.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ...core.task import Task, TaskBody
from ...core.tree import split
from .codec import task_tree
from .line import CHUNK_BYTES
from .seats import Given, Seat, Stream
from .shelf import Shelf
from .spool import Body
from .talk import Channel


@dataclass(eq=False)
class Outbox:
    """Tasks as messages.

    Args:
        shelf: of the bodies.
    """

    shelf: Shelf = field(default_factory=Shelf)
    _bodies: dict[int, tuple[TaskBody, dict[str, Any]]] = field(default_factory=dict)

    def message(self, task: Task, room: int) -> dict[str, Any]:
        """Return what asks a task: its values, the names of its arrays, and for how many clients a sum has room."""
        kept = self._bodies.get(id(task.body))
        if kept is None or kept[0] is not task.body:
            skeleton, arrays = split(task_tree(task.body))
            bodies = {key: self.shelf.put(array) for key, array in arrays.items()}
            named = {key: [body.digest, body.size] for key, body in bodies.items()}
            kept = (task.body, {"body": skeleton, "arrays": named, "room": room})
            self._bodies[id(task.body)] = kept
        return {"number": task.number, "party": task.party, "merge": task.merge, **kept[1]}

    def ask(self, seat: Seat, givens: list[Given], run: str) -> None:
        """Send tasks, or send them again, and behind them the small bodies that are new on this connection."""
        if not seat.ask(givens, run):
            return
        for body in bodies_in(givens):
            if pushed(body) and body.digest not in seat.pushed:
                seat.pushed.add(body.digest)
                seat.jobs.put(self.stream(body.digest, 0))

    def stream(self, digest: str, offset: int) -> Stream:
        """Return what sends a body from an offset on."""

        def stream(channel: Channel) -> None:
            try:
                for at, data in self.shelf.pieces(digest, offset):
                    channel.send_chunk(digest, at, data)
            except FileNotFoundError:
                return  # dropped: nobody needs it any more

        return stream

    def tidy(self, givens: Iterable[Given]) -> None:
        """Forget bodies that nobody was asked about lately; `givens` are the tasks that are not answered."""
        asked = {body.digest for body in bodies_in(givens)}
        self._bodies = dict(list(self._bodies.items())[-1:])
        latest = {name for _, message in self._bodies.values() for name, _ in message["arrays"].values()}
        self.shelf.keep_only(asked | latest)


def bodies_in(givens: Iterable[Given]) -> list[Body]:
    """Return the bodies that tasks name, each once, in their order."""
    return list(dict.fromkeys(Body(*named) for given in givens for named in given.message["arrays"].values()))


def pushed(body: Body) -> bool:
    """Does a body follow its task unasked?

    >>> pushed(Body("ab", CHUNK_BYTES)), pushed(Body("ab", CHUNK_BYTES + 1))
    (True, False)
    """
    return body.size <= CHUNK_BYTES
