"""What keys and signatures are bound to: every part of a session, so that nothing of it means anything in another."""

from dataclasses import replace

import numpy as np
import pytest

from fedloom.core.hidden import Advertise
from fedloom.core.task import Train
from fedloom.gather.secure.graph import Rule
from fedloom.gather.secure.session import Session, advertisement, content_of, context, graph_of, rows, survivors
from fedloom.store.files import dump, restore

BODY = Advertise("0" * 32, 3, "f" * 64, ("a", "b", "c"))
SESSION = Session(
    session="0" * 32,
    round=3,
    content="f" * 64,
    asked=("a", "b", "c"),
    roster=("a", "b", "c"),
    known=np.arange(288, dtype=np.uint8).reshape(3, 96),
    peers=("a", "b", "c"),
    alive=("a", "b"),
)
RULE = Rule(0, 3, 3)
TRAIN = Train(1, np.zeros(3, np.float32), "f" * 64, 8, ({"norm": 1.0, "at": np.zeros(2)},), 3)


@pytest.mark.parametrize(
    "change", [{"session": "1" * 32}, {"round": 4}, {"content": "e" * 64}, {"asked": ("a", "c", "b")}], ids=str
)
def test_a_context_is_of_one_session_alone(change):
    assert context(replace(BODY, **change), RULE) != context(BODY, RULE)
    assert context(SESSION, RULE) == context(BODY, RULE)


@pytest.mark.parametrize("change", [{"neighbours": 2}, {"shares": 2}, {"survivors": 4}], ids=str)
def test_a_context_is_of_one_rule_alone(change):
    assert context(BODY, replace(RULE, **change)) != context(BODY, RULE)


def test_the_graph_follows_from_everybodys_keys():
    many = SESSION.but(asked=tuple(f"c{i}" for i in range(20)))
    mine, other = (graph_of(s, Rule(4, 3, 3), b"") for s in (many, many.but(known=np.zeros((3, 96), np.uint8))))
    assert mine.seed != other.seed
    assert mine.of("c0") != other.of("c0")


def test_an_advertisement_is_of_one_client_in_one_run():
    mine = advertisement(b"context", "run", "a", b"keys")
    others = [
        advertisement(b"another", "run", "a", b"keys"),
        advertisement(b"context", "other", "a", b"keys"),
        advertisement(b"context", "run", "b", b"keys"),
        advertisement(b"context", "run", "a", b"yeks"),
    ]
    assert mine not in others


@pytest.mark.parametrize(
    "change",
    [
        {"roster": ("a", "c", "b")},
        {"known": np.zeros((3, 96), np.uint8)},
        {"peers": ("a", "b")},
        {"alive": ("a", "b", "c")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_list_of_survivors_is_of_one_view_of_the_session(change):
    mine = survivors(b"context", "run", SESSION)
    assert survivors(b"context", "run", SESSION.but(**change)) != mine
    assert survivors(b"another", "run", SESSION) != mine
    assert survivors(b"context", "other", SESSION) != mine


@pytest.mark.parametrize(
    "change",
    [
        {"round": 2},
        {"start": np.float32([0, 0, 1])},
        {"start": np.zeros(3)},
        {"layout": "e" * 64},
        {"cap": 4},
        {"cohort": 4},
        {"public": ({"norm": 2.0, "at": np.zeros(2)},)},
        {"public": ({"norm": 1.0, "at": np.ones(2)},)},
        {"public": ()},
    ],
    ids=str,
)
def test_a_digest_of_what_is_trained_covers_all_that_a_client_is_told(change):
    assert content_of(replace(TRAIN, **change)) != content_of(TRAIN)


def test_it_does_not_cover_who_else_is_there_which_is_known_later():
    assert content_of(replace(TRAIN, peers=("a", "b"))) == content_of(TRAIN)


def test_a_session_is_a_tree_and_back():
    there = Session(**restore(dump(SESSION.tree())))
    assert dump(there.tree()) == dump(SESSION.tree())
    assert there.of("b") == bytes(range(96, 192))


def test_rows_of_nothing_have_their_width():
    assert rows([], 82).shape == (0, 82)
