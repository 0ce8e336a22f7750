"""What a site's data sets have spent in privacy, run by run and together, for people."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.budget import Budget
from ..core.errors import RecordError, StrategyError
from ..store.chain import canonical
from .compose import Kind, Total, composed, event_of, kind_of, tree
from .ledger import Ledger


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
