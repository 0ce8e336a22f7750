"""Long vectors a piece at a time: what is done to them in several passes finds the piece in the cache."""

from collections.abc import Iterator

BLOCK = 1 << 17  # elements, a megabyte of float64: half as many took longer, more of them gained nothing


def blocks(where: slice, size: int = BLOCK) -> Iterator[slice]:
    """Yield the pieces of `where`, in order, each of `size` elements but the last.

    >>> list(blocks(slice(3, 8), 2))
    [slice(3, 5, None), slice(5, 7, None), slice(7, 8, None)]
    """
    for begin in range(where.start, where.stop, size):
        yield slice(begin, min(begin + size, where.stop))
