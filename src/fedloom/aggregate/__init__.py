"""How many updates become one direction."""

from .mean import Mean
from .median import Median

__all__ = ["Mean", "Median"]
