"""Private files: the folder of keys, and keys that nobody else on the machine may read."""

import os
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ..core.errors import ConfigError
from ..store.files import write_whole
from ..store.folders import made

PKI = "pki"
ROOT, TLS, IDENTITY, PENDING = "root.pem", "tls.pem", "identity.pem", "pending.pem"
PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey


def federation(home: Path) -> str:
    """Return the digest of the root certificate in a party's folder: of whose federation it is a part."""
    root = x509.load_pem_x509_certificate((home / PKI / ROOT).read_bytes())
    return sha256(root.public_bytes(Encoding.DER)).hexdigest()


def pem(key: PrivateKey) -> bytes:
    """Return a private key as PEM (PKCS 8, RFC 5958), not encrypted: the file's mode protects it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_private(path: Path, content: bytes) -> None:
    """Write a file whole that only its owner may read; its folder too, if it is made here."""
    made(path.parent, "let this user write there, or take another folder", 0o700)
    write_whole(path, content, mode=0o600)


def private(path: Path) -> Path:
    """Return the path of a private file; raises `ConfigError` if it is missing, or others may read it."""
    try:
        mode = path.stat().st_mode & 0o777
    except OSError as error:
        raise _unread(path, error) from error
    if os.name == "posix" and mode & 0o077:  # elsewhere the mode says nothing
        raise ConfigError(f"{path} may be read by others (mode {mode:o}); if nobody has: chmod 600 {path}")
    return path


def read_private(path: Path) -> bytes:
    """Return the content of a private file; refuses as `private` does."""
    try:
        return private(path).read_bytes()
    except OSError as error:
        raise _unread(path, error) from error


def _unread(path: Path, error: OSError) -> ConfigError:
    then = "`fedloom provision` makes a coordinator's, `fedloom join` a site's."
    if isinstance(error, PermissionError):
        then = "run fedloom as the user that it belongs to."
    return ConfigError(f"{path} cannot be read: {error.strerror}; {then}")


def _loaded(path: Path) -> object:
    try:
        return load_pem_private_key(read_private(path), None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} holds no readable private key: {error}; restore it from a copy.") from error


def tls_key(path: Path) -> EllipticCurvePrivateKey:
    """Return the P-256 key in a PEM file, alone or before its certificates."""
    key = _loaded(path)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ConfigError(f"{path} holds another kind of key than P-256; restore it from a copy.")
    return key


def identity_key(path: Path) -> Ed25519PrivateKey:
    """Return the Ed25519 key in a PEM file."""
    key = _loaded(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} holds another kind of key than Ed25519; restore it from a copy.")
    return key


def new_tls_key() -> EllipticCurvePrivateKey:
    """Return a new P-256 key: every TLS stack takes it."""
    return generate_private_key(SECP256R1())


def kept_tls_key(path: Path) -> EllipticCurvePrivateKey:
    """Return the key of a file; the first time it is made, so that who comes back after a crash has the same."""
    if not path.exists():
        write_private(path, pem(new_tls_key()))
    return tls_key(path)


def kept_identity(path: Path) -> Ed25519PrivateKey:
    """Return the identity of a file; the first time it is made."""
    if not path.exists():
        write_private(path, pem(Ed25519PrivateKey.generate()))
    return identity_key(path)
