"""A party with a good certificate and bad manners: it speaks the protocol, and says what it likes."""

import json
import socket
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3

from fedloom.core.tree import join
from fedloom.load import Loaded, load
from fedloom.runtime.channel import peer_at, trusting
from fedloom.runtime.credentials import Credentials
from fedloom.runtime.identity import verify
from fedloom.runtime.keys import PKI, ROOT
from fedloom.runtime.net.line import CHUNK_BYTES, CONTROL, Line
from fedloom.runtime.net.reception import PROTOCOL
from fedloom.runtime.net.talk import Channel
from fedloom.store.files import dump
from wired import HOST

WAIT_S, LOOK_S = 20.0, 1.0


def heard(other):
    """Return what comes next on a line or a channel; whoever says nothing in so many looks has fallen silent.

    Looks are counted, not the clock: a machine that stands still for a while has not fallen silent.
    """
    for _ in range(int(WAIT_S / LOOK_S)):
        if (said := other.receive(LOOK_S)) is not None:
            return said
    raise AssertionError(f"nothing was said in {WAIT_S:g} s")


@dataclass
class Rogue:
    """One connection at a time to a coordinator.

    Args:
        credentials: of a party that has enrolled.
        port: where the coordinator listens.
        app: the app's file.
    """

    credentials: Credentials
    port: int
    app: Any
    run: str = ""
    channel: Channel = None
    loaded: Loaded = field(init=False)

    def __post_init__(self):
        self.loaded = load(str(self.app))

    def connect(self):
        """Shake hands and exchange nonces; the caller closes what comes back."""
        with ExitStack() as held:
            sock = held.enter_context(closing(socket.create_connection((HOST, self.port), WAIT_S)))
            context = trusting(self.credentials.home / PKI / ROOT)  # and does not ask whether it has expired itself
            self.credentials.reload(context)
            tls = context.wrap_socket(sock, server_hostname=HOST)
            held.enter_context(closing(tls))
            key = peer_at(tls, "coordinator").key
            line, sign = Line(tls, WAIT_S), self.credentials.sign
            self.channel = Channel(line, sign, lambda sig, said: verify(key, sig, said), False).open()
            held.pop_all()
        return self

    def hello(self, **changes):
        """Say hello, changed; return the answer."""
        name = self.credentials.peer.name
        said = {
            "protocol": PROTOCOL,
            "app": self.loaded.identity,
            "members": [[name, 10]],
            "process": "rogue",
        } | changes
        self.channel.send("hello", **said)
        answer = heard(self.channel)
        self.run = answer.get("run", "")
        return answer

    def enter(self, **changes):
        """Connect as an honest party does, up to where tasks come."""
        self.connect()
        answer = self.hello(**changes)
        assert answer["kind"] == "welcome", answer
        self.channel.send("pending", run=self.run, numbers=[])
        return self

    def close(self):
        """Hang up."""
        if self.channel is not None:
            self.channel.line.close()

    def payload(self, content):
        """Send any bytes as a message, signed well."""
        channel = self.channel
        signature = channel.sign(channel._signed(False, channel._out, content))
        channel._out += 1
        channel.line.send(CONTROL, signature, content)

    def message(self, **fields):
        """Send any object as a message, NaN and all."""
        self.payload(json.dumps([fields]).encode())

    def task(self):
        """Return the next task, passing over everything else."""
        while True:
            said = heard(self.channel)
            if isinstance(said, dict) and said["kind"] in ("task", "end"):
                return said

    def skeleton(self, task):
        """Return a task's values, without its arrays."""
        return join(task["body"], dict.fromkeys(task["arrays"]))

    def total(self, task):
        """Return the layout of the sum that an update would enter."""
        app = self.loaded.app
        return app.strategy.payload(app.built.layout).weighted(task["room"])

    def answer(self, task, content, **changes):
        """Offer a body, bytes or a tree, as the answer to a task."""
        content = content if isinstance(content, bytes) else dump(content)
        digest = blake3(content).hexdigest()
        offer = {"keys": [task["key"]], "digest": digest, "size": len(content), "seconds": 0.0} | changes
        self.message(kind="offer", run=self.run, **offer)
        for at in range(0, len(content), CHUNK_BYTES):
            self.channel.send_chunk(offer["digest"], at, content[at : at + CHUNK_BYTES])
