"""What a party shows and signs with: the same for the coordinator, a relay and a site. It lies in HOME/pki."""

import ssl
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..core.errors import AccessDenied
from .channel import asking, trusting
from .identity import Peer, peer_of, utc_now
from .keys import IDENTITY, PKI, ROOT, TLS, identity_key, private, read_private, tls_key


@dataclass(frozen=True)
class Credentials:
    """A party's certificate and keys, read from its folder; raises `ConfigError` where they are missing or not private.

    Args:
        home: its folder, made by `provision` or `finish_enrolment`.
    """

    home: Path

    @property
    def peer(self) -> Peer:
        """Who this party is, by its present certificate."""
        return peer_of(read_private(self.home / PKI / TLS))

    @cached_property
    def _identity(self) -> Ed25519PrivateKey:
        return identity_key(self.home / PKI / IDENTITY)

    def check(self) -> None:
        """Read both keys, so that one which is missing, or which others may read, is refused before anybody calls."""
        tls_key(self.home / PKI / TLS)
        identity_key(self.home / PKI / IDENTITY)

    def sign(self, message: bytes) -> bytes:
        """Return the identity's signature of a message, 64 bytes (Ed25519); `identity.verify` checks it."""
        return self._identity.sign(message)

    def server_context(self) -> ssl.SSLContext:
        """Return a context for those who connect here; who shows no certificate may only enrol. See `peer_at`."""
        context = asking(self.home / PKI / ROOT)
        self.reload(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return a context to connect with; after the handshake look at `peer_at(connection, "coordinator")`.

        Raises `AccessDenied` if the certificate has expired: nobody would take it.
        """
        if (peer := self.peer).expires <= (now := utc_now()):
            raise AccessDenied(
                f"the certificate of {peer} expired at {peer.expires:%Y-%m-%d %H:%M} UTC, and by this machine's clock "
                f"it is {now:%Y-%m-%d %H:%M}; ask for a new token, and come back with --token."
            )
        context = trusting(self.home / PKI / ROOT)
        self.reload(context)
        return context

    def reload(self, context: ssl.SSLContext) -> None:
        """Show the present certificate on connections that begin from now on."""
        context.load_cert_chain(private(self.home / PKI / TLS))

    def due_for_renewal(self, now: datetime) -> bool:
        """Return whether half of the certificate's life is over."""
        shown = x509.load_pem_x509_certificate(read_private(self.home / PKI / TLS))
        return now >= shown.not_valid_before_utc + (shown.not_valid_after_utc - shown.not_valid_before_utc) / 2
