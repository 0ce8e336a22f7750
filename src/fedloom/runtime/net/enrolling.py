"""How somebody without a certificate asks for one: the only frame that a stranger may send, and its answer."""

import json
import socket
import ssl
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from ...core.errors import AccessDenied, WireError
from ..channel import peer_at
from .line import ENROL, Line
from .telling import why

CONNECT_S, PATIENCE_S = 15.0, 30.0


def enrolled(
    name: str, server: tuple[str, int], context: ssl.SSLContext, request: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return what a coordinator, or a relay, answers to a request to enrol, which `finish_enrolment` takes.

    Args:
        name: of whoever asks.
        server: host and port.
        context: of `enrolment_context`, which trusts the root that the token names.
        request: of `prepare_enrolment`.

    Raises `WireError` if it cannot be reached or does not answer, `AccessDenied` if it refuses.
    """
    try:
        with (
            socket.create_connection(server, CONNECT_S) as raw,
            closing(context.wrap_socket(raw, server_hostname=server[0])) as sock,
        ):
            peer_at(sock, "coordinator", "relay")
            line = Line(sock, PATIENCE_S, allowed=frozenset({ENROL}))
            line.send(ENROL, json.dumps(request).encode())
            frame = line.receive(PATIENCE_S)
    except OSError as error:
        raise WireError(f"{name} cannot enrol: {why(error, server[0])}.") from error
    if frame is None:
        raise WireError("the coordinator did not answer the request to enrol; try again.")
    answer: Mapping[str, Any] = json.loads(bytes(frame[1]))
    if "refused" in answer:
        raise AccessDenied(f"the coordinator refuses to enrol {name!r}: {answer['refused']}")
    return answer
