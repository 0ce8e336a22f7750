"""How a cohort's updates reach the server."""

from .plain import Plain

__all__ = ["Plain"]
