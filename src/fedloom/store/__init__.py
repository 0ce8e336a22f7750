"""What survives a crash: the journal of a run, its states, the folder it lives in."""

from .journal import Journal, RunRow
from .runs import create, listed, locked, opened

__all__ = ["Journal", "RunRow", "create", "listed", "locked", "opened"]
