"""Where parties come in: a listening port, handshakes, enrolment, and a thread for each connection.

Whoever has no certificate may only enrol, with a token that was made for it. All that a stranger can cost is a
handshake, and only so many of those go on at a time, from one address fewer than from all.
"""

import json
import socket
import ssl
from collections.abc import Callable, Collection, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from logging import DEBUG, WARNING, getLogger
from threading import Event, Thread
from typing import Any

from ...core.errors import ConfigError, FedloomError, StorageError, WireError
from ...core.task import Member
from ..channel import peer_at
from ..identity import Peer, peer_of, verify
from ..joining import answered
from .hall import Hall
from .line import CHUNK, CONTROL, ENROL, NONCE, Line, LineLost
from .seats import Seat, writing
from .spool import Spool
from .strangers import Strangers
from .talk import Channel, Message, field_of, numbers_of

log = getLogger(__name__)
HANDSHAKE_S, HELLO_S = 10.0, 30.0
ROLES = ("site", "relay")
STRANGER = "a stranger"
# Called and said nothing: a probe, not worth a warning. Python 3.11.2 raises the first of these, later ones the second.
SILENT = (ssl.SSLZeroReturnError, ssl.SSLEOFError, ConnectionResetError, TimeoutError)
PROTOCOL = 6
MOST_UNSAID = 64
WRITER = "to "
DENIED_S = 1.0  # so soon the denied are heard no more
MOST_MEMBERS = 10_000  # behind one relay

Enrol = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@dataclass(eq=False)
class Door:
    """A listening port.

    Args:
        hall: behind it.
        context: of TLS, which asks for a certificate and does not insist.
        sign: with the coordinator's identity key.
        denied: peer, and how many seconds old what it says may be -> why it may not come in, or None.
        welcome: (peer, members) -> raises for whom there is no seat.
        enrol: a request -> a certificate, or nothing where nobody can enrol.
        renew: (peer, request) -> a certificate.
        verdicts: dispatch numbers -> which of them were counted, of those whose round is closed.
        spool: party -> where its bodies are kept.
        digest: of the app.
        renewal: renews the coordinator's own certificate when it is due.
    """

    hall: Hall
    context: ssl.SSLContext
    sign: Callable[[bytes], bytes]
    denied: Callable[[Peer, float], str | None]
    welcome: Callable[[Peer, tuple[Member, ...]], None]
    enrol: Enrol | None
    renew: Callable[[Peer, Mapping[str, Any]], Mapping[str, Any]]
    verdicts: Callable[[Collection[int]], Mapping[int, bool]]
    spool: Callable[[str], Spool]
    digest: str
    renewal: Callable[[ssl.SSLContext], None] = lambda context: None
    listener: socket.socket | None = None
    _strangers: Strangers = field(default_factory=Strangers)
    _ended: tuple[str, str] | None = None
    _closing: Event = field(default_factory=Event)
    _writers: set[Thread] = field(default_factory=set)
    _inside: dict[Channel, tuple[Seat, Peer]] = field(default_factory=dict)

    def open(self, host: str, port: int) -> int:
        """Listen; return the port, which the system chooses for 0. Raises `WireError` if it is taken."""
        try:
            self.listener = socket.create_server((host, port), backlog=256, reuse_port=False)
        except OSError as error:
            raise WireError(
                f"cannot listen on {host}:{port}: {error.strerror or error}; choose another port."
            ) from error
        _many_files()
        Thread(target=self._accept, args=(self.listener,), name="door", daemon=True).start()
        Thread(target=self._look_round, name="roll", daemon=True).start()
        return int(self.listener.getsockname()[1])

    def close(self, status: str, reason: str, patience_s: float = 0.0) -> None:
        """Tell everybody how it ended, and let nobody in any more.

        Args:
            status, reason: how it ended.
            patience_s: how long to wait for those who are away, or have not said yet that they know.
        """
        self._ended = (status, reason)
        for seat in list(self.hall.seats.values()):
            seat.say("end", run=self.hall.run, status=status, reason=reason)
        self.hall.emptied(patience_s)
        self.shut()

    def shut(self) -> None:
        """Let nobody in any more, and end the connections once everything has been said; parties will call again."""
        self._closing.set()
        if self.listener is not None:
            with suppress(OSError):
                self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
        for seat in list(self.hall.seats.values()):
            seat.jobs.put(None)
        for writer in list(self._writers):
            writer.join(HELLO_S)
        for seat in list(self.hall.seats.values()):
            seat.end(self.hall.now())

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, address = listener.accept()
            except OSError as error:  # such as a caller who hung up, or too many open files: neither closes the door
                if self._closing.wait(0.1):
                    return
                log.warning("not let in", extra={"said": str(error)})
                continue
            if why := self._strangers.enter(address[0]):
                sock.close()
                log.warning("refused", extra={"from": address[0], "said": why})
                continue
            try:
                self.renewal(self.context)
            except (FedloomError, OSError) as error:
                log.error("not renewed", extra={"said": str(error)})
            Thread(target=self._serve, args=(sock, address[0]), name=f"call {address[0]}", daemon=True).start()

    def _serve(self, raw: socket.socket, address: str) -> None:
        who = STRANGER
        known = _Once(lambda: self._strangers.leave(address))
        try:
            raw.settimeout(HANDSHAKE_S)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with closing(self.context.wrap_socket(raw, server_side=True)) as sock:
                if sock.getpeercert(binary_form=True) is None:
                    self._enrolled(Line(sock, HANDSHAKE_S, frozenset({ENROL}), HANDSHAKE_S), address)
                    return
                peer = peer_at(sock, *ROLES)
                who = str(peer)
                line = Line(sock, allowed=frozenset({NONCE, CONTROL, CHUNK}))
                channel = Channel(line, self.sign, lambda sig, message: verify(peer.key, sig, message), True)
                self._session(channel.open(), peer, known)
        except (FedloomError, OSError) as error:
            level = DEBUG if who == STRANGER and isinstance(error, SILENT) else WARNING
            told = {"from": address, "who": who, "error": type(error).__name__, "said": str(error)}
            log.log(level, "refused", extra=told)
        finally:
            known()
            raw.close()

    def _enrolled(self, line: Line, address: str) -> None:
        frame = None
        with suppress(LineLost):
            frame = line.receive(HANDSHAKE_S)
        if frame is None:  # such as somebody who fetches the root certificate before it enrols
            log.debug("said nothing", extra={"from": address})
            return
        if self.enrol is None:
            raise WireError("there is no enrolling here; enrol with the coordinator.")
        try:
            request = json.loads(bytes(frame[1]))
            answer = self.enrol(request if isinstance(request, dict) else {})
        except (ValueError, RecursionError) as error:
            raise WireError("a request to enrol is not JSON.") from error
        except FedloomError as error:
            line.send(ENROL, json.dumps({"refused": str(error)}).encode())
            raise
        line.send(ENROL, json.dumps(dict(answer)).encode())

    def _session(self, channel: Channel, peer: Peer, known: "_Once") -> None:
        try:
            seat = self._seated(channel, peer)
        except FedloomError as error:
            with suppress(LineLost):
                channel.send("refused", code=error.code, reason=str(error))
            raise
        known()
        hall, beat_s = self.hall, self.hall.leases.beat_s
        with hall.changed:
            jobs = seat.begin(channel, hall.now())
            seat.say("welcome", run=hall.run, beat_s=beat_s)  # before any task that somebody may ask it now
        writer = Thread(target=writing, args=(channel, jobs, beat_s), name=f"{WRITER}{seat.name}", daemon=True)
        self._writers.add(writer)
        writer.start()
        if self._ended is not None:
            seat.say("end", run=hall.run, status=self._ended[0], reason=self._ended[1])
        log.info("connected", extra={"site": seat.name})
        why = "left"
        try:
            self._settled(channel, seat)
            hall.come_in(seat, channel)
            self._listen(channel, peer, seat, 3 * beat_s)
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

    def _settled(self, channel: Channel, seat: Seat) -> None:
        """Tell a party which of its replies were counted while it was away; only then may it be asked anew."""
        said = channel.receive(HELLO_S)
        if not isinstance(said, dict) or said["kind"] != "pending":
            raise WireError("after a welcome a party says which of its replies are pending.")
        verdicts = self.verdicts(numbers_of(said, "numbers"))
        counted = [number for number, yes in verdicts.items() if yes]
        void = [number for number, yes in verdicts.items() if not yes]
        seat.say("settle", run=self.hall.run, counted=counted, void=void)

    def _look_round(self) -> None:
        """Cut off who is denied, also somebody who says nothing."""
        while not self._closing.wait(DENIED_S):
            for channel, (seat, peer) in list(self._inside.items()):
                if seat.channel is channel and (why := self._barred(peer)):
                    seat.cut = why
                    channel.line.close()

    def _barred(self, peer: Peer) -> str:
        """Return why a party is heard no more; whoever cannot be looked up is not heard either."""
        try:
            reason = self.denied(peer, DENIED_S)
        except (FedloomError, OSError) as error:
            reason = f"it cannot be looked up, {str(error).rstrip('.')}"
        return f"{peer} is denied: {reason}." if reason else ""

    def _listen(self, channel: Channel, peer: Peer, seat: Seat, silence_s: float) -> None:
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
            self.hall.hear(seat, said)
            self._slow_down(channel, seat)

    def _renewed(self, seat: Seat, peer: Peer, request: Mapping[str, Any]) -> Peer:
        """Give a party its next certificate; return who it is by that, or by its present one if there is none now."""
        try:
            answer = dict(self.renew(peer, request))
        except (ConfigError, StorageError, OSError) as error:  # not its own doing: it may stay until it expires
            log.error("not renewed", extra={"site": seat.name, "said": str(error)})
            return peer
        seat.say("certificate", answer=answer)
        return peer_of(answered(answer).encode())

    def _slow_down(self, channel: Channel, seat: Seat) -> None:
        """Hear no more from a party before it has taken in what it was told, or else what waits would grow."""
        while seat.jobs.qsize() > MOST_UNSAID and seat.channel is channel:
            self._closing.wait(0.01)

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


def _many_files() -> None:
    """Let this process have as many open files as it may: each party takes one, and a few while it sends."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


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


@dataclass(eq=False)
class _Once:
    """Something that is done once, whoever comes first to do it."""

    do: Callable[[], object]
    done: bool = False

    def __call__(self) -> None:
        if not self.done:
            self.done = True
            self.do()
