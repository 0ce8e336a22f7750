"""A task's message is read whole, or refused in one way, whatever is in it."""

import json
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.core.errors import FedloomError, WireError
from fedloom.core.task import Prepare, Task, Train
from fedloom.core.tree import split
from fedloom.runtime.net.asked import asked, bodies_of, model_of
from fedloom.runtime.net.codec import TASKS, task_tree
from fedloom.runtime.net.inbox import Inbox
from fedloom.runtime.net.spool import Spool
from fedloom.runtime.net.talk import DEEPEST, parsed
from mutated import mutated

DIGESTS = {"0": "ab" * 32, "1": "cd" * 32}
STORED = {DIGESTS["0"]: np.zeros(3, np.float32), DIGESTS["1"]: {"no": ["array"]}}
TRAIN = Train(1, np.zeros(3, np.float32), "layout", 8, ({"sent": (1, 2.5)}, None), 2, ("north",))
PREPARE = Prepare({"age": {"mean": 50.0, "scale": 2.0}})


def message(body, /, **changes):
    skeleton, arrays = split(task_tree(body))
    named = {key: [DIGESTS[key], 40] for key in arrays}
    head = {"kind": "task", "run": "run", "key": "train/1", "attempt": 1, "number": 1, "party": "a", "merge": False}
    return {**head, "room": 2, "body": skeleton, "arrays": named, "together": ["x", 1], **changes}


def read(said):
    """Return the task in a message as it comes off a connection."""
    (heard,) = parsed(json.dumps([said]).encode())
    return asked(heard, lambda body: STORED[body.digest])


def test_what_was_asked_is_read():
    task = read(message(TRAIN, number=2**63 - 1))
    assert (task.number, task.party, task.merge) == (2**63 - 1, "a", False)
    assert task_tree(task.body)["public"] == ({"sent": (1, 2.5)}, None)
    assert model_of(message(TRAIN)) == DIGESTS["0"]


def deep(levels):
    value = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "changes",
    [
        {"body": None},
        {"body": {"$tuple": 5}},
        {"body": {"task": "prepare", "statistics": {"$array": "9"}}},
        {"body": {"task": "prepare", "statistics": {"$array": []}}},
        {"body": {"task": "prepare", "statistics": deep(DEEPEST)}},
        {"body": {"task": "prepare", "statistics": deep(900)}},
        {"body": {"$array": "0"}},
        {"number": 0},
        {"number": 2**63},
        {"number": 1.0},
        {"party": None},
        {"merge": 1},
        {"arrays": {"0": [DIGESTS["0"], True]}},
        {"body": message(TRAIN)["body"] | {"round": 0}},
        {"body": message(TRAIN)["body"] | {"round": 2**63}},
        {"body": message(TRAIN)["body"] | {"start": {"$array": "1"}}, "arrays": {"1": [DIGESTS["1"], 40]}},
    ],
)
def test_what_is_no_task_is_refused(changes):
    with pytest.raises(WireError):
        read(message(TRAIN, **changes))


@pytest.mark.parametrize("name", ["body", "arrays", "number", "party"])
def test_a_task_that_lacks_a_field_is_refused(name):
    said = message(TRAIN)
    del said[name]
    with pytest.raises(WireError):
        read(said)


@pytest.mark.parametrize("arrays", [None, [], {"0": None}, {"0": ["x"]}, {"0": [1, 2]}, {"0": ["x", -1]}, {"0": "xy"}])
def test_malformed_names_of_bodies_are_refused(arrays):
    with pytest.raises(WireError):
        bodies_of({"kind": "task", "arrays": arrays})
    assert bodies_of({"kind": "task", "arrays": {}}) == {}


# -- fuzzing that knows the structure

words = st.sampled_from(
    ["task", "statistics", "start", "round", "$array", "$tuple", "0", "1", *TASKS, *DIGESTS.values()]
)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | words
values = st.recursive(
    plain | st.sampled_from([2**70, -(10**400), deep(99), deep(900), {"$array": "0"}, {"$array": "1"}, {"$tuple": []}]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.text(), inner, max_size=3),
    max_leaves=8,
)


def tasks_or_refusals(said, folder):
    """Read a message as a party does: in the thread that hears it, and in the one that works."""
    with suppress(FedloomError):
        (heard,) = parsed(json.dumps([said]).encode())
        inbox = Inbox(lambda: Spool(folder, 1 << 20), lambda *words, **more: None, lambda number: None, lambda: True)
        inbox.task(heard)
        assert isinstance(asked(heard, lambda body: STORED.get(body.digest, 7)), Task)


@settings(max_examples=300)
@given(data=st.data())
def test_a_changed_message_is_refused_or_a_task(tmp_path_factory, data):
    said = message(data.draw(st.sampled_from([TRAIN, PREPARE])))
    for _ in range(data.draw(st.integers(1, 3))):
        said = mutated(data, said, words, values, values)
    tasks_or_refusals(said, tmp_path_factory.mktemp("in"))


@settings(max_examples=100)
@given(body=values, arrays=values, number=values)
def test_any_value_of_json_is_refused_or_a_task(tmp_path_factory, body, arrays, number):
    tasks_or_refusals(message(PREPARE, body=body), tmp_path_factory.mktemp("in"))
    tasks_or_refusals(message(TRAIN, arrays=arrays, number=number), tmp_path_factory.mktemp("in"))
