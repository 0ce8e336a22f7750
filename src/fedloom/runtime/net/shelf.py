"""Bodies in memory: what goes out lies in the arrays that tasks hold anyway, and is neither copied nor written."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from blake3 import blake3

from ...core.tree import Tree
from ...store.files import pieces
from .line import CHUNK_BYTES
from .spool import Body, chunks


@dataclass(eq=False)
class Shelf:
    """Bodies by digest, as the parts of a file; several threads may use it.

    >>> import numpy as np
    >>> shelf = Shelf()
    >>> body = shelf.put(np.arange(3.0))
    >>> [(at, len(data)) for at, data in shelf.pieces(body.digest, 5)], body.size
    ([(5, 162)], 167)
    """

    _parts: dict[str, list[bytes | memoryview]] = field(default_factory=dict)
    _trees: list[tuple[Tree, Body]] = field(default_factory=list)

    def put(self, tree: Tree) -> Body:
        """Keep a value, whose arrays nobody may change from now on; return its name. One that is here is not hashed."""
        for kept, body in self._trees:
            if kept is tree:
                return body
        parts, seen = pieces(tree), blake3()
        for chunk in chunks(parts):
            seen.update(chunk)
        body = Body(seen.hexdigest(), sum(map(len, parts)))
        self._parts[body.digest] = parts if body.size > CHUNK_BYTES else [b"".join(parts)]  # a small one is one chunk
        self._trees.append((tree, body))
        return body

    def pieces(self, digest: str, offset: int) -> Iterator[tuple[int, memoryview]]:
        """Yield a body from an offset on, in chunks, with their offsets; raises `FileNotFoundError` if it is gone."""
        try:
            parts = self._parts[digest]
        except KeyError:
            raise FileNotFoundError(digest) from None
        begin = 0
        for part in parts:
            for at in range(max(0, offset - begin), len(part), CHUNK_BYTES):
                yield begin + at, memoryview(part)[at : at + CHUNK_BYTES]
            begin += len(part)

    def keep_only(self, digests: set[str]) -> None:
        """Forget all bodies but these."""
        self._parts = {digest: parts for digest, parts in self._parts.items() if digest in digests}
        self._trees = [(tree, body) for tree, body in self._trees if body.digest in digests]
