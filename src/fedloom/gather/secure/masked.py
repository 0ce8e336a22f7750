"""Masked updates as they come in: each is looked at, added, and forgotten."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from ...core.errors import UpdateError
from ...core.layout import Array, Layout, Leaf
from ...core.metrics import Metrics
from ...core.task import Trained
from ...core.tree import Tree
from ...core.update import Update
from . import ring

MOST_BYTES = 8192  # of the metrics' names


class Masked:
    """The sum of masked updates, modulo 2^32.

    Args:
        session: that they must be masked for.
        layout: digest of a sum's layout.
    """

    def __init__(self, session: str, layout: str) -> None:
        self._session, self._digest, self._names = bytes.fromhex(session), layout, b""
        self._layout: Layout | None = None
        self.total = np.zeros(0, np.uint32)
        self.alive: list[str] = []

    def add(self, name: str, body: Trained) -> None:
        """Add what a client sent; raises `UpdateError` for what is not a masked update of this sum."""
        update, side = body.update, body.update.side
        names: Array = side.get("names")
        if not is_bytes(side.get("session"), (16,)) or bytes(side["session"]) != self._session:
            raise UpdateError("the update is not masked for this sum; it is ignored.")
        if update.layout.digest != self._digest or update.count != 1:
            raise UpdateError("the masked update is packed for another sum; compare the apps.")
        size = update.layout.size + ring.LIMBS * len(metrics_of(names))
        vector = update.vector
        if not isinstance(vector, np.ndarray) or vector.dtype != np.uint32 or vector.shape != (size,):
            raise UpdateError(f"a masked update of this sum has {size} whole numbers of 32 bits.")
        if self._layout is None:
            self._layout, self._names, self.total = ring.fitting(update.layout), bytes(names), np.zeros(size, np.uint32)
        if bytes(names) != self._names:
            raise UpdateError("the masked update has other metrics behind it than the first that came.")
        np.add(self.total, vector, out=self.total)
        self.alive.append(name)

    def tree(self) -> Tree:
        """Return it as a tree, to go on with in another process."""
        assert self._layout is not None, "a sum has somebody in it"
        names = np.frombuffer(self._names, np.uint8)
        return {"total": self.total, "alive": tuple(self.alive), "names": names, "layout": layout_tree(self._layout)}

    def goes_on(self, tree: Any) -> None:
        """Take in what `tree` returned; raises `UpdateError` for another sum's."""
        layout = layout_of(tree["layout"])
        if layout.digest != self._digest:
            raise UpdateError("the sum that was kept is packed for another layout; the app has changed.")
        self._layout, self._names, self.alive = layout, bytes(tree["names"]), list(tree["alive"])
        self.total = np.array(tree["total"])

    def trained(self) -> Trained:
        """Return the sum, when no mask is left on it."""
        assert self._layout is not None, "a sum has somebody in it"
        size, count = self._layout.size, len(self.alive)
        vector = ring.decoded(self.total[:size], self._layout)
        metrics: Metrics = ring.heard(self.total[size:], self._names, count)
        return Trained(Update(vector, self._layout, count), metrics)


def layout_tree(layout: Layout) -> Tree:
    """Return a layout as a tree, of which `layout_of` makes it again."""
    return asdict(layout)


def layout_of(tree: Any) -> Layout:
    """Return the layout of a tree."""
    return Layout(**{**tree, "leaves": tuple(Leaf(**leaf) for leaf in tree["leaves"])})


def is_bytes(array: Array, shape: tuple[int, ...]) -> bool:
    """Is it an array of bytes of this shape?"""
    return isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.shape == shape


def metrics_of(told: Array) -> list[str]:
    """Return the metrics' names, of bytes that an update has beside it; raises `UpdateError` for what are none."""
    if not isinstance(told, np.ndarray) or not is_bytes(told, (told.size,)) or told.size > MOST_BYTES:
        raise UpdateError("the hidden update does not say which metrics lie behind it.")
    try:
        names: list[str] = json.loads(bytes(told))
    except (ValueError, RecursionError) as error:
        raise UpdateError("the names of the metrics behind a hidden update cannot be read.") from error
    right = isinstance(names, list) and len(names) <= ring.MOST_NAMES and all(isinstance(n, str) for n in names)
    if not right or len(set(names)) < len(names) or "examples" not in names:
        raise UpdateError(f"a hidden update has at most {ring.MOST_NAMES} metrics, and 'examples' among them.")
    return names
