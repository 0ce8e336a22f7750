"""What is in a chain stays there, in its order: every change is found, and a full disk leaves it as it was."""

import errno
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.core.errors import RecordError, RunError, StorageError
from fedloom.store.chain import Chain, Mark

ENTRIES = 6


def chain(folder, entries=ENTRIES):
    made = Chain(folder / "ledger.jsonl", "ledger")
    with made.held():
        made.begin({"key": "00"})
        for number in range(entries):
            made.append({"number": number})
    return made


def read(path):
    found = Chain(path, "ledger")
    found.read()
    return found


def test_what_was_written_is_read_again_in_its_order(tmp_path):
    made = chain(tmp_path)
    found = read(made.path)
    assert [entry.get("number") for entry in found.entries] == [None, *range(ENTRIES)]
    assert found.mark == made.mark
    assert made.path.stat().st_mode & 0o777 == 0o600


def test_two_that_write_the_same_file_read_each_other_first(tmp_path):
    one = chain(tmp_path, 0)
    two = read(one.path)
    for number, each in enumerate((one, two, one, two)):
        with each.held():
            each.append({"number": number})
    assert [entry["number"] for entry in read(one.path).entries[1:]] == [0, 1, 2, 3]


@settings(max_examples=60)
@given(st.data())
def test_any_byte_that_is_changed_is_found(tmp_path_factory, data):
    made = chain(tmp_path_factory.mktemp("chain"))
    content = bytearray(made.path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    made.path.write_bytes(content)
    with suppress(RecordError):
        assert not read(made.path).has(made.mark)  # the last line of all: whoever has seen it knows


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [*lines[:2], *lines[3:]],
        lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]],
        lambda lines: [*lines[:3], lines[2], *lines[3:]],
        lambda lines: lines[1:],
        lambda lines: [json.dumps(json.loads(line)).encode() for line in lines],
    ],
    ids=["left out", "reordered", "doubled", "without its beginning", "spelt otherwise"],
)
def test_entries_that_are_left_out_moved_or_doubled_are_found(tmp_path, change):
    path = chain(tmp_path).path
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*change(lines), b""]))
    with pytest.raises(RecordError):
        read(path)


def test_an_end_that_is_missing_is_known_to_whoever_saw_it(tmp_path):
    made = chain(tmp_path)
    path, seen = made.path, made.mark
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    found = read(path)
    assert not found.has(seen)
    assert found.has(Mark(0, ""))
    assert found.has(found.mark)
    with pytest.raises(RecordError, match="is shorter than it was while this process ran"):
        made.read()


def test_a_file_of_something_else_is_not_read(tmp_path):
    path = chain(tmp_path).path
    with pytest.raises(RecordError, match=r"line 1: this is no record of version 1; is it another file\?"):
        Chain(path, "record").read()


def test_a_line_that_was_never_finished_is_cut_off_by_the_next_one(tmp_path):
    path = chain(tmp_path, 2).path
    with path.open("ab") as file:
        file.write(b'{"number":2,"prev":"ab')
    found = read(path)
    assert len(found.entries) == 3
    with found.held():
        found.append({"number": 3})
    assert [entry.get("number") for entry in read(path).entries] == [None, 0, 1, 3]


def test_a_full_disk_adds_nothing_and_says_so(tmp_path, monkeypatch):
    made = chain(tmp_path, 1)
    before, write = made.path.read_bytes(), os.pwrite

    def full(file, content, at):
        write(file, content[:10], at)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with made.held(), pytest.raises(RunError, match="cannot be written: No space left on device; nothing leaves"):
        made.append({"number": 9})
    monkeypatch.undo()
    assert made.path.read_bytes() == before
    with made.held():
        made.append({"number": 9})
    assert read(made.path).entries[-1]["number"] == 9


FULL = """
import resource, signal, sys
from pathlib import Path
from fedloom.core.errors import RunError
from fedloom.store.chain import Chain

chain, size = Chain(Path(sys.argv[1]), "ledger"), Path(sys.argv[1]).stat().st_size
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))
with chain.held():
    try:
        chain.append({"number": 1})
    except RunError as error:
        print(error)
"""


def test_a_limit_of_the_system_in_the_middle_of_a_line_adds_nothing(tmp_path):
    path = chain(tmp_path, 1).path
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert "cannot be written: File too large; nothing leaves before it is." in done.stdout
    assert path.read_bytes() == before


WRITES = """
import sys
from pathlib import Path
from fedloom.store.chain import Chain

chain = Chain(Path(sys.argv[1]), "ledger")
for number in range(100_000):
    with chain.held():
        chain.append({"number": number})
        print(number, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 7])
def test_what_was_told_before_kill_9_is_there_afterwards(tmp_path, lines):
    path = chain(tmp_path, 0).path
    process = subprocess.Popen([sys.executable, "-c", WRITES, str(path)], stdout=subprocess.PIPE, text=True)
    told = [int(process.stdout.readline()) for _ in range(lines)]
    process.send_signal(signal.SIGKILL)
    told += [int(line) for line in process.communicate()[0].splitlines()]
    there = [entry["number"] for entry in read(path).entries[1:]]
    assert there[: len(told)] == told
    assert len(there) <= len(told) + 1


def test_a_file_that_cannot_be_locked_is_held_by_nobody(tmp_path, read_only):
    made = chain(tmp_path)
    read_only()
    with pytest.raises(StorageError, match=r"\.lock cannot be locked: Read-only file system") as told, made.held():
        pass
    assert "another process" not in str(told.value)


def test_a_file_that_another_holds_is_said_to_be_held(tmp_path, monkeypatch):
    made, other = chain(tmp_path), read(tmp_path / "ledger.jsonl")
    monkeypatch.setattr("fedloom.store.chain.PATIENCE_S", 0.01)
    with made.held(), pytest.raises(RunError, match="another process holds it"), other.held():
        pass


def test_whoever_looks_needs_no_lock_and_sees_whole_lines(tmp_path, read_only):
    made = chain(tmp_path, 1)
    found = Chain(made.path, "ledger", looks=True)
    with made.held(), found.held():
        assert found.mark == made.mark
        made.append({"number": 1})
    with made.path.open("ab") as file:
        file.write(b'{"number":2,"prev":"ab')
    read_only()
    with found.held():
        assert [entry.get("number") for entry in found.entries] == [None, 0, 1]
