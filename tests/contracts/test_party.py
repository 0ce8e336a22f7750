"""What every party must do; a new one joins with one line in PARTIES."""

from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from fedloom.adapters.numpy import logistic
from fedloom.core.task import ANSWERS, Evaluate, Fault, Measure, Prepare, Task, Train, Trained
from fedloom.recipes import scaffold
from fedloom.runtime.policy import Guarded, Policy
from fedloom.store.usage import Usage
from small import classification, same_tree, small

NAME = "site0"


def guarded(there, held, tmp_path):
    usage = Usage(tmp_path / "usage.db", "app", "run")
    held.callback(usage.close)
    return Guarded(there.parties[NAME], Policy(), usage, datetime.now, there.strategy, 9, lambda: True)


PARTIES = {"trainer": lambda there, held, tmp_path: there.parties[NAME], "behind a policy": guarded}


@pytest.fixture(params=PARTIES)
def there(request, tmp_path):
    found = small(logistic(4), scaffold(), classification())
    with ExitStack() as held:
        found.party = PARTIES[request.param](found, held, tmp_path)
        yield found


def train(there, number=1, **changes):
    body = Train(1, there.state.vector, there.terms.total.digest, there.terms.cap, cohort=5)
    return Task(number, NAME, replace(body, **changes))


def memory(there):
    return there.parties[NAME].remembered()["local"].copy()


def test_tasks_are_answered_in_their_order_by_the_number_and_name_they_came_with(there):
    bodies = (train(there).body, Evaluate(there.state.vector), Measure("sums", {}), Prepare({}), train(there).body)
    replies = list(there.party.answer([Task(7 + at, NAME, body) for at, body in enumerate(bodies)]))
    assert [(reply.numbers, reply.parties) for reply in replies] == [((7 + at,), (NAME,)) for at in range(5)]
    for reply, body in zip(replies, bodies, strict=True):
        assert isinstance(reply.body, ANSWERS[type(body)]), reply.body
        assert reply.seconds >= 0


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"layout": "ab" * 32}, "DigestMismatch"), ({"start": np.zeros(99, np.float32)}, "LayoutMismatch")],
)
def test_what_fails_is_a_fault_and_the_next_task_is_answered(there, changes, error):
    bad, good = there.party.answer([train(there, 1, **changes), train(there, 2)])
    assert isinstance(bad.body, Fault)
    assert (bad.body.site, bad.body.phase, bad.body.error) == (NAME, "train", error)
    assert isinstance(good.body, Trained)


def test_the_same_task_has_the_same_answer(there):
    first, again, other = there.party.answer([train(there), train(there), train(there, 2, round=2)])
    assert first.body.update.vector.tobytes() == again.body.update.vector.tobytes()
    assert same_tree(dict(first.body.metrics.sums), dict(again.body.metrics.sums))
    assert isinstance(other.body, Trained)


def test_what_it_is_given_stays_as_it_is(there):
    task = train(there)
    before = task.body.start.copy()
    list(there.party.answer([task, Task(2, NAME, Evaluate(task.body.start))]))
    assert task.body.start.tobytes() == before.tobytes()


def test_only_what_was_counted_moves_its_memory(there):
    start = memory(there)
    list(there.party.answer([train(there, 1), train(there, 2)]))
    assert memory(there).tobytes() == start.tobytes()
    there.party.settle([99])
    assert memory(there).tobytes() == start.tobytes()
    there.party.settle([2])
    assert memory(there).tobytes() == start.tobytes()  # forgotten with what was not counted
    list(there.party.answer([train(there, 3)]))
    there.party.settle([3])
    assert memory(there).tobytes() != start.tobytes()


def test_settling_what_it_never_answered_is_no_error(there):
    there.party.settle([])
    there.party.settle([1, 2, 3])
    (reply,) = there.party.answer([train(there)])
    assert isinstance(reply.body, Trained)


def test_no_tasks_have_no_replies(there):
    assert list(there.party.answer([])) == []
