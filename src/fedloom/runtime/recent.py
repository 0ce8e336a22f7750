"""A value that many ask for, and that is looked up again only once it is too old."""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False)
class Recent(Generic[T]):
    """A value, as it was found at most so long ago; one thread looks, and the others wait for it.

    Args:
        look: returns the value; what it raises is raised, and the next one looks again.
        now: the clock, in seconds.

    >>> times = iter([0.0, 0.5, 1.0, 1.5])
    >>> tide = Recent(iter(["low", "high"]).__next__, lambda: next(times))
    >>> tide.get(1.0), tide.get(1.0), tide.get(1.0), tide.get(1.0)
    ('low', 'low', 'low', 'high')
    """

    look: Callable[[], T]
    now: Callable[[], float] = monotonic
    _found: list[T] = field(default_factory=list)  # one, or none
    _at: float = 0.0
    _looking: Lock = field(default_factory=Lock)

    def get(self, age_s: float) -> T:
        """Return the value as it was at most so many seconds ago."""
        with self._looking:
            began = self.now()
            if not self._found or began - self._at > age_s:
                self._found = []
                self._found, self._at = [self.look()], began
            return self._found[0]
