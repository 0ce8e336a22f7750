"""Counter-based random streams: a number depends on (seed, dispatch number, purpose) and on nothing else.

Not on the order in which clients run, on the process that runs them, or on how often a task was sent again.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, cast

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Streams:
    """A point in the tree of random streams; every purpose drawn from it is independent of every other.

    `key` is 16 bytes. Philox (Salmon et al., SC 2011) is keyed with BLAKE2b(key, purpose), so asking twice for the
    same purpose gives the same numbers: give each use its own purpose.

    >>> streams = stream(seed=7, dispatch=3)
    >>> int(streams("batches").integers(100)) == int(stream(seed=7, dispatch=3)("batches").integers(100))
    True
    >>> streams("batches").integers(2**62) == streams("noise").integers(2**62)
    np.False_
    """

    key: bytes

    def __call__(self, purpose: str) -> np.random.Generator:
        """Return a NumPy generator for one purpose."""
        return np.random.Generator(np.random.Philox(cast(Any, _Keyed(self.child(purpose).key))))

    def child(self, name: str | int) -> "Streams":
        """Return the sub-tree of that name: a step, a stage, a fold.

        >>> stream(1, 2).child("clip") == stream(1, 2).child("clip")
        True
        """
        return Streams(blake2b(repr(name).encode(), key=self.key, digest_size=16).digest())

    def integer(self, purpose: str | int) -> int:
        """Return one integer in [0, 2^63), for a library that wants a seed of its own.

        >>> 0 <= stream(1, 2).integer("dropout") < 2**63
        True
        """
        return int.from_bytes(self.child(purpose).key[:8], "little") >> 1


class _Keyed(ISeedSequence):
    """Gives Philox its key. Philox(key=…) is the same, and asks the system for a seed that it then does not use."""

    def __init__(self, key: bytes) -> None:
        self.key = key

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[np.uint64]:
        """Return the key's two words of 64 bits, which is what Philox wants."""
        return np.frombuffer(self.key, "<u8").astype(np.uint64)


def stream(seed: int, dispatch: int | str) -> Streams:
    """Return the streams of one dispatch of one run.

    `seed` is the app's; `dispatch` is the task's number (1, 2, …; a task sent again keeps its number), or a word for
    what belongs to no task, such as "init" or "partition".

    >>> stream(0, 1) == stream(0, 2)
    False
    """
    return Streams(blake2b(repr((int(seed), dispatch)).encode(), digest_size=16).digest())
