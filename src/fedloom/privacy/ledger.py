"""A site's own account of what its data sets have spent in privacy, over all runs: kept and enforced at the site.

Every answer that says something about rows is written down before it leaves, with the mechanism that the site's own
copy of the app describes; which round it is of, and who else was asked, is the coordinator's word and changes nothing.
Sampling is not counted in the site's favour: who was drawn is known to the coordinator, and what was answered counts.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from os import urandom
from pathlib import Path
from typing import Any

from ..core.errors import RecordError
from ..core.event import NOT_PRIVATE, DpEvent
from ..core.strategy import Strategy
from ..store.chain import Chain, Entry, Mark
from ..store.notes import FILE as NOTES
from ..store.notes import kept_in
from .compose import event_of, tree
from .examples import answer

FILE, MARK = "ledger.jsonl", "ledger"  # the file, and a name in the journals of runs
TRAIN, EVALUATE, MEASURE = "train", "evaluate", "measure"
COORDINATOR, SITE = "the coordinator, as it promises", "this site"
TOGETHER = "this site and the others of a hidden sum, each its share"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that a data set takes part in, as the site's own copy of the app describes it.

    Args:
        run: as the coordinator names it; app: digest; name: of the app.
        mechanism: what one answer to a training task releases, whoever knows that it was asked.
        noise: who adds the noise: `COORDINATOR`, `SITE` or `TOGETHER`; empty where none is claimed.
        rounds: of the app.
    """

    run: str
    app: str
    name: str
    mechanism: DpEvent
    noise: str
    rounds: int

    def entry(self) -> Entry:
        """Return what the ledger says of it."""
        said = {name: getattr(self, name) for name in ("run", "app", "name", "noise", "rounds")}
        return {"kind": "run", **said, "mechanism": tree(self.mechanism)}


def run_of(strategy: Strategy, *, run: str, app: str, name: str, rounds: int, examples: int = 1) -> Run:
    """Return a run of a strategy; its noise is the coordinator's word where it is added behind the client's half.

    `examples` is how many the site trains on, from which follows what it spends on each.
    """
    mechanism = strategy.mechanism if strategy.private else NOT_PRIVATE
    if strategy.examples.private:
        mechanism = answer(strategy.examples, examples)
    noise = _adds(strategy) if mechanism.private else ""
    return Run(run=run, app=app, name=name, mechanism=mechanism, noise=noise, rounds=rounds)


def _adds(strategy: Strategy) -> str:
    noisy = [stage for stage in strategy.stages if stage.event().private]
    if any(stage.sums for stage in noisy):
        return COORDINATOR
    return TOGETHER if noisy and strategy.gather.hides else SITE


@dataclass(eq=False)
class Ledger:
    """The file of a site, `FILE` in its home by default; several homes that hold the same rows share one.

    Args:
        chain: of entries: data sets, runs, answers.
    """

    chain: Chain
    answers: Counter[tuple[int, int, str]] = field(default_factory=Counter)  # (data set, run, what): how many
    _sketches: dict[int, frozenset[str]] = field(default_factory=dict)  # of data sets, by place
    _counted: int = 0

    @staticmethod
    def opened(path: Path, seen: Mapping[str, Mark] = {}) -> "Ledger":
        """Return the ledger, begun where there is none; raises `RecordError` if more of it was seen than is there.

        Args:
            path: of its file.
            seen: run -> how far it has seen the ledger, as `marks` found it before.
        """
        ledger = Ledger(Chain(path, "ledger"))
        with ledger.chain.held():
            ledger._reaches(seen)
            ledger.chain.begin({"key": urandom(32).hex()})
        return ledger

    @staticmethod
    def looked(path: Path, seen: Mapping[str, Mark] = {}) -> "Ledger":
        """Return the ledger to be looked at, as `opened` does; nothing is written, so its disk may be read-only."""
        ledger = Ledger(Chain(path, "ledger", looks=True))
        with ledger.chain.held():
            ledger._reaches(seen)
        return ledger

    def _reaches(self, seen: Mapping[str, Mark]) -> None:
        for run, mark in sorted(seen.items()):
            if not self.chain.has(mark):
                raise RecordError(
                    f"{self.chain.path} has {self.chain.mark.size} lines, and the run {run} has seen line "
                    f"{mark.size} of this site's ledger: an older copy, or another ledger, lies in its place. Nothing "
                    "is answered before the newest one is back."
                )

    @property
    def key(self) -> bytes:
        """What this site's fingerprints are made with."""
        return bytes.fromhex(self.chain.entries[0]["key"])

    def place(self, entry: Mapping[str, Any]) -> int:
        """Return where an entry stands, after writing it if it does not; the chain must be held."""
        for place, known in enumerate(self.chain.entries):
            if {**known, "prev": ""} == {**entry, "prev": ""}:
                return place
        self.chain.append(entry)
        return len(self.chain.entries) - 1

    def known(self, digest: str, rows: int, sketch: Iterable[str]) -> int:
        """Return the place of a data set, by its fingerprint."""
        with self.chain.held():
            return self.place({"kind": "data", "digest": digest, "rows": rows, "sketch": list(sketch)})

    def data(self) -> list[int]:
        """Return the places of all data sets."""
        self._count()
        return list(self._sketches)

    def sharing(self, data: int) -> list[int]:
        """Return the places of data sets that have rows in common with one, itself among them."""
        self._count()
        own = self._sketches[data]
        return [place for place, other in self._sketches.items() if place == data or not own.isdisjoint(other)]

    def spent(self, data: int) -> Counter[tuple[int, str]]:
        """Return the answers that count for a data set, by (run, what): its own, and those of whoever shares rows."""
        sharing = set(self.sharing(data))
        found: Counter[tuple[int, str]] = Counter()
        for (of, run, what), times in self.answers.items():
            if of in sharing:
                found[run, what] += times
        return found

    def answered(self, app: str) -> dict[str, Counter[str]]:
        """Return what was answered in the runs of an app, on whatever data set: run -> what -> how many."""
        self._count()
        found: dict[str, Counter[str]] = {}
        for (_, at, what), times in self.answers.items():
            entry = self.chain.entries[at]
            if entry["app"] == app:
                found.setdefault(entry["run"], Counter())[what] += times
        return found

    def _count(self) -> None:
        """Take in what is new in the chain."""
        for place in range(self._counted, len(self.chain.entries)):
            match self.chain.entries[place]:
                case {"kind": "answer", "data": data, "run": run, "what": what}:
                    self.answers[data, run, what] += 1
                case {"kind": "data", "sketch": sketch}:
                    self._sketches[place] = frozenset(sketch)
        self._counted = len(self.chain.entries)

    def event(self, run: int, what: str) -> DpEvent:
        """Return what an answer in a run released."""
        return event_of(self.chain.entries[run]["mechanism"]) if what == TRAIN else NOT_PRIVATE

    def releases(self, answers: Mapping[tuple[int, str], int]) -> list[tuple[DpEvent, int]]:
        """Return answers as the accountant takes them."""
        return [(self.event(run, what), times) for (run, what), times in sorted(answers.items())]


def marks(runs: Path) -> dict[str, Mark]:
    """Return how far each run has seen the site's ledger: of those with a journal in this folder's folders."""
    found = {path: kept_in(path, MARK) for path in runs.glob(f"*/{NOTES}")}
    return {path.parent.name: _mark(path, said) for path, said in found.items() if said is not None}


def _mark(path: Path, said: Any) -> Mark:
    match said:
        case {"size": int(size), "head": str(head)}:
            return Mark(size, head)
    raise RecordError(f"{path} has no mark of a ledger where one should be; put its newest copy back.")
