"""What a database complains of: whether it is gone, so that a run can go on later, in words that hold no URL of it.

A reason is told to every site, and a database's URL says where it is, and may hold a password.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from ..core.errors import RunError, StorageError

# Classes of SQLSTATE (PostgreSQL manual, appendix A): no connection, read only (a standby), not let in, no such
# database, a clash with others, full, in use, shut down, the server's own disk.
_PASSING = ("08", "25", "28", "3D", "40", "53", "55", "57", "58")


def unusable(engine: Engine, error: DBAPIError | OSError) -> RunError:
    """Return what the database complains of: that it cannot be reached or written now, or that it is damaged."""
    kind = StorageError if _passes(error) else RunError
    return kind(f"{called(engine)} cannot be read or written: {_words(error)}.")


def called(engine: Engine) -> str:
    """Return what a journal is called in errors: a file by its path, another database not by its URL."""
    return f"the journal {engine.url.database}" if engine.dialect.name == "sqlite" else "the journal's database"


def _passes(error: DBAPIError | OSError) -> bool:
    if isinstance(error, OSError | OperationalError | InterfaceError) or error.connection_invalidated:
        return True
    return str(_said(error.orig).get("C", "")).startswith(_PASSING)


def _words(error: DBAPIError | OSError) -> str:
    """Return why there is no connection (a driver adds the host to that), or what the server says, or the driver.

    >>> _words(ConnectionRefusedError(111, "Connection refused"))
    'no connection (Connection refused)'
    """
    orig = error.orig if isinstance(error, DBAPIError) else error
    cause = orig if orig is None or orig.__cause__ is None else orig.__cause__
    if isinstance(cause, OSError):
        return f"no connection ({cause.strerror or type(cause).__name__})"
    return str(_said(orig).get("M", orig))


def _said(error: BaseException | None) -> Mapping[str, Any]:
    """Return what PostgreSQL's server says, as pg8000 hands it on: "C" is its SQLSTATE, "M" words."""
    return error.args[0] if error is not None and error.args and isinstance(error.args[0], dict) else {}
