"""Bodies in memory are the bodies of a file, from any byte on."""

import numpy as np
import pytest

from fedloom.runtime.net import shelf as shelf_module
from fedloom.runtime.net.line import CHUNK_BYTES
from fedloom.runtime.net.shelf import Shelf
from fedloom.runtime.net.spool import Spool


@pytest.mark.parametrize("size", [0, 1, 100, CHUNK_BYTES // 4 - 40, CHUNK_BYTES // 4 + 1, CHUNK_BYTES])
def test_a_body_is_the_one_that_a_folder_has(tmp_path, size):
    shelf, spool, array = Shelf(), Spool(tmp_path, 0), np.arange(size, dtype=np.float32)
    body = shelf.put(array)
    assert body == spool.put(array)
    content = spool.path(body.digest).read_bytes()
    for offset in {0, 1, 7, 130, CHUNK_BYTES - 1, CHUNK_BYTES, body.size - 1, body.size}:
        at, got = offset, b""
        for where, data in shelf.pieces(body.digest, offset):
            assert where == at
            assert 0 < len(data) <= CHUNK_BYTES
            at, got = at + len(data), got + bytes(data)
        assert got == content[offset:]


def test_what_is_here_is_not_hashed_again(monkeypatch):
    shelf, array, hashed = Shelf(), np.zeros(3), []
    real = shelf_module.blake3
    monkeypatch.setattr(shelf_module, "blake3", lambda: hashed.append(1) or real())
    body = shelf.put(array)
    assert shelf.put(array) == body
    assert len(hashed) == 1
    assert shelf.put(array.copy()) == body
    assert len(hashed) == 2
    shelf.keep_only(set())
    assert shelf.put(array) == body
    assert len(hashed) == 3
    assert b"".join(bytes(data) for _, data in shelf.pieces(body.digest, 0))


def test_nothing_is_copied_and_what_is_forgotten_is_gone():
    shelf, array = Shelf(), np.zeros(CHUNK_BYTES, np.float32)
    kept, other = shelf.put(array), shelf.put(np.ones(3))
    pieces = [data for _, data in shelf.pieces(kept.digest, 0)]
    assert any(np.shares_memory(np.frombuffer(data, np.uint8), array) for data in pieces)
    shelf.keep_only({kept.digest})
    assert sum(len(data) for _, data in shelf.pieces(kept.digest, 0)) == kept.size
    with pytest.raises(FileNotFoundError):
        next(shelf.pieces(other.digest, 0))
