"""What a part does for differential privacy, as data: the accountant judges it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class DpEvent:
    """What a part does for differential privacy, as data for the accountant; not private unless it says otherwise.

    Args:
        kind: of mechanism or sampling, as `privacy/translate.py` knows them.
        values: its numbers, by name.
        inner: what is sampled or composed.

    >>> DpEvent("poisson sampled", {"rate": 0.1}, (DpEvent("gaussian", {"noise_multiplier": 1.0}),)).private
    True
    """

    kind: str = "not private"
    values: Mapping[str, float] = field(default_factory=dict)
    inner: tuple["DpEvent", ...] = ()

    @property
    def private(self) -> bool:
        """Does it claim anything? Noise that is drawn from a seed does not."""
        if self.inner:
            return any(event.private for event in self.inner)
        return self.kind not in (NOT_PRIVATE.kind, SEEDED.kind)


NOT_PRIVATE = DpEvent()
SEEDED = DpEvent("noise from a seed, for tests")
EXAMPLES = "examples"  # the kind of a mechanism on lots of each client's own examples; its values are `lots`' settings
