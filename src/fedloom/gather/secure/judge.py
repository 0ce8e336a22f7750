"""What a client refuses in a hidden sum: each check raises, and then nothing is said."""

from collections.abc import Sequence

import numpy as np

from ...core.errors import AccessDenied, QuorumLost
from ...core.hidden import Identity, Share, Unmask
from ...core.layout import Array
from ...core.task import Train
from .graph import Rule
from .keys import SIGNATURE, SIZE, signed
from .session import KEYS, Session, advertisement, content_of, survivors


def require(held: bool, refusal: str) -> None:
    """Raise `AccessDenied` unless it holds."""
    if not held:
        raise AccessDenied(f"{refusal}; refused, and nothing is revealed.")


def among(what: str, names: Sequence[str], all_names: Sequence[str], me: str | None = None) -> None:
    """Require that names are different, of those who may be there, and that this client, if given, is among them."""
    require(len(set(names)) == len(names), f"the {what} names somebody twice")
    unknown = sorted(set(names) - set(all_names))
    require(not unknown, f"the {what} names {', '.join(unknown[:3])}, who cannot be there")
    require(me is None or me in names, f"the {what} leaves out {me!r}, who is asked")


def enough(what: str, there: int, threshold: int) -> None:
    """Raise `QuorumLost` below the threshold."""
    if there < threshold:
        raise QuorumLost(
            f"{what}: {there} clients, and a hidden sum here needs {threshold}; refused, and nothing is revealed. "
            "Ask again when more are there."
        )


def rows_of(what: str, array: Array, count: int, width: int) -> None:
    """Require `(count, width)` bytes."""
    fits = isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.shape == (count, width)
    require(fits, f"the {what} must be {count} rows of {width} bytes")


def training(session: Session, body: Train) -> None:
    """Refuse a training that the sum was not opened for, or that is said to be one of a larger cohort."""
    require(content_of(body) == session.content, "the task is not the one that this client signed")
    asked = len(session.asked)
    require(body.cohort <= asked, f"the task says that {body.cohort} clients are asked, and this sum is one of {asked}")


def keys(session: Session, body: Share, identity: Identity, rule: Rule) -> None:
    """Refuse a list of keys in which one stands for two clients, or this client's are not its own."""
    among("list of keys", body.names, session.asked, identity.name)
    enough("keys have been sent by", len(body.names), rule.survivors)
    rows_of("keys", body.keys, len(body.names), KEYS)
    rows_of("signatures", body.signatures, len(body.names), SIGNATURE)
    own = bytes(body.keys[body.names.index(identity.name)])
    require(own == bytes(session.keys), "the list of keys has other keys than this client's own under its name")
    public = [bytes(part) for row in body.keys for part in (row[:SIZE], row[SIZE : 2 * SIZE])]
    require(len(set(public)) == len(public), "the list of keys has one key twice")


def introduced(session: Session, body: Share, identity: Identity, bound: bytes) -> None:
    """Refuse keys in this client's circle that their owner has not signed for this session."""
    places = {name: place for place, name in enumerate(body.names)}
    at = [places[name] for name in session.circle]
    said = [advertisement(bound, identity.run, body.names[place], bytes(body.keys[place])) for place in at]
    _believed("keys", identity, session.circle, body.signatures[at], said)


def near(session: Session, names: Sequence[str]) -> list[str]:
    """Return those of these names that are in this client's circle, itself among them."""
    there = set(names)
    return [name for name in session.circle if name in there]


def confirmed(session: Session, body: Unmask, identity: Identity, bound: bytes, rule: Rule) -> None:
    """Refuse unless enough of its circle have signed the very list of those in the sum that this client was told."""
    among("list of signers", body.signers, near(session, session.alive))
    enough("the same clients in the sum were confirmed by", len(body.signers), rule.shares)
    rows_of("signatures", body.signatures, len(body.signers), SIGNATURE)
    said = [survivors(bound, identity.run, session)] * len(body.signers)
    _believed("list of survivors", identity, body.signers, body.signatures, said)


def _believed(what: str, identity: Identity, names: Sequence[str], signatures: Array, said: Sequence[bytes]) -> None:
    for name, signature, message in zip(names, signatures, said, strict=True):
        require(name in identity.directory, f"nobody vouches here for the key of {name!r}")
        fits = signed(identity.directory[name], bytes(signature), message)
        require(fits, f"the {what} of {name!r} was not signed by it for what this client was told")
