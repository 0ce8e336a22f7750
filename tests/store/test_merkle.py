"""Roots and proofs, against the definition of RFC 9162 written out, and against every way to be wrong."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.store.merkle import EMPTY, Tree, consistent, included, leaf_hash

# The eight entries that Certificate Transparency implementations are tested with, and the root over all of them.
REFERENCE = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOT = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
SIZES = 40


def tree(size, change=lambda at: b""):
    made = Tree()
    for at in range(size):
        made.add(leaf_hash(b"%d" % at + change(at)))
    return made


def defined(leaves):
    """MTH of RFC 9162, 2.1.1, as it stands there."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return sha256(b"\x01" + defined(leaves[:k]) + defined(leaves[k:])).digest()


def test_the_reference_leaves_have_the_reference_root():
    made = Tree()
    for entry in REFERENCE:
        made.add(leaf_hash(bytes.fromhex(entry)))
    assert made.root().hex() == ROOT


def test_roots_of_all_sizes_are_those_of_the_definition():
    made = tree(SIZES)
    for size in range(SIZES + 1):
        assert made.root(size) == defined([b"%d" % at for at in range(size)])
    assert Tree().root() == EMPTY


def test_every_entry_is_proved_in_every_size_and_nothing_else_is():
    made = tree(SIZES)
    for size in range(1, SIZES + 1):
        for index in range(size):
            proof = made.inclusion(index, size)
            root, leaf = made.root(size), leaf_hash(b"%d" % index)
            assert included(leaf, index, size, proof, root)
            assert not included(leaf_hash(b"another"), index, size, proof, root)
            assert not included(leaf, (index + 1) % size, size, proof, root) or size == 1
            assert not included(leaf, index, size, [*proof, EMPTY], root)
            assert not included(leaf, index, size, proof, EMPTY)
            assert not proof or not included(leaf, index, size, proof[:-1], root)


def test_every_size_is_consistent_with_every_smaller_one_and_with_no_other_tree():
    made, other = tree(SIZES), tree(SIZES, lambda at: b"!" if at == 0 else b"")
    for second in range(SIZES + 1):
        for first in range(second + 1):
            proof, before, after = made.consistency(first, second), made.root(first), made.root(second)
            assert consistent(first, second, proof, before, after)
            assert not consistent(first, second, [*proof, EMPTY], before, after)
            if first:
                assert not consistent(first, second, proof, other.root(first), after)
                assert not consistent(first, second, proof, before, other.root(second))
                assert not consistent(first, second, other.consistency(first, second), before, other.root(second))
            if 0 < first < second:
                assert not consistent(second, first, proof, after, before)
                assert not consistent(first, second, proof[:-1], before, after)


@settings(max_examples=200)
@given(st.integers(1, 300), st.data())
def test_a_bit_that_is_changed_in_a_proof_proves_nothing(size, data):
    made = tree(size)
    index, first = (data.draw(st.integers(low, size - 1 + low)) for low in (0, 1))
    for proof, holds in (
        (made.inclusion(index, size), lambda p: included(leaf_hash(b"%d" % index), index, size, p, made.root(size))),
        (made.consistency(first, size), lambda p: consistent(first, size, p, made.root(first), made.root(size))),
    ):
        assert holds(proof)
        if proof:
            at = data.draw(st.integers(0, len(proof) - 1))
            bit = data.draw(st.integers(0, 255))
            proof[at] = bytes(b ^ (1 << bit % 8) if place == bit // 8 else b for place, b in enumerate(proof[at]))
            assert not holds(proof)


@pytest.mark.parametrize("index", [-1, 5, 6])
def test_places_outside_prove_nothing(index):
    made = tree(5)
    assert not included(leaf_hash(b"0"), index, 5, made.inclusion(0, 5), made.root())
