"""What a party's body says as the reply to the tasks that it was asked."""

from collections.abc import Mapping, Sequence

from ...core.errors import RunError, WireError
from ...core.layout import Layout
from ...core.task import ANSWERS, Fault, Reply, Task
from .codec import reply_of
from .spool import Body, Spool


def answered(spool: Spool, layouts: Mapping[str, Layout], tasks: Sequence[Task], body: Body, seconds: float) -> Reply:
    """Return a body that a party sent as the reply to these tasks; what cannot be read is a fault."""
    numbers, parties = tuple(task.number for task in tasks), tuple(task.party for task in tasks)
    try:
        answer = reply_of(spool.get(body), layouts, ", ".join(parties))
        if not isinstance(answer, Fault) and any(not isinstance(answer, ANSWERS[type(t.body)]) for t in tasks):
            asked = ", ".join(sorted({type(task.body).__name__ for task in tasks}))
            raise WireError(f"a reply of type {type(answer).__name__} does not answer a task of type {asked}.")
    except (RunError, OSError) as error:
        answer = Fault(", ".join(parties), "admit", type(error).__name__, str(error))
    return Reply(numbers, parties, answer, seconds)
