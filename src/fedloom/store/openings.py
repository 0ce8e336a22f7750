"""What the hashes in a record's rounds are of, with their salts: only the coordinator has it.

One JSON object a line, in `openings.jsonl` beside the entries. Which line opens which entry is known by what both are
made from, so a line whose entry was never written is none. One that a power cut took away before it was on the disk is
missing: `sync` waits for that.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any

from ..core.errors import RecordError
from .chain import Entry, canonical
from .files import append, on_disk
from .merkle import Tree, leaf_hash

OPENINGS = "openings.jsonl"
KEPT = 8  # rounds that are at hand; older ones are read again


@dataclass(frozen=True, eq=False)
class Updates:
    """A round's updates: their slots, the tree over them, and where each party's are."""

    slots: Sequence[Mapping[str, Any]]
    tree: Tree
    places: Mapping[str, Sequence[int]]

    @staticmethod
    def of(slots: Sequence[Mapping[str, Any]]) -> "Updates":
        """Return the updates in these slots."""
        tree, places = Tree(), defaultdict[str, list[int]](list)
        for at, slot in enumerate(slots):
            tree.add(slot_leaf(slot))
            for party in slot["parties"]:
                places[party].append(at)
        return Updates(slots, tree, places)

    def by(self, names: Collection[str]) -> list[int]:
        """Return the places of these parties' updates."""
        return [at for name in names for at in self.places.get(name, ())]


def slot_leaf(slot: Mapping[str, Any]) -> bytes:
    """Return the leaf of an update in its round's tree, over its salt, its body's name and its dispatches.

    >>> slot_leaf({"salt": "00", "body": "ab", "numbers": [3, 4]}) == leaf_hash(b"00 ab 3 4")
    True
    """
    return leaf_hash(" ".join((slot["salt"], slot["body"], *map(str, slot["numbers"]))).encode())


def cohort_hash(opening: Mapping[str, Any]) -> str:
    """Return what an entry says of its cohort."""
    return sha256(canonical({"salt": opening["salt"], "cohort": opening["cohort"]})).hexdigest()


@dataclass(eq=False)
class Openings:
    """The openings of a record's rounds, found by the places of their entries.

    In memory is only where each line begins, whose updates it has, and what opens the newest rounds.
    """

    path: Path
    _lines: dict[int, int] = field(default_factory=dict)  # place of an entry -> where the line that opens it begins
    _whose: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))  # party -> places of entries
    _recent: dict[int, Updates] = field(default_factory=dict)
    _synced: bool = True

    @staticmethod
    def read(path: Path, entries: Sequence[Entry]) -> "Openings":
        """Return what opens these entries, as far as it is there; raises `RecordError` if it cannot be read."""
        made = Openings(path)
        places: dict[tuple[str, str], int] = {}
        for place, entry in enumerate(entries):
            if entry.get("kind") == "round":
                places[entry["updates"], entry["cohort"]] = place
        for line, opening in _openings(path):
            updates = Updates.of(opening["slots"])
            found = places.get((updates.tree.root().hex(), cohort_hash(opening)))
            if found is not None:
                made.know(found, line, updates)
        return made

    def __contains__(self, place: int) -> bool:
        """Is there what opens the entry?"""
        return place in self._lines

    def write(self, openings: Sequence[Mapping[str, Any]]) -> list[int]:
        """Write openings down; return where each begins, to be known by once its entry has a place.

        Those before them are on the disk then: a power cut takes the newest alone.
        """
        if not openings:
            return []
        self.sync()
        texts = [json.dumps(each) + "\n" for each in openings]
        begin = append(self.path, "".join(texts))
        self._synced = False
        return list(accumulate(map(len, texts[:-1]), initial=begin))

    def know(self, place: int, line: int, updates: Updates) -> None:
        """Learn that the line which begins there opens the entry at a place."""
        self._lines[place] = line
        for party in updates.places:
            self._whose[party].append(place)
        self._recent[place] = updates
        self._recent = dict(list(self._recent.items())[-KEPT:])

    def of(self, place: int) -> Updates:
        """Return the updates of an entry; none if nothing opens it."""
        if place in self._recent or place not in self._lines:
            return self._recent.get(place, Updates.of(()))
        with self.path.open("rb") as file:
            file.seek(self._lines[place])
            return Updates.of(json.loads(file.readline())["slots"])

    def by(self, names: Collection[str], since: int) -> set[int]:
        """Return the newest places, from `since` on, of entries with updates of these parties."""
        return {place for name in names for place in self._whose.get(name, ())[-KEPT:] if place >= since}

    def sync(self) -> None:
        """Wait until a power cut would take nothing of it."""
        if not self._synced:
            on_disk(self.path)
            self._synced = True


def _openings(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield each opening with where its line begins; an unfinished last line is none."""
    begin = 0
    try:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield begin, json.loads(line)
                begin += len(line)
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path} cannot be read: {error}; put its newest copy back.") from error
