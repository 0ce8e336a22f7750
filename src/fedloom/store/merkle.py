"""Merkle trees as in RFC 9162, section 2.1 (the hashing of RFC 6962): one root for a list that only grows.

A proof of inclusion shows that an entry is in a list with that root, a proof of consistency that one list begins with
another, each with about log2(size) hashes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

Hash = bytes  # 32 of them
EMPTY = sha256(b"").digest()


def leaf_hash(entry: bytes) -> Hash:
    """Return SHA-256(0x00 || entry)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: Hash, right: Hash) -> Hash:
    """Return SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


@dataclass(eq=False)
class Tree:
    """The hashes of a list that grows; roots and proofs for any earlier size too.

    Args:
        levels: level k has the hashes of the full subtrees of 2^k leaves, in order.

    >>> tree = Tree()
    >>> for entry in (b"", b"\\x00", b"\\x10"):
    ...     tree.add(leaf_hash(entry))
    >>> tree.size, tree.root().hex()[:16]
    (3, 'aeb6bcfe274b70a1')
    """

    levels: list[list[Hash]] = field(default_factory=lambda: [[]])

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self.levels[0])

    def add(self, leaf: Hash) -> None:
        """Append a leaf, by its hash."""
        self.levels[0].append(leaf)
        level = 0
        while len(self.levels[level]) % 2 == 0:
            if level + 1 == len(self.levels):
                self.levels.append([])
            self.levels[level + 1].append(node_hash(*self.levels[level][-2:]))
            level += 1

    def root(self, size: int | None = None) -> Hash:
        """Return the hash of the first `size` leaves (RFC 9162, 2.1.1); by default of all."""
        last = self.size if size is None else size
        return self._hash(0, last) if last else EMPTY

    def inclusion(self, index: int, size: int) -> list[Hash]:
        """Return the proof that leaf `index`, from 0, is among the first `size` (RFC 9162, 2.1.3.1)."""
        proof, begin, end = [], 0, size
        while end - begin > 1:
            middle = begin + _split(end - begin)
            if index < middle:
                proof.append(self._hash(middle, end))
                end = middle
            else:
                proof.append(self._hash(begin, middle))
                begin = middle
        return proof[::-1]

    def consistency(self, first: int, second: int) -> list[Hash]:
        """Return the proof that the first `second` leaves begin with the first `first` (RFC 9162, 2.1.4.1)."""
        if first in (0, second):
            return []
        proof, begin, end, whole = [], 0, second, True
        while first < end:
            middle = begin + _split(end - begin)
            if first <= middle:
                proof.append(self._hash(middle, end))
                end = middle
            else:
                proof.append(self._hash(begin, middle))
                begin, whole = middle, False
        return [*([] if whole else [self._hash(begin, end)]), *proof[::-1]]

    def _hash(self, begin: int, end: int) -> Hash:
        size = end - begin
        if size & (size - 1) == 0 and begin % size == 0:
            return self.levels[size.bit_length() - 1][begin // size]
        middle = begin + _split(size)
        return node_hash(self._hash(begin, middle), self._hash(middle, end))


def _split(size: int) -> int:
    """Return the largest power of two below a size of at least 2."""
    return 1 << (size - 1).bit_length() - 1


def included(leaf: Hash, index: int, size: int, proof: Sequence[Hash], root: Hash) -> bool:
    """Does the proof show that a leaf is at `index` of a tree of that size and root? (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    first, last, found = index, size - 1, leaf
    for each in proof:
        if last == 0:
            return False
        if first & 1 or first == last:
            found = node_hash(each, found)
            while first and not first & 1:
                first, last = first >> 1, last >> 1
        else:
            found = node_hash(found, each)
        first, last = first >> 1, last >> 1
    return last == 0 and found == root


def consistent(first: int, second: int, proof: Sequence[Hash], before: Hash, after: Hash) -> bool:
    """Does the proof show that a tree of size `second` begins with that of size `first`? (RFC 9162, 2.1.4.2).

    Args:
        first, second: sizes; proof: of `Tree.consistency`; before, after: the two roots.
    """
    if first == second:
        return not proof and before == after
    if first == 0 or first > second:
        return first == 0 and not proof and before == EMPTY
    path = [before, *proof] if first & (first - 1) == 0 else list(proof)
    if not path:
        return False
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for each in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old, new = node_hash(each, old), node_hash(each, new)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, each)
        node, last = node >> 1, last >> 1
    return last == 0 and (old, new) == (before, after)
