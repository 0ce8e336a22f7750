"""How a party calls again: later each time, and no two at once."""

from collections.abc import Iterator
from secrets import SystemRandom

FIRST_S, MOST_S = 0.5, 60.0
BACK_S = 1.5 * MOST_S  # so late a party may call that was here in the coordinator's last process


def pauses() -> Iterator[float]:
    """Yield the seconds before each next call: doubled from `FIRST_S` to `MOST_S`, times a number drawn in [0.5, 1.5).

    >>> first, second, *_ = zip(range(9), pauses())
    >>> 0.25 <= first[1] < 0.75, 0.5 <= second[1] < 1.5
    (True, True)
    """
    wait_s, draws = FIRST_S, SystemRandom()
    while True:
        yield wait_s * (0.5 + draws.random())
        wait_s = min(MOST_S, 2 * wait_s)
