"""A run's signed record on the disk: entries in a chain and in a Merkle tree, and the checkpoints that were signed.

In the run's folder, `record/`: `entries.jsonl`, which only grows; `checkpoint.txt`, the newest note; `history.jsonl`,
the notes before it with who had co-signed them; `keys.json`; `openings.jsonl`, what the hashes in the entries are of.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import RecordError
from .chain import Chain, Entry, canonical
from .checkpoint import Checkpoint, Key, Sign
from .files import append, read_json, write_json, write_whole
from .merkle import Tree, leaf_hash

FOLDER, ENTRIES, NOTE, HISTORY, KEYS = (
    "record",
    "entries.jsonl",
    "checkpoint.txt",
    "history.jsonl",
    "keys.json",
)


@dataclass(eq=False)
class Record:
    """The record of one run; `opened` reads it, or begins it.

    Args:
        folder: of the record.
        key: of the log, whose name is the record's origin; sign: with it.
        note: the newest checkpoint, with the cosignatures that have come.
    """

    folder: Path
    key: Key
    sign: Sign
    chain: Chain
    tree: Tree = field(default_factory=Tree)
    note: Checkpoint | None = None

    @staticmethod
    def opened(folder: Path, key: Key, sign: Sign, about: Mapping[str, Any]) -> "Record":
        """Return the record in a folder, begun with an entry that says what it is about.

        Raises `RecordError` if it has fewer entries than were signed, or others: a record never shrinks.
        """
        folder.mkdir(exist_ok=True)
        made = Record(folder, key, sign, Chain(folder / ENTRIES, "record"))
        with made.chain.held():
            made._grow()
            made.note = newest(folder)
            refuse_shrunk(made.tree, made.note)
            if not made.tree.size:
                made.chain.begin(about)
                made._grow()
        if made.note is None or made.note.size < made.tree.size:
            made._certify()
        return made

    @property
    def entries(self) -> Sequence[Entry]:
        """What is in it."""
        return self.chain.entries

    def append(self, entries: Sequence[Mapping[str, Any]]) -> Checkpoint:
        """Write entries and sign them; all of it is on the disk when this returns."""
        with self.chain.held():
            self.chain.extend(entries)
            self._grow()
        return self._certify()

    def _grow(self) -> None:
        for entry in self.chain.entries[self.tree.size :]:
            self.tree.add(leaf_hash(canonical(entry)))

    def _certify(self) -> Checkpoint:
        """Sign what is there now; the note before it goes to the history."""
        if self.note is not None:
            lines = json.dumps({"note": self.note.text()}) + "\n"
            append(self.folder / HISTORY, lines)
        self.note = Checkpoint(self.key.name, self.tree.size, self.tree.root()).signed(self.key, self.sign)
        self.save()
        return self.note

    def save(self) -> None:
        """Write the newest note, with the cosignatures that it has."""
        assert self.note is not None, "an opened record has a note"
        write_whole(self.folder / NOTE, self.note.text().encode())

    def know(self, witnesses: Mapping[str, bytes]) -> None:
        """Write down whose keys these are, for whoever checks the record later."""
        write_json(self.folder / KEYS, {"version": 1, "log": self.key.text(), "witnesses": _texts(witnesses)})


def newest(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint of a record; None if nothing was signed yet."""
    try:
        return Checkpoint.of((folder / NOTE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{folder / NOTE} cannot be read: {error}; put its newest copy back.") from error


def refuse_shrunk(tree: Tree, note: Checkpoint | None) -> None:
    """Refuse entries that are not those which were signed: fewer of them, or others."""
    if note is None:
        return
    if note.size > tree.size:
        raise RecordError(
            f"the record has {tree.size} entries, and a checkpoint of {note.size} was signed: its end is missing. Put "
            f"the newest copy back."
        )
    if note.root != tree.root(note.size):
        raise RecordError(
            f"the first {note.size} entries of the record are not those that were signed: one was changed, left out or "
            f"moved. Put the newest copy back."
        )


def keys_of(path: Path) -> tuple[Key, dict[str, bytes]]:
    """Return a record's key and the witnesses' by name, from `keys.json` or a file like it."""
    match read_json(path):
        case {"version": 1, "log": str(log), "witnesses": dict(witnesses)}:
            try:
                return Key.of(log), {name: bytes.fromhex(key) for name, key in witnesses.items()}
            except (ValueError, TypeError) as error:
                raise RecordError(f"{path}: a witness's key is 64 hexadecimal digits: {error}.") from error
    raise RecordError(f'{path} must say {{"version": 1, "log": "KEY", "witnesses": {{"NAME": "KEY"}}}}.')


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines; an unfinished last line is none."""
    try:
        *lines, _ = path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path} cannot be read: {error}.") from error


def _texts(keys: Mapping[str, bytes]) -> dict[str, str]:
    return {name: key.hex() for name, key in sorted(keys.items())}
