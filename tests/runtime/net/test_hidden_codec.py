"""The bodies of a hidden sum cross the wire as they are; anything else than names and bytes is refused."""

from dataclasses import replace

import numpy as np
import pytest

from fedloom.core.errors import WireError
from fedloom.core.hidden import HIDDEN, Advertise, Confirm, Decrypt, Decrypted, Share, Unmask
from fedloom.core.task import Train
from fedloom.core.tree import join, split
from fedloom.gather import Encrypted
from fedloom.runtime.net.codec import reply_of, reply_tree, task_of, task_tree
from fedloom.store.files import dump, restore
from hidden import Clients, layout, of, updates

BYTES = np.zeros((2, 96), np.uint8)
TASKS = [
    Advertise("0" * 32, 3, "f" * 64, ("a", "b")),
    Share("0" * 32, ("a", "b"), BYTES, BYTES),
    Train(1, np.zeros(2), "f" * 64, 1, (), 2, ("a", "b")),
    Confirm("0" * 32, ("a",)),
    Unmask("0" * 32, ("a",), BYTES, ("b",), BYTES),
    Decrypt(3, 7, BYTES.reshape(-1)),
]


def crossed(tree):
    """Return a tree as it comes out of a message."""
    return restore(dump(join(*split(tree))))


@pytest.mark.parametrize("body", TASKS, ids=lambda body: type(body).__name__)
def test_a_task_comes_out_as_it_went_in(body):
    there = task_of(crossed(task_tree(body)))
    assert type(there) is type(body)
    assert dump(dict(vars(there))) == dump(dict(vars(body)))


def test_a_whole_round_crosses_the_wire():
    given = updates(5)
    total = layout(5, 5)
    clients = Clients(given, lost=lambda step, name: step == "train" and name.endswith("-1"))
    plain, clients.spoil = of(Clients(given).collect())[0], _task
    clients.garble = lambda task, reply: _reply(reply, total)
    hidden, _ = of(clients.collect())
    assert len(hidden.parties) == 4
    assert len(plain.parties) == 5
    assert {type(body) for _, _, body in clients.said} >= set(HIDDEN.values()) - {Decrypted}


def test_a_whole_encrypted_round_crosses_the_wire():
    given = updates(4, bits=24)
    total = layout(5, 4, 24)
    clients = Clients(given, Encrypted(), garble=lambda task, reply: _reply(reply, total), spoil=_task)
    hidden, _ = of(clients.collect())
    assert len(hidden.parties) == 4
    assert Decrypted in {type(body) for _, _, body in clients.said}


def _task(task):
    return replace(task, body=task_of(crossed(task_tree(task.body))))


def _reply(reply, total):
    tree = crossed(reply_tree(reply.body))
    return replace(reply, body=reply_of(tree, {total.digest: total}, reply.parties[0]))


@pytest.mark.parametrize("body", [b for b in TASKS if not isinstance(b, Train)], ids=lambda body: type(body).__name__)
def test_a_task_with_something_else_in_it_is_refused(body):
    tree = task_tree(body)
    for name, value in tree.items():
        bad = {np.ndarray: np.zeros((2, 96)), tuple: ("a", 7), str: 7, int: "7"}[type(value)]
        if name != "task":
            with pytest.raises(WireError):
                task_of({**tree, name: bad})
    with pytest.raises(WireError):
        task_of({name: value for name, value in tree.items() if name not in ("session", "size")})


@pytest.mark.parametrize(
    "tree",
    [
        {"reply": "advertised", "keys": np.zeros(96, np.uint8)},
        {"reply": "advertised", "keys": np.zeros(96), "signature": np.zeros(64, np.uint8)},
        {"reply": "advertised", "keys": None, "signature": np.zeros(64, np.uint8)},
        {"reply": "shared", "names": ["a"], "sealed": np.zeros((1, 82), np.uint8)},
        {"reply": "shared", "names": ("a", 1), "sealed": np.zeros((2, 82), np.uint8)},
        {"reply": "confirmed", "signature": "text"},
        {"reply": "confirmed", "signature": np.zeros(64, np.uint8), "more": 1},
        {"reply": "decrypted", "values": np.zeros(4)},
        {"reply": "unmasked", "names": ("a",), "shares": np.zeros((1, 33), np.int64)},
    ],
)
def test_an_answer_with_something_else_in_it_is_refused(tree):
    with pytest.raises(WireError):
        reply_of(tree, {}, "a")
