"""The gate: an app that claims differential privacy is refused unless all that its clients let out is accounted for."""

from collections.abc import Sequence
from dataclasses import replace

from ..aggregate import Mean
from ..core.errors import ConfigError, StrategyError
from ..core.event import DpEvent
from ..core.strategy import Strategy
from ..gather import Encrypted, SecAgg
from ..schedule import Sync
from ..select import Cyclic, Everyone, Poisson, Uniform
from . import examples
from .accountant import spent
from .guarantee import Guarantee
from .translate import LOCAL, translated

NOTHING = "nothing here is differentially private"


def check(strategy: Strategy, *, holdout: float, standardised: Sequence[str], budget: float | None) -> None:
    """Refuse what would leak past the accountant; an app without a claim passes.

    Args:
        strategy: of the app.
        holdout: the part of each site's rows that it would measure on.
        standardised: numeric columns, whose means and variances sites would compute together.
        budget: epsilon at which the run is to stop.

    Raises `StrategyError` for parts of the strategy, `ConfigError` for the rest of the app.
    """
    if strategy.examples.private:
        examples.check(strategy, standardised)
        return
    if not strategy.private:
        if budget is not None:
            raise ConfigError(
                f"Stop.epsilon is a budget of {budget:g}, but {NOTHING} (ε = ∞); take dp_fedavg or dp_sgd_fedavg, or "
                f"leave the budget out."
            )
        return
    _check_strategy(strategy)
    if holdout:
        raise ConfigError(
            "after each round sites would measure the model on their own rows, and those figures are not accounted "
            "for; set data.holdout = 0, and measure on the source's public test part."
        )
    if standardised:
        raise ConfigError(
            f"means and variances of columns ({', '.join(standardised[:3])}) would be released before round 1, and are "
            f"not accounted for; take a source without columns to standardise, such as arrays that are scaled already."
        )


def _check_strategy(strategy: Strategy) -> None:
    """Refuse what the accountant does not cover; with a report that is private by itself, anything may be done."""
    if _mechanism(strategy).kind in LOCAL:
        if not isinstance(strategy.schedule, Sync):
            raise StrategyError("with local noise a client reports once in a round, and is counted so: take Sync().")
        return
    select, aggregate, schedule = strategy.select, strategy.aggregate, strategy.schedule
    if type(select) not in (Everyone, Poisson, Uniform, Cyclic):
        raise StrategyError(
            f"how {type(select).__name__} draws clients is not accounted for; take Poisson, Uniform or Everyone."
        )
    _spaced(strategy)
    if isinstance(strategy.gather, Encrypted):
        raise StrategyError(
            "clients decrypt the sum for the coordinator, so they see it before the coordinator's noise, and one of "
            "them could read what bears a share of the noise alone; take SecAgg() to gather."
        )
    if strategy.gather.hides and not isinstance(select, Everyone):
        raise StrategyError(
            f"{type(strategy.gather).__name__} tells clients who else was drawn, so that sampling hides nobody from "
            f"them; take Everyone() to select, or Plain() to gather."
        )
    if not isinstance(aggregate, Mean) or aggregate.expected is None:
        raise StrategyError(
            f"{aggregate!r} divides by the actual count, which tells who took part; the denominator must be public: "
            f"aggregate=Mean(expected=…), the part of the clients that is expected."
        )
    if aggregate.over or strategy.local.population:
        raise StrategyError(
            f"{type(strategy.local).__name__} averages blocks over the roster, whose noise is not accounted for; take "
            f"sgd or fedprox."
        )
    if not isinstance(schedule, Sync) or schedule.quorum != 0:
        raise StrategyError(
            "a quorum ends the run, or waits, depending on who answered, which is data; under differential privacy "
            "every round closes: schedule=Sync(quorum=0)."
        )
    if schedule.early:
        raise StrategyError(
            "with early=True a quick client pushes out a slow one, so one client changes more than its own part; leave "
            "early out."
        )
    _hidden(strategy)


def _spaced(strategy: Strategy) -> None:
    """Refuse correlated noise for clients of which nobody says how far apart their rounds are."""
    select = strategy.select
    if isinstance(select, Cyclic):
        translated(strategy.event)
    elif _mechanism(strategy).kind in ("tree", "bands"):
        raise StrategyError(
            f"{type(strategy.stages[-1]).__name__} is for clients whose rounds are apart, and {type(select).__name__} "
            f"does not say how far; take Cyclic(every=…) to select."
        )


def _hidden(strategy: Strategy) -> None:
    """Refuse noise that clients share unless each of them makes sure of the sum that it counts on."""
    event, gather = _mechanism(strategy), strategy.gather
    if event.kind != "skellam":
        return
    survivors = int(event.values["survivors"])
    if not isinstance(gather, SecAgg):
        raise StrategyError(
            f"each client adds a share of the noise, which protects nothing while {type(gather).__name__} shows its "
            f"update by itself; take gather=SecAgg(survivors={max(3, survivors)})."
        )
    if gather.survivors < survivors:
        raise StrategyError(
            f"the noise counts on {survivors} honest clients in a sum, and SecAgg opens one of {gather.survivors}; set "
            f"gather=SecAgg(survivors={survivors}), and as many more as may work for the coordinator."
        )


def guarantee(strategy: Strategy, rounds: int, members: int | None) -> Guarantee | None:
    """Return what so many rounds cost in a federation of so many members; None where nothing is claimed.

    Members that are not known yet are None, which is refused where the cost depends on them.
    """
    if not strategy.private:
        return None
    mechanism, gather = _mechanism(strategy), strategy.gather
    cost = spent(strategy.event, rounds, mechanism.values["delta"], members)
    if mechanism.kind == "skellam" and isinstance(gather, SecAgg) and gather.neighbours is not None:
        return replace(cost, against=f"{cost.against}, and while the coordinator follows the protocol")
    return cost


def meets(strategy: Strategy, members: int, budget: float | None) -> None:
    """Refuse a federation too small for its delta, and a budget that not even one round keeps to."""
    first = guarantee(strategy, 1, members)
    if first is not None:
        _honest(strategy, members)
    if first is not None and budget is not None and first.epsilon > budget:
        raise ConfigError(
            f"the first round alone spends ε = {first.epsilon:.3g}, above the budget of {budget:g}; "
            f"`fedloom calibrate` says how much noise keeps to it."
        )


def _honest(strategy: Strategy, members: int) -> None:
    """Refuse more helpers of the coordinator than the hidden sum itself bears, whatever cohort it is made of."""
    event, gather = _mechanism(strategy), strategy.gather
    if event.kind != "skellam" or not isinstance(gather, SecAgg) or gather.neighbours is not None:
        return
    survivors = int(event.values["survivors"])
    helpers = gather.survivors - survivors
    bears = min(2 * gather.rule(n).shares - n for n in range(gather.survivors, max(members, gather.survivors) + 1))
    if helpers >= bears:
        raise StrategyError(
            f"SecAgg(survivors={gather.survivors}) with {survivors} honest ones leaves room for {helpers} that help "
            f"the coordinator, and with fraction {gather.fraction:.2f} it bears fewer than {bears}; raise survivors "
            f"or the fraction."
        )


def depends_on_members(strategy: Strategy) -> bool:
    """Would another number of members change what a round costs?"""
    event = strategy.event
    return event.kind == "sampled without replacement" or "cap" in event.values


def _mechanism(strategy: Strategy) -> DpEvent:
    """Return the one mechanism that noise is accounted for; refuses any other description."""
    event = strategy.event
    while event.inner:
        if len(event.inner) > 1 or event.kind == "composed":
            raise StrategyError("several parts add noise, and their sum is not accounted for; leave one of them.")
        event = event.inner[0]
    if "delta" not in event.values:
        translated(event)
        raise StrategyError(f"{event.kind!r} does not say at which delta epsilon is told; give it a delta.")
    return event
