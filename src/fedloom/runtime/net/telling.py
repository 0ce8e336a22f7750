"""What a party tells: its own people what happens and why a call failed, the coordinator no more than it may know."""

import ssl
from typing import Protocol, TypeGuard

from ...core.errors import FedloomError, WireError
from ..identity import utc_now

UNREAD = "this site could not take the task in; its log says why."  # a text could name a folder
WRONG_NAME = (62, 64)  # OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
WRONG_TIME = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED


class Told(Protocol):
    """Whoever is told what happens at a party."""

    def __call__(self, event: str, /, **values: str | int) -> None:
        """Learn of an event: its name, which is one of a few, and its values; `said` is a sentence for people."""
        ...


def why(error: OSError, host: str) -> str:
    """Return why a call failed, and where the words of OpenSSL alone would not say it, what to do.

    >>> why(OSError("Connection refused"), "hub")
    'Connection refused'
    """
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in WRONG_TIME:
        return (
            f"by this machine's clock, {utc_now():%Y-%m-%d %H:%M} UTC, the coordinator's certificate is not valid "
            f"({error.verify_message}); set the clock, here or there"
        )
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in WRONG_NAME:
        return (
            f"the coordinator's certificate is not for {host}; give --server a name that `fedloom provision --host` got"
        )
    return str(error)


def unreached(cause: BaseException | None) -> TypeGuard[OSError]:
    """Return whether nobody was there. Whoever shows a wrong certificate, or speaks no TLS, does so the next time too.

    >>> unreached(ConnectionRefusedError()), unreached(ssl.SSLCertVerificationError())
    (True, False)
    """
    return isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError)


def tellable(error: FedloomError) -> str:
    """Return what the coordinator is told: sentences about the wire, which hold nothing of the site."""
    return str(error) if isinstance(error, WireError) else UNREAD
