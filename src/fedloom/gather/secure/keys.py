"""Keys of one session: X25519 (RFC 7748), HKDF-SHA256 (RFC 5869), Ed25519 (RFC 8032), ChaCha20-Poly1305 (RFC 8439).

All of it is the library's; here is what is derived from what, and that nothing is used for two purposes.
"""

from hashlib import sha256
from secrets import token_bytes

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ...core.errors import AccessDenied

SIZE = 32  # bytes of a key, a seed, a digest
SIGNATURE, TAG = 64, 16
PROTOCOL = b"fedloom hidden sum 1"
_NONCES = bytes(12), bytes(11) + b"\1"  # every key here seals one message each way


def framed(*parts: bytes | str | int) -> bytes:
    """Return parts as one text that has one reading: each with its length before it.

    >>> framed("a", "bc") == framed("ab", "c")
    False
    """
    given = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
    return b"".join(len(part).to_bytes(8, "big") + part for part in given)


def digest(purpose: str, *parts: bytes | str | int) -> bytes:
    """Return SHA-256 of the protocol's name, the purpose and the parts."""
    return sha256(framed(PROTOCOL, purpose, *parts)).digest()


def fresh() -> bytes:
    """Return 32 bytes from the operating system: a private key, or a seed."""
    return token_bytes(SIZE)


def public_of(private: bytes) -> bytes:
    """Return the public key of an X25519 private key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def usable(public: bytes) -> bool:
    """Can a secret be agreed on with this X25519 key? Of the few points of small order it would be known to all."""
    try:
        X25519PrivateKey.from_private_bytes(bytes(SIZE)).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return False
    return True


class Agreement:
    """One private key's side of many agreements, each a key by HKDF-SHA256 with its own purpose.

    Args:
        private: X25519, 32 bytes.
        context: digest of the session; salt of the derivation.

    >>> from binascii import unhexlify
    >>> a, b = fresh(), fresh()
    >>> one = Agreement(a, b"session").key(public_of(b), "mask", "a", "b")
    >>> one == Agreement(b, b"session").key(public_of(a), "mask", "a", "b")
    True
    """

    def __init__(self, private: bytes, context: bytes) -> None:
        self._private, self._context = X25519PrivateKey.from_private_bytes(private), context

    def key(self, public: bytes, *purpose: str) -> bytes:
        """Return 32 bytes for one purpose; raises `AccessDenied` for a public key without a secret behind it."""
        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise AccessDenied("a public key is none that a secret can be agreed on with; it is refused.") from error
        return derived(shared, self._context, framed(PROTOCOL, *purpose))


def derived(secret: bytes, salt: bytes, info: bytes, size: int = SIZE) -> bytes:
    """Return HKDF-SHA256 (RFC 5869)."""
    return HKDF(SHA256(), size, salt, info).derive(secret)


def sealed(key: bytes, way: bool, message: bytes, said: bytes) -> bytes:
    """Return a message that only the key opens, bound to what is `said` beside it; a key seals one message each way."""
    return ChaCha20Poly1305(key).encrypt(_NONCES[way], message, said)


def opened(key: bytes, way: bool, content: bytes, said: bytes) -> bytes | None:
    """Return what was sealed; None if it was not sealed with this key, this way, or for something else."""
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCES[way], content, said)
    except InvalidTag:
        return None


def signed(key: bytes, signature: bytes, message: bytes) -> bool:
    """Did the owner of this Ed25519 key sign the message?"""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
