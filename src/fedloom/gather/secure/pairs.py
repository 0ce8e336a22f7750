"""What two clients have in common: a mask that cancels between them, and letters that nobody else can read."""

from .keys import SIZE, Agreement, framed, opened, sealed
from .session import Session, rows


class Pairs:
    """The masks that one client has in common with each other one.

    Args:
        session: where the others' keys are.
        name: the client's; private: its key for masks; bound: digest of the session.
    """

    def __init__(self, session: Session, name: str, private: bytes, bound: bytes) -> None:
        self._session, self._name, self._agreement = session, name, Agreement(private, bound)

    def mask(self, other: str) -> tuple[bytes, int]:
        """Return the key of the mask with another, and the sign with which this client adds it; the other's is -sign.

        The smaller name adds and the larger subtracts: names are different, so exactly one of them does either.
        """
        public = self._session.of(other)[SIZE : 2 * SIZE]
        key = self._agreement.key(public, "mask", *sorted((self._name, other)))
        return key, 1 if self._name < other else -1


class Letters:
    """What one client writes to others and reads from them, one letter each way.

    Args:
        session: with the keys that were agreed on with each other, see `agreed`.
        name: the client's; bound: digest of the session.
    """

    def __init__(self, session: Session, name: str, bound: bytes) -> None:
        self._session, self._name, self._bound = session, name, bound

    def to(self, name: str, text: bytes) -> bytes:
        """Return a text that only `name` can read."""
        return sealed(self._key(name), self._name < name, text, self._said(self._name, name))

    def read(self, name: str, content: bytes) -> bytes | None:
        """Return what `name` wrote; None if it is not by it, for this client, in this session."""
        return opened(self._key(name), name < self._name, content, self._said(name, self._name))

    def _key(self, other: str) -> bytes:
        return bytes(self._session.letters[self._session.circle.index(other)])

    def _said(self, sender: str, receiver: str) -> bytes:
        return framed(self._bound, sender, receiver)


def agreed(session: Session, name: str, bound: bytes) -> Session:
    """Return the session with a key for letters with each in its circle, and without the private key behind them."""
    agreement = Agreement(bytes(session.open), bound)
    known = [(other, session.of(other)[:SIZE]) for other in session.circle]
    keys = [agreement.key(public, "letters", *sorted((name, other))) for other, public in known]
    return session.but(letters=rows(keys, SIZE), open=None)
