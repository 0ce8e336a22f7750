"""Example-level privacy: what each site's own mechanism costs each of its training examples, and what is refused.

A site accounts alone: an example is one site's, and what leaves there is noised there. So nothing is added up over
sites, and nothing is ever mixed with client-level claims. The federation is told the worst site's epsilon.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from ..core.errors import ConfigError, StrategyError
from ..core.event import EXAMPLES, DpEvent
from ..core.lots import Lots, lots
from ..core.strategy import Strategy
from ..core.task import Member
from ..core.weights import Equal, Given
from ..local import DpSgd
from ..select import Everyone, Poisson, Uniform
from .accountant import spent
from .calibrate import noise_multiplier
from .guarantee import Guarantee

ADJACENCY = (
    "zero-out: one training example's whole contribution, there or not; who is a member, and how many training "
    "examples each has, is public"
)
AGAINST = (
    "whoever sees what the sites send and the shared models of all rounds: the coordinator, other sites, the public"
)
COVERS = (
    "every update of a site, and the shared model after every round; not figures on held-out rows, which are other "
    "rows, and not what rows a site refuses"
)
ANSWER = "answer by lots"  # the kind of what one answer of one site releases about each of its examples
LISTED = 100  # sites whose own epsilon is told, those that spend most
DISTINCT = 50  # ways to draw lots that are each accounted; of more, the worst that they could be together


def check(strategy: Strategy, standardised: Sequence[str]) -> None:
    """Refuse what would leak past the accountant.

    Args:
        strategy: one that claims example-level privacy.
        standardised: columns whose means and variances sites would compute together.
    """
    if not isinstance(strategy.local, DpSgd):
        raise StrategyError(
            f"what {type(strategy.local).__name__} claims for single examples is not accounted for; take DpSgd, with "
            f"no leaves at home."
        )
    if type(strategy.weights) not in (Equal, Given):
        raise StrategyError(
            f"{type(strategy.weights).__name__} tells how many rows a site could use, which its rows decide; take "
            f"weights=Equal(), or Given(…) with numbers that may be public."
        )
    if type(strategy.select) not in (Everyone, Poisson, Uniform):
        raise StrategyError(
            f"how often {type(strategy.select).__name__} asks a site in a round is not known; take Everyone, Poisson "
            f"or Uniform."
        )
    if standardised:
        raise ConfigError(
            f"means and variances of columns ({', '.join(standardised[:3])}) would be released before round 1, and are "
            f'not accounted for; scale them by their public range: scaling = "range" in [data], or of a Column.'
        )


def guarantee(event: DpEvent, rounds: int, members: Iterable[Member]) -> Guarantee:
    """Return what so many rounds cost an example at the worst site, and at each one.

    As if a site took part in all of them. Raises `StrategyError` for what is not understood, and for a delta that is
    not below one over a site's examples.

    >>> noise = DpEvent("gaussian", {"noise_multiplier": 1.1, "delta": 1e-4})
    >>> event = DpEvent("examples", {"fraction": 0.1, "epochs": 1}, (noise,))
    >>> found = guarantee(event, 2, [Member("north", 500), Member("south", 300)])
    >>> round(found.epsilon, 2), round(found.sites["south"], 2)
    (2.38, 2.38)
    """
    settings, noise = _parts(event)
    delta, sizes = noise.values["delta"], {member.name: member.examples for member in members}
    smallest = min(sizes.values())
    warnings = _checked(delta, smallest, next(name for name, n in sizes.items() if n == smallest))
    plans = {n: lots(n, settings) for n in set(sizes.values())}
    costs = {plan: _cost(plan, noise, rounds) for plan in _distinct(plans.values())}
    worst = max(costs.values(), key=lambda cost: cost.epsilon)
    single = {name: costs[plans[n]].epsilon for name, n in sizes.items() if plans[n] in costs}
    most = sorted(single, key=lambda name: -single[name])[:LISTED]
    return replace(worst, warnings=(*warnings, *worst.warnings), sites={name: single[name] for name in sorted(most)})


def _parts(event: DpEvent) -> tuple[Mapping[str, float], DpEvent]:
    match event:
        case DpEvent("examples", settings, (DpEvent("gaussian", {"delta": _}) as noise,)):
            return settings, noise
    raise StrategyError(f"the accountant does not know what {event.kind!r} of single examples costs; take DpSgd.")


def _checked(delta: float, examples: int, site: str) -> tuple[str, ...]:
    if delta >= 1 / examples:
        raise StrategyError(
            f"delta of {delta:g} is not below one over the {examples} examples of {site}: publishing one of them whole "
            f"would be allowed by it; take at most {max(examples, 2) ** -1.1:.1e}, or leave so small a site out."
        )
    if delta > examples**-1.1:
        return (f"delta of {delta:g} is above {examples**-1.1:.1e}, which is usual for {examples} examples (n^-1.1).",)
    return ()


def _distinct(plans: Iterable[Lots]) -> set[Lots]:
    """Return the different ways; of very many one that is at least as bad as each."""
    found = set(plans)
    if len(found) <= DISTINCT:
        return found
    return {Lots(max(plan.rate for plan in found), max(plan.steps for plan in found), 0.0)}


def _cost(plan: Lots, noise: DpEvent, rounds: int) -> Guarantee:
    drawn = _sampled(plan, noise)
    found = spent(drawn, rounds * plan.steps, noise.values["delta"])
    lot = f"lots of each example with probability {plan.rate:g}" if plan.rate < 1 else "lots of all examples"
    return replace(
        found,
        rounds=rounds,
        adjacency=ADJACENCY,
        unit="example",
        sampling=f"{lot} (Poisson), {plan.steps} a round",
        against=AGAINST,
        covers=COVERS,
    )


def _sampled(plan: Lots, noise: DpEvent) -> DpEvent:
    return DpEvent("poisson sampled", {"rate": plan.rate}, (noise,)) if plan.rate < 1 else noise


def answer(event: DpEvent, examples: int) -> DpEvent:
    """Return what one answer of a site with so many examples releases about each, for its ledger."""
    if event.kind != EXAMPLES:
        return event
    settings, noise = _parts(event)
    plan = lots(examples, settings)
    return DpEvent(ANSWER, {"steps": plan.steps}, (_sampled(plan, noise),))


def single(event: DpEvent, times: int) -> tuple[DpEvent, int]:
    """Return a release as lots, and how many: an answer is as many as it has steps.

    >>> single(DpEvent("answer by lots", {"steps": 4}, (DpEvent("gaussian", {"noise_multiplier": 1.0}),)), 3)[1]
    12
    """
    return (event.inner[0], times * int(event.values["steps"])) if event.kind == ANSWER else (event, times)


def calibrated(event: DpEvent, epsilon: float, rounds: int, members: Iterable[Member]) -> float:
    """Return the smallest noise multiplier, to 10^-3, with which every site keeps so many rounds within epsilon.

    Its own noise multiplier does not matter.
    """
    settings, noise = _parts(event)
    delta, plans = noise.values["delta"], {lots(member.examples, settings) for member in members}
    return max(
        noise_multiplier(epsilon, delta, rounds * plan.steps, sampled=partial(_sampled, plan))
        for plan in _distinct(plans)
    )


def meets(event: DpEvent, members: Sequence[Member], budget: float | None) -> None:
    """Refuse sites too small for their delta, and a budget that not even one round keeps to."""
    first = guarantee(event, 1, members)
    if budget is not None and first.epsilon > budget:
        raise ConfigError(
            f"the first round alone spends ε = {first.epsilon:.3g} at the worst site, above the budget of {budget:g}; "
            f"take more noise, smaller lots or fewer steps."
        )


assert EXAMPLES == "examples"  # a pattern above has to spell it out
