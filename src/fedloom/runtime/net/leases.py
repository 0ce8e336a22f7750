"""How long a coordinator waits for whom."""

from dataclasses import dataclass

from ...core.errors import ConfigError
from ...core.task import Evaluate
from .seats import Given, Seat

YEAR_S = 31_536_000.0  # a year: what is longer than the clock's dates reach cannot be told
SHORTEST_BEAT_S, LONGEST_BEAT_S = 0.1, 3600.0


@dataclass(frozen=True, kw_only=True)
class Leases:
    """How long the coordinator waits, in seconds: each above 0 and at most `YEAR_S`, but for the beat.

    Args:
        away_s: for a party that is not connected, before its tasks are given up.
        task_s: for the answer to a task, even if the party is there.
        evaluate_s: for the answer to an evaluation, whether the party is there or not: the run goes on without it. Who
            trains has that time once it has trained.
        beat_s: between signs of life, from `SHORTEST_BEAT_S` to `LONGEST_BEAT_S`; three missing end a connection.
    """

    away_s: float = 600.0
    task_s: float = 86_400.0
    evaluate_s: float = 120.0
    beat_s: float = 10.0

    def __post_init__(self) -> None:
        for name, option in (("away_s", "--away"), ("task_s", "--lease"), ("evaluate_s", "--evaluate")):
            timed(f"Leases.{name} ({option})", getattr(self, name))
        if not beating(self.beat_s):
            raise ConfigError(
                f"Leases.beat_s must be from {SHORTEST_BEAT_S:g} to {LONGEST_BEAT_S:,.0f} s, got {self.beat_s:g}."
            )

    def lapse(self, given: Given, seat: Seat) -> tuple[float, str]:
        """Return when a task is given up, and the reason: a sentence."""
        late = given.since + self.task_s, f"no answer for {self.task_s:g} s"
        trains = seat.away is None and given.task.party in seat.training
        if isinstance(given.task.body, Evaluate) and not trains:
            since = max(given.since, seat.free)
            late = since + self.evaluate_s, f"no answer to an evaluation for {self.evaluate_s:g} s"
        if seat.away is None:
            return late
        return min(late, (max(given.since, seat.away) + self.away_s, f"not connected for {self.away_s:g} s"))


def beating(seconds: float) -> bool:
    """Can there be so many seconds between signs of life?

    >>> beating(10.0), beating(0.0)
    (True, False)
    """
    return SHORTEST_BEAT_S <= seconds <= LONGEST_BEAT_S


def timed(name: str, seconds: float) -> None:
    """Raise `ConfigError` for a time that nobody can wait for.

    >>> timed("Leases.away_s", 600.0)
    """
    if not 0 < seconds <= YEAR_S:  # NaN is neither
        raise ConfigError(
            f"{name} must be above 0 s and at most {YEAR_S:,.0f} s, a year, got {seconds:g}; take a time between."
        )
