"""Work on long vectors, shared out among the cores of this process: NumPy lets go of Python's lock meanwhile."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .blocks import BLOCK, blocks

T = TypeVar("T")
R = TypeVar("R")
LONG = 16 * BLOCK  # elements: for fewer, starting a thread costs more than it wins
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(work: Callable[[T], R], pieces: Sequence[T]) -> list[R]:
    """Return what `work` makes of each piece, in order: how many cores there are does not change a bit.

    >>> spread(abs, [-1, 2])
    [1, 2]
    """
    threads = min(THREADS, len(pieces))
    if threads < 2:
        return list(map(work, pieces))
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, pieces))


def shares(pieces: Iterable[T], size: int) -> list[list[T]]:
    """Return the pieces of a vector of `size` elements: all together, or, of a long one, a run of them for each core.

    >>> shares("abc", 3)
    [['a', 'b', 'c']]
    """
    known = list(pieces)
    each = len(known) if size < LONG else -(-len(known) // THREADS)
    return [known[at : at + each] for at in range(0, len(known), each or 1)]


def on_blocks(work: Callable[[slice], object], size: int) -> None:
    """Do `work` on every block of a vector of `size` elements.

    >>> on_blocks(print, 3)
    slice(0, 3, None)
    """

    def each(share: Sequence[slice]) -> None:
        for block in share:
            work(block)

    spread(each, shares(blocks(slice(0, size)), size))


def keep_to_one() -> None:
    """Use one core from now on: this process is one of several that share the machine."""
    global THREADS  # noqa: PLW0603 (a setting of the process, like that of the libraries)
    THREADS = 1
