"""When: the only loops over rounds."""

from .sync import Sync

__all__ = ["Sync"]
