"""Homomorphic encryption: the server adds what it cannot read, and clients decrypt the sum."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from ..core.errors import AccessDenied, ConfigError, MissingExtra, StrategyError
from ..core.hidden import Decrypt, Identity
from ..core.layout import Layout
from ..core.task import Federation, Reply, Task, Train

FEWEST = 3  # of two, each learns the other's update
BITS = 24  # of a sum: below half of the modulus that values live in


@dataclass(frozen=True)
class Encrypted:
    """Σ of a cohort's updates under one key that all clients share and the coordinator has not.

    Clients send Enc(x_u), the coordinator adds ciphertexts, clients decrypt Σ x_u and send it back: BFV with the
    parameters of `gather/secure/bfv.py`, exact, with the bits of the plain and of the masked sum. Any number may fall
    silent. It is weaker than `SecAgg`: whoever has the key and the coordinator's traffic reads every update, and it is
    about a coordinator that follows the protocol and that no client helps. The strategy needs `FixedPoint(bits=24)`.

    Args:
        checks: how many clients decrypt a sum, at least 1; what they say must be the same.

    >>> Encrypted()
    Encrypted(checks=2)
    """

    hides: ClassVar[bool] = True
    checks: int = 2

    def __post_init__(self) -> None:
        if self.checks < 1:
            raise StrategyError(f"Encrypted.checks must be at least 1, got {self.checks}; somebody has to decrypt.")

    def fits(self, total: Layout) -> None:
        """Refuse a sum that the modulus does not hold, and a cohort in which nobody could hide."""
        if total.bits > BITS:
            raise StrategyError(
                f"Encrypted adds whole numbers whose sum has {BITS} bits; add FixedPoint(bits={BITS}) to the "
                f"strategy's stages, such as stages=(Clip(1.0), FixedPoint(limit=1.0, bits={BITS}))."
            )
        if total.cohort < FEWEST:
            raise StrategyError(
                f"Encrypted needs a cohort of {FEWEST} clients or more, got {total.cohort}; of fewer, a sum tells each "
                "the others' updates. Ask more, or take Plain() to gather."
            )

    def collect(
        self, federation: Federation, tasks: Sequence[Task], close: Callable[[], float | None], least: int = 0
    ) -> Iterator[Reply]:
        """Yield one reply for the whole sum, and a fault for each client that is not in it."""
        with _tenseal():
            from .secure.sealed import collect
        return collect(max(FEWEST, least), self.checks, federation, tasks, close)

    def answer(
        self, task: Task, prior: Any, work: Callable[[], Reply], identity: Identity | None = None
    ) -> tuple[Reply, Any]:
        """Train and encrypt, or decrypt a sum; refuses with `AccessDenied`."""
        if identity is None or not identity.secret:
            raise ConfigError("an encrypted sum needs the key that sites share, and this one was set up without.")
        with _tenseal():
            from .secure.sealed import decrypted, trained
        match task.body:
            case Train() as body:
                return trained(body, prior, work, identity)
            case Decrypt() as body:
                answer, memory = decrypted(body, prior, identity)
                return Reply((task.number,), (task.party,), answer), memory
        raise AccessDenied(f"Encrypted answers no {type(task.body).__name__}; refused, and nothing is revealed.")

    def fresh(self) -> bytes:
        """Return a new key for clients to share."""
        with _tenseal():
            from .secure.bfv import fresh
        return fresh()


@contextmanager
def _tenseal() -> Iterator[None]:
    """Say what to install, around an import that is made where it is used: importing fedloom stays light."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith(("tenseal", "cryptography")):
            raise
        raise MissingExtra("Encrypted needs the package tenseal: pip install 'fedloom[he]'.") from error
