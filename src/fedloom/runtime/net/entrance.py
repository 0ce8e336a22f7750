"""The door of a federation whose authority and credentials lie in one home: a coordinator's, or a relay's."""

from collections.abc import Callable
from datetime import UTC, datetime
from ssl import SSLContext

from ...core.task import Member
from ...store.dispatches import Dispatches
from ..authority import Authority
from ..credentials import Credentials
from ..identity import Peer
from .door import Door
from .hall import Hall
from .reception import Reception
from .spool import Spool


def entrance(
    hall: Hall,
    *,
    authority: Authority,
    credentials: Credentials,
    log: Dispatches,
    seatable: Callable[[Peer, tuple[Member, ...]], None],
    spool: Callable[[str], Spool],
    digest: str,
) -> Door:
    """Return the door, which is not open yet.

    Args:
        hall: behind it.
        authority: lets in, enrols and renews; credentials: what the door shows.
        log: knows which dispatches were counted.
        seatable: raises for whom there is no seat.
        spool: party -> where its bodies are kept.
        digest: of the app.
    """

    def renewed(context: SSLContext) -> None:
        if credentials.due_for_renewal(datetime.now(UTC)):
            authority.renew_own()
            credentials.reload(context)

    reception = Reception(hall, authority.denied, seatable, authority.renew, log.verdicts, spool=spool, digest=digest)
    return Door(reception, credentials.server_context(), credentials.sign, authority.enrol, renewed)
