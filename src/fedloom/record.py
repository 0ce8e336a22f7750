"""What a run's signed record says: its app, each round's model before and after, updates, privacy, and how it ended.

Entries hold hashes and counts, no names and no figures of sites. What may tell something is hashed with a salt that the
coordinator keeps; under differential privacy so is who took part, and how many.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from os import urandom
from pathlib import Path
from secrets import SystemRandom
from threading import Lock
from typing import Any

from .core.errors import RecordError, StorageError
from .core.layout import Vector
from .core.state import State
from .privacy.compose import tree as described
from .privacy.guarantee import told
from .store.chain import Entry, canonical
from .store.checkpoint import Checkpoint, Key, Sign, Signature
from .store.dispatches import Accepted
from .store.files import digest_of
from .store.merkle import Tree
from .store.openings import KEPT, OPENINGS, Openings, Updates, cohort_hash
from .store.record import FOLDER, Record
from .training import Training
from .version import __version__

Opening = tuple[Entry, Updates]
Rows = Callable[[Collection[int]], Sequence[Accepted]]


@dataclass(eq=False)
class Recorder:
    """Writes what a run does into its record.

    Args:
        training: that runs.
        record: where it is written; openings: what its hashes are of.
        rows: dispatch numbers -> the updates that were accepted for them; None in one process, where none travels.
        published: is told that there is a new checkpoint.
        named: a model's vector -> its digest, as the body that sites are sent.
        witnesses: public keys by name.
    """

    training: Training
    record: Record
    openings: Openings
    rows: Rows | None = None
    published: Callable[[], None] = lambda: None
    named: Callable[[Vector], str] = digest_of
    witnesses: dict[str, bytes] = field(default_factory=dict)
    _hash: str = ""
    _rounds: dict[int, str] = field(default_factory=dict)  # what is in the record: round -> the model after it
    _pending: list[tuple[Entry, Opening | None]] = field(default_factory=list)  # entries, and what opens them
    _notes: dict[int, Checkpoint] = field(default_factory=dict)
    _committed: Counter[str] = field(default_factory=Counter)
    _lock: Lock = field(default_factory=Lock)

    @staticmethod
    def opened(training: Training, state: State, folder: Path, app: str, log: tuple[Key, Sign]) -> "Recorder":
        """Return the recorder of a run in its folder, to go on with if it was begun.

        Args:
            training: that runs; state: that it goes on from.
            folder: of the run; app: its digest.
            log: the key that signs.

        Raises `RecordError` if the state is not the one that the record has, the record is older than what was signed,
        or, under differential privacy, the state is older than what the record says was shown.
        """
        about = _about(training, state, folder.name, app)
        record = Record.opened(folder / FOLDER, *log, about)
        made = Recorder(training, record, Openings.read(folder / FOLDER / OPENINGS, record.entries))
        made._hash = digest_of(state.vector)
        for entry in made.record.entries:
            if entry.get("kind") == "round":
                made._rounds[entry["round"]] = entry["out"]
        recorded = {0: made.record.entries[0]["model"], **made._rounds}.get(state.round)
        if recorded not in (None, made._hash):
            raise RecordError(
                f"the state to go on from, after round {state.round}, is not the one that {folder / FOLDER} has: one "
                f"of them is another run's, or was changed."
            )
        shown, strategy = max(made._rounds, default=0), training.app.strategy
        if shown > state.round + 1 and (strategy.private or strategy.examples.private):  # a crash leaves one behind
            raise RecordError(
                f"the state to go on from is of round {state.round}, and models up to round {shown} were shown: their "
                f"noise would be drawn again and counted once. Put the newest state back, or begin a new run."
            )
        made.record.know(made.witnesses)
        return made

    # -- what a run calls

    def close_round(self, state: State) -> None:
        """Take a closed round down; `flush` writes it."""
        before, self._hash = self._hash, self.named(state.vector)
        if self._rounds.get(state.round) == self._hash and not self._unopened(state.round):
            return  # run again after a crash, to the same bits
        self._rounds[state.round] = self._hash
        self._pending.append(self._round(state, before))

    def flush(self) -> None:
        """Write what was taken down, and sign it; on the disk when this returns. Nothing may be shown before."""
        if not self._pending:
            return
        with self._lock:
            taken = list(self._pending)
            opened = [(place, *told) for place, (_, told) in enumerate(taken, len(self.record.entries)) if told]
            lines = self.openings.write([opening for _, opening, _ in opened])
            root = self.record.append([entry for entry, _ in taken])
            del self._pending[: len(taken)]  # once it is written: an interrupt may come at any time
            self._note(root)
            for line, (place, _, updates) in zip(lines, opened, strict=True):
                self.openings.know(place, line, updates)
        self.published()

    def keep(self) -> None:
        """Wait until what opens the entries is on the disk too: before a state is saved whose round is not run again.

        Until then nobody waits for it: if the power takes it, the round is run again, and written with a new opening.
        """
        self.openings.sync()

    def end(self, status: str, model: str | None) -> None:
        """Write how the run ended, and the SHA-256 of its model file."""
        ended = {"kind": "end", "status": status, "model": model or "", "state": self._hash}
        if {**self.record.entries[-1], "prev": ""} != {**ended, "prev": ""}:
            self._pending.append((ended, None))
        self.flush()

    def close(self) -> None:
        """Write the newest checkpoint with the cosignatures that have come since."""
        with self._lock, suppress(StorageError):  # signatures come again, behind the next checkpoint
            self.record.save()

    def summary(self) -> dict[str, Any]:
        """Return where the record stands: its size, its root, and how many have co-signed the newest checkpoint."""
        note = self.record.note
        assert note is not None, "an opened record has a note"
        return {"entries": note.size, "root": note.root.hex(), "cosigned": len(note.signatures) - 1}

    # -- what the network calls

    def introduced(self, name: str, key: bytes, commitment: str) -> None:
        """Learn of a witness: its key, and the salted fingerprint of its data."""
        with self._lock:
            if self.witnesses.get(name) != key:
                self.witnesses[name] = key
                self.record.know(self.witnesses)
            entry = {"kind": "data", "commitment": commitment}
            known = any(each.get("commitment") == commitment for each in self.record.entries)
            if not known and self._committed[name] < KEPT:  # whose rows change more often does not fill the record
                self._committed[name] += 1
                self._note(self.record.append([entry]))

    def message(self, names: Collection[str], since: int, commitment: str) -> dict[str, Any]:
        """Return what a witness is told: the newest checkpoint, that it goes on from `since`, and its own entries."""
        with self._lock:
            note, tree = self._current()
            since = since if since <= note.size else 0
            seen = next((each for size, each in sorted(self._notes.items(), reverse=True) if size < note.size), None)
            return {
                "note": note.text(),
                "seen": "" if seen is None else seen.text(),
                "agrees": [] if seen is None else [each.hex() for each in tree.consistency(seen.size, note.size)],
                "since": since,
                "consistency": [each.hex() for each in tree.consistency(since, note.size)],
                "entries": [self._proved(place, names) for place in self._of(names, since, commitment)],
            }

    def cosigned(self, name: str, size: int, line: str) -> bool:
        """Take a witness's signature of a checkpoint; return whether it is one."""
        with self._lock:
            note, key = self._notes.get(size), self.witnesses.get(name)
            if note is None or key is None:
                return False
            signature = _parsed(line)
            if signature is None or not note.adding(signature).signed_by(Key.witness(key)):
                return False
            self._notes[size] = note.adding(signature)
            if self.record.note is not None and self.record.note.size == size:
                self.record.note = self._notes[size]
            return True

    # -- what is behind

    def _current(self) -> tuple[Checkpoint, Tree]:
        assert self.record.note is not None, "an opened record has a note"
        self._notes.setdefault(self.record.note.size, self.record.note)
        return self.record.note, self.record.tree

    def _note(self, note: Checkpoint) -> None:
        self._notes[note.size] = note
        self._notes = dict(sorted(self._notes.items())[-KEPT:])

    def _unopened(self, round: int) -> bool:
        """Is it the last round in the record, with what opens it lost? An earlier one's cannot be written any more."""
        entries = self.record.entries
        last = max((place for place, entry in enumerate(entries) if entry.get("kind") == "round"), default=0)
        return entries[last].get("round") == round and last not in self.openings

    def _round(self, state: State, before: str) -> tuple[Entry, Opening]:
        done, private = state.record, self.training.app.strategy.private
        assert done is not None, "a closed round has its record"
        rows = () if self.rows is None else self.rows(done.counted)
        lags = dict(zip(done.counted, done.staleness, strict=False))
        slots = _slots(rows, len(self.training.federation.members()) if private else len(rows), lags)
        updates = Updates.of(slots)
        opening = {"round": state.round, "salt": urandom(16).hex(), "cohort": list(done.cohort), "slots": slots}
        refused = sum(fault.phase == "policy" for fault in done.faults)
        counts = {"asked": len(done.cohort), "counted": len(done.counted), "faults": len(done.faults)}
        entry = {
            "kind": "round",
            "round": state.round,
            "in": before,
            "out": self._hash,
            "cohort": cohort_hash(opening),
            "updates": updates.tree.root().hex(),
            "slots": len(slots),
            "counts": None if private else counts | {"refused": refused},
            "hidden": self.training.app.strategy.gather.hides,
            "epsilon": told(state.epsilon),
            "delta": state.delta,
        }
        return entry, (opening, updates)

    def _of(self, names: Collection[str], since: int, commitment: str) -> list[int]:
        """Return the places of a witness's own entries from `since` on, of what these need, and of the newest round."""
        entries, size = self.record.entries, self.record.tree.size
        data = {place for place in range(since, size) if entries[place].get("commitment") == commitment}
        newest = {size - 1} if since < size else set()
        own = sorted(self.openings.by(names, since) | data | newest)[-KEPT:]
        return sorted({*own, *(began for place in own for began in self._began(place, names))})

    def _began(self, place: int, names: Collection[str]) -> set[int]:
        """Return the places of the rounds that began with what these parties' late updates were trained from."""
        entries, updates = self.record.entries, self.openings.of(place)
        lags = {lag for at in updates.by(names) if (lag := updates.slots[at].get("lag", 0))}
        rounds = {entries[place]["round"] - lag for lag in lags}
        return {max(at for at in range(place) if entries[at].get("round") == round) for round in rounds}

    def _proved(self, place: int, names: Collection[str]) -> dict[str, Any]:
        entry, size, updates = self.record.entries[place], self.record.tree.size, self.openings.of(place)
        own = [
            {
                "slot": _told(updates.slots[at]),
                "at": at,
                "proof": [each.hex() for each in updates.tree.inclusion(at, len(updates.slots))],
            }
            for at in updates.by(names)
        ]
        return {
            "place": place,
            "entry": canonical(entry).decode(),
            "proof": [each.hex() for each in self.record.tree.inclusion(place, size)],
            "updates": own,
        }


def _about(training: Training, first: State, run: str, digest: str) -> Entry:
    app = training.app
    return {
        "run": run,
        "app": digest,
        "layout": training.terms.total.digest,
        "fedloom": __version__,
        "engine": str(training.engine),
        "rounds": app.rounds,
        "members": len(training.federation.members()),
        "mechanism": described(app.strategy.event),
        "model": digest_of(first.vector),
    }


def _slots(rows: Sequence[Accepted], size: int, lags: Mapping[int, int]) -> list[Entry]:
    """Return a round's updates, each with a salt, and fillers up to `size`, in an order that tells nothing.

    With each is how many rounds it lags behind, which only a buffered schedule knows of.
    """
    salts = [urandom(16).hex() for _ in range(max(size, len(rows)))]
    slots: list[Entry] = [
        {
            "numbers": list(row.numbers),
            "body": row.digest,
            "salt": salt,
            "parties": list(row.parties),
            "lag": lags.get(row.numbers[0], 0),
        }
        for row, salt in zip(rows, salts, strict=False)
    ]
    slots += [{"numbers": [], "body": "", "salt": salt, "parties": [], "lag": 0} for salt in salts[len(rows) :]]
    SystemRandom().shuffle(slots)
    return slots


def _told(slot: Mapping[str, Any]) -> Entry:
    return {name: slot[name] for name in ("numbers", "body", "salt")}


def _parsed(line: str) -> Signature | None:
    try:
        (signature,) = Checkpoint.of(f"a\n0\n{'A' * 43}=\n\n{line}").signatures
    except (ValueError, RecordError):
        return None
    return signature
