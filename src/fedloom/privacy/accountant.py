"""The one accountant: what a description of releases costs, judged by dp-accounting behind our own translation.

Privacy loss distributions give the number that is shown; Rényi differential privacy is the cross-check, and the number
where only it is known. What is not understood is refused; what is not protected costs infinity.
"""

import math
from functools import cache

from ..core.errors import StrategyError
from ..core.event import DpEvent
from .guarantee import AGAINST, COVERS, Guarantee
from .losses import pld_epsilon, rdp_epsilon, version
from .translate import ANY_TWO, LOCAL, Translated, translated

REPLACE = "replace-one: one client's whole contribution, exchanged for any other"
AGAINST_ALL = (
    "whoever sees the sums and the shared models of all rounds, the coordinator too, as far as it cannot break the "
    "cryptography of the hidden sums and each of them holds {survivors:g} honest clients or more"
)
AGAINST_EVERYBODY = "everybody: whoever sees a client's reports of all rounds, the coordinator too"
COVERS_REPORTS = "every client's own reports, and all that is made of them"
APART = 3.0  # RDP may be so many times what PLD says, and one more: it is loose for rare sampling


def spent(event: DpEvent, rounds: int, delta: float, members: int | None = None) -> Guarantee:
    """Return what so many rounds of `event` cost.

    Args:
        event: of one round, as `Strategy.event` composes it.
        rounds: how many, at least 0.
        delta: in (0, 1), and below one over the members.
        members: of the federation, where the sampling depends on it.

    Raises `StrategyError` for an event that is not understood, or a number that means nothing.

    >>> z = DpEvent("gaussian", {"noise_multiplier": 1.0})
    >>> round(spent(z, 1, 1e-5).epsilon, 3)  # Balle and Wang, ICML 2018: 4.377178
    4.377
    """
    if rounds < 0:
        raise StrategyError(f"a number of rounds must be at least 0, got {rounds}.")
    warnings = checked_delta(delta, members)
    found = translated(event, members)
    shown, check = (0.0, 0.0) if rounds == 0 else _both(found, rounds, delta)
    return Guarantee(
        epsilon=shown,
        delta=delta,
        rounds=rounds,
        adjacency=REPLACE if found.replace else found.adjacency,
        sampling=found.sampling,
        mechanism=found.mechanism,
        against=against(event),
        covers=COVERS_REPORTS if found.adjacency == ANY_TWO else COVERS,
        accountant=f"dp-accounting {version()}, {'RDP' if found.single is None else 'PLD'}",
        cross_check=None if found.single is None else check,
        warnings=(*warnings, *_doubts(shown, None if found.single is None else check)),
    )


def against(event: DpEvent) -> str:
    """Say whom a release is private against: that depends on who adds the noise."""
    while event.inner:
        event = event.inner[0]
    if event.kind in LOCAL:
        return AGAINST_EVERYBODY
    return AGAINST_ALL.format(**event.values) if event.kind == "skellam" else AGAINST


def checked_delta(delta: float, members: int | None) -> tuple[str, ...]:
    """Return a warning if delta is large for so many members; refuse one that lets a client be shown whole."""
    if not 0 < delta < 1:
        raise StrategyError(f"delta must be in (0, 1), got {delta}; take well below one over the number of clients.")
    if members is None or members < 2:
        return ()
    if delta >= 1 / members:
        raise StrategyError(
            f"delta of {delta:g} is not below one over {members} clients: publishing one of them whole would be "
            f"allowed by it; take at most {members**-1.1:.1e}."
        )
    if delta > members**-1.1:
        return (f"delta of {delta:g} is above {members**-1.1:.1e}, which is usual for {members} clients (N^-1.1).",)
    return ()


@cache
def _both(found: Translated, rounds: int, delta: float) -> tuple[float, float | None]:
    """Return the epsilon that is shown, and the other accountant's."""
    if found.own is not None or found.single is None:
        return shown(found, rounds, delta), None
    return shown(found, rounds, delta), found.rdp and rdp_epsilon(found.rdp, -(-rounds // found.every), delta)


def shown(found: Translated, rounds: int, delta: float) -> float:
    """Return epsilon of so many rounds by the accountant whose number is shown."""
    if found.own is not None:
        return float(found.own.epsilon(rounds, delta))
    times = -(-rounds // found.every)
    if found.single is None:
        return rdp_epsilon(found.rdp, times, delta, replace=True)
    return pld_epsilon(found.single, times, delta)


def _doubts(shown: float, check: float | None) -> tuple[str, ...]:
    if check is None or math.isinf(shown):
        return ()
    if shown > check * 1.01 + 1e-3 or check > APART * shown + 1:
        return (
            f"the two accountants disagree: ε = {shown:.4g} by PLD, {check:.4g} by RDP, which is an upper bound; do "
            f"not rely on either before somebody has looked.",
        )
    return ()
