"""A site's journal: what was answered stays until its round is closed, and memory moves with it."""

import numpy as np
import pytest

from fedloom.core.errors import RunError, StorageError
from fedloom.store.notes import FILE, Answered, Notes, kept_in
from small import same_tree

MEMORY = {"local": np.float32([1, 2]), "stages": [None, ("x", 2)], "gather": None}


def answered(number, memory=MEMORY, **changes):
    return Answered(
        **{"number": number, "party": "a", "digest": f"d{number}", "size": 3, "seconds": 0.5} | changes, memory=memory
    )


@pytest.fixture
def reopened(tmp_path):
    """Return the journal as another process finds it."""
    held = []

    def again():
        held.append(Notes(tmp_path / FILE))
        return held[-1]

    yield again
    for notes in held:
        notes.close()


def test_what_was_answered_is_there_for_another_process_in_order(reopened):
    notes = reopened()
    assert notes.waiting() == []
    for number in (5, 2, 9):
        notes.answer(answered(number))
    found = reopened().waiting()
    assert [kept.number for kept in found] == [2, 5, 9]
    assert (found[0].party, found[0].digest, found[0].size, found[0].seconds) == ("a", "d2", 3, 0.5)
    assert all(same_tree(kept.memory, MEMORY) for kept in found)


def test_answering_again_replaces_what_was_answered(reopened):
    notes = reopened()
    notes.answer(answered(1))
    notes.answer(answered(1, None, digest="other"))
    assert [(kept.digest, kept.memory) for kept in notes.waiting()] == [("other", None)]


def test_closed_rounds_go_and_the_memory_that_moved_stays(reopened):
    notes = reopened()
    for number in (1, 2, 3):
        notes.answer(answered(number))
    notes.settle([1, 3, 77], {"a": MEMORY})
    other = reopened()
    assert [kept.number for kept in other.waiting()] == [2]
    assert same_tree(other.memories(), {"a": MEMORY})
    moved = {"local": np.float32([3, 4])}
    other.settle([2], {"a": moved, "b": MEMORY})
    assert same_tree(reopened().memories(), {"a": moved, "b": MEMORY})
    assert reopened().waiting() == []


def test_a_memory_of_nothing_is_not_kept(reopened):
    notes = reopened()
    notes.settle([], {"a": MEMORY})
    notes.settle([], {"a": {"local": None, "stages": [None]}})
    assert notes.memories() == {}


def test_the_reply_and_the_memory_go_together(reopened, monkeypatch):
    """If one of the two cannot be written, neither is."""
    notes = reopened()
    notes.answer(answered(1))
    notes.settle([], {"a": MEMORY})
    with pytest.raises(TypeError):
        notes.settle([1], {"a": {"local": object()}})
    assert [kept.number for kept in reopened().waiting()] == [1]
    assert same_tree(reopened().memories(), {"a": MEMORY})


def test_what_is_kept_under_a_name_is_there_for_another_process_while_this_one_writes(reopened, tmp_path):
    notes = reopened()
    notes.keep("seen", {"size": 3})
    with notes.together():
        notes.keep("seen", {"size": 4})
        notes.keep("mark", [1])
        assert (kept_in(tmp_path / FILE, "seen"), kept_in(tmp_path / FILE, "mark")) == ({"size": 3}, None)
    assert (kept_in(tmp_path / FILE, "seen"), reopened().kept("mark")) == ({"size": 4}, [1])


def both(notes):
    notes.answer(answered(1))
    with notes.together():
        notes.keep("seen", 1)
    notes.keep("mark", object())


def test_what_is_written_together_is_there_together_or_not_at_all(reopened):
    notes = reopened()
    with pytest.raises(TypeError), notes.together():
        both(notes)
    assert (notes.waiting(), notes.kept("seen")) == ([], None)
    notes.keep("seen", 2)
    assert reopened().kept("seen") == 2


def test_a_journal_whose_process_ended_before_it_had_tables_keeps_nothing(tmp_path):
    (tmp_path / FILE).touch()
    assert kept_in(tmp_path / FILE, "seen") is None
    with pytest.raises(StorageError, match=r"the site's journal .* cannot be read or written: unable to open"):
        kept_in(tmp_path / "nowhere" / FILE, "seen")


def test_a_damaged_journal_says_where(reopened):
    notes = reopened()
    notes.keep("seen", 1)
    notes._database.execute("UPDATE named SET value = '{'")
    with pytest.raises(RunError, match="is damaged at 'seen'"):
        notes.kept("seen")
