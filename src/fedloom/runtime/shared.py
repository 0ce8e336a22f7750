"""The key that sites share and the coordinator has not: HOME/shared.key, made at one site and sealed to each other one.

A sealed copy is for the identity key that the sites' list has, and signed by the one who made it, so it may travel by
any way, through the coordinator too. An Ed25519 key is turned into its X25519 key (RFC 7748, section 4.1), an ephemeral
one agrees with it, HKDF-SHA256 makes the key of ChaCha20-Poly1305. Both uses of one key are safe together: Thormarker,
eprint 2021/509.
"""

import json
from hashlib import sha512
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..core.errors import AccessDenied, ConfigError
from ..store.files import write_json
from .credentials import Credentials
from .directory import directory, handed
from .identity import bytes_of, text_of, verify
from .keys import IDENTITY, PKI, identity_key, private, write_private

KEY, FOLDER = "shared.key", "sealed"
_DOMAIN, _PRIME = b"fedloom shared key 1", 2**255 - 19


def read(home: Path) -> bytes:
    """Return the shared key; raises `ConfigError` if this site has none, or others may read it."""
    if not (home / KEY).exists():
        raise ConfigError(
            f"{home / KEY} is missing: encrypted sums need the key that sites share; at one site `fedloom key --make "
            f"--home DIR`, at the others `fedloom key --open FILE --home DIR`."
        )
    return private(home / KEY).read_bytes()


def make(home: Path, secret: bytes) -> list[Path]:
    """Keep a new shared key, and return files to send: one for each other site of the list, which it alone can open."""
    own, keys = Credentials(home), directory(home)
    write_private(home / KEY, secret)
    paths = []
    for name, key in keys.items():
        if name != own.peer.name:
            paths.append(home / FOLDER / f"{name}.json")
            paths[-1].parent.mkdir(exist_ok=True)
            write_json(paths[-1], _sealed(own, name, key, secret))
    return paths


def opened(home: Path, path: Path) -> str:
    """Keep the shared key from a file that another site has sealed; return who that is.

    Raises `AccessDenied` for a file that is for somebody else, or not by a site of the list.
    """
    content = handed(path, "the file that `fedloom key --make` has written for this site, at the one that made the key")
    own, keys = Credentials(home), directory(home)
    match content:
        case {"version": 1, "from": str(sender), "for": str(name), "signature": str(signature), **rest} if set(
            rest
        ) == {"ephemeral", "content"} and all(isinstance(text, str) for text in rest.values()):
            pass
        case _:
            raise AccessDenied(f"{path} is no sealed key; take the file as `fedloom key --make` wrote it.")
    if name != own.peer.name or sender not in keys:
        raise AccessDenied(f"{path} is from {sender!r} for {name!r}; this is {own.peer.name!r}, and its list decides.")
    verify(keys[sender], bytes_of(signature), _said(content))
    write_private(home / KEY, _unsealed(home, content, keys[name]))
    return sender


def _sealed(own: Credentials, name: str, key: bytes, secret: bytes) -> dict[str, Any]:
    ephemeral = X25519PrivateKey.generate()
    public = ephemeral.public_key().public_bytes_raw()
    cipher = _cipher(ephemeral.exchange(X25519PublicKey.from_public_bytes(montgomery(key))), public, key)
    sealed = cipher.encrypt(bytes(12), secret, None)  # the key is used once
    content = {"version": 1, "from": own.peer.name, "for": name}
    content |= {"ephemeral": text_of(public), "content": text_of(sealed)}
    return content | {"signature": text_of(own.sign(_said(content)))}


def _unsealed(home: Path, content: dict[str, Any], key: bytes) -> bytes:
    seed = identity_key(home / PKI / IDENTITY).private_bytes_raw()
    own, public = X25519PrivateKey.from_private_bytes(sha512(seed).digest()[:32]), bytes_of(content["ephemeral"])
    try:
        shared = own.exchange(X25519PublicKey.from_public_bytes(public))
        return _cipher(shared, public, key).decrypt(bytes(12), bytes_of(content["content"]), None)
    except (InvalidTag, ValueError) as error:
        raise AccessDenied("the sealed key does not open with this site's identity; have it sealed anew.") from error


def _cipher(shared: bytes, ephemeral: bytes, key: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(HKDF(SHA256(), 32, None, _DOMAIN + ephemeral + key).derive(shared))


def _said(content: dict[str, Any]) -> bytes:
    return _DOMAIN + json.dumps([content[name] for name in ("from", "for", "ephemeral", "content")]).encode()


def montgomery(key: bytes) -> bytes:
    """Return the X25519 public key of an Ed25519 one: u = (1 + y) / (1 - y).

    >>> montgomery(bytes.fromhex("58" + "66" * 31)).hex() == "09" + "00" * 31  # the base points
    True
    """
    y = int.from_bytes(key, "little") % 2**255
    return ((1 + y) * pow(1 - y, -1, _PRIME) % _PRIME).to_bytes(32, "little")
