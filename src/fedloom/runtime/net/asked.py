"""What a task's message asks: all of it is read, or it is refused, before anything is done about it."""

from collections.abc import Callable

from ...core.errors import WireError
from ...core.task import Task, TaskBody, Train
from ...core.tree import Tree, join
from .codec import task_of
from .spool import Body
from .talk import Message, field_of, number_of


def asked(message: Message, get: Callable[[Body], Tree]) -> Task:
    """Return the task in a message, its arrays got by `get`; raises `WireError` for anything else."""
    number, party = number_of(message), field_of(message, "party", str)
    return Task(number, party, body_of(message, get), field_of(message, "merge", bool, False))


def body_of(message: Message, get: Callable[[Body], Tree]) -> TaskBody:
    """Return what a message asks, whoever it is asked of; raises `WireError` for anything else."""
    body = task_of(join(message.get("body"), {key: get(named) for key, named in bodies_of(message).items()}))
    if isinstance(body, Train) and not 0 < body.round < 2**63:
        raise WireError("a round has a number from 1 on, which 63 bits hold.")
    return body


def model_of(message: Message) -> str:
    """Return the digest of the vector that a training task, which has been read, begins with."""
    return bodies_of(message)[message["body"]["start"]["$array"]].digest


def bodies_of(message: Message) -> dict[str, Body]:
    """Return the bodies that a task's arrays lie in, by key; raises `WireError` for anything else."""
    found = {}
    for key, named in field_of(message, "arrays", dict).items():
        match named:
            case [str(digest), int(size)] if size > 0 and size is not True:
                found[key] = Body(digest, size)
            case _:
                raise WireError("a task names each of its arrays by digest and size.")
    return found
