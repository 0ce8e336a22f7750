"""A site's desk: nothing is trained twice, and only what was counted moves memory, in this process or the next."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fedloom.adapters.numpy import logistic
from fedloom.core.errors import StorageError, WireError
from fedloom.core.task import Evaluate, Fault, Prepare, Reply, Task, Train
from fedloom.core.tree import split
from fedloom.recipes import scaffold
from fedloom.runtime.net.bounds import Answers
from fedloom.runtime.net.codec import task_tree
from fedloom.runtime.net.desk import Desk
from fedloom.runtime.net.spool import Spool
from fedloom.store.notes import Notes
from fedloom.store.reused import SPARE
from small import classification, same_tree, small


class Place:
    """A site's folder; `desk` is what a process finds there."""

    def __init__(self, folder):
        self.folder, self.offers, self.held, self.trainings = folder, [], [], 0

    def desk(self):
        there = small(logistic(4), scaffold(), classification(), slow=self.trained)
        self.there, trainer = there, there.parties["site0"]
        notes = Notes(self.folder / "site.db")
        self.held.append(notes)
        spools = [Spool(self.folder / name, 1 << 20) for name in ("in", "out")]
        return Desk(trainer, trainer, notes, *spools, lambda room: None)

    def trained(self, name):
        self.trainings += 1

    def asked(self, desk, number, body=None, /, **changes):
        """Ask for a dispatch; return the digest of what was offered, or None."""
        there = self.there
        body = body or Train(1, there.state.vector, there.terms.total.digest, there.terms.cap)
        skeleton, arrays = split(task_tree(body))
        named = {key: desk.incoming.put(array) for key, array in arrays.items()}
        task = Task(number, "site0", body)
        message = {"kind": "task", "number": task.number, "party": "site0", "room": 5, "body": skeleton}
        message["arrays"] = {key: [each.digest, each.size] for key, each in named.items()}
        offers = []
        message |= changes
        desk.answer(f"train/{number}", message, lambda keys, reply, seconds: offers.append((keys, reply)))
        assert all(keys == [f"train/{number}"] for keys, _ in offers)
        return offers[0][1].digest if offers else None


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    for notes in place.held:
        notes.close()


def test_what_was_answered_is_offered_again_and_not_trained_again(place):
    desk = place.desk()
    first = place.asked(desk, 1)
    assert place.asked(desk, 1) == first
    assert place.asked(place.desk(), 1) == first  # after a crash
    assert place.trainings == 1
    assert desk.outgoing.path(first).exists()


@pytest.mark.parametrize("crash", [False, True])
def test_only_what_was_counted_moves_memory(place, crash):
    desk = place.desk()
    place.asked(desk, 1)
    if crash:
        desk = place.desk()
    before = desk.trainer.remembered()
    desk.settle({7}, {9})
    assert same_tree(desk.trainer.remembered(), before)
    assert list(desk.waiting) == [1]
    desk.settle({1}, set())
    moved = desk.trainer.remembered()
    assert moved["local"].any()
    assert desk.waiting == {}
    again = place.desk()
    assert same_tree(again.trainer.remembered(), moved)
    assert {path.name for path in again.outgoing.folder.iterdir()} <= {SPARE}


def test_what_a_power_cut_takes_of_a_settling_is_settled_again(place):
    """A settling is not waited for: the journal as it was before, and the reply's body is gone."""
    desk = place.desk()
    place.asked(desk, 1)
    before = {path: path.read_bytes() for path in place.folder.glob("site.db*")}
    desk.settle({1}, set())
    moved = desk.trainer.remembered()
    place.held.pop().close()
    for path, content in before.items():
        path.write_bytes(content)
    again = place.desk()
    assert list(again.waiting) == [1]
    again.settle({1}, set())
    assert same_tree(again.trainer.remembered(), moved)
    assert (again.waiting, place.desk().waiting) == ({}, {})


def test_a_reply_that_cannot_be_written_down_is_not_offered(place, monkeypatch):
    desk = place.desk()

    def full(value):
        raise StorageError("no space left.")

    monkeypatch.setattr(desk.notes, "answer", full)
    with pytest.raises(StorageError):
        place.asked(desk, 1)
    assert (desk.waiting, place.desk().waiting) == ({}, {})


def test_what_will_never_be_counted_is_forgotten_and_moves_nothing(place):
    desk = place.desk()
    place.asked(desk, 1)
    desk.settle(set(), {1})
    assert desk.waiting == {}
    assert not desk.trainer.remembered()["local"].any()
    assert place.desk().waiting == {}


def test_two_that_wait_are_settled_one_after_the_other(place):
    desk = place.desk()
    place.asked(desk, 1)
    there = place.there
    place.asked(desk, 2, Train(2, there.state.vector + 1, there.terms.total.digest, there.terms.cap))
    desk.settle({1}, set())
    assert list(desk.waiting) == [2]
    before = desk.trainer.remembered()
    desk.settle({2}, set())
    assert not same_tree(desk.trainer.remembered(), before)


@pytest.mark.parametrize("counted", [False, True])
def test_a_dispatch_that_is_settled_is_not_trained_again(place, counted):
    """It would be trained from a memory that has moved, and move it back later.

    What was counted may be asked for again, by a coordinator that lost the bytes in a power cut and has not saved the
    state behind them; that is over when the next round is settled.
    """
    desk, there = place.desk(), place.there
    first = place.asked(desk, 1)
    desk.settle({1} if counted else set(), set() if counted else {1})
    moved = desk.trainer.remembered()
    assert place.asked(desk, 1) == (first if counted else None)
    assert desk.outgoing.path(first).exists() == counted
    desk.settle({1}, set())
    assert same_tree(desk.trainer.remembered(), moved)
    place.asked(desk, 2, Train(2, there.state.vector + 1, there.terms.total.digest, there.terms.cap))
    desk.settle({2}, set())
    assert place.asked(desk, 1) is None
    assert not desk.outgoing.path(first).exists()
    assert list(desk.lately) == [2]
    assert place.trainings == 2


def test_the_same_bytes_for_two_rounds_stay_as_long_as_one_of_them_needs_them(place):
    desk = place.desk()
    first = place.asked(desk, 1)
    desk.waiting[2] = replace(desk.waiting[1], number=2)
    desk.settle({1}, set())
    desk.settle({2}, set())
    assert desk.outgoing.path(first).exists()
    desk.waiting[3] = replace(desk.lately[2], number=3, digest="ab" * 32)
    desk.settle({3}, set())
    assert not desk.outgoing.path(first).exists()


def test_a_body_that_was_received_stays_only_if_it_may_be_sent_again(place):
    desk = place.desk()
    update, figures = place.asked(desk, 1), place.asked(desk, 1, Evaluate(place.there.state.vector))
    for digest in (update, figures):
        desk.received(digest)
    assert {path.name for path in desk.outgoing.folder.iterdir()} - {SPARE} == {update}


def test_a_task_that_is_none_is_refused(place):
    desk = place.desk()
    array = desk.incoming.put(np.zeros(3))
    message = {"kind": "task", "number": 1, "party": "site0", "room": 5, "arrays": {"0": [array.digest, array.size]}}
    for body in (None, {"$array": "0"}, {"task": "exec"}):
        with pytest.raises(WireError):
            desk.answer("k", message | {"body": body}, lambda *offer: pytest.fail("it was answered"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"number": 0}, "number must be from 1 to 9,223,372,036,854,775,807"),
        ({"number": 2**63}, "number must be from 1 to"),
        ({"number": True}, "number must be of type int"),
        ({"party": "site1"}, "a task is for 'site1', and this is 'site0'"),
        ({"party": "\ud800"}, "a task is for"),
        ({"room": 1.0}, "room must be of type int"),
        ({"body": None}, "of no kind"),
    ],
)
def test_a_task_that_cannot_be_written_down_is_refused_before_anything_is_done(place, changes, said):
    desk = place.desk()
    with pytest.raises(WireError, match=said):
        place.asked(desk, 1, **changes)
    assert (place.trainings, desk.waiting) == (0, {})


def rounds(place, desk, numbers):
    """Ask for training after training, from another model each, and settle none."""
    for number in numbers:
        there = place.there
        place.asked(desk, number, Train(number, there.state.vector + number, there.terms.total.digest, there.terms.cap))


@pytest.mark.parametrize("most", [Answers(3, 64), Answers(1000, 0).beside(1)])
def test_who_settles_nothing_is_not_trained_for_without_end(place, most):
    desk = place.desk()
    size = desk.outgoing.most = 300  # of the largest body
    desk.most = most
    with pytest.raises(WireError, match=r"answers of .* bytes wait here to be settled, and no run needs so many"):
        rounds(place, desk, range(1, 9))
    waiting = sorted(desk.waiting)
    assert len(waiting) == 3 or sum(kept.size for kept in desk.waiting.values()) >= size
    assert place.trainings == len(waiting) < 8
    assert place.asked(desk, 1) == desk.waiting[1].digest  # it may still be asked for again
    desk.settle(set(waiting), set())
    assert place.asked(desk, 9) is not None


class Refusing:
    """A policy that refuses all, until it does not."""

    def __init__(self, party):
        self.party, self.why = party, "not yet."

    def answer(self, tasks):
        for task in tasks:
            fault = Fault(task.party, "policy", "PolicyRefused", self.why)
            yield Reply((task.number,), (task.party,), fault) if self.why else next(iter(self.party.answer([task])))


def test_who_is_asked_again_after_a_fault_tries_again(place):
    """Its policy may allow by then what it refused, and what was broken may have been mended: also after a restart."""
    desk = place.desk()
    desk.party = refusing = Refusing(desk.party)
    refused = place.asked(desk, 1)
    assert desk.waiting == {}
    refusing.why = ""
    trained = place.asked(desk, 1)
    assert (trained != refused, place.trainings, list(desk.waiting)) == (True, 1, [1])
    assert place.asked(place.desk(), 1) == trained


def test_what_the_policy_refuses_before_training_is_asked_for_again_once(place):
    desk = place.desk()
    desk.party = refusing = Refusing(desk.party)
    desk.objects = lambda body: refusing.why
    assert not desk.again()
    place.asked(desk, 1)  # training is asked again in every round
    assert (desk.refused, desk.again()) == ("", False)
    place.asked(desk, 1, Prepare({}))
    assert (desk.refused, desk.again()) == ("not yet.", False)
    refusing.why = ""
    assert [desk.again(), desk.again(), desk.refused] == [True, False, ""]
    place.asked(desk, 1, Prepare({}))
    assert (desk.refused, desk.again()) == ("", False)


@pytest.mark.parametrize(("phase", "event"), [("policy", "refused"), ("train", "fault")])
def test_a_site_logs_what_it_answers_instead_of_an_update(place, caplog, phase, event):
    desk = place.desk()
    fault = Fault("site0", phase, "ValueError", "cohorts of 5 or more")
    desk.party = SimpleNamespace(answer=lambda tasks: [Reply((1,), ("site0",), fault)])
    place.asked(desk, 1)
    (line,) = caplog.records
    assert (line.levelname, line.message, line.key, line.said) == ("WARNING", event, "train/1", "cohorts of 5 or more")
