"""A hall without sockets: parties whose connections only keep what they are told."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from blake3 import blake3

from fedloom.core.layout import Layout, Leaf
from fedloom.core.metrics import Metrics
from fedloom.core.task import Evaluate, Evaluated, Member, Task, Train, Trained
from fedloom.core.update import Update
from fedloom.runtime.net.codec import reply_tree
from fedloom.runtime.net.hall import Hall
from fedloom.runtime.net.kept import Kept
from fedloom.runtime.net.leases import Leases
from fedloom.runtime.net.seats import Words
from fedloom.runtime.net.spool import Spool
from fedloom.runtime.net.talk import Chunk
from fedloom.store.dispatches import Dispatches
from fedloom.store.files import dump
from fedloom.store.journal import opened_engine

LAYOUT = Layout((Leaf("w", (2,)),)).weighted(4)
START = np.float32([0, 0])
NAMES = ("a", "b", "c")
LEASES = Leases(away_s=100.0, task_s=1000.0)


@dataclass
class Clock:
    """A clock that a test sets."""

    now: float = 0.0

    def __call__(self):
        return self.now


@dataclass
class Wire:
    """What a seat needs of a line."""

    received: int = 0
    sent: int = 0
    closed: bool = False

    def close(self):
        self.closed = True


@dataclass
class Post:
    """A channel that keeps what is sent."""

    line: Wire = field(default_factory=Wire)
    said: list = field(default_factory=list)
    given: list = field(default_factory=list)  # pieces of bodies: digest, offset, bytes

    def send(self, kind, /, **fields):
        self.said.append({"kind": kind, **fields})

    def send_all(self, messages):
        self.said.extend(messages)

    def send_chunk(self, digest, offset, data):
        self.given.append((digest, offset, bytes(data)))

    def write(self, jobs):
        """Do what a connection's writer has to do."""
        while not jobs.empty():
            match jobs.get():
                case Words(message=message):
                    self.send_all([message])
                case None:
                    pass
                case stream:
                    stream(self)


@dataclass
class Office:
    """A hall with its log; `crash` begins again from what is on the disk."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    keep: bool = False
    streams: bool = False
    posts: dict = field(default_factory=dict)
    engines: list = field(default_factory=list)

    def __post_init__(self):
        self.crash()

    def crash(self):
        members = [Member(name, 5) for name in NAMES]
        layouts = {LAYOUT.digest: LAYOUT}
        self.hall = Hall("run", layouts, LEASES, 4, now=self.clock, roster=members)
        self.engines.append(opened_engine(f"sqlite:///{self.folder / 'log.db'}"))
        self.log = Dispatches(self.engines[-1])
        self.kept = Kept(self.hall, self.log, self.keep, streams=self.streams)
        self.posts = {}
        for member in members:  # as the coordinator does, before anybody has called
            spool = partial(Spool, self.folder / member.name, 10_000, claimed=True)
            self.hall.take_seat(member.name, (member,), spool)
        return self

    def come(self, *names):
        """Let parties call, and be asked what they have not answered."""
        for name in names or NAMES:
            seat, self.posts[name] = self.hall.seats[name], Post()
            with self.hall.changed:
                seat.begin(self.posts[name], self.clock())
            self.hall.come_in(seat)
        return self

    def go(self, *names):
        """Cut their lines."""
        for name in names:
            self.hall.seats[name].end(self.clock())

    def said(self, name):
        """Return what a party was told since the last look."""
        seat, post = self.hall.seats[name], self.posts[name]
        post.write(seat.jobs)
        found, post.said = post.said, []
        return found

    def kinds(self, name):
        """Return the kinds of that."""
        return [said["kind"] for said in self.said(name)]

    def offer(self, name, answers, tree, **changes):
        """Let a party answer; return the body's digest."""
        content = tree if isinstance(tree, bytes) else dump(tree)
        digest = blake3(content).hexdigest()
        said = {"keys": list(answers), "digest": digest, "size": len(content), "seconds": 0.5} | changes
        seat = self.hall.seats[name]
        self.hall.hear(seat, {"kind": "offer", "run": "run", **said})
        self.hall.hear(seat, Chunk(digest, 0, memoryview(content)))
        return digest

    def close(self):
        for engine in self.engines:
            engine.dispose()


def train(*numbered, round=1, merge=False):
    """Return training tasks: (number, party) each."""
    body = Train(round, START, LAYOUT.digest, 2)
    return [Task(number, name, body, merge) for number, name in numbered]


def evaluate(*numbered):
    """Return evaluations: (number, party) each."""
    body = Evaluate(START)
    return [Task(number, name, body) for number, name in numbered]


def trained(value=1.0, count=1):
    """Return a reply to a training task, as a tree."""
    vector = np.array([value, value, 0.5], np.float32 if count == 1 else np.float64)
    return reply_tree(Trained(Update(vector, LAYOUT, count), Metrics({"examples": 3})))


def evaluated(loss=1.0):
    """Return a reply to an evaluation, as a tree."""
    return reply_tree(Evaluated(Metrics({"examples": 2, "loss": loss})))


def value(reply):
    """Return the first element of the update in a reply."""
    return float(reply.body.update.vector[0])
