"""A run's record as it is read by who checks it, while the run may go on: entries, checkpoints, and how they fit."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep

from .core.errors import RecordError
from .core.words import counted
from .store.chain import Chain, Entry, canonical
from .store.checkpoint import Checkpoint, Key
from .store.merkle import Tree, leaf_hash
from .store.record import ENTRIES, HISTORY, lines_of, newest

LOOKS, LOOK_S = 200, 0.01  # at a record that grows


@dataclass(eq=False)
class Reading:
    """A record as it is read: entries as far as they are in their chain, and the notes.

    Args:
        folder: of the record.
        log: the key that signs it.
        witnesses: keys of those who may co-sign it, by name.
        notes: checkpoints that were checked, the newest first.
        newest: the checkpoint of all the entries; None if they are more than anybody has signed.
        cosigned: by witness, the size up to which each has signed.
    """

    folder: Path
    log: Key
    witnesses: Mapping[str, bytes]
    entries: list[Entry] = field(default_factory=list)
    tree: Tree = field(default_factory=Tree)
    notes: list[Checkpoint] = field(default_factory=list)
    newest: Checkpoint | None = None
    cosigned: dict[str, int] = field(default_factory=dict)


def entries_of(number: int) -> str:
    """Return a number of entries in words.

    >>> entries_of(1), entries_of(2)
    ('1 entry', '2 entries')
    """
    return counted(number, "entry", "entries")


def entries(reading: Reading) -> str:
    """Read the entries, as far as each is bound to all before it; raises `RecordError` if one is not."""
    chain = Chain(reading.folder / ENTRIES, "record")
    try:
        reading.newest = _settled(chain, reading.folder)
    finally:  # what comes before the first that does not fit
        reading.entries = list(chain.entries)
        for entry in reading.entries:
            reading.tree.add(leaf_hash(canonical(entry)))
    return f"{entries_of(len(reading.entries))}, each bound to all before it"


def _settled(chain: Chain, folder: Path) -> Checkpoint | None:
    """Read the entries and the checkpoint of them all, which a run that goes on signs a moment after it writes them.

    Returns None where there is none: more were written than anybody has signed, or it cannot be read.
    """
    for _ in range(LOOKS):
        note = _newest(folder)
        chain.read()
        if note is None or len(chain.entries) <= note.size:
            return note
        sleep(LOOK_S)
    return None


def _newest(folder: Path) -> Checkpoint | None:
    with suppress(RecordError, LookupError, ValueError):
        return newest(folder)
    return None


def grown_to(reading: Reading) -> int:
    """Return how many entries are signed by now, if the record has grown since it was read; 0 if it has not."""
    note, before = _newest(reading.folder), max([reading.tree.size, *(each.size for each in reading.notes)])
    return note.size if note is not None and note.size > before else 0


def checkpoint(reading: Reading) -> str:
    """Check that the newest checkpoint is signed, and is one of just these entries; raises `RecordError`."""
    note = reading.newest or newest(reading.folder)
    if note is None:
        raise RecordError("no checkpoint was signed.")
    reading.notes.append(note)
    _fits(reading, note)
    left = reading.tree.size - note.size
    if left:
        raise RecordError(
            f"{entries_of(left)} behind the {note.size} that were signed: nobody has signed what was added."
        )
    return f"{entries_of(note.size)}, signed by {reading.log.name}"


def history(reading: Reading) -> str:
    """Check that each earlier checkpoint was one of a beginning of these entries; raises `RecordError`."""
    size, last, lines = 0, reading.notes[0].size, lines_of(reading.folder / HISTORY)
    grown = grown_to(reading)
    for line in lines:
        note = Checkpoint.of(line["note"])
        if last < note.size <= grown:
            break  # signed since this was begun: the run goes on
        if note.size < size:
            raise RecordError(f"a checkpoint of {note.size} was signed after one of {size}: the record has shrunk.")
        size = note.size
        _fits(reading, note)
        reading.notes.append(note)
    return f"{counted(len(reading.notes) - 1, 'checkpoint')} before it, each of a beginning of these entries"


def _fits(reading: Reading, note: Checkpoint) -> None:
    if note.origin != reading.log.name or not note.signed_by(reading.log):
        raise RecordError(
            f"the checkpoint of {note.size} entries, of {note.origin}, is not signed by the key of {reading.log.name}."
        )
    if note.size > reading.tree.size:
        raise RecordError(
            f"{note.size} entries were signed, and {reading.tree.size} of them are here: the end is missing, or what "
            f"stands before it does not fit."
        )
    if note.root != reading.tree.root(note.size):
        raise RecordError(f"the first {note.size} entries are not those that were signed: one was changed or moved.")
