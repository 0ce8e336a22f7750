"""What was asked and is not answered, by ask; whoever uses it holds the hall's lock."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .seats import Given, Seat


@dataclass(eq=False)
class Awaited:
    """Tasks that somebody waits for: each lies at its party's seat, and here under its ask."""

    _seats: dict[int, dict[tuple[str, str], Seat]] = field(default_factory=dict)  # by ask: seat's name and task's key

    def add(self, seat: Seat, given: Given) -> None:
        """Wait for a task."""
        seat.given[given.key] = given
        self._seats.setdefault(given.ask, {})[seat.name, given.key] = seat

    def remove(self, seat: Seat, given: Given) -> None:
        """Wait for a task no more; what has come of an answer is let go of."""
        del seat.given[given.key]
        self._seats[given.ask].pop((seat.name, given.key))
        seat.expect_no_more([given.key])

    def of(self, ask: int) -> Sequence[tuple[Seat, Given]]:
        """Return what was asked there and is neither answered nor asked again in another ask."""
        found = [(seat, seat.given.get(key)) for (_, key), seat in self._seats.get(ask, {}).items()]
        return [(seat, given) for seat, given in found if given is not None and given.ask == ask]

    def end(self, ask: int) -> dict[Seat, list[Given]]:
        """Wait for nothing of an ask any more; return what was not answered, by seat."""
        ended: dict[Seat, list[Given]] = {}
        for seat, given in self.of(ask):
            self.remove(seat, given)
            ended.setdefault(seat, []).append(given)
        self._seats.pop(ask, None)
        return ended
