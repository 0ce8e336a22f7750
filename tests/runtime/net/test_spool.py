"""Bodies arrive in pieces, go on at any byte, in any process, and are kept only if they are what was named."""

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.core.errors import StorageError, WireError
from fedloom.runtime.net.line import CHUNK_BYTES
from fedloom.runtime.net.spool import Body, Spool
from fedloom.store.files import dump
from fedloom.store.reused import Files
from small import same_tree

TREE = {"vector": np.arange(5, dtype=np.float32), "count": 1}
CONTENT = dump(TREE)
BODY = Body(blake3(CONTENT).hexdigest(), len(CONTENT))


def take(spool, body, content, offset, end):
    return spool.take(body, offset, memoryview(content)[offset:end])


def test_a_value_is_named_by_its_bytes_and_comes_back(tmp_path):
    spool = Spool(tmp_path / "new", 0)
    assert spool.put(TREE) == BODY == spool.put(TREE)
    assert spool.has(BODY)
    assert not spool.has(Body(BODY.digest, BODY.size + 1))
    assert same_tree(spool.get(BODY), TREE)
    assert b"".join(bytes(data) for _, data in spool.pieces(BODY.digest, 0)) == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == [BODY.digest]


def test_what_was_read_lives_on_without_its_file(tmp_path):
    spool = Spool(tmp_path, 0)
    tree = spool.get(spool.put(TREE))
    spool.drop(BODY.digest)
    assert not spool.has(BODY)
    assert same_tree(tree, TREE)
    with pytest.raises(ValueError, match="read-only"):
        tree["vector"][0] = 1


def test_a_light_one_keeps_what_came_in_one_piece_in_memory_and_the_rest_as_ever(tmp_path):
    spool = Spool(tmp_path, BODY.size, light=True)
    assert take(spool, BODY, CONTENT, 0, None)
    assert not list(tmp_path.iterdir())
    assert spool.has(BODY)
    assert spool.intact(BODY)
    assert not spool.has(Body(BODY.digest, BODY.size + 1))
    assert spool.arrived(BODY) == BODY.size
    assert not take(spool, BODY, CONTENT, 0, None)  # it came twice
    assert same_tree(spool.get(BODY), TREE)
    assert [(at, bytes(data)) for at, data in spool.pieces(BODY.digest, 9)] == [(9, CONTENT[9:])]
    spool.keep_only({BODY.digest})
    assert spool.has(BODY)
    spool.keep_only(set())
    assert not spool.has(BODY)
    assert take(spool, BODY, CONTENT, 0, None)
    spool.drop(BODY.digest)
    assert spool.arrived(BODY) == 0
    assert not take(spool, BODY, CONTENT, 0, 9)
    assert take(spool, BODY, CONTENT, 9, None)
    assert [path.name for path in tmp_path.iterdir()] == [BODY.digest]


@pytest.mark.parametrize("light", [False, True])
def test_a_body_that_is_dropped_while_it_is_looked_for_is_not_there(tmp_path, light, monkeypatch):
    spool, stat = Spool(tmp_path, BODY.size, light=light), Path.stat
    spool.put(TREE)

    def late(path, **how):
        found = stat(path, **how)
        (tmp_path / BODY.digest).unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Path, "stat", late)
    spool.has(BODY)  # raises nothing
    assert not spool.has(BODY)


@settings(max_examples=60)
@given(st.lists(st.booleans(), max_size=12), st.booleans())
def test_what_several_have_claimed_is_there_until_as_many_have_dropped_it(tmp_path_factory, moves, light):
    spool, claims = Spool(tmp_path_factory.mktemp("spool"), BODY.size, light=light), 0
    for claiming in moves:
        if claiming:
            spool.claim(BODY.digest)
            take(spool, BODY, CONTENT, 0, None)
            claims += 1
        else:
            spool.drop(BODY.digest)
            claims = max(0, claims - 1)
        assert spool.has(BODY) == (claims > 0)


@pytest.mark.parametrize("light", [False, True])
def test_what_came_in_one_piece_and_is_something_else_is_not_kept(tmp_path, light):
    spool, other = Spool(tmp_path, BODY.size, light=light), bytearray(CONTENT)
    other[-1] ^= 1
    with pytest.raises(WireError, match="is something else"):
        take(spool, BODY, other, 0, None)
    assert spool.arrived(BODY) == 0
    assert not list(tmp_path.iterdir())
    assert take(spool, BODY, CONTENT, 0, None)
    assert same_tree(spool.get(BODY), TREE)


@pytest.mark.parametrize("again", [False, True], ids=["same process", "another process"])
def test_it_goes_on_at_any_byte(tmp_path, again):
    for cut in range(len(CONTENT) + 1):
        spool = Spool(tmp_path / str(cut), BODY.size)
        if cut:
            assert take(spool, BODY, CONTENT, 0, cut) == (cut == BODY.size)
        if again:
            spool = Spool(tmp_path / str(cut), BODY.size)
        assert spool.arrived(BODY) == cut
        if cut < BODY.size:
            assert take(spool, BODY, CONTENT, cut, None)
        assert spool.arrived(BODY) == BODY.size
        assert same_tree(spool.get(BODY), TREE)
        assert [path.name for path in (tmp_path / str(cut)).iterdir()] == [BODY.digest]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(-40, 3), st.integers(1, 80), st.booleans()), max_size=8))
def test_pieces_in_any_overlap_and_with_restarts_are_put_together(tmp_path_factory, moves):
    """The sender may begin before what is here; only a gap is refused."""
    folder = tmp_path_factory.mktemp("spool")
    spool, here = Spool(folder, BODY.size), 0
    for back, length, restart in moves:
        offset = min(max(0, here + back), BODY.size - 1)
        end = min(offset + length, BODY.size)
        spool = Spool(folder, BODY.size) if restart else spool
        if offset > here:
            with pytest.raises(WireError, match=f"from byte {here} on, got {offset}"):
                take(spool, BODY, CONTENT, offset, end)
        else:
            assert take(spool, BODY, CONTENT, offset, end) == (end == BODY.size > here)
            here = max(here, end)
        assert spool.arrived(BODY) == here
    assert take(spool, BODY, CONTENT, 0, None) == (here < BODY.size)
    assert same_tree(spool.get(BODY), TREE)


def test_more_bytes_than_were_named_are_refused(tmp_path):
    spool = Spool(tmp_path, 10_000)
    with pytest.raises(WireError, match="from byte 0 on"):
        spool.take(BODY, 0, memoryview(CONTENT + b"x"))
    assert spool.arrived(BODY) == 0


@pytest.mark.parametrize("cut", [1, 100])
def test_a_body_that_is_something_else_is_not_kept_and_can_come_again(tmp_path, cut):
    wrong = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    spool = Spool(tmp_path, BODY.size)
    assert not take(spool, BODY, wrong, 0, cut)
    with pytest.raises(WireError, match=f"{BODY.digest[:12]} is something else; it is not kept"):
        take(spool, BODY, wrong, cut, None)
    assert list(tmp_path.iterdir()) == []
    assert spool.arrived(BODY) == 0
    assert take(spool, BODY, CONTENT, 0, None)


def test_no_body_is_larger_than_agreed(tmp_path):
    spool = Spool(tmp_path, BODY.size - 1)
    with pytest.raises(WireError, match=f"at most {BODY.size - 1} bytes here, got {BODY.size}"):
        spool.arrived(BODY)


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "/etc/passwd", "a" * 63, "A" * 64, "g" * 64, "é" * 64])
def test_a_name_that_is_no_digest_reaches_no_file(tmp_path, name):
    spool = Spool(tmp_path / "in", 100)
    asked = [lambda name: spool.has(Body(name, 1)), lambda name: spool.arrived(Body(name, 1))]
    for use in (spool.path, spool.drop, *asked):
        with pytest.raises(WireError, match="is not a digest of 64 hexadecimal digits"):
            use(name)


def test_a_body_of_several_chunks_from_an_offset(tmp_path):
    spool = Spool(tmp_path, 0)
    body = spool.put(np.zeros(CHUNK_BYTES, np.uint16))
    for offset in (0, 1, CHUNK_BYTES, body.size - 1, body.size):
        got = list(spool.pieces(body.digest, offset))
        assert [at for at, _ in got] == list(range(offset, body.size, CHUNK_BYTES))
        assert all(len(data) <= CHUNK_BYTES for _, data in got)
        assert sum(len(data) for _, data in got) == body.size - offset


def test_two_threads_that_send_the_same_body_make_one(tmp_path):
    content = dump(np.random.default_rng(0).integers(0, 255, 300_000, np.uint8))
    body, whole = Body(blake3(content).hexdigest(), len(content)), []
    spool = Spool(tmp_path, body.size)

    def send():
        for at in range(0, body.size, 1000):
            if take(spool, body, content, at, at + 1000):
                whole.append(at)
            if spool.has(body):
                return

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    assert len(whole) == 1
    assert spool.path(body.digest).read_bytes() == content


@pytest.mark.parametrize("again", [False, True], ids=["same process", "another process"])
def test_tidying_up_keeps_what_is_named_whole_or_in_parts(tmp_path, again):
    spool, (content, other) = Spool(tmp_path, 1 << 30), named(OTHER)
    kept, dropped = spool.put({"a": 1}), spool.put({"a": 2})
    take(spool, BODY, CONTENT, 0, 5)
    take(spool, other, content, 0, 7)
    spool = Spool(tmp_path, 1 << 30) if again else spool
    assert spool.names() == {kept.digest, dropped.digest, BODY.digest, other.digest}
    spool.keep_only({kept.digest, BODY.digest})
    assert (spool.has(kept), spool.has(dropped), spool.arrived(BODY), spool.arrived(other)) == (True, False, 5, 0)
    spool.keep_only({kept.digest})
    assert spool.names() == {kept.digest}
    assert {path.name for path in tmp_path.iterdir()} == {kept.digest, "spare"}


# -- files that are written over


LARGE = np.arange(CHUNK_BYTES, dtype=np.float32)  # four chunks
OTHER = np.ones(CHUNK_BYTES, np.float32)


def named(tree):
    content = dump(tree)
    return content, Body(blake3(content).hexdigest(), len(content))


def arrive(spool, content, body, begin=0, end=None):
    return [
        spool.take(body, at, memoryview(content)[at : min(at + CHUNK_BYTES, end or len(content))])
        for at in range(begin, end or len(content), CHUNK_BYTES)
    ]


def place(path):
    return path.stat().st_ino


@pytest.mark.parametrize("other", [OTHER, OTHER[:-9], np.append(OTHER, 3)], ids=["same", "shorter", "longer"])
@pytest.mark.parametrize("put", [False, True], ids=["arrives", "is put"])
def test_a_body_is_written_over_the_one_that_was_dropped(tmp_path, other, put):
    spool = Spool(tmp_path, 1 << 30)
    old = spool.put(LARGE)
    file = place(spool.path(old.digest))
    spool.drop(old.digest)
    content, body = named(other)
    assert spool.put(other) == body if put else arrive(spool, content, body)[-1]
    assert place(spool.path(body.digest)) == file
    assert spool.path(body.digest).read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == [body.digest]


@pytest.mark.parametrize("look", [Spool.get, lambda spool, body: list(spool.pieces(body.digest, 0))])
@pytest.mark.parametrize(
    "forget", [lambda spool, body: spool.drop(body.digest), lambda spool, _: spool.keep_only(set())]
)
def test_what_somebody_still_reads_is_not_written_over(tmp_path, look, forget):
    spool = Spool(tmp_path, 1 << 30)
    body = spool.put(LARGE)
    seen = look(spool, body)
    forget(spool, body)
    assert list(tmp_path.iterdir()) == []
    spool.put(OTHER)
    again = Spool(tmp_path / "again", 1 << 30)
    assert same_tree(look(again, again.put(LARGE)), seen)


@pytest.mark.parametrize("gone", [0, 1, 3])
def test_what_is_left_in_a_spare_file_is_never_taken_for_what_has_arrived(tmp_path, gone):
    """Another process finds the beginning of a body over the rest of an older one, or a part that was dropped."""
    spool = Spool(tmp_path, 1 << 30)
    content, body = named(LARGE)
    arrive(spool, content, body, end=gone * CHUNK_BYTES) if gone else spool.put(LARGE)
    spool.drop(body.digest)
    content, body = named(OTHER)
    arrive(spool, content, body, end=2 * CHUNK_BYTES)
    again = Spool(tmp_path, 1 << 30)
    assert again.arrived(body) == 2 * CHUNK_BYTES
    assert arrive(again, content, body, begin=2 * CHUNK_BYTES)[-1]
    assert np.array_equal(again.get(body), OTHER)


def test_a_chunk_that_was_written_and_not_counted_comes_again(tmp_path):
    spool = Spool(tmp_path, 1 << 30)
    content, body = named(LARGE)
    arrive(spool, content, body, end=2 * CHUNK_BYTES)
    with (tmp_path / (body.digest + ".part")).open("r+b") as file:  # killed between the two
        file.seek(2 * CHUNK_BYTES)
        file.write(content[2 * CHUNK_BYTES : 2 * CHUNK_BYTES + 5])
    again = Spool(tmp_path, 1 << 30)
    assert again.arrived(body) == 2 * CHUNK_BYTES
    assert arrive(again, content, body, begin=2 * CHUNK_BYTES)[-1]


def full(monkeypatch):
    """Let a disk have no room for a file, but for its name."""

    def make(_files, path, *_):
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Files, "make", make)


def test_a_full_disk_is_named_with_the_file_and_leaves_none_of_what_goes_out(tmp_path, monkeypatch):
    spool = Spool(tmp_path, 1 << 30)
    with monkeypatch.context() as there:
        full(there)
        with pytest.raises(
            StorageError, match=rf"{tmp_path}/\w+\.new cannot be written: No space left on device; noth"
        ):
            spool.put(TREE)
    assert list(tmp_path.iterdir()) == []
    assert spool.has(spool.put(TREE))


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_full_disk_is_named_with_the_file_and_what_arrives_comes_again(tmp_path, monkeypatch, pieces):
    spool = Spool(tmp_path, 1 << 30)
    with monkeypatch.context() as there:
        full(there)
        with pytest.raises(StorageError, match=r"\.part cannot be written: No space left on device; it is sent again"):
            take(spool, BODY, CONTENT, 0, len(CONTENT) // pieces)
    assert spool.arrived(BODY) == 0
    assert take(spool, BODY, CONTENT, 0, len(CONTENT))
    assert same_tree(spool.get(BODY), TREE)
