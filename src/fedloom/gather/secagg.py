"""Secure aggregation: the server learns a sum of updates, and no update."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Literal

from ..core.errors import AccessDenied, ConfigError, MissingExtra, StrategyError
from ..core.hidden import Advertise, Confirm, Identity, Share, Unmask
from ..core.layout import RING, Layout
from ..core.task import Federation, Reply, Task, Train
from .secure.graph import Rule, fewest, shares_of

FEWEST = 3  # of two, each learns the other's update
EVERYBODY = 200  # clients up to which "auto" masks everybody with everybody


@dataclass(frozen=True)
class SecAgg:
    """Σ of a cohort's updates under masks that cancel, with recovery from clients that drop out at any step.

    y_u = x_u + PRG(b_u) + Σ_{v>u} PRG(s_uv) - Σ_{v<u} PRG(s_uv) mod 2^32: each two clients agree on s_uv, so Σ y_u is
    Σ x_u + Σ PRG(b_u) where nobody drops out. b_u, and the key that all s_uv of u follow from, are divided among the
    cohort (Shamir): for a client in the sum t clients give the first, for one that fell out the second, never both.
    Bonawitz et al., CCS 2017 (eprint 2017/281), Figure 4, with signatures and the consistency check, which hold against
    a server that lies while fewer than 2t - n of n clients help it. With `neighbours` a client masks with k others
    alone, as in Bell et al., CCS 2020 (eprint 2020/704): less work, and nothing is claimed against a server that lies.
    It hides updates, not the sum: what the sum tells of a client, only differential privacy limits. The strategy needs
    the stage `FixedPoint`.

    Args:
        fraction: of the n clients of a cohort, t = ⌊fraction·n⌋ + 1 must stay to the end, at least 3; in [1/2, 1). With
            2/3, n = 3 bears no dropout, n = 10 three, n = 100 thirty-three. It is for everybody with everybody.
        survivors: no client reveals anything for a sum of fewer clients, at least 3.
        neighbours: None, everybody masks with everybody; an even number k, as few as `gather/secure/graph.py` allows;
            "auto", everybody up to 200 clients, and beyond the fewest that it allows, with t of them > k/2.
        corrupt: with neighbours, the part of the clients that may help the coordinator, in [0, 1/2).
        dropouts: with neighbours, the part that may fall silent in a round, in [0, 1/2); beyond that, it is lost.

    >>> SecAgg().threshold(10), SecAgg().threshold(100), SecAgg(fraction=0.5).threshold(10)
    (7, 67, 6)
    >>> SecAgg(neighbours="auto").rule(1000)
    Rule(neighbours=52, shares=28, survivors=900)
    """

    hides: ClassVar[bool] = True
    fraction: float = 2 / 3
    survivors: int = FEWEST
    neighbours: int | Literal["auto"] | None = None
    corrupt: float = 0.1
    dropouts: float = 0.1

    def __post_init__(self) -> None:
        if not 0.5 <= self.fraction < 1:
            raise StrategyError(f"SecAgg.fraction must be in [1/2, 1), got {self.fraction}; 2/3 is the paper's.")
        if self.survivors < FEWEST:
            raise StrategyError(f"SecAgg.survivors must be at least {FEWEST}, got {self.survivors}.")
        k = self.neighbours
        if not (k is None or k == "auto" or (type(k) is int and k >= 2 and k % 2 == 0)):
            raise StrategyError(f'SecAgg.neighbours must be an even number, "auto" or None, got {k!r}.')
        for name, part in (("corrupt", self.corrupt), ("dropouts", self.dropouts)):
            if not 0 <= part < 0.5:
                raise StrategyError(f"SecAgg.{name} must be in [0, 1/2), got {part}; 0.1 is a tenth of the clients.")

    def rule(self, clients: int) -> Rule:
        """Return with how many a client masks, how many shares give a secret, and how many must be in the sum.

        Raises `StrategyError` for fewer neighbours than are safe among so many clients.
        """
        everybody = max(FEWEST, math.floor(_exact(self.fraction) * clients) + 1)
        full = Rule(0, everybody, max(everybody, self.survivors))
        if self.neighbours is None or (self.neighbours == "auto" and clients <= EVERYBODY):
            return full
        corrupt, dropped = (math.floor(_exact(part) * clients) for part in (self.corrupt, self.dropouts))
        least = fewest(clients, corrupt, dropped)
        wanted = least if self.neighbours == "auto" else int(self.neighbours)
        if wanted is None or wanted >= clients - 1:
            return full
        shares = shares_of(clients, wanted, corrupt, dropped)
        if shares is None:
            raise StrategyError(
                f"SecAgg with {wanted} neighbours among {clients} clients is not safe if {corrupt} of them help the "
                f'coordinator and {dropped} fall silent; take {least or "None: everybody"}, or neighbours="auto".'
            )
        return Rule(wanted, shares, max(self.survivors, clients - dropped))

    def threshold(self, clients: int) -> int:
        """Return how many of so many clients must stay to the end."""
        return self.rule(clients).survivors

    def fits(self, total: Layout) -> None:
        """Refuse a sum that 32 bits do not hold, and a cohort in which nobody could hide."""
        if total.bits > RING:
            raise StrategyError(
                "SecAgg adds whole numbers of 32 bits; add FixedPoint() to the strategy's stages, such as "
                "stages=(Clip(1.0), FixedPoint(limit=1.0))."
            )
        least = self.threshold(total.cohort)
        if total.cohort < least:
            raise StrategyError(
                f"SecAgg needs a cohort of {least} clients or more, got {total.cohort}; of fewer, a sum tells too "
                "much of each. Ask more, or take Plain() to gather."
            )

    def collect(
        self, federation: Federation, tasks: Sequence[Task], close: Callable[[], float | None], least: int = 0
    ) -> Iterator[Reply]:
        """Yield one reply for the whole sum, and a fault for each client that is not in it."""
        with _cryptography():
            from .secure.server import collect
        return collect(self.rule, federation, tasks, close, least)

    def answer(
        self, task: Task, prior: Any, work: Callable[[], Reply], identity: Identity | None = None
    ) -> tuple[Reply, Any]:
        """Answer a request of the protocol, or refuse with `AccessDenied` or `QuorumLost`; `work` trains."""
        if identity is None:
            raise ConfigError("a hidden sum needs a party's identity key, and this one was set up without; join anew.")
        body = task.body
        if not isinstance(body, Advertise | Share | Train | Confirm | Unmask):
            raise AccessDenied(f"SecAgg answers no {type(body).__name__}; refused, and nothing is revealed.")
        with _cryptography():
            from .secure.client import Client
        answer, memory = Client.of(prior, identity, self.rule).answer(body, work)
        return answer if isinstance(answer, Reply) else Reply((task.number,), (task.party,), answer), memory


def _exact(part: float) -> Fraction:
    """Return a part as people write it: 0.1 is a tenth."""
    return Fraction(part).limit_denominator(1000)


@contextmanager
def _cryptography() -> Iterator[None]:
    """Say what to install, around an import that is made where it is used: importing fedloom stays light."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("cryptography"):
            raise
        raise MissingExtra("SecAgg needs the package cryptography: pip install 'fedloom[privacy]'.") from error
