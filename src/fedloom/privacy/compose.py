"""What several releases cost together, of different mechanisms: the accountant's answer for a ledger over all runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..core.errors import RecordError
from ..core.event import DpEvent
from .accountant import spent
from .examples import ADJACENCY, ANSWER, single
from .losses import library, losses, quiet, version
from .translate import Translated, translated

Released = tuple[DpEvent, int]  # what, and how often


@dataclass(frozen=True)
class Kind:
    """What releases must have in common to be composed: which two data sets are told apart, and whose part differs."""

    adjacency: str
    unit: str


@dataclass(frozen=True)
class Total:
    """What releases cost together: epsilon at delta, and by which computation."""

    epsilon: float
    delta: float
    method: str


def tree(event: DpEvent) -> dict[str, Any]:
    """Return an event as JSON can hold it; `event_of` takes it back.

    >>> event_of(tree(DpEvent("gaussian", {"noise_multiplier": 2.0}))).values["noise_multiplier"]
    2.0
    """
    return {"kind": event.kind, "values": dict(event.values), "inner": [tree(each) for each in event.inner]}


def event_of(found: Mapping[str, Any]) -> DpEvent:
    """Return the event that `tree` took; raises `RecordError` for anything else."""
    match found:
        case {"kind": str(kind), "values": dict(values), "inner": list(inner)} if len(found) == 3:
            if all(type(value) in (int, float) for value in values.values()):
                return DpEvent(kind, values, tuple(event_of(each) for each in inner))
    raise RecordError("a release is not described as fedloom describes one; was the file edited?")


def kind_of(event: DpEvent) -> Kind | None:
    """Return what a release may be composed with; None for one that is not private.

    Raises `StrategyError` for one that the accountant does not know.
    """
    if not event.private:
        return None
    if event.kind == ANSWER:
        return Kind(ADJACENCY, "example")
    said = spent(event, 0, 0.5)
    return Kind(said.adjacency, said.unit)


def composed(releases: Sequence[Released], delta: float) -> Total:
    """Return what these releases cost together; they must be of one `Kind`.

    Gaussians are composed in closed form: Σ n/z² is the 1/z² of one (Dong et al., JRSS-B 2022, corollary 3.3). Else the
    convolution of all privacy loss distributions; where one of them is known to Rényi differential privacy alone, that
    of all; where the two cannot be mixed, Σ ε at δ/k each (basic composition: Dwork and Roth 2014, theorem 3.16).

    Args:
        releases: what, and how often, each at least 0 times.
        delta: in (0, 1).

    >>> one = DpEvent("gaussian", {"noise_multiplier": 4.0})
    >>> two = DpEvent("gaussian", {"noise_multiplier": 2.0})
    >>> round(composed([(one, 4), (two, 1)], 1e-5).epsilon, 3) == round(spent(two, 2, 1e-5).epsilon, 3)
    True
    """
    counted = [single(event, times) for event, times in releases if times]
    if not counted:
        return Total(0.0, delta, "nothing was released")
    if not all(event.private for event, _ in counted):
        return Total(math.inf, delta, "some releases are not private")
    merged: dict[str, Released] = {}
    for event, times in counted:
        merged[repr(event)] = (event, times + merged.get(repr(event), (event, 0))[1])
    pairs = tuple((translated(event), times) for event, times in merged.values())
    if len(pairs) == 1 and not _gaussian(pairs):
        ((event, times),) = merged.values()
        return Total(spent(event, times, delta).epsilon, delta, _method(pairs))
    return Total(_together(pairs, delta), delta, _method(pairs))


def _gaussian(pairs: Sequence[tuple[Translated, int]]) -> bool:
    return all(isinstance(found.single, library().GaussianDpEvent) for found, _ in pairs)


def _method(pairs: Sequence[tuple[Translated, int]]) -> str:
    if _gaussian(pairs):
        return f"dp-accounting {version()}, one Gaussian"
    if all(found.single is not None for found, _ in pairs):
        return f"dp-accounting {version()}, PLD"
    if all(found.rdp is not None for found, _ in pairs):
        return f"dp-accounting {version()}, RDP"
    return f"the sum of the ε of {len(pairs)} mechanisms, each at δ/{len(pairs)}"


@lru_cache(256)
def _together(pairs: tuple[tuple[Translated, int], ...], delta: float) -> float:
    if _gaussian(pairs):
        return float(library().get_epsilon_gaussian(_as_one(pairs), delta))
    if all(found.single is not None for found, _ in pairs):
        return _by_losses(pairs, delta)
    if all(found.rdp is not None for found, _ in pairs):
        return _by_renyi(pairs, delta)
    return sum(_alone(pair, delta / len(pairs)) for pair in pairs)


def _alone(pair: tuple[Translated, int], delta: float) -> float:
    found, times = pair
    if found.own is not None:
        return float(found.own.epsilon(times, delta))
    return _by_losses([pair], delta) if found.single is not None else _by_renyi([pair], delta)


def _as_one(gaussians: Sequence[tuple[Translated, int]]) -> float:
    """Return the noise multiplier of the one Gaussian that several are together."""
    return float(sum(n / found.single.noise_multiplier**2 for found, n in gaussians) ** -0.5)


def _by_losses(pairs: Sequence[tuple[Translated, int]], delta: float) -> float:
    """Compose by privacy loss distributions, all Gaussians as one."""
    dp = library()
    gaussians = [pair for pair in pairs if _gaussian([pair])]
    others = [(found.single, n) for found, n in pairs if not _gaussian([(found, n)])]
    if gaussians:
        others.append((dp.PoissonSampledDpEvent(1.0, dp.GaussianDpEvent(_as_one(gaussians))), 1))
    first, *rest = (losses(single).self_compose(n) for single, n in others)
    for each in rest:
        first = first.compose(each)
    return float(first.get_epsilon_for_delta(delta))


def _by_renyi(pairs: Sequence[tuple[Translated, int]], delta: float) -> float:
    from dp_accounting.rdp import RdpAccountant

    relations = library().NeighboringRelation
    replaced = any(found.replace for found, _ in pairs)
    accountant = RdpAccountant(neighboring_relation=relations.REPLACE_ONE if replaced else relations.REPLACE_SPECIAL)
    with quiet():
        for found, times in pairs:
            accountant.compose(found.rdp, times)
        return float(accountant.get_epsilon(delta))
