"""What opens a record's entries is found again by what they were made from, whatever a crash has left of it."""

import json
import os

import pytest

from fedloom.core.errors import RecordError, StorageError
from fedloom.store.openings import KEPT, Openings, Updates, cohort_hash


def opening(round, party="north"):
    slots = [{"numbers": [round], "body": f"body {round}", "salt": f"{round:04x}", "parties": [party]}]
    return {"round": round, "salt": "00", "cohort": [party], "slots": slots}


def entry(opened):
    root = Updates.of(opened["slots"]).tree.root().hex()
    return {"kind": "round", "round": opened["round"], "updates": root, "cohort": cohort_hash(opened)}


def entries(opened):
    """Return a record's entries: one that is no round, and rounds behind it."""
    return [{"chain": "record"}, *map(entry, opened)]


def written(path, opened):
    Openings(path).write(opened)
    return Openings.read(path, entries(opened))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "openings.jsonl"


def test_each_entry_is_opened_by_its_own_line(path):
    rounds = [opening(round, "north" if round % 2 else "south") for round in range(1, 3 * KEPT)]
    there = written(path, rounds)
    for place, each in enumerate(rounds, 1):
        assert place in there
        assert list(there.of(place).slots) == each["slots"]
    assert 0 not in there
    assert list(there.of(0).slots) == []
    assert there.by({"north"}, 0) == {place for place in range(1, 3 * KEPT) if place % 2 and place > KEPT}
    assert there.by({"north", "west"}, 3 * KEPT - 2) == {3 * KEPT - 1}


def test_what_is_written_later_is_found_as_what_was_read(path):
    there, rounds = written(path, [opening(1)]), [opening(2), opening(3)]
    lines = there.write(rounds)
    assert 2 not in there  # its entry has no place yet
    for place, (line, each) in enumerate(zip(lines, rounds, strict=True), 2):
        there.know(place, line, Updates.of(each["slots"]))
    again = Openings.read(path, entries([opening(1), *rounds]))
    for place in (1, 2, 3):
        assert list(there.of(place).slots) == list(again.of(place).slots)


def test_a_line_without_its_entry_and_half_a_line_are_none(path):
    Openings(path).write([opening(1), opening(2)])
    with path.open("a") as file:
        file.write(json.dumps(opening(3))[:-4])
    there = Openings.read(path, entries([opening(2), opening(3)]))
    assert (1 in there, 2 in there) == (True, False)
    assert there.write([opening(3)]) == [2 * len(json.dumps(opening(1)) + "\n")]
    assert 2 in Openings.read(path, entries([opening(2), opening(3)]))


def test_nothing_was_opened_before_the_first_round(path):
    assert Openings(path).write([]) == []
    assert 1 not in Openings.read(path, entries([opening(1)]))
    assert not path.exists()


def test_what_cannot_be_read_is_refused(path):
    path.write_text("{}{\n")
    with pytest.raises(RecordError, match=r"cannot be read: .*; put its newest copy back"):
        Openings.read(path, [])


def test_it_is_waited_for_once(path, monkeypatch):
    there, waited, sync = Openings(path), [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: waited.append(file) or sync(file))
    there.sync()
    there.write([opening(1)])
    assert waited == []
    there.sync()
    there.sync()
    assert len(waited) == 1
    there.write([opening(2)])
    assert len(waited) == 1
    there.write([opening(3)])  # a power cut takes no more than this one
    assert len(waited) == 2
    path.unlink()
    with pytest.raises(StorageError, match=r"openings\.jsonl cannot be written"):
        there.sync()
