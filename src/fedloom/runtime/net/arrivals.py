"""Replies on their way in: what is offered, the pieces of its body, and whether it is still wanted when it is whole."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Condition

from ...core.errors import WireError
from ...core.layout import Layout
from ...core.task import Reply, Trained
from .answers import answered
from .line import CHUNK_BYTES
from .seats import Given, Offer, Seat
from .spool import Body
from .talk import Chunk, Message, field_of, keys_of


@dataclass(eq=False)
class Arrivals:
    """What parties answer, from the offer to the reply.

    Args:
        run: id of the run.
        layouts: by digest: those that an update may be packed by.
        changed: the hall's lock.
        answer: (seat, tasks, reply) -> lets the reply be received; in the lock.
    """

    run: str
    layouts: Mapping[str, Layout]
    changed: Condition
    answer: Callable[[Seat, Sequence[Given], Reply], None]
    _from: dict[int, tuple[Body, float]] = field(default_factory=dict)  # of updates, by dispatch number

    def source(self, reply: Reply) -> tuple[Body, float]:
        """Return the body and the seconds of an update that was received; they are known once."""
        return self._from.pop(reply.numbers[0])

    def offered(self, seat: Seat, said: Message) -> None:
        """Take an offer of a reply in: to one task, or, from a relay, to several that it has added up.

        Raises `WireError` for an offer that cannot be meant.
        """
        keys, seconds = tuple(keys_of(said)), field_of(said, "seconds", float)
        if len(set(keys)) < len(keys):
            raise WireError("an offer names the tasks that it answers, each of them once.")
        body = Body(field_of(said, "digest", str), field_of(said, "size", int))
        seat.spool.path(body.digest)  # is it a digest?
        if body.size < 1:
            raise WireError(f"a body has at least one byte, got {body.size}.")
        with self.changed:
            if not keys or any(key not in seat.given for key in keys):
                seat.say("receipt", later=True, run=self.run, keys=keys)  # answered already, or not wanted any more
                return
            together = {(seat.given[key].ask, seat.given[key].task.merge) for key in keys}
            if len(keys) > 1 and (len(together) > 1 or not all(merge for _, merge in together)):
                raise WireError("one reply answers several tasks only where they were asked together, to be merged.")
            if body.size > seat.spool.most:
                why = f"a reply of {body.size:,} bytes is larger than the {seat.spool.most:,} that are taken in"
                self._refuse(seat, keys, why)
                return
            seat.spool.claim(body.digest)
            seat.expect_no_more(keys)
            seat.incoming.append(Offer(keys, body, seconds))
        here = seat.spool.arrived(body)
        if here == body.size:
            self._complete(seat, body)
        elif here or body.size > CHUNK_BYTES:  # a smaller one comes without being asked for
            seat.say("have", run=self.run, digest=body.digest, offset=here)

    def chunk(self, seat: Seat, chunk: Chunk) -> None:
        """Take a piece of a body in, and the replies behind it once it is whole."""
        known = next((offer.body for offer in seat.incoming if offer.body.digest == chunk.digest), None)
        if known is not None and seat.spool.take(known, chunk.offset, chunk.data):
            self._complete(seat, known)

    def _complete(self, seat: Seat, body: Body) -> None:
        """Take in whatever was offered with this body: a relay's members may have answered the same."""
        with self.changed:
            offers = deque(offer for offer in seat.incoming if offer.body == body)
            seat.incoming = [offer for offer in seat.incoming if offer.body != body]
        try:
            while offers:
                needed, offer = self._accept(seat, offers[0]), offers.popleft()
                if not needed:  # arrays in it live on without the name of their file
                    seat.spool.drop(body.digest)
                seat.say("receipt", later=True, run=self.run, keys=offer.keys)
        finally:  # whatever has failed, nothing stays that nobody needs
            for _ in offers:
                seat.spool.drop(body.digest)

    def _accept(self, seat: Seat, offer: Offer) -> bool:
        """Let a reply be received, if it is still wanted; return whether its body is needed further on."""
        with self.changed:
            givens = [seat.given[key] for key in offer.keys if key in seat.given]
        if len(givens) < len(offer.keys):
            return False
        reply = answered(seat.spool, self.layouts, [given.task for given in givens], offer.body, offer.seconds)
        with self.changed:
            if any(key not in seat.given for key in offer.keys):
                return False
            if isinstance(reply.body, Trained):
                self._from[reply.numbers[0]] = (offer.body, offer.seconds)
            self.answer(seat, givens, reply)
        return isinstance(reply.body, Trained)

    def _refuse(self, seat: Seat, keys: Sequence[str], why: str) -> None:
        for key in keys:
            self.answer(seat, [seat.given[key]], seat.given[key].failed("admit", "WireError", why))
        seat.say("receipt", later=True, run=self.run, keys=keys)
