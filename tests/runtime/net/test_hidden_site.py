"""A site of a hidden sum may be killed after every answer: no mask is used twice, and nothing is said in two ways."""

from dataclasses import dataclass, field, replace

import pytest

from fedloom.adapters.numpy import logistic
from fedloom.core.hidden import Advertise, Confirm
from fedloom.core.task import Fault, Reply, Train
from fedloom.core.tree import split
from fedloom.gather import Plain, SecAgg
from fedloom.gather.secure.registry import Registry
from fedloom.recipes import scaffold
from fedloom.runtime.net.codec import reply_of, task_tree
from fedloom.runtime.net.desk import Desk
from fedloom.runtime.net.spool import Spool
from fedloom.stages import FixedPoint
from fedloom.store.notes import Notes
from hidden import changed
from small import classification, same_tree, small

STRATEGY = replace(scaffold(), stages=(FixedPoint(),), gather=SecAgg())


@dataclass(eq=False)
class Mortal:
    """A party behind a desk that lives for one request; what the next one knows is on the disk.

    `meanwhile` is told the desk, the task and the digest of the answer, before the desk is gone.
    """

    folder: object
    registry: Registry
    meanwhile: object = lambda desk, task, digest: None
    digests: dict = field(default_factory=dict)
    counted: list = field(default_factory=list)

    def desk(self):
        there = small(logistic(4), STRATEGY, classification())
        trainer = there.parties["site0"]
        trainer.identity = self.registry.identity("site0")
        self.total = there.terms.total
        notes = Notes(self.folder / "site.db")
        return Desk(
            trainer, trainer, notes, *(Spool(self.folder / n, 1 << 20) for n in ("in", "out")), lambda room: None
        )

    def asked(self, desk, task):
        skeleton, arrays = split(task_tree(task.body))
        bodies = {key: desk.incoming.put(array) for key, array in arrays.items()}
        message = {"kind": "task", "number": task.number, "party": "site0", "room": 5, "body": skeleton}
        message["arrays"] = {key: [body.digest, body.size] for key, body in bodies.items()}
        offers = []
        desk.answer("key", message, lambda keys, body, seconds: offers.append(body))
        return offers[0]

    def answer(self, tasks):
        (task,) = tasks
        desk = self.desk()
        body = self.asked(desk, task)
        answer = reply_of(desk.outgoing.get(body), {self.total.digest: self.total}, "site0")
        self.meanwhile(desk, task, body.digest)
        desk.notes.close()
        yield Reply((task.number,), ("site0",), answer)

    def settle(self, numbers):
        desk = self.desk()
        desk.settle(set(numbers), set(desk.waiting) - set(numbers))
        desk.notes.close()


def rounds(folder, count=3, meanwhile=lambda desk, task, digest: None):
    """Run rounds in which the first site dies after every answer; return the states."""
    there = small(logistic(4), STRATEGY, classification())
    registry = Registry(list(there.parties))
    for name, party in there.parties.items():
        party.identity = registry.identity(name)
    there.federation.parties = {**there.parties, "site0": Mortal(folder, registry, meanwhile)}
    return there.run(count)


def test_a_site_that_dies_after_every_answer_has_the_bits_of_the_plain_sum(tmp_path):
    plain = small(logistic(4), replace(STRATEGY, gather=Plain()), classification()).run(3)
    for one, other in zip(rounds(tmp_path), plain, strict=True):
        assert same_tree(one.tree(), other.tree())
        assert one.record.faults == ()


def test_the_same_request_after_a_crash_has_the_same_answer(tmp_path):
    seen = []

    def meanwhile(desk, task, digest):
        other = Mortal(tmp_path, Registry([f"site{i}" for i in range(5)]))
        again = other.desk()
        seen.append(type(task.body).__name__)
        assert other.asked(again, task).digest == digest
        again.notes.close()

    rounds(tmp_path, 2, meanwhile)
    assert seen == ["Advertise", "Share", "Train", "Confirm", "Unmask"] * 2


def test_another_list_of_survivors_is_refused_after_a_crash(tmp_path):
    refused = []

    def meanwhile(desk, task, digest):
        if isinstance(task.body, Confirm):
            other = Mortal(tmp_path, Registry([f"site{i}" for i in range(5)]))
            again = other.desk()
            body = other.asked(again, changed(task, alive=task.body.alive[:4]))
            refused.append(reply_of(again.outgoing.get(body), {}, "site0"))
            again.notes.close()

    rounds(tmp_path, 1, meanwhile)
    assert [fault.error for fault in refused] == ["AccessDenied"]
    assert isinstance(refused[0], Fault)


def test_a_masked_reply_of_an_earlier_session_is_not_sent_into_a_new_one(tmp_path):
    """After a coordinator's crash the same dispatch is asked again, under other masks."""
    found = []

    def meanwhile(desk, task, digest):
        if isinstance(task.body, Train):
            assert list(desk.waiting) == [task.number]
            names = tuple(f"site{i}" for i in range(5))
            anew = replace(task, body=Advertise("e" * 32, task.body.round, "", names))
            Mortal(tmp_path, Registry(list(names))).asked(desk, anew)
            found.append((dict(desk.waiting), task.number in desk.trainer.pending))
            raise InterruptedError

    with pytest.raises(InterruptedError):
        rounds(tmp_path, 1, meanwhile)
    assert found == [({}, False)]
