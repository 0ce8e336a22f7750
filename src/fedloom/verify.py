"""What anybody can check of a run's record with the public keys alone: what was found, and what it shows."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from blake3 import blake3

from .core.errors import ConfigError, FedloomError, RecordError, RunError
from .core.words import counted
from .reading import Reading, checkpoint, entries, entries_of, grown_to, history
from .recording import MODEL_FILE
from .runtime.witness import SEEN
from .store.chain import Entry
from .store.checkpoint import Checkpoint, Key
from .store.notes import FILE as NOTES
from .store.notes import kept_in
from .store.openings import OPENINGS, Updates, cohort_hash
from .store.record import ENTRIES, FOLDER, KEYS, keys_of, lines_of

UNPROVED = (
    "What is signed cannot be changed later without a trace, if one witness is honest and is asked: nothing here shows "
    "that what was written down is true, that noise was added as promised, or that nothing else happened. Events that "
    "were never written are not in it."
)
NOBODY = "nobody has co-signed it"
ALONE = (
    "No other party has signed it: whoever had the key, which in a simulation is the process that trained, could have "
    "written all of it anew."
)


@dataclass(frozen=True)
class Finding:
    """One check: what it is about, whether it holds, and a sentence."""

    what: str
    holds: bool
    said: str


@dataclass(frozen=True)
class Verified:
    """All that was checked of a record.

    Args:
        findings: in order.
        entries, root: of the newest checkpoint.
        witnesses: by name, the size up to which each has co-signed.
        limits: sentences about what was not shown.
    """

    findings: tuple[Finding, ...]
    entries: int
    root: str
    witnesses: Mapping[str, int]
    limits: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Does every check hold?"""
        return all(finding.holds for finding in self.findings)


def verify(folder: Path, keys: Path | None = None, seen: Sequence[Path] = ()) -> Verified:
    """Check a run's record.

    Args:
        folder: of a run, or of its record.
        keys: a file like the record's `keys.json`, from somebody other than who keeps the record; without it the
            record's own is taken.
        seen: what sites have seen: their `runs/RUN` folders, or the `site.db` in them.

    Raises `ConfigError` if there is no record, or none of what a site has seen where that is said to be, and
    `RecordError` if its keys cannot be read.
    """
    place = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    if not (place / ENTRIES).is_file():
        raise ConfigError(f"there is no record in {folder}; runs of this version have one in RUN/{FOLDER}.")
    reading = Reading(place, *keys_of(keys or place / KEYS))
    checks: tuple[tuple[str, Callable[[Reading], str]], ...] = (
        ("entries", entries),
        ("checkpoint", checkpoint),
        ("earlier checkpoints", history),
        ("rounds", _rounds),
        ("privacy", _privacy),
        ("updates", _updates),
        ("model", _model),
        ("co-signed", _cosigned),
        *((f"seen by {path.parent.name or path}", _seeing(path)) for path in map(_seen_file, seen)),
    )
    trusted = "given with --keys" if keys else "those in the record's own folder: who keeps it could have replaced them"
    findings = (
        Finding("keys", True, f"{reading.log.name}, {trusted}"),
        *(_checked(*check, reading) for check in checks),
    )
    root = reading.notes[0].root.hex() if reading.notes else ""
    limits = (UNPROVED,) if reading.cosigned else (ALONE, UNPROVED)
    return Verified(findings, reading.notes[0].size if reading.notes else 0, root, dict(reading.cosigned), limits)


def _checked(what: str, check: Callable[[Reading], str], reading: Reading) -> Finding:
    try:
        return Finding(what, True, check(reading))
    except FedloomError as error:
        return Finding(what, False, str(error))
    except (LookupError, TypeError, ValueError) as error:
        return Finding(what, False, f"an entry has not the form that fedloom writes: {type(error).__name__}: {error}.")


def _of(reading: Reading, kind: str) -> list[Entry]:
    return [entry for entry in reading.entries if entry.get("kind") == kind]


def _rounds(reading: Reading) -> str:
    model, number, again = reading.entries[0]["model"], 0, 0
    before = model
    for entry in _of(reading, "round"):
        if entry["round"] == number and entry["in"] == before:
            again += 1  # closed a second time, before the next one was
        elif entry["round"] != number + 1 or entry["in"] != model:
            raise RecordError(
                f"round {entry['round']} stands behind round {number}, and does not begin with the model that ended it."
            )
        before, model, number = entry["in"], entry["out"], entry["round"]
    twice = f"; {again} of them closed twice, as after a crash" if again else ""
    return f"{counted(number, 'round')}, each from the model that the one before it ended with{twice}"


def _privacy(reading: Reading) -> str:
    spent = [entry["epsilon"] for entry in _of(reading, "round")]
    told = [each for each in spent if each != "infinity"]
    if "infinity" in spent or not told:
        return "nothing is claimed: ε = ∞"
    if told != sorted(told):
        raise RecordError("epsilon goes down from one round to the next, which it cannot.")
    delta = _of(reading, "round")[-1]["delta"]
    return f"ε = {told[-1]} at δ = {delta:g} after the last round, as the coordinator accounts for it"


def _updates(reading: Reading) -> str:
    rounds, opened = _of(reading, "round"), lines_of(reading.folder / OPENINGS)
    made = {(entry["round"], entry["updates"]): entry for entry in rounds}
    found = {(opening["round"], _root(opening)): opening for opening in opened}
    strange, last = [number for number, root in found.keys() - made.keys()], _last(rounds)
    found = {key: opening for key, opening in found.items() if key in made}
    known = {number for number, _ in found}  # a crash leaves others beside them
    wrong = [number for number in sorted(strange) if number <= last and number not in known]
    if wrong:
        raise RecordError(f"what is said to be the updates of round {wrong[0]} is not what its entry was made from.")
    for key, opening in found.items():
        if cohort_hash(opening) != made[key]["cohort"]:
            raise RecordError(f"the cohort of round {opening['round']} is not the one that its entry was made from.")
    slots = [slot for opening in found.values() for slot in opening["slots"] if slot["numbers"]]
    if not slots:
        many = counted(len(rounds), "round")
        return f"{many} without any single update: none travelled, or what their hashes are of is not here"
    bodies = sum(_body(reading, slot) for slot in slots)
    kept = f"; {bodies} are kept here, with these hashes" if bodies else ""
    return f"{counted(len(slots), 'accepted update')} with the hashes that are recorded{kept}"


def _last(rounds: Sequence[Entry]) -> int:
    return max((entry["round"] for entry in rounds), default=0)


def _root(opening: Mapping[str, Any]) -> str:
    return Updates.of(opening["slots"]).tree.root().hex()


def _body(reading: Reading, slot: Mapping[str, Any]) -> bool:
    """Is the update kept here? Raises `RecordError` if it is another one."""
    for party in slot["parties"]:
        path = reading.folder.parent / "bodies" / Path(party).name / slot["body"]
        with suppress(FileNotFoundError):  # a run that goes on drops it when it likes
            if blake3().update_mmap(path).hexdigest() != slot["body"]:
                raise RecordError(f"the update {path} is not the one that was accepted.")
            return True
    return False


def _model(reading: Reading) -> str:
    rounds = _of(reading, "round")
    told = [entry for entry in reading.entries if entry.get("kind") in ("round", "end")]
    if not told or told[-1]["kind"] != "end":  # one that failed may have been resumed: rounds stand behind its end
        return "the run has not ended, so there is no model to compare"
    path, last = reading.folder.parent / MODEL_FILE, told[-1]
    if last["state"] != (rounds[-1]["out"] if rounds else reading.entries[0]["model"]):
        raise RecordError("the run ended with another model than its last round.")
    if not last["model"] or not path.is_file():
        return f"the run ended ({last['status']}); there is no model file here to compare"
    if sha256(path.read_bytes()).hexdigest() != last["model"]:
        raise RecordError(f"{path.name} is not the model that the run ended with.")
    return f"{path.name} is the model that the run ended with ({last['status']})"


def _cosigned(reading: Reading) -> str:
    for name, public in reading.witnesses.items():
        key = Key.witness(public)
        signed = [note.size for note in reading.notes if note.signed_by(key)]
        if signed:
            reading.cosigned[name] = max(signed)
    if not reading.cosigned:
        return NOBODY
    last = reading.notes[0].size
    told = ", ".join(f"{name} up to {size}" for name, size in sorted(reading.cosigned.items()))
    return f"{told}, of {last} entries"


def _seen_file(path: Path) -> Path:
    """Return the journal that a site has kept there; raises `ConfigError` where there is none that can be read."""
    file = path / NOTES if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"there is no {NOTES} in {path}; --witness is a site's HOME/runs/RUN, where it is.")
    try:
        kept_in(file, SEEN)
    except RunError as error:
        raise ConfigError(f"{file} is no {NOTES} of a site: {error} --witness is a site's HOME/runs/RUN.") from error
    return file


def _seeing(path: Path) -> Callable[[Reading], str]:
    def check(reading: Reading) -> str:
        seen = kept_in(path, SEEN)
        if seen is None or not seen["size"]:
            return "it was shown nothing of it"
        if not Checkpoint.of(seen["note"]).signed_by(reading.log):
            raise RecordError(f"what this site was shown is not signed by {reading.log.name}: ask whose record it is.")
        for size, root in _views(seen):
            if reading.tree.size < size <= grown_to(reading):
                continue  # a run that goes on
            if size > reading.tree.size:
                raise RecordError(f"this site has seen {size} entries, and {reading.tree.size} are here.")
            if reading.tree.root(size).hex() != root:
                raise RecordError(
                    f"this site was shown another record of {size} entries: a split view. Its note is in {path}."
                )
        return f"it has seen the first {entries_of(seen['size'])}"

    return check


def _views(seen: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    yield from ((int(size), root) for size, root in seen["roots"].items())
    yield int(seen["size"]), seen["root"]


def figures(found: Verified) -> dict[str, Any]:
    """Return all of it as JSON can hold it."""
    kept = {name: getattr(found, name) for name in ("entries", "root")}
    checks = [json.loads(json.dumps(vars(finding))) for finding in found.findings]
    return {
        "holds": found.holds,
        **kept,
        "cosigned": dict(found.witnesses),
        "checks": checks,
        "limits": list(found.limits),
    }
