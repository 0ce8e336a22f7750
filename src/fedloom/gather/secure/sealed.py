"""An encrypted sum: clients send ciphertexts, the coordinator adds them, and clients decrypt what came of it.

Of a round one sum is decrypted. So the coordinator keeps it before it asks anybody to: killed or stopped then, it goes
on with that one, whoever has come since.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, cast

import numpy as np

from ...core.errors import UpdateError
from ...core.hidden import Backing, Decrypt, Decrypted, Identity
from ...core.layout import Array, Layout
from ...core.metrics import Metrics
from ...core.task import Federation, Reply, Task, Train, Trained
from ...core.tree import Tree
from ...core.update import Update
from . import bfv, ring
from .asking import Asking, cohort, told
from .judge import require
from .keys import digest
from .masked import is_bytes, layout_of, layout_tree, metrics_of
from .session import content_of, row

_key = lru_cache(maxsize=2)(bfv.secret)
_NEW = {"trained": 0, "decrypted": 0, "request": ""}


def trained(body: Train, prior: Tree, work: Callable[[], Reply], identity: Identity) -> tuple[Reply, Tree]:
    """Return what `work` trains, encrypted, and what the client must remember."""
    key, reply = _key(identity.secret), work()
    if not isinstance(reply.body, Trained):
        raise UpdateError(f"a hidden sum is one of trained updates, got {type(reply.body).__name__}.")
    update, (limbs, names) = reply.body.update, ring.told(reply.body.metrics)
    values = np.concatenate([ring.encoded(update).view(np.int32).astype(np.int64), limbs.astype(np.int64)])
    sent = Update(bfv.sealed(key, values), update.layout, side={"names": row(names)})
    return replace(reply, body=Trained(sent, Metrics({"examples": 0}))), {**(prior or _NEW), "trained": body.round}


def decrypted(body: Decrypt, prior: Tree, identity: Identity) -> tuple[Decrypted, Tree]:
    """Return a sum, and what the client must remember: it decrypts one of each round that it has trained in."""
    memory = dict(prior or _NEW)
    request = digest("decrypt", body.round, body.size, bytes(body.sealed.tobytes())).hex()
    require(body.round == memory["trained"], f"this client has not trained in round {body.round}, or in another since")
    over = body.round <= memory["decrypted"]
    require(not over or request == memory["request"], f"another sum of round {body.round} or later was decrypted here")
    values = bfv.opened(_key(identity.secret), body.sealed, body.size).astype("<i4")
    return Decrypted(values.view(np.uint8)), {**memory, "decrypted": body.round, "request": request}


def collect(
    least: int, checks: int, federation: Federation, tasks: Sequence[Task], close: Callable[[], float | None]
) -> Iterator[Reply]:
    """Yield one reply, the sum of all whose updates came, and a fault for each that is not in it.

    Args:
        least: clients in a sum; checks: how many decrypt it; federation, tasks, close: as of `Gather.collect`.
    """
    if not tasks:
        return
    _, body = cohort(tasks)
    asking = Asking(federation, {task.party: task for task in tasks}, close)
    yield from told(asking, tasks, Sealed(asking, body, least, checks, federation.backing()).run)


@dataclass(eq=False)
class Sealed:
    """One encrypted sum while it is gathered; it holds one vector of ciphertexts, and no key.

    Args:
        asking: who asks; body: the training that is asked for; least: clients in a sum; checks: how many decrypt it.
        backing: what outlives this process.
        alive: who is in the sum; names: of its metrics.
        bytes_up, seconds: of all that arrived.
    """

    asking: Asking
    body: Train
    least: int
    checks: int
    backing: Backing
    alive: list[str] = field(default_factory=list)
    names: bytes = b""
    bytes_up: int = 0
    seconds: float = 0.0
    _layout: Layout | None = None
    _sum: Any = None

    def run(self) -> Reply:
        """Return the sum as the reply of all that are in it; raises `UpdateError` where there is none."""
        content = self._kept()
        if content is None:
            content = self._trained_sum()
            self._keep(content)
        values = self._decrypted(content)
        there = set(self.alive)
        tasks = [task for name, task in self.asking.tasks.items() if name in there]
        numbers, names = tuple(task.number for task in tasks), tuple(task.party for task in tasks)
        return Reply(numbers, names, self._trained(values), self.seconds, self.bytes_up)

    def _trained_sum(self) -> Array:
        for reply in self.asking.step("train", dict.fromkeys(self.asking.tasks, self.body), Trained):
            self._taken("admit", reply, self._add)
        if len(self.alive) < self.least:
            asked = len(self.asking.tasks)
            raise UpdateError(
                f"{len(self.alive)} of {asked} clients sent updates, and an encrypted sum needs {self.least}; nothing "
                "was decrypted."
            )
        return cast(Array, self._sum.content())

    @property
    def _about(self) -> Tree:
        """What a kept sum must be of, to be gone on with."""
        return {"round": self.body.round, "content": content_of(self.body), "asked": tuple(self.asking.tasks)}

    def _keep(self, content: Array) -> None:
        """Write the sum down, from when clients may have decrypted it."""
        assert self._layout is not None, "a sum has somebody in it"
        spent = (self.bytes_up, self.seconds)
        value = {"about": self._about, "sum": content, "alive": tuple(self.alive), "names": row(self.names)}
        self.backing.keep(self.asking.number, value | {"layout": layout_tree(self._layout), "spent": spent})

    def _kept(self) -> Array | None:
        """Take up a sum of this training and cohort that was kept; None if there is none."""
        value = self.backing.kept(self.asking.number)
        if value is None or value.get("about") != self._about:
            return None
        self.alive, self._layout = list(value["alive"]), layout_of(value["layout"])
        self.names, (self.bytes_up, self.seconds) = bytes(value["names"]), value["spent"]
        return cast(Array, value["sum"])

    def _add(self, name: str, body: Trained) -> None:
        update, names = body.update, cast(Array, body.update.side.get("names"))
        if update.layout.digest != self.body.layout or update.count != 1:
            raise UpdateError("the encrypted update is packed for another sum; compare the apps.")
        size = update.layout.size + ring.LIMBS * len(metrics_of(names))
        if not is_bytes(update.vector, (np.size(update.vector),)):
            raise UpdateError("an encrypted update is ciphertexts, as bytes.")
        if self._layout is not None and bytes(names) != self.names:
            raise UpdateError("the encrypted update has other metrics behind it than the first that came.")
        into = bfv.Sum(size) if self._sum is None else self._sum
        into.add(update.vector)
        self._sum, self._layout, self.names = into, update.layout, bytes(names)
        self.alive.append(name)
        self.bytes_up += update.size_bytes

    @property
    def _size(self) -> int:
        assert self._layout is not None, "a sum has somebody in it"
        return self._layout.size + ring.LIMBS * len(metrics_of(row(self.names)))

    def _decrypted(self, content: Array) -> Array:
        """Return what clients decrypt; as many as were asked for must say the same, or all that are left."""
        body, found = Decrypt(self.body.round, self._size, content), dict[str, bytes]()
        waiting = list(self.alive)
        while waiting and len(found) < self.checks:
            some = [waiting.pop(0) for _ in range(min(len(waiting), self.checks - len(found)))]
            for reply in self.asking.step("decrypt", dict.fromkeys(some, body), Decrypted):
                self._taken("decrypt", reply, partial(self._said, found))
        if not found:
            raise UpdateError(f"none of the {len(self.alive)} clients in the sum has decrypted it.")
        if len(set(found.values())) > 1:
            raise UpdateError(f"{' and '.join(found)} decrypted different sums; one of them is wrong.")
        return np.frombuffer(next(iter(found.values())), "<i4")

    def _said(self, found: dict[str, bytes], name: str, body: Decrypted) -> None:
        if not is_bytes(body.values, (4 * self._size,)):
            raise UpdateError(f"a sum of {self._size} whole numbers has 4 bytes for each.")
        found[name] = body.values.tobytes()
        self.bytes_up += int(body.values.nbytes)

    def _taken(self, phase: str, reply: Reply, take: Callable[[str, Any], None]) -> None:
        """Take in an answer of the kind that was asked for; what cannot be taken is a fault."""
        self.seconds += reply.seconds
        try:
            take(reply.parties[0], reply.body)
        except UpdateError as error:
            self.asking.refuse(reply, phase, str(error))

    def _trained(self, values: Array) -> Trained:
        assert self._layout is not None, "a sum has somebody in it"
        size, count = self._layout.size, len(self.alive)
        vector = ring.decoded(values[:size].astype(np.int32).view(np.uint32), self._layout)
        limbs = values[size:].astype(np.int64) % bfv.PLAIN
        return Trained(Update(vector, self._layout, count), ring.heard(limbs, self.names, count))
