"""Who is asked."""

from .cyclic import Cyclic
from .selectors import Everyone, Poisson, Steady, Uniform

__all__ = ["Cyclic", "Everyone", "Poisson", "Steady", "Uniform"]
