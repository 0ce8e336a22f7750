"""Work is shared out once and whole, whatever the cores."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.core import cores
from fedloom.core.blocks import BLOCK
from fedloom.core.cores import LONG, keep_to_one, on_blocks, shares, spread


@given(pieces=st.integers(0, 50), threads=st.integers(1, 9), size=st.sampled_from([1, LONG - 1, LONG, 10 * LONG]))
def test_shares_hold_every_piece_once_and_in_order(pieces, threads, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cores, "THREADS", threads)
        found = shares(range(pieces), size)
    assert [piece for share in found for piece in share] == list(range(pieces))
    assert all(found)
    assert len(found) <= (threads if size >= LONG else 1)


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1, LONG - 1, LONG, LONG + BLOCK + 1])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_block_is_worked_on_once(size, threads, monkeypatch):
    monkeypatch.setattr(cores, "THREADS", threads)
    seen = []
    on_blocks(seen.append, size)
    assert [at for block in sorted(seen, key=lambda block: block.start) for at in (block.start, block.stop)] == [
        at for begin in range(0, size, BLOCK) for at in (begin, min(begin + BLOCK, size))
    ]


def test_results_come_in_order_and_an_error_is_raised(monkeypatch):
    monkeypatch.setattr(cores, "THREADS", 2)
    meet = threading.Barrier(2, timeout=30)  # two pieces can only be done at a time
    assert spread(lambda piece: meet.wait() * 0 + piece, [1, 2, 3, 4]) == [1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError):
        spread(lambda piece: 1 // piece, [1, 0])


def test_a_worker_keeps_to_one(monkeypatch):
    monkeypatch.setattr(cores, "THREADS", 2)
    keep_to_one()
    here = threading.get_ident()
    assert set(spread(lambda piece: threading.get_ident(), range(4))) == {here}
