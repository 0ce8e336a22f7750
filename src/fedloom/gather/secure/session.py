"""What a client knows of a hidden sum between two requests: a value that its journal keeps, secrets with it."""

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace
from functools import lru_cache
from hashlib import sha256
from typing import Any

import numpy as np

from ...core.hidden import Advertise
from ...core.layout import Array
from ...core.task import Train
from ...core.tree import Tree, split
from .graph import Graph, Rule
from .keys import SIZE, digest, framed

KEYS = 3 * SIZE  # a client's public key to write to, its public key to agree on masks with, its seed's digest


@dataclass(frozen=True, eq=False, kw_only=True)
class Session:
    """One client's side of one hidden sum.

    Args:
        session, round, content, asked: as it was asked to advertise.
        step: the last one that it answered: "advertise", "share", "train", "confirm" or "unmask".
        request: digest of what was asked then; answer: what was answered, to be said again, if that is kept.
        open: private key to be written to; mask: private key that masks follow from; seed: of its own mask. What is not
            needed any more is None.
        keys: its own public ones.
        roster, known: who has advertised, and their keys `(n, 96)`.
        circle: those on the roster whom this client masks with, and itself; letters: `(k, 32)`, keys for theirs.
        own: its shares of its own two secrets, `(66,)`.
        peers: who has shared its secrets; alive: who is in the sum, as it was told and has signed.
    """

    session: str
    round: int
    content: str
    asked: tuple[str, ...]
    step: str = "advertise"
    request: str = ""
    answer: Tree = None
    open: Array = None
    mask: Array = None
    seed: Array = None
    keys: Array = None
    roster: tuple[str, ...] = ()
    known: Array = None
    circle: tuple[str, ...] = ()
    letters: Array = None
    own: Array = None
    peers: tuple[str, ...] = ()
    alive: tuple[str, ...] = ()

    def tree(self) -> Tree:
        """Return it as a tree."""
        return {part.name: getattr(self, part.name) for part in fields(self)}

    def but(self, **changes: Any) -> "Session":
        """Return it with some fields changed."""
        return replace(self, **changes)

    def of(self, name: str) -> bytes:
        """Return the public keys of somebody on the roster."""
        return bytes(self.known[self.roster.index(name)])


def rows(texts: Sequence[bytes], width: int) -> Array:
    """Return texts of one length as rows of bytes.

    >>> rows([b"ab", b"cd"], 2).shape, rows([], 2).shape
    ((2, 2), (0, 2))
    """
    return np.frombuffer(b"".join(texts), np.uint8).reshape(len(texts), width)


def row(text: bytes) -> Array:
    """Return a text as an array of bytes."""
    return np.frombuffer(text, np.uint8)


def content_of(body: Train) -> str:
    """Return the digest of what is trained from: the shared vector and all that a client is told beside it.

    Clients sign it, so those who were given different models do not accept each other's keys.
    """
    skeleton, arrays = split(list(body.public))
    seen = sha256(framed(body.round, body.layout, body.cap, body.cohort, json.dumps(skeleton, sort_keys=True)))
    for array in (np.asarray(body.start), *arrays.values()):
        seen.update(framed(array.dtype.str, str(array.shape)))
        seen.update(np.ascontiguousarray(array).data)
    return seen.hexdigest()


@lru_cache(maxsize=16)
def named(names: tuple[str, ...]) -> bytes:
    """Return names as one text that has one reading; a sum's lists are the same for all of its clients."""
    return framed(*names)


def context(session: "Session | Advertise", rule: Rule) -> bytes:
    """Return the digest that every key and every signature of a session is bound to."""
    said = (session.session, session.round, session.content, *astuple(rule))
    return digest("session", *said, named(session.asked))


def graph_of(session: Session, rule: Rule, bound: bytes) -> Graph:
    """Return who masks with whom: the order follows from everybody's keys, so nobody knows it before all are there."""
    keys = framed(named(session.roster), session.known.tobytes())
    return Graph(session.asked, rule.neighbours, digest("graph", bound, keys))


def advertisement(bound: bytes, run: str, name: str, keys: bytes) -> bytes:
    """Return what a client signs when it advertises its keys."""
    return digest("advertise", bound, run, name, keys)


def survivors(bound: bytes, run: str, session: Session) -> bytes:
    """Return what a client signs of who is in the sum: with the keys of all, so that it holds for this session only."""
    roster = framed(named(session.roster), session.known.tobytes())
    return digest("confirm", bound, run, roster, named(session.peers), named(session.alive))
