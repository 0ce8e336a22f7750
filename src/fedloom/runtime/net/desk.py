"""What a site works with: the party that answers, and what it keeps on its disk. It knows of no connection.

What must survive a crash is written down before anything is sent.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from logging import getLogger
from typing import Protocol

from ...core.errors import WireError
from ...core.hidden import Advertise
from ...core.task import Fault, Measure, Party, Prepare, Reply, Task, TaskBody, Train
from ...store.notes import Answered, Notes
from ..trainer import Trainer
from ..witness import Witness
from .asked import asked, model_of
from .bounds import Answers
from .codec import reply_tree
from .spool import Body, Spool
from .talk import Message, field_of

POLICY = "policy"  # the phase of a refusal
log = getLogger(__name__)

Offer = Callable[[Sequence[str], Body, float], None]  # keys of the tasks that it answers, the reply, seconds


class Works(Protocol):
    """What a party works with: a site's `Desk`, or a relay."""

    incoming: Spool
    outgoing: Spool
    witness: Witness | None
    refused: str  # why the last question before training was; empty if it was not
    independent: bool  # is each task answered by itself, so that one may be left out?

    @property
    def waiting(self) -> Collection[int]:
        """Dispatches that were answered, or are being answered, and whose round is open."""
        ...

    def answer(self, key: str, message: Message, offer: Offer) -> None:
        """Offer a reply to a task, now or later: alone, or one reply to several."""
        ...

    def cancel(self, keys: Collection[str]) -> None:
        """Learn that nobody waits for these any more."""
        ...

    def received(self, digest: str) -> None:
        """Learn that a body which was offered has arrived."""
        ...

    def settle(self, counted: set[int], void: set[int]) -> None:
        """Learn which dispatches were counted, and which never will be."""
        ...

    def again(self) -> bool:
        """Is it to be asked again what was refused before training? Says so once."""
        ...


@dataclass(eq=False)
class Desk:
    """What a site works with: the party that answers, and what is kept on its disk.

    Args:
        trainer: whose memory and split are kept.
        party: that answers: the trainer, behind the site's policy.
        notes: replies and memory.
        incoming, outgoing: bodies that were fetched, and those that are sent.
        room: tells the trainer for how many clients a sum has room.
        witness: watches the coordinator's record.
        objects: says why the site's policy refuses a question at this moment; empty if it does not.
        most: how many answers may wait to be settled.
    """

    trainer: Trainer
    party: Party
    notes: Notes
    incoming: Spool
    outgoing: Spool
    room: Callable[[int], None]
    witness: Witness | None = None
    objects: Callable[[TaskBody], str] = lambda body: ""
    most: Answers = Answers()
    refused: str = ""
    independent: bool = True
    waiting: dict[int, Answered] = field(default_factory=dict)
    lately: dict[int, Answered] = field(default_factory=dict)  # counted when it was last settled
    closed: set[int] = field(default_factory=set)  # dispatches whose round is; memory has moved on from them
    _question: TaskBody | None = None  # that was refused

    def __post_init__(self) -> None:
        self.trainer.memories.update(self.notes.memories())
        self.waiting = {kept.number: kept for kept in self.notes.waiting()}
        self.trainer.pending.update({number: kept.memory for number, kept in self.waiting.items()})
        self.outgoing.keep_only({kept.digest for kept in self.waiting.values()})

    def answer(self, key: str, message: Message, offer: Offer) -> None:
        """Do a task, or find what was answered to it before, and offer the reply."""
        task = self._task(message)
        if isinstance(task.body, Advertise):
            self._begin_anew(task.number)
        kept = self.waiting.get(task.number) or self.lately.get(task.number)
        if kept is not None and isinstance(task.body, Train):
            offer([key], Body(kept.digest, kept.size), kept.seconds)
            return
        if isinstance(task.body, Train) and task.number in self.closed:
            return  # asked twice, and settled in between: trained again, it would be from another memory
        if isinstance(task.body, Train):
            self._refuse_too_many()
        if isinstance(task.body, Train) and self.witness is not None:
            self.witness.admit(task.body.round, model_of(message))
        with self.notes.together():  # on the disk at its end, and only then is anything offered
            reply = next(iter(self.party.answer([task])))
            body = self.outgoing.put(reply_tree(reply.body))
            self._note(task, reply, body, message)
        if isinstance(task.body, Measure | Prepare):
            self._learn_whether_refused(task.body, reply)
        elif isinstance(fault := reply.body, Fault):
            what = "refused" if fault.phase == POLICY else "fault"
            log.warning(what, extra={"key": key, "error": fault.error, "said": fault.message})
        offer([key], body, reply.seconds)

    def cancel(self, keys: Collection[str]) -> None:
        """Nobody waits for these any more; what has been begun is finished all the same."""

    def received(self, digest: str) -> None:
        """Forget a body that has arrived, unless it may have to be sent again."""
        if all(kept.digest != digest for kept in (*self.waiting.values(), *self.lately.values())):
            self.outgoing.drop(digest)

    def settle(self, counted: set[int], void: set[int]) -> None:
        """Learn which replies were counted; memory moves, and what was answered in closed rounds is forgotten.

        What was counted is still at hand until the next settling: a coordinator that loses its power before it has
        saved the state behind it may have lost the bodies too, and asks again for the same bytes.

        This is not waited for: it is on the disk before the next reply is. After a power cut that takes it away the
        replies wait again, together with the memory from before, and the coordinator, who has verdicts on its disk
        before it tells them, is asked for these once more.
        """
        numbers = [number for number in self.waiting if number in counted or number in void]
        if not numbers:
            return
        self.closed.update(numbers)
        with self.notes.together(durable=False):
            if self.witness is not None:
                self.witness.settled(counted, void)
            self.party.settle(counted)
            moved = {self.trainer.name: self.trainer.memory} if self.trainer.memory is not None else {}
            self.notes.settle(numbers, moved)
        old, settled = self.lately, {number: self.waiting.pop(number) for number in numbers}
        hides = self.trainer.strategy.gather.hides  # a masked reply is never sent in another session
        self.lately = {number: kept for number, kept in settled.items() if number in counted and not hides}
        for kept in (*old.values(), *settled.values()):
            self.received(kept.digest)
        self.trainer.pending.update({number: kept.memory for number, kept in self.waiting.items()})

    def again(self) -> bool:
        """Does the policy allow by now what it refused before training? Says so once."""
        if self._question is None or self.objects(self._question):
            return False
        self.refused, self._question = "", None
        return True

    def _learn_whether_refused(self, body: TaskBody, reply: Reply) -> None:
        by_policy = isinstance(reply.body, Fault) and reply.body.phase == POLICY
        self.refused = reply.body.message if isinstance(reply.body, Fault) and by_policy else ""
        self._question = body if by_policy else None

    def _begin_anew(self, number: int) -> None:
        """Forget a masked reply of an earlier session: other masks cancel in the new one."""
        if number in self.waiting:
            self.notes.settle([number], {})
            self.received(self.waiting.pop(number).digest)
            self.trainer.pending.pop(number, None)

    def _note(self, task: Task, reply: Reply, body: Body, message: Message) -> None:
        """Write down what must be known of an answer after a crash."""
        if self.trainer.strategy.gather.hides:  # what was revealed, and what must not be used twice
            self.notes.settle([], {self.trainer.name: self.trainer.memory})
        if not isinstance(task.body, Train) or isinstance(reply.body, Fault):
            return  # who is asked again after a fault tries again: what was wrong may have been mended
        memory = self.trainer.pending.get(task.number)
        kept = Answered(task.number, task.party, body.digest, body.size, reply.seconds, memory)
        self.notes.answer(kept)
        if self.witness is not None:
            self.witness.answered(task.number, task.body.round, model_of(message), body.digest)
        self.waiting[task.number] = kept

    def _refuse_too_many(self) -> None:
        """Refuse to train for a coordinator that settles nothing, before anything is counted; see `bounds`."""
        held, most = sum(kept.size for kept in self.waiting.values()), self.most.models * self.outgoing.most
        if len(self.waiting) >= self.most.number or held >= most:
            raise WireError(
                f"{len(self.waiting)} answers of {held:,} bytes wait here to be settled, and no run needs so many; is "
                f"the coordinator in order?"
            )

    def _task(self, message: Message) -> Task:
        task = asked(message, self.incoming.get)
        if task.party != self.trainer.name:
            raise WireError(f"a task is for {task.party[:80]!r}, and this is {self.trainer.name!r}.")
        self.room(field_of(message, "room", int))
        return task
