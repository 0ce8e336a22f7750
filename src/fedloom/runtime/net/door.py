"""Where parties come in: a listening port, handshakes, enrolment, and a thread for each connection.

Whoever has no certificate may only enrol, with a token that was made for it. All that a stranger can cost is a
handshake, and only so many of those go on at a time, from one address fewer than from all.
"""

import json
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from errno import EADDRNOTAVAIL
from logging import DEBUG, WARNING, getLogger
from threading import Thread
from typing import Any

from ...core.errors import FedloomError, WireError
from ..channel import peer_at
from ..identity import verify
from .line import CHUNK, CONTROL, ENROL, NONCE, Line, LineLost
from .reception import Reception
from .strangers import Strangers
from .talk import Channel

log = getLogger(__name__)
HANDSHAKE_S = 10.0
ROLES = ("site", "relay")
STRANGER = "a stranger"
# Called and said nothing: a probe, not worth a warning. Python 3.11.2 raises the first of these, later ones the second.
SILENT = (ssl.SSLZeroReturnError, ssl.SSLEOFError, ConnectionResetError, TimeoutError)

Enrol = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@dataclass(eq=False)
class Door:
    """A listening port.

    Args:
        reception: behind it: takes who has shown a certificate to its seat.
        context: of TLS, which asks for a certificate and does not insist.
        sign: with the coordinator's identity key.
        enrol: a request -> a certificate, or nothing where nobody can enrol.
        renewal: renews the coordinator's own certificate when it is due.
    """

    reception: Reception
    context: ssl.SSLContext
    sign: Callable[[bytes], bytes]
    enrol: Enrol | None
    renewal: Callable[[ssl.SSLContext], None] = lambda context: None
    listener: socket.socket | None = None
    _strangers: Strangers = field(default_factory=Strangers)

    def open(self, host: str, port: int) -> int:
        """Listen; return the port, which the system chooses for 0. Raises `WireError` if it is taken."""
        try:
            self.listener = socket.create_server((host, port), backlog=256, reuse_port=False)
        except OSError as error:
            elsewhere = isinstance(error, socket.gaierror) or error.errno == EADDRNOTAVAIL
            then = "it is no address of this machine; 0.0.0.0 is all of them." if elsewhere else "choose another port."
            raise WireError(f"cannot listen on {host}:{port}: {error.strerror or error}; {then}") from error
        _many_files()
        Thread(target=self._accept, args=(self.listener,), name="door", daemon=True).start()
        Thread(target=self.reception.look_round, name="roll", daemon=True).start()
        return int(self.listener.getsockname()[1])

    def close(self, status: str, reason: str, patience_s: float = 0.0) -> None:
        """Tell everybody how it ended, and let nobody in any more.

        Args:
            status, reason: how it ended.
            patience_s: how long to wait for those who are away, or have not said yet that they know.
        """
        self.reception.tell_end(status, reason)
        self.reception.hall.emptied(patience_s)
        self.shut()

    def shut(self) -> None:
        """Let nobody in any more, and end the connections once everything has been said; parties will call again."""
        self.reception.closing.set()
        if self.listener is not None:
            with suppress(OSError):
                self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
        self.reception.end()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, address = listener.accept()
            except OSError as error:  # such as a caller who hung up, or too many open files: neither closes the door
                if self.reception.closing.wait(0.1):
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
            self._take(sock, address[0])

    def _take(self, sock: socket.socket, address: str) -> None:
        """Give a call a thread of its own; where there is none to have, hang up: the next one may do better."""
        try:
            Thread(target=self._serve, args=(sock, address), name=f"call {address}", daemon=True).start()
        except RuntimeError as error:
            self._strangers.leave(address)
            sock.close()
            log.warning("not let in", extra={"from": address, "said": str(error)})

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
                self.reception.session(channel.open(), peer, known)
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


def _many_files() -> None:
    """Let this process have as many open files as it may: each party takes one, and a few while it sends."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@dataclass(eq=False)
class _Once:
    """Something that is done once, whoever comes first to do it."""

    do: Callable[[], object]
    done: bool = False

    def __call__(self) -> None:
        if not self.done:
            self.done = True
            self.do()
