"""What rounds cost whose noise is correlated by `BandNoise`: one Gaussian, as long as a client's parts can be."""

from dataclasses import dataclass
from functools import cache

from ..stages.band_noise import sensitivity

AFTER = 4096  # rounds that may follow a client's last part, where nobody says how many did


@dataclass(frozen=True)
class Bands:
    """Sums over rounds with banded noise.

    Args:
        noise_multiplier: of each vector z.
        bands: how many; every: rounds between two parts of a client.
        parts: is it told how many parts a client had, in place of how many rounds there were?
    """

    noise_multiplier: float
    bands: int
    every: int
    parts: bool = False

    def epsilon(self, count: int, delta: float) -> float:
        """Return epsilon of so many rounds, or of so many parts of one client.

        >>> round(Bands(3.730632, bands=1, every=1).epsilon(1, 1e-5), 4)
        1.0
        """
        return _epsilon(self, count, delta)


@cache
def _epsilon(what: Bands, count: int, delta: float) -> float:
    from dp_accounting import get_epsilon_gaussian

    rounds = (count - 1) * what.every + 1 + AFTER if what.parts else count
    longest = sensitivity(what.bands, what.every, rounds, count if what.parts else None)
    return float(get_epsilon_gaussian(what.noise_multiplier / longest, delta))
