"""Large arrays in memory that is used again: a page that is new to a process costs more than copying into an old one.

The memory of an array comes back when the last array that lies in it is gone, so nobody has to give it back, and a
process holds no more than it once needed at a time.
"""

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .cores import on_blocks

LARGE = 1 << 22  # bytes: for less, NumPy asks no new pages of the system
KEPT = 4  # pieces of memory that wait for their next use
_SPARE: "deque[NDArray[np.uint8]]" = deque(maxlen=KEPT)


class _Lent:
    """Memory that arrays lie in: their base, which NumPy keeps as long as any view of them."""

    _back = staticmethod(_SPARE.append)

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self.memory = memory
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        self._back(self.memory)


def empty(size: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return an array of `size` elements with any values, as `numpy.empty` does; a large one may be in used memory.

    >>> empty(3, "float32").shape
    (3,)
    """
    needed = size * np.dtype(dtype).itemsize
    if needed < LARGE:
        return np.empty(size, dtype)
    return np.asarray(_Lent(_spare(needed))).view(dtype)


def copied(array: NDArray[Any], dtype: DTypeLike | None = None) -> NDArray[Any]:
    """Return an array's copy, of another type if that is given.

    >>> copied(np.ones(2), "float32")
    array([1., 1.], dtype=float32)
    """
    made = empty(array.size, array.dtype if dtype is None else dtype).reshape(array.shape)
    flat, source = made.reshape(-1), array.reshape(-1)
    on_blocks(lambda part: np.copyto(flat[part], source[part]), flat.size)
    return made


def _spare(needed: int) -> NDArray[np.uint8]:
    """Return memory that nobody uses, of just that size; other threads may be looking too."""
    for _ in range(len(_SPARE)):
        try:
            memory = _SPARE.popleft()
        except IndexError:
            break
        if memory.size == needed:
            return memory
        _SPARE.append(memory)
    return np.empty(needed, np.uint8)
