"""A site as a witness of its coordinator's record: it checks, remembers and co-signs, and stops where something is off.

What it has seen is on its disk before it signs. It may be shown more of the record while it trains. Keys of other sites
are those of HOME/directory.json, which people gave it: cosignatures of anybody else say nothing here.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic, time
from typing import Any

from ..core.errors import RecordError, WireError
from ..store.checkpoint import Checkpoint, Key, Sign
from ..store.files import read_json, write_json, write_whole
from ..store.merkle import EMPTY, consistent, included, leaf_hash
from ..store.notes import Notes
from ..store.openings import slot_leaf
from .identity import Peer, text_of

SEEN, OWED = "record", "owed"  # names in the site's journal
PIN, EVIDENCE = "log.json", "evidence.json"
PATIENCE = 2  # checkpoints until what was counted must be in the record, and others' cosignatures on it
PATIENCE_S = 30.0  # and seconds: quick rounds close faster than signatures travel
ROOTS = 64  # earlier checkpoints, and models of rounds, that are remembered

Said = Mapping[str, Any]


@dataclass(eq=False)
class Seen:
    """What a witness remembers of a record; a value that the site's journal keeps.

    Args:
        size, root: of the last checkpoint that it verified; note: its text.
        roots: of those before it, by size.
        owed: its answers that must still be found in the record: number -> [round, hash of the model, body, counted,
            checkpoints since].
        alone: checkpoints since the others' cosignatures were as many as it insists on.
        unseen: models that it has trained from since it was shown a new checkpoint.
        began: rounds, and the models that they began with in what was shown lately, where clients may answer late.
    """

    size: int = 0
    root: str = EMPTY.hex()
    note: str = ""
    roots: dict[str, str] = field(default_factory=dict)
    owed: dict[str, list[Any]] = field(default_factory=dict)
    alone: int = 0
    unseen: list[str] = field(default_factory=list)
    began: list[str] = field(default_factory=list)

    def due(self) -> dict[str, Any]:
        """Return what moves with every answer: what is owed for it."""
        return {"owed": self.owed, "unseen": self.unseen}

    def shown(self) -> dict[str, Any]:
        """Return what moves with every checkpoint: all else."""
        return {name: value for name, value in vars(self).items() if name not in self.due()}


@dataclass(eq=False)
class Witness:
    """One site's eyes on the record of one run.

    Args:
        notes: the site's journal of the run, which keeps what was seen.
        folder: of the run at the site; pin: the file with the coordinator's key, the same for all runs.
        run: its id.
        public: its own identity key, 32 bytes; sign: with it.
        others: keys of other sites that it knows from people.
        least: how many of those must co-sign, at most `PATIENCE` checkpoints and `PATIENCE_S` seconds late.
        commitment: the salted fingerprint of its data.
        streams: may an answer be counted in a later round than it was asked in, as in a buffered schedule?
        now: seconds since 1970, for its cosignatures alone; clock: seconds that pass.
    """

    notes: Notes
    folder: Path
    pin: Path
    run: str
    public: bytes
    sign: Sign
    others: Collection[bytes] = ()
    least: int = 0
    commitment: str = ""
    streams: bool = False
    now: Callable[[], float] = time
    clock: Callable[[], float] = monotonic
    seen: Seen = field(default_factory=Seen)
    _met: Key | None = None
    _shows: bool = True  # is it a coordinator that is there?
    _alone: float | None = None  # since when it has been shown checkpoints without the others
    _mine: Key = field(init=False)

    def __post_init__(self) -> None:
        self._mine = Key.witness(self.public)
        if (self.folder / EVIDENCE).exists():
            raise RecordError(
                f"this site stopped taking part in {self.run}, because its record was not what it should be; "
                f"{self.folder / EVIDENCE} has what was shown. Look into it with the other sites before it is removed."
            )
        try:
            self.seen = Seen(**{**(self.notes.kept(SEEN) or {}), **(self.notes.kept(OWED) or {})})
        except TypeError as error:
            raise RecordError(f"what is kept in {self.folder} is not what a witness writes: {error}.") from error

    def meet(self, peer: Peer) -> None:
        """Learn who is there: a coordinator, or who shows no record, whom it refuses if it insists on others."""
        self._shows = peer.role == "coordinator"
        if self.least and peer.role != "coordinator":
            raise RecordError(
                f"this site's policy asks for {self.least} other witnesses of the record, and {peer} shows none; join "
                f"the coordinator itself, or take witnesses out of the policy."
            )

    def admit(self, round: int, model: str) -> None:
        """Refuse to train on while nothing is shown, if it insists on others who watch what is.

        `model` is the digest of the vector that the round begins with: of the body that it came as.
        """
        if self.least and len({*self.seen.unseen, _start(round, model)}) > PATIENCE:
            raise RecordError(
                f"this site's policy asks for {self.least} other witnesses of the record, and the coordinator has "
                f"shown none of it for {PATIENCE} rounds; this site trains no further before it does."
            )

    def introduction(self) -> dict[str, Any]:
        """Return what the coordinator must know to show that its record goes on from where this site saw it."""
        return {"size": self.seen.size, "data": self.commitment}

    def answered(self, number: int, round: int, model: str, body: str) -> None:
        """Remember an answer to a training task: the record must have it once it was counted."""
        if not self._shows:
            return
        with self._changing():
            self.seen.owed[str(number)] = [round, model, body, False, 0]
            if self.least and (seen := _start(round, model)) not in self.seen.unseen:
                self.seen.unseen.append(seen)
            self.notes.keep(OWED, self.seen.due())

    def settled(self, counted: Collection[int], void: Collection[int]) -> None:
        """Learn which of its answers were counted."""
        with self._changing():
            for number in self.seen.owed.keys() & {str(each) for each in counted}:
                self.seen.owed[number][3] = True
            for number in self.seen.owed.keys() & {str(each) for each in void}:
                del self.seen.owed[number]
            self.notes.keep(OWED, self.seen.due())

    def hear(self, said: Said, peer: Peer) -> dict[str, Any]:
        """Check what the coordinator shows of its record; return a cosignature.

        Raises `RecordError`, after keeping what was shown, if anything is not as it must be; then nothing is signed.
        """
        with self._changing():
            try:
                note = self._shown(said, peer)
            except RecordError as error:
                evidence = {"why": str(error), "shown": dict(said), "seen": asdict(self.seen)}
                write_whole(self.folder / EVIDENCE, json.dumps(evidence, indent=1).encode())
                raise
            self.notes.keep(SEEN, self.seen.shown())
            self.notes.keep(OWED, self.seen.due())
        line = note.cosignature(self._mine, self.sign, int(self.now())).line()
        return {"size": note.size, "line": line}

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Change what was seen: one thread is shown the record, while another one trains and answers."""
        with self.notes.together():
            self.notes.begin()
            yield

    def _shown(self, said: Said, peer: Peer) -> Checkpoint:
        try:
            return self._verified(said, self._log(peer))
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise RecordError(f"what is shown of the record cannot be read: {type(error).__name__}.") from error

    def _log(self, peer: Peer) -> Key:
        """Return the log's key: the coordinator's, as it was when this site first met it; it is looked up once."""
        key = Key(f"fedloom/{peer.name}/{self.run}", peer.key)
        if self._met == key:
            return self._met
        met = {"name": peer.name, "key": text_of(peer.key)}
        if not self.pin.exists():
            write_json(self.pin, met)
        if read_json(self.pin) != met:
            raise RecordError(
                f"the coordinator signs with another key than when this site first met it ({self.pin}); ask its people "
                f"whether that is meant, and only then remove the file."
            )
        self._met = key
        return key

    def _verified(self, said: Said, log: Key) -> Checkpoint:
        note = Checkpoint.of(_field(said, "note", str))
        if note.origin != log.name or not note.signed_by(log):
            raise RecordError(f"a checkpoint of {note.origin!r} is not signed by the coordinator's key for this run.")
        self._goes_on(note, said)
        proved = [self._proved(entry, note) for entry in _field(said, "entries", list)]
        grown = note.size > self.seen.size
        self._owed(proved, grown)
        text, agrees = _field(said, "seen", str), _hashes(said, "agrees")
        self._watched(self._compare(Checkpoint.of(text), agrees, log, note) if text else 0, grown)
        if grown:
            self._move(note)
        return note

    def _goes_on(self, note: Checkpoint, said: Said) -> None:
        seen = self.seen
        if note.size < seen.size:
            raise RecordError(f"the record had {seen.size} entries, and is shown with {note.size}: it has shrunk.")
        if (note.size, note.root.hex()) == (seen.size, seen.root):
            return
        proof, since = _hashes(said, "consistency"), _field(said, "since", int)
        if since != seen.size:
            raise RecordError(f"the record is shown to go on from size {since}, and this site has seen {seen.size}.")
        if not consistent(since, note.size, proof, bytes.fromhex(seen.root), note.root):
            raise RecordError(
                f"the record of {note.size} entries does not begin with the {seen.size} that this site has seen: it "
                f"was rewritten, or this site is shown another one than others."
            )

    def _proved(self, entry: Any, note: Checkpoint) -> tuple[dict[str, Any], list[Any]]:
        """Return an entry, and its updates, that were proved to be in the record."""
        place, text = _field(entry, "place", int), _field(entry, "entry", str)
        if not included(leaf_hash(text.encode()), place, note.size, _hashes(entry, "proof"), note.root):
            raise RecordError(f"entry {place} is not in the record that was signed.")
        found, updates = json.loads(text), _field(entry, "updates", list)
        for update in updates:
            leaf, at = slot_leaf(_field(update, "slot", dict)), _field(update, "at", int)
            root = bytes.fromhex(found["updates"])
            if not included(leaf, at, found["slots"], _hashes(update, "proof"), root):
                raise RecordError(f"an update is not among those that entry {place} was signed with.")
        return found, [update["slot"] for update in updates]

    def _owed(self, proved: list[tuple[dict[str, Any], list[Any]]], grown: bool) -> None:
        """Find its own answers in what was proved; what was counted and is not there in time is a lie."""
        if self.streams:
            self._learn([entry for entry, _ in proved if entry.get("kind") == "round"])
        for entry, slots in proved:
            for slot in slots:
                for number in slot["numbers"]:
                    self._found(str(number), slot["body"], entry)
        for number, (round, _, _, counted, late) in self.seen.owed.items():
            if counted and late >= PATIENCE:
                raise RecordError(
                    f"this site's answer {number} was counted in round {round}, and {late} checkpoints later the "
                    f"record does not have it."
                )
            self.seen.owed[number][4] = late + (counted and grown)

    def _found(self, number: str, body: str, entry: Mapping[str, Any]) -> None:
        if number not in self.seen.owed:
            return
        round, model, mine, *_ = self.seen.owed[number]
        if body != mine:
            raise RecordError(f"the record has another update for this site's answer {number} than the one it sent.")
        late = self.streams and entry["round"] > round
        if entry["round"] != round and not late:
            raise RecordError(
                f"this site's answer {number} was asked in round {round}, and the record counts it in round "
                f"{entry['round']}."
            )
        if _start(round, model) not in (self.seen.began if self.streams else [_start(round, entry["in"])]):
            raise RecordError(
                f"round {round} began with another model in the record than the one that this site was sent: sites "
                f"are shown different models."
            )
        del self.seen.owed[number]

    def _learn(self, rounds: list[dict[str, Any]]) -> None:
        """Remember which models rounds began with: each with what it says, the next one with what it ended with."""
        shown = {_start(each["round"], each["in"]): None for each in rounds}
        shown |= {_start(each["round"] + 1, each["out"]): None for each in rounds}
        self.seen.began = [*(each for each in self.seen.began if each not in shown), *shown][-ROOTS:]

    def _compare(self, other: Checkpoint, agrees: list[bytes], log: Key, note: Checkpoint) -> int:
        """Compare with what others have seen; return how many that it knows have signed what is new here."""
        if other.origin != log.name or not other.signed_by(log):
            raise RecordError("a checkpoint that others are said to have signed is not the coordinator's.")
        if not consistent(other.size, note.size, agrees, other.root, note.root):
            raise RecordError(
                f"others have signed another record of {other.size} entries than this site has seen: a split view."
            )
        if other.size > self.seen.size and other.signed_by(self._mine):
            raise RecordError(
                f"this site has signed a record of {other.size} entries, and remembers {self.seen.size}: an older copy "
                f"of its folder lies in its place."
            )
        there = sum(other.signed_by(Key.witness(key)) for key in set(self.others) - {self.public})
        return there if other.size >= self.seen.size else 0

    def _watched(self, there: int, grown: bool) -> None:
        """Count the checkpoints without the others; nobody can have signed anything before the first."""
        self.seen.alone = 0 if there >= self.least else self.seen.alone + (grown and self.seen.size > 0)
        began = self.clock() if self._alone is None else self._alone
        self._alone = began if self.seen.alone else None
        if self.seen.alone > PATIENCE and self.clock() - began >= PATIENCE_S:
            raise RecordError(
                f"{there} other sites that this one knows have co-signed the record, and its policy asks for "
                f"{self.least}: it may be shown a record of its own."
            )

    def _move(self, note: Checkpoint) -> None:
        seen = self.seen
        if seen.size:
            seen.roots[str(seen.size)] = seen.root
            seen.roots = dict(list(seen.roots.items())[-ROOTS:])
        seen.size, seen.root, seen.note, seen.unseen = note.size, note.root.hex(), note.text(), []


def _start(round: int, model: str) -> str:
    """Return which model a round begins with, as one text."""
    return f"{round} {model}"


def _field(said: Any, name: str, kind: type) -> Any:
    """Return a field of what was shown; raises `WireError` if it is missing or of another type."""
    value = said.get(name) if isinstance(said, Mapping) else None
    if type(value) is not kind:
        raise WireError(f"what is shown of a record lacks {name!r}, or has it as something else.")
    return value


def _hashes(said: Any, name: str) -> list[bytes]:
    try:
        found = [bytes.fromhex(each) for each in _field(said, name, list)]
    except (ValueError, TypeError) as error:
        raise WireError(f"{name} of a record are hashes, hexadecimal.") from error
    if any(len(each) != 32 for each in found):
        raise WireError(f"{name} of a record are hashes of 32 bytes.")
    return found
