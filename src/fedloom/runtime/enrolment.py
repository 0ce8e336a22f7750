"""A site's half of enrolment and renewal. Its keys are made here, in HOME/pki, and never leave.

The order on the road: `enrolment_context`, `prepare_enrolment`, send, receive, `finish_enrolment`. A crash anywhere is
mended by beginning again: the keys are the same, and the coordinator answers the same keys again.
"""

import ssl
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from ..core.errors import AccessDenied, ConfigError
from .channel import fetched_root, trusting
from .identity import Peer, Subject, peer_of, utc_now
from .joining import Request, Token, answered
from .keys import (
    IDENTITY,
    PENDING,
    PKI,
    ROOT,
    TLS,
    identity_key,
    kept_identity,
    kept_tls_key,
    pem,
    read_private,
    tls_key,
    write_private,
)


def enrolment_context(home: Path, token: str, server: tuple[str, int], timeout_s: float = 10.0) -> ssl.SSLContext:
    """Return a context for the connection on which a site enrols; it trusts the token's root and nothing else.

    The first time the root is fetched from the server, compared with the token, and kept. The context checks the host;
    look at `peer_at(connection, "coordinator")` before the request is sent.

    Args:
        home: the site's folder.
        token: as it was handed over.
        server: host and port of the coordinator.
        timeout_s: seconds until the server must have answered.

    Raises:
        AccessDenied: the server is not of the token's federation.
        ConfigError: the folder belongs to another federation.
    """
    path, wanted = home / PKI / ROOT, Token.of(token).root
    if not path.exists():
        write_private(path, fetched_root(server, wanted, timeout_s))
    if _fingerprint(path) != wanted:
        raise ConfigError(f"{path} is the root of another federation than the token's; take another --home.")
    return trusting(path)


def _fingerprint(path: Path) -> bytes:
    return sha256(x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)).digest()


def prepare_enrolment(home: Path, token: str) -> dict[str, str | int]:
    """Return the request that a token's owner sends; keys are made the first time, and the same ever after.

    Args:
        home: the site's folder.
        token: as it was handed over.

    Raises:
        ConfigError: the folder belongs to another party.
    """
    wanted = Token.of(token)
    there = home / PKI / TLS
    if there.exists():
        peer = peer_of(read_private(there))
        if (peer.role, peer.name) != (wanted.role, wanted.name):
            raise ConfigError(
                f"{home} belongs to {peer}, the token to {wanted.role} {wanted.name!r}; take another --home."
            )
    return _prepared(home, wanted.secret, wanted.role, wanted.name).record()


def prepare_renewal(home: Path) -> dict[str, str | int]:
    """Return the request for the next certificate, to be sent on the connection that the present one opened."""
    peer = peer_of(read_private(home / PKI / TLS))
    identity_key(home / PKI / IDENTITY)  # there, or this refuses: a renewal makes no new identity
    return _prepared(home, b"", peer.role, peer.name).record()


def _prepared(home: Path, secret: bytes, role: str, name: str) -> Request:
    identity, key = kept_identity(home / PKI / IDENTITY), kept_tls_key(home / PKI / PENDING)
    return Request.made(secret, identity, key, Subject(role, name, identity.public_key().public_bytes_raw()))


def finish_enrolment(home: Path, token: str, record: Mapping[str, object]) -> Peer:
    """Keep the certificate that came back, if it is the one that was asked for.

    Args:
        home: the site's folder.
        token: that was used.
        record: the coordinator's answer.

    Returns:
        Who this party is from now on.

    Raises:
        AccessDenied: the answer is for somebody else, or its chain does not lead to the root.
    """
    wanted = Token.of(token)
    return _finished(home, wanted.role, wanted.name, record)


def finish_renewal(home: Path, record: Mapping[str, object]) -> Peer | None:
    """Keep the next certificate, as `finish_enrolment` keeps the first.

    Returns None for an answer to no request that is open, which is not kept: a second one, or a late one, whose key is
    not the one that waits.
    """
    pending = home / PKI / PENDING
    if not pending.exists() or _certified(answered(record), home / PKI / ROOT)[1] != tls_key(pending).public_key():
        return None
    peer = peer_of(read_private(home / PKI / TLS))
    return _finished(home, peer.role, peer.name, record)


def _finished(home: Path, role: str, name: str, record: Mapping[str, object]) -> Peer:
    key = tls_key(home / PKI / PENDING)
    identity = identity_key(home / PKI / IDENTITY).public_key().public_bytes_raw()
    chain = answered(record)
    peer = _checked(chain, key.public_key(), Subject(role, name, identity), home / PKI / ROOT)
    write_private(home / PKI / TLS, pem(key) + chain.encode())
    (home / PKI / PENDING).unlink()
    return peer


def _checked(chain: str, key: EllipticCurvePublicKey, subject: Subject, root: Path) -> Peer:
    peer, certified = _certified(chain, root)
    if peer.subject != subject or certified != key:
        raise AccessDenied(f"the certificate that came back is for {peer} or another key; {subject} was asked for.")
    return peer


def _certified(chain: str, root: Path) -> tuple[Peer, object]:
    """Return whom a chain of certificates is for, and the key; raises `AccessDenied` unless it leads to the root."""
    try:
        leaf, *above = x509.load_pem_x509_certificates(chain.encode())
        trusted = Store([x509.load_pem_x509_certificate(root.read_bytes())])
        PolicyBuilder().store(trusted).time(utc_now()).build_client_verifier().verify(leaf, above)
    except FileNotFoundError as error:
        raise ConfigError(f"{root} is missing; `enrolment_context` brings it.") from error
    except (ValueError, VerificationError) as error:
        raise AccessDenied(
            f"the certificate that came back is not good: {error}; is this machine's clock right?"
        ) from error
    return peer_of(leaf.public_bytes(Encoding.DER)), leaf.public_key()
