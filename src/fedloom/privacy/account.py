"""What a data set may still answer in a run, by its site's budget, and the pen that writes down what it does."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ..core.budget import Budget
from ..core.event import DpEvent
from ..core.task import Evaluate, Measure, TaskBody, Train
from ..store.notes import Notes
from .compose import Total, composed, kind_of
from .ledger import EVALUATE, MARK, MEASURE, TRAIN, Ledger, Run

_RELEASES: dict[type, str] = {Train: TRAIN, Evaluate: EVALUATE, Measure: MEASURE}


def never(budget: Budget, mechanism: DpEvent, what: str = TRAIN) -> str:
    """Return why a budget never lets an answer leave, whatever has been spent before; empty if it may."""
    if what != TRAIN or not mechanism.private:
        released = {TRAIN: "its updates", EVALUATE: "figures of held-out rows", MEASURE: "sums of columns"}[what]
        return (
            f"this site's policy sets a budget of {budget}, and {released} are not differentially private (ε = ∞); "
            f"take an app that is, such as dp_fedavg, with data.holdout = 0, nothing to standardise and `serve --test`."
        )
    kind = kind_of(mechanism)
    assert kind is not None, "what is private has a kind"
    if kind.unit != budget.unit:
        return f"this site's budget is for one {budget.unit}, and this app protects one {kind.unit}; change one."
    return ""


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
