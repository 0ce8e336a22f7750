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

from ..core.budget import Budget
from ..core.errors import RecordError, StrategyError
from ..core.event import NOT_PRIVATE, DpEvent
from ..core.strategy import Strategy
from ..core.task import Evaluate, Measure, TaskBody, Train
from ..store.chain import Chain, Entry, Mark, canonical
from ..store.notes import FILE as NOTES
from ..store.notes import Notes, kept_in
from .compose import Kind, Total, composed, event_of, kind_of, tree
from .examples import answer

FILE, MARK = "ledger.jsonl", "ledger"  # the file, and a name in the journals of runs
TRAIN, EVALUATE, MEASURE = "train", "evaluate", "measure"
COORDINATOR, SITE = "the coordinator, as it promises", "this site"
TOGETHER = "this site and the others of a hidden sum, each its share"
_RELEASES: dict[type, str] = {Train: TRAIN, Evaluate: EVALUATE, Measure: MEASURE}


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


def never(budget: Budget, mechanism: DpEvent, what: str = TRAIN) -> str:
    """Return why a budget never lets an answer leave, whatever has been spent before; empty if it may."""
    if what != TRAIN or not mechanism.private:
        released = {TRAIN: "its updates", EVALUATE: "figures of held-out rows", MEASURE: "sums of columns"}[what]
        return (
            f"this site's policy sets a budget of {budget}, and {released} are not differentially private (ε = ∞); "
            f"take an app that is, such as dp_fedavg, with data.holdout = 0 and nothing to standardise."
        )
    kind = kind_of(mechanism)
    assert kind is not None, "what is private has a kind"
    if kind.unit != budget.unit:
        return f"this site's budget is for one {budget.unit}, and this app protects one {kind.unit}; change one."
    return ""


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
            for run, mark in sorted(seen.items()):
                ledger._reaches(run, mark)
            ledger.chain.begin({"key": urandom(32).hex()})
        return ledger

    def _reaches(self, run: str, mark: Mark) -> None:
        if not self.chain.has(mark):
            raise RecordError(
                f"{self.chain.path} has {self.chain.mark.size} lines, and the run {run} has seen line "
                f"{mark.size} of this site's ledger: an older copy, or another ledger, lies in its place. Nothing is "
                f"answered before the newest one is back."
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


@dataclass(eq=False)
class Account:
    """One data set in one run: what may still be answered, and the pen that writes down what is.

    Args:
        ledger: of the site; data, at: places of the data set and the run in it.
        run: the run.
        budget: None keeps the ledger and enforces nothing.
        notes: the journal of the run, where it is written how far the ledger was seen.
    """

    ledger: Ledger
    data: int
    at: int
    run: Run
    budget: Budget | None
    notes: Notes
    _others: "Counter[tuple[int, str]] | None" = None  # for which `_most` was found
    _most: int = 0

    @staticmethod
    def opened(ledger: Ledger, data: int, run: Run, budget: Budget | None, notes: Notes) -> "Account":
        """Return the account of a run, which is written down."""
        with ledger.chain.held():
            return Account(ledger, data, ledger.place(run.entry()), run, budget, notes)

    def objection(self, body: TaskBody) -> str:
        """Return why a task may not be answered; empty if it may."""
        what = _RELEASES.get(type(body))
        if what is None or self.budget is None:
            return ""
        with self.ledger.chain.held():
            return self._refusal(self.budget, what)

    def spend(self, body: TaskBody) -> str:
        """Write an answer down, on the disk when this returns; return why it may not leave, or nothing.

        How far the ledger was seen may follow with what else is written of the answer, before it leaves: such a mark is
        never ahead of the ledger, and what it does not know of was told to nobody.
        """
        what = _RELEASES.get(type(body))
        if what is None:
            return ""
        with self.ledger.chain.held():
            why = "" if self.budget is None else self._refusal(self.budget, what)
            if not why:
                answer = {"kind": "answer", "data": self.data, "run": self.at, "what": what}
                self.notes.keep(MARK, vars(self.ledger.chain.append(answer)))
            return why

    def _refusal(self, budget: Budget, what: str) -> str:
        answers = self.ledger.spent(self.data)
        why = never(budget, self.run.mechanism, what) or self._mixed(answers)
        return why or ("" if self._fits(budget, answers) else self._exhausted(budget, answers))

    def _mixed(self, answers: Mapping[tuple[int, str], int]) -> str:
        mine = kind_of(self.run.mechanism)
        kinds = {kind_of(self.ledger.event(*answer)) for answer in answers} - {None, mine}
        if kinds:
            other = next(iter(kinds))
            return f"this data set has spent privacy of another kind ({other}); {mine} cannot be added to it."
        return ""

    def _fits(self, budget: Budget, answers: Counter[tuple[int, str]]) -> bool:
        """Is there room for one more answer? How many there is room for is found once, and then counted down."""
        own = answers[self.at, TRAIN]
        others = Counter({answer: times for answer, times in answers.items() if answer != (self.at, TRAIN)})
        if others != self._others or own >= self._most:
            self._others, self._most = others, self._room(budget, answers, own)
        return own < self._most

    def _room(self, budget: Budget, answers: Counter[tuple[int, str]], own: int) -> int:
        """Return how many answers of this run the budget has room for; of more than its rounds, those."""

        def keeps(more: int) -> bool:
            return self.total(answers, more, budget.delta).epsilon <= budget.epsilon

        low, high = own, max(self.run.rounds, own + 1)
        if keeps(high - own):
            return high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if keeps(middle - own) else (low, middle)
        return low

    def total(self, answers: Mapping[tuple[int, str], int], more: int, delta: float) -> Total:
        """Return what these answers, and so many more of this run, cost together."""
        return composed([*self.ledger.releases(answers), (self.run.mechanism, more)], delta)

    def _exhausted(self, budget: Budget, answers: Counter[tuple[int, str]]) -> str:
        spent, next_ = (self.total(answers, more, budget.delta).epsilon for more in (0, 1))
        return (
            f"this data set has spent ε = {spent:.4g} of this site's budget of {budget}, over all runs, and one answer "
            f"more would bring it to {next_:.4g}; this site answers no further."
        )


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What one run has spent on a data set: how often it was answered, and what that costs by itself."""

    run: str
    name: str
    app: str
    answers: Mapping[str, int]
    mechanism: str
    noise: str
    total: Total


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a data set has spent.

    Args:
        digest: of the data set; rows: how many it has; shares: digests of others that it has rows in common with.
        runs: that it took part in, those of data sets that share rows among them.
        kinds: what is told apart and whose part is protected; with more than one kind there is no total.
        total: of all runs; None where they are of several kinds.
        budget: None where nothing is enforced.
    """

    digest: str
    rows: int
    shares: tuple[str, ...]
    runs: tuple[Spent, ...]
    kinds: tuple[Kind, ...]
    total: Total | None
    budget: Budget | None

    @property
    def left(self) -> float | None:
        """Epsilon that the budget has left, at least 0; None where there is no budget."""
        if self.budget is None:
            return None
        return 0.0 if self.total is None else max(0.0, self.budget.epsilon - self.total.epsilon)


def standings(ledger: Ledger, budget: Budget | None, delta: float = 1e-5) -> list[Standing]:
    """Return what every data set has spent, in the order in which they came.

    Args:
        ledger: of the site.
        budget: of its policy.
        delta: at which epsilon is told where there is no budget.
    """
    told = delta if budget is None else budget.delta
    with ledger.chain.held():
        return [_standing(ledger, data, budget, told) for data in ledger.data()]


def _standing(ledger: Ledger, data: int, budget: Budget | None, delta: float) -> Standing:
    answers, entry = ledger.spent(data), ledger.chain.entries[data]
    by_run: dict[int, dict[str, int]] = {}
    for (run, what), times in sorted(answers.items()):
        by_run.setdefault(run, {})[what] = times
    kinds = {repr(kind): kind for run, what in answers if (kind := kind_of(ledger.event(run, what)))}
    others = [place for place in ledger.sharing(data) if place != data]
    return Standing(
        digest=entry["digest"],
        rows=entry["rows"],
        shares=tuple(ledger.chain.entries[place]["digest"] for place in others),
        runs=tuple(_spent(ledger, run, whats, delta) for run, whats in by_run.items()),
        kinds=tuple(kinds.values()),
        total=composed(ledger.releases(answers), delta) if len(kinds) < 2 else None,
        budget=budget,
    )


def _spent(ledger: Ledger, run: int, whats: Mapping[str, int], delta: float) -> Spent:
    entry = ledger.chain.entries[run]
    event = event_of(entry["mechanism"])
    try:
        total = composed(ledger.releases({(run, what): times for what, times in whats.items()}), delta)
    except StrategyError as error:
        raise RecordError(f"the ledger has a mechanism that this version does not know: {error}") from error
    said = canonical(tree(event)["values"]).decode() if event.private else "none"
    name = f"{event.kind} {said}" if event.private else said
    kept = {key: entry[key] for key in ("run", "name", "app", "noise")}
    return Spent(**kept, answers=dict(whats), mechanism=name, total=total)
