"""What is said in the rounds of a hidden sum, and who says it: task and reply bodies, and a party's identity.

With masks a round asks five times: `Advertise`, `Share`, `Train`, `Confirm`, `Unmask`; encrypted it asks twice:
`Train`, `Decrypt`. Keys, signatures and shares are rows of bytes (uint8), in the order of the names beside them. The
mathematics is in `gather/secure`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .layout import Array
from .tree import Tree

Directory = Mapping[str, bytes]  # party -> its Ed25519 public key, 32 bytes


@dataclass(frozen=True, eq=False)
class Identity:
    """Who a party is to the others of a run, and whom it believes.

    Args:
        name: its own.
        run: id of the run, and digest of the app: what is signed in one run, or with another copy of the app, means
            nothing in another.
        sign: with its own Ed25519 key: message -> 64 bytes.
        directory: the others' public keys, from whoever vouches for them; never from the messages themselves.
        secret: what all clients share and the coordinator has not, where updates are encrypted.
    """

    name: str
    run: str
    sign: Callable[[bytes], bytes]
    directory: Directory
    secret: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, eq=False)
class Backing:
    """What a coordinator has behind it while it gathers a hidden sum; without a word, nothing.

    Args:
        keep: (dispatch number, value): writes down what must outlive this process, before it is acted on.
        kept: dispatch number -> the last value that was kept under it; None if there is none.
        run: what clients sign for, as of `Identity`.
        directory: whose key is whose, as far as the coordinator knows it. It says who signs badly; what clients believe
            is their own directory.
    """

    keep: Callable[[int, Tree], None] = lambda number, value: None
    kept: Callable[[int], Tree] = lambda number: None
    run: str = ""
    directory: Directory = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Advertise:
    """Make fresh keys for one hidden sum, and sign them; answered with `Advertised`.

    Args:
        session: 32 hexadecimal digits that the coordinator drew.
        round: counted from 1.
        content: digest of the training that will be asked for, the shared vector with it.
        asked: the cohort, in order.
    """

    session: str
    round: int
    content: str
    asked: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Advertised:
    """A client's keys, `(96,)`: to be written to, to agree on masks with, SHA-256 of its own mask's seed; signed."""

    keys: Array
    signature: Array


@dataclass(frozen=True, eq=False)
class Share:
    """Divide your secrets among these, whose keys `(n, 96)` and signatures `(n, 64)` these are."""

    session: str
    names: tuple[str, ...]
    keys: Array
    signatures: Array


@dataclass(frozen=True, eq=False)
class Shared:
    """A client's shares, `(k, 82)`, each sealed for the one who is named."""

    names: tuple[str, ...]
    sealed: Array


@dataclass(frozen=True, eq=False)
class Confirm:
    """Sign that these are the clients in the sum; answered with `Confirmed`."""

    session: str
    alive: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Confirmed:
    """A signature, `(64,)`, of who is in the sum."""

    signature: Array


@dataclass(frozen=True, eq=False)
class Unmask:
    """Open what was sealed for you, and give what the list that was confirmed allows; answered with `Unmasked`.

    Args:
        session: as in `Advertise`.
        signers: who has confirmed; signatures: theirs, `(k, 64)`.
        senders: who has sealed something for this client; sealed: theirs, `(m, 82)`.
    """

    session: str
    signers: tuple[str, ...]
    signatures: Array
    senders: tuple[str, ...]
    sealed: Array


@dataclass(frozen=True, eq=False)
class Unmasked:
    """Shares `(k, 33)`: of a client in the sum the one of its own mask's seed, of one that fell out of its key."""

    names: tuple[str, ...]
    shares: Array


@dataclass(frozen=True, eq=False)
class Decrypt:
    """Decrypt the sum of a round, `size` whole numbers; answered with `Decrypted`. sealed: its ciphertexts, `(b,)`."""

    round: int
    size: int
    sealed: Array


@dataclass(frozen=True, eq=False)
class Decrypted:
    """The whole numbers of a sum, int32, little-endian, as bytes `(4 · size,)`."""

    values: Array


MaskedTask = Advertise | Share | Confirm | Unmask
HiddenTask = MaskedTask | Decrypt
HiddenReply = Advertised | Shared | Confirmed | Unmasked | Decrypted

HIDDEN: dict[type, type] = {  # what answers
    Advertise: Advertised,
    Share: Shared,
    Confirm: Confirmed,
    Unmask: Unmasked,
    Decrypt: Decrypted,
}
