"""Signed statements about a record: checkpoints of C2SP, with the signature of the log and those of witnesses.

A checkpoint is a note of three lines (tlog-checkpoint): origin, size, root in base64. Below an empty line stand
signatures (signed-note): the log's own, Ed25519 over the text, and cosignatures of witnesses (tlog-cosignature), over a
time and the text. Keys are told apart by a name and four bytes of a hash over name, kind and key.
"""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import sha256

from ..core.errors import MissingExtra, RecordError

LOG, WITNESS = 1, 4  # kinds of keys: Ed25519 over a note; Ed25519 cosignature/v1
LARGEST = 1 << 19  # characters of a note that are looked at
_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/=]+)")
Sign = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Key:
    """A public key that signs notes.

    Args:
        name: what it is called in notes, without spaces and "+".
        public: 32 bytes, Ed25519 (RFC 8032).
        kind: `LOG` or `WITNESS`.
    """

    name: str
    public: bytes
    kind: int = LOG

    @cached_property
    def id(self) -> bytes:
        """The first four bytes of SHA-256(name || 0x0A || kind || key)."""
        return sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    def text(self) -> str:
        """Return the key as C2SP writes it: name+id+base64(kind || key)."""
        return f"{self.name}+{self.id.hex()}+{b64encode(bytes([self.kind]) + self.public).decode()}"

    @staticmethod
    def of(text: str) -> "Key":
        """Return the key that `text` wrote; raises `RecordError` for anything else."""
        try:
            name, id_, content = text.split("+", 2)
            key = Key(name, (raw := b64decode(content, validate=True))[1:], raw[0])
        except (ValueError, IndexError) as error:
            raise RecordError(f"{text[:80]!r} is no key of a record.") from error
        if key.id.hex() != id_ or key.kind not in (LOG, WITNESS) or len(key.public) != 32:
            raise RecordError(f"{text[:80]!r} is no Ed25519 key of a record, or was changed.")
        return key

    @staticmethod
    def witness(public: bytes) -> "Key":
        """Return the key of a party as a witness, which is called by a hash: who has the key can tell whose it is.

        >>> Key.witness(bytes(32)).name
        'fedloom/66687aadf862bd77'
        """
        return Key(f"fedloom/{sha256(public).hexdigest()[:16]}", public, WITNESS)


@dataclass(frozen=True)
class Signature:
    """One line below a note: the name of a key, its id, and what it signed with."""

    name: str
    id: bytes
    content: bytes

    def line(self) -> str:
        """Return the line."""
        return f"— {self.name} {b64encode(self.id + self.content).decode()}\n"


@dataclass(frozen=True)
class Checkpoint:
    """A record at one size, and who has signed that it was so.

    Args:
        origin: which record it is.
        size: number of entries.
        root: of their Merkle tree, 32 bytes.
        signatures: as they stand below it.
    """

    origin: str
    size: int
    root: bytes
    signatures: tuple[Signature, ...] = ()

    def body(self) -> str:
        """Return the three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"

    def text(self) -> str:
        """Return the note."""
        return f"{self.body()}\n{''.join(signature.line() for signature in self.signatures)}"

    def signed(self, key: Key, sign: Sign) -> "Checkpoint":
        """Return it with the log's signature, first."""
        signature = Signature(key.name, key.id, sign(self.body().encode()))
        return replace(self, signatures=(signature, *self.signatures))

    def cosignature(self, key: Key, sign: Sign, when: int) -> Signature:
        """Return a witness's signature, at a time in seconds since 1970."""
        content = when.to_bytes(8, "big") + sign(_cosigned(when, self.body()))
        return Signature(key.name, key.id, content)

    def adding(self, signature: Signature) -> "Checkpoint":
        """Return it with one more signature, in place of an earlier one of the same key."""
        others = (each for each in self.signatures if (each.name, each.id) != (signature.name, signature.id))
        return replace(self, signatures=(*others, signature))

    def signed_by(self, key: Key) -> bool:
        """Has this key signed it? Raises `RecordError` for a signature in its name that is not its own."""
        mine = [each for each in self.signatures if (each.name, each.id) == (key.name, key.id)]
        for signature in mine:
            if not _good(key, signature, self.body()):
                raise RecordError(
                    f"the checkpoint of size {self.size} bears a signature in the name of {key.name} that is not its "
                    f"own: it was signed for other entries, or by somebody else."
                )
        return bool(mine)

    @staticmethod
    def of(text: str) -> "Checkpoint":
        """Return the checkpoint in a note; raises `RecordError` for anything that `text` does not write."""
        body, _, below = text[:LARGEST].partition("\n\n")
        lines = body.split("\n")
        if len(lines) != 3 or not re.fullmatch(r"0|[1-9]\d{0,15}", lines[1]) or not lines[0]:
            raise RecordError("a checkpoint has three lines: origin, size, and root.")
        found = Checkpoint(lines[0], int(lines[1]), _root(lines[2]), tuple(map(_signature, below.splitlines())))
        if found.text() != text:
            raise RecordError("a checkpoint is written otherwise than here, or is longer than is looked at.")
        return found


def _root(text: str) -> bytes:
    root = _bytes(text)
    if len(root) != 32:
        raise RecordError("the root of a checkpoint has 32 bytes.")
    return root


def _signature(line: str) -> Signature:
    found = _LINE.fullmatch(line)
    content = _bytes(found[2]) if found else b""
    if found is None or len(content) < 5:
        raise RecordError(f"this is no signature of a note: {line[:80]!r}.")
    return Signature(found[1], content[:4], content[4:])


def _bytes(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RecordError(f"this is not base64: {text[:80]!r}.") from error


def _cosigned(when: int, body: str) -> bytes:
    return f"cosignature/v1\ntime {when}\n{body}".encode()


def _good(key: Key, signature: Signature, body: str) -> bool:
    if key.kind == LOG:
        return valid(key.public, signature.content, body.encode())
    when, content = int.from_bytes(signature.content[:8], "big"), signature.content[8:]
    return valid(key.public, content, _cosigned(when, body))


@lru_cache(maxsize=64)  # each checkpoint comes twice: as the newest, and as what others have signed
def valid(public: bytes, signature: bytes, message: bytes) -> bool:
    """Is this the Ed25519 signature of a message by the owner of a public key?"""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ModuleNotFoundError as error:
        raise MissingExtra("signatures need the package cryptography: pip install 'fedloom[network]'.") from error
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
