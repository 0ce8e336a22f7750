"""How a cohort's updates reach the server."""

from .encrypted import Encrypted
from .plain import Plain
from .secagg import SecAgg

__all__ = ["Encrypted", "Plain", "SecAgg"]
