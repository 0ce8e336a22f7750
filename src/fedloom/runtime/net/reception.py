"""From a certificate to a seat: who calls is looked up, told what was counted while it was away, and listened to."""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from logging import getLogger
from threading import Event, Thread
from typing import Any

from ...core.errors import AccessDenied, ConfigError, FedloomError, StorageError, WireError
from ...core.task import Member
from ..identity import Peer, peer_of
from ..joining import answered
from .hall import Hall
from .line import LineLost
from .seats import Seat, writing
from .spool import Spool
from .talk import Channel, Chunk, Message, field_of, numbers_of

log = getLogger(__name__)
HELLO_S = 30.0
PROTOCOL = 7
MOST_UNSAID = 64
DENIED_S = 1.0  # so soon the denied are heard no more
MOST_MEMBERS = 10_000  # behind one relay


@dataclass(eq=False)
class Reception:
    """What is between the door and the seats.

    Args:
        hall: where parties sit.
        denied: peer, and how many seconds old what it says may be -> why it may not come in, or None.
        welcome: (peer, members) -> raises for whom there is no seat.
        renew: (peer, request) -> a certificate.
        verdicts: (dispatch numbers, members) -> which of them were counted, of those that these members were asked and
            whose round is closed.
        spool: party -> where its bodies are kept.
        digest: of the app.
        closing: set once nobody is let in any more.
    """

    hall: Hall
    denied: Callable[[Peer, float], str | None]
    welcome: Callable[[Peer, tuple[Member, ...]], None]
    renew: Callable[[Peer, Mapping[str, Any]], Mapping[str, Any]]
    verdicts: Callable[[Collection[int], Collection[str]], Mapping[int, bool]]
    spool: Callable[[str], Spool]
    digest: str
    closing: Event = field(default_factory=Event)
    _ended: tuple[str, str] | None = None
    _writers: set[Thread] = field(default_factory=set)
    _inside: dict[Channel, tuple[Seat, Peer]] = field(default_factory=dict)

    def session(self, channel: Channel, peer: Peer, known: Callable[[], None]) -> None:
        """Live through a connection; `known` is called once its party has a seat.

        Raises `FedloomError` for what must be refused, and for a party that is denied. Who is told "refused" calls no
        more, so it is told only what is its own matter: where something cannot be looked up here, it calls again.
        """
        try:
            seat = self._seated(channel, peer)
        except (WireError, AccessDenied) as error:
            with self.hall.changed:
                self.hall.refused[peer.name] = self.hall.now(), str(error)
            with suppress(LineLost):
                channel.send("refused", code=error.code, reason=str(error))
            raise
        known()
        hall, beat_s = self.hall, self.hall.leases.beat_s
        with hall.changed:
            hall.refused.pop(peer.name, None)
            jobs = seat.begin(channel, hall.now())
            seat.say("welcome", run=hall.run, beat_s=beat_s)  # before any task that somebody may ask it now
        writer = Thread(target=writing, args=(channel, jobs, beat_s), name=f"to {seat.name}", daemon=True)
        self._writers.add(writer)
        writer.start()
        if self._ended is not None:
            seat.say("end", run=hall.run, status=self._ended[0], reason=self._ended[1])
        log.info("connected", extra={"site": seat.name})
        why = "left"
        try:
            self._settled(channel, seat)
            hall.come_in(seat, channel)
            self._listen(channel, peer, seat, writer)
        except LineLost as error:
            why = seat.cut or str(error)
        except FedloomError as error:
            why = seat.cut = str(error)
            raise
        finally:
            self._inside.pop(channel, None)
            with hall.changed:
                seat.end(hall.now(), channel)
                hall.changed.notify_all()
            writer.join(HELLO_S)
            self._writers.discard(writer)
            log.info("disconnected", extra={"site": seat.name, "said": why})

    def look_round(self) -> None:
        """Cut off who is denied, also somebody who says nothing."""
        while not self.closing.wait(DENIED_S):
            for channel, (seat, peer) in list(self._inside.items()):
                if seat.channel is channel and (why := self._barred(peer)):
                    seat.cut = why
                    channel.line.close()

    def tell_end(self, status: str, reason: str) -> None:
        """Tell everybody how the run ended, those who are away when they call."""
        self._ended = (status, reason)
        for seat in self.hall.everybody:
            seat.say("end", run=self.hall.run, status=status, reason=reason)

    def end(self) -> None:
        """End the connections once everything has been said."""
        for seat in self.hall.everybody:
            seat.jobs.put(None)
        for writer in list(self._writers):
            writer.join(HELLO_S)
        with self.hall.changed:
            for seat in self.hall.everybody:
                seat.end(self.hall.now())

    # -- what is behind

    def _settled(self, channel: Channel, seat: Seat) -> None:
        """Tell a party which of its replies were counted while it was away; only then may it be asked anew."""
        said = channel.receive(HELLO_S)
        if not isinstance(said, dict) or said["kind"] != "pending":
            raise WireError("after a welcome a party says which of its replies are pending.")
        verdicts = self.verdicts(numbers_of(said, "numbers"), self.hall.answered_by(seat))
        counted = [number for number, yes in verdicts.items() if yes]
        void = [number for number, yes in verdicts.items() if not yes]
        seat.say("settle", run=self.hall.run, counted=counted, void=void)

    def _barred(self, peer: Peer) -> str:
        """Return why a party is heard no more; whoever cannot be looked up is not heard either."""
        try:
            reason = self.denied(peer, DENIED_S)
        except (FedloomError, OSError) as error:
            reason = f"it cannot be looked up, {str(error).rstrip('.')}"
        return f"{peer} is denied: {reason}." if reason else ""

    def _listen(self, channel: Channel, peer: Peer, seat: Seat, writer: Thread) -> None:
        silence_s = 3 * self.hall.leases.beat_s
        self._inside[channel] = seat, peer
        while True:
            said = channel.receive(silence_s)
            if said is None:
                raise LineLost(f"nothing was heard for {silence_s:g} s")
            if seat.channel is not channel:
                raise LineLost("the party has called again")
            if why := self._barred(peer):
                raise WireError(why)
            if isinstance(said, dict) and said["kind"] == "bye":
                seat.left = field_of(said, "leaving", bool, False) or seat.left
                return
            if isinstance(said, dict) and said["kind"] == "leave":
                seat.left = True
                continue
            if isinstance(said, dict) and said["kind"] == "renew":
                peer = self._renewed(seat, peer, field_of(said, "request", dict))
                self._inside[channel] = seat, peer
                continue
            self._heard(seat, said)
            self._slow_down(channel, seat, writer)

    def _heard(self, seat: Seat, said: Message | Chunk) -> None:
        """Let the hall act on this; where this machine cannot keep it, the run stops: nobody's call mends a disk."""
        try:
            self.hall.hear(seat, said)
        except StorageError as error:
            self.hall.fail(error)
            raise
        except FileNotFoundError as error:  # dropped meanwhile; it is sent again, or needed no longer
            raise LineLost(f"what {seat.name} sends is not here any more: {error}") from error
        except OSError as error:
            self.hall.fail(StorageError(f"what {seat.name} sends cannot be kept: {error}."))
            raise

    def _renewed(self, seat: Seat, peer: Peer, request: Mapping[str, Any]) -> Peer:
        """Give a party its next certificate; return who it is by that, or by its present one if there is none now."""
        try:
            answer = dict(self.renew(peer, request))
        except (ConfigError, StorageError, OSError) as error:  # not its own doing: it may stay until it expires
            log.error("not renewed", extra={"site": seat.name, "said": str(error)})
            return peer
        seat.say("certificate", answer=answer)
        return peer_of(answered(answer).encode())

    def _slow_down(self, channel: Channel, seat: Seat, writer: Thread) -> None:
        """Hear no more from a party before it has taken in what it was told, or else what waits would grow."""
        while seat.jobs.qsize() > MOST_UNSAID and seat.channel is channel and writer.is_alive():
            self.closing.wait(0.01)

    def _seated(self, channel: Channel, peer: Peer) -> Seat:
        hello = channel.receive(HELLO_S)
        if not isinstance(hello, dict) or hello["kind"] != "hello":
            raise WireError("a connection begins with hello.")
        if reason := self.denied(peer, 0.0):
            raise WireError(f"{peer} is denied: {reason}.")
        if field_of(hello, "protocol", int) != PROTOCOL:
            raise WireError(
                f"{peer} speaks protocol {hello['protocol']}, the coordinator {PROTOCOL}; take the same fedloom."
            )
        if field_of(hello, "app", str) != self.digest:
            raise WireError(
                f"the app of {peer} is {hello['app'][:12]}, the coordinator's is {self.digest[:12]}; compare the two "
                "files, what --set changes, and the versions."
            )
        members = members_of(hello, peer)
        self.welcome(peer, members)
        seat = self.hall.take_seat(peer.name, members, lambda: self.spool(peer.name))
        seat.key = peer.key
        seat.replace(field_of(hello, "process", str))
        return seat


def members_of(hello: Message, peer: Peer) -> tuple[Member, ...]:
    """Return for whom a party answers; raises `WireError` if a site claims to be somebody else."""
    rows = field_of(hello, "members", list)
    if not 1 <= len(rows) <= MOST_MEMBERS:
        raise WireError(f"a party answers for 1 to {MOST_MEMBERS} members, got {len(rows)}.")
    members = []
    for row in rows:
        match row:
            case [str(name), int(examples)] if 0 < len(name) <= 128 and name.isprintable() and 0 <= examples < 2**48:
                members.append(Member(name, examples))
            case _:
                raise WireError("a member is a name and a number of training examples.")
    if peer.role == "site" and [member.name for member in members] != [peer.name]:
        raise WireError(f"{peer} answers for itself, not for {members[0].name!r}.")
    if len({member.name for member in members}) != len(members):
        raise WireError("two members have the same name.")
    return tuple(members)
