"""Who is asked."""

from .selectors import Everyone, Poisson, Uniform

__all__ = ["Everyone", "Poisson", "Uniform"]
