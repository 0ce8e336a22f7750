"""Identity keys for a simulation, made for one run: they show that the arithmetic is right, not whom to trust."""

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ...core.hidden import Directory, Identity
from ...core.lazy import Lazy
from .keys import derived, framed, fresh

KEPT = 1024  # public keys at hand


@dataclass(frozen=True, eq=False)
class Registry:
    """One process that holds everybody's Ed25519 keys, each derived from one secret when it is needed.

    Args:
        names: of the parties.
        secret: 32 bytes, drawn anew for each run, so that nothing signed in one run means anything in another.
        shared: what parties share where updates are encrypted.

    >>> identity = Registry(["a", "b"]).identity("a")
    >>> identity.directory["a"] != identity.directory["b"], len(identity.sign(b"text"))
    (True, 64)
    """

    names: Collection[str]
    secret: bytes = field(default_factory=fresh, repr=False)
    shared: bytes = field(default=b"", repr=False)

    def identity(self, name: str) -> Identity:
        """Return a party's identity; all of a registry share one directory."""
        return Identity(name, "simulation", self._key(name).sign, self.directory, self.shared)

    def _key(self, name: str) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(derived(self.secret, b"registry", framed(name)))

    @cached_property
    def directory(self) -> Directory:
        """Everybody's public key by name."""
        return Lazy(self.names, lambda name: self._key(name).public_key().public_bytes_raw(), KEPT)
