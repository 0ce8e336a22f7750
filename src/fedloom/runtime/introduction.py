"""How sites learn one another's keys without believing the coordinator: a list, its check number, and a signature.

The list is drawn up from the roll, by whoever keeps it. A site takes it if the federation's root key has signed it,
which lies away from the coordinator's machine, or if another site's people read the same check number to its own. Each
site's machine finds its own key in the list, so all who have the same number have one another's right keys.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import scrypt
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from ..core.errors import ConfigError
from ..core.hidden import Directory
from ..store.files import write_json
from .credentials import Credentials
from .directory import DIRECTORY, VERSION, handed, keys_of
from .identity import bytes_of, text_of
from .keys import PKI, ROOT, private, tls_key
from .provisioning import ROLL
from .roll import Roll

_DOMAIN = b"fedloom directory 1\0"
_DIGITS, _GROUP = 30, 5
_WORK = {
    "n": 1 << 15,
    "r": 8,
    "p": 1,
    "maxmem": 1 << 26,
}  # a tenth of a second: two lists with one number cost 2^50 such


def listed(home: Path) -> Directory:
    """Return the keys of the sites that have enrolled with an authority, by name; raises `ConfigError` if none has."""
    entries = Roll(private(home / PKI / ROLL)).entries()
    keys = {entry.subject.name: entry.subject.key for entry in entries if entry.subject.role == "site"}
    if not keys:
        raise ConfigError(f"no site has enrolled at {home} yet; a site does when it joins for the first time.")
    return keys


def write(path: Path, keys: Directory, home: Path, root_key: Path | None) -> None:
    """Write a list to hand out, signed if the root key is at hand.

    Raises `ConfigError` for another federation's root key.
    """
    content: dict[str, Any] = {"version": VERSION, "keys": {name: text_of(key) for name, key in sorted(keys.items())}}
    if root_key is not None:
        key = tls_key(root_key)
        if key.public_key() != _root(home):
            raise ConfigError(f"{root_key} is not the key of {home / PKI / ROOT}; bring the one that was made with it.")
        content["signature"] = text_of(key.sign(_signed(keys), ECDSA(SHA256())))
    write_json(path, content)


def read(path: Path, home: Path) -> tuple[Directory, bool]:
    """Return a list that a site was handed, and whether the root that it pinned at enrolment has signed it.

    Raises `ConfigError` for a list that has another key for this site, or a signature of somebody else.
    """
    content = handed(path, "the list that `fedloom provision --directory` has written where the roll is")
    signature = content.pop("signature", None) if isinstance(content, dict) else None
    keys, own = keys_of(path, content), Credentials(home).peer
    if keys.get(own.name) != own.key:
        raise ConfigError(
            f"{path} has not this site's key under {own.name!r}; do not take it, and ask where it is from."
        )
    if signature is None:
        return keys, False
    if not isinstance(signature, str):
        raise ConfigError(f"{path} has a signature that is no text; do not take it.")
    try:
        _root(home).verify(bytes_of(signature), _signed(keys), ECDSA(SHA256()))
    except InvalidSignature as error:
        raise ConfigError(f"{path} is not signed by the root key of this federation; do not take it.") from error
    return keys, True


def keep(home: Path, keys: Directory) -> Path:
    """Write down whose key is whose, as this site's people have taken it."""
    path = home / DIRECTORY
    write_json(path, {"version": VERSION, "keys": {name: text_of(key) for name, key in sorted(keys.items())}})
    return path


def number(keys: Directory) -> str:
    """Return the check number of a list, 30 digits: the same for the same names and keys, and for nothing else.

    >>> number({"a": bytes(32)})
    '60263 76265 46723 15182 52010 65346'
    """
    found = scrypt(_signed(keys), salt=_DOMAIN, dklen=32, **_WORK)
    digits = f"{int.from_bytes(found, 'big') % 10**_DIGITS:0{_DIGITS}d}"
    return " ".join(digits[at : at + _GROUP] for at in range(0, _DIGITS, _GROUP))


def same(told: str, keys: Directory) -> bool:
    """Is that the check number, however it was typed?"""
    return "".join(filter(str.isdigit, told)) == number(keys).replace(" ", "")


def changes(before: Mapping[str, bytes], keys: Directory) -> Sequence[str]:
    """Return, in words, what a list changes in the one of before."""
    came = [f"new: {name}" for name in sorted(keys.keys() - before.keys())]
    left = [f"no longer there: {name}" for name in sorted(before.keys() - keys.keys())]
    other = [f"another key than before: {name}" for name in sorted(keys) if before.get(name, keys[name]) != keys[name]]
    return [*came, *left, *other]


def _signed(keys: Directory) -> bytes:
    return _DOMAIN + json.dumps([[name, text_of(key)] for name, key in sorted(keys.items())]).encode()


def _root(home: Path) -> EllipticCurvePublicKey:
    key = x509.load_pem_x509_certificate((home / PKI / ROOT).read_bytes()).public_key()
    assert isinstance(key, EllipticCurvePublicKey), "roots have P-256 keys"
    return key
