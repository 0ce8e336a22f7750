"""Replies on their way from a party: what is offered, its bytes, and when it has arrived."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from .bounds import OFFERS
from .line import CHUNK_BYTES
from .seats import Stream
from .spool import Body, Spool
from .talk import Channel


@dataclass(eq=False)
class Offers:
    """Replies that are offered and not known to have arrived.

    Args:
        spool: of bodies that are sent.
        say: says a message: a kind, and its fields.
        send: lets the connection's writer send a body.
        members: for how many this party answers; see `bounds`.
    """

    spool: Callable[[], Spool]
    say: Callable[..., None]
    send: Callable[[Stream], None]
    members: int = 1
    _open: dict[str, Body] = field(default_factory=dict)  # by the keys of the tasks that they answer
    _arrived: "deque[str]" = field(default_factory=deque)

    def offer(self, keys: Sequence[str], body: Body, seconds: float) -> None:
        """Offer a reply to these tasks; if the line is lost first, they are asked again."""
        before = [self._open[key].digest for key in keys if key in self._open]
        self._open.update(dict.fromkeys(keys, body))
        self._arrived.extend(before)  # nobody asks for another answer that was offered before
        self.receipt(list(self._open)[: -OFFERS * self.members])
        self.say("offer", keys=list(keys), digest=body.digest, size=body.size, seconds=seconds)
        if body.size <= CHUNK_BYTES:
            self.upload(body.digest, 0)

    def upload(self, digest: str, offset: int) -> None:
        """Send a body that is offered, from an offset on."""
        if not self._offered(digest):
            return

        def stream(channel: Channel) -> None:
            try:
                for at, data in self.spool().pieces(digest, offset):
                    channel.send_chunk(digest, at, data)
            except FileNotFoundError:
                return  # it was received in the meantime

        self.send(stream)

    def receipt(self, keys: Sequence[str]) -> None:
        """Learn that the replies to these have arrived."""
        self._arrived.extend({self._open.pop(key).digest for key in keys if key in self._open})

    def forget(self) -> Iterator[str]:
        """Yield the digests of what has arrived and was not offered again."""
        while self._arrived:
            digest = self._arrived.popleft()
            if not self._offered(digest):
                yield digest

    def _offered(self, digest: str) -> bool:
        return any(body.digest == digest for body in list(self._open.values()))
