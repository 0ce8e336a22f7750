"""What sums with Skellam noise cost: a Rényi curve of our own, since dp-accounting has none."""

from dataclasses import dataclass

from ..core.errors import MissingExtra

ORDERS = (*range(2, 129), 160, 192, 256, 384, 512, 1024)


def divergence(order: int, l2: float, l1: float, variance: float) -> float:
    """Return a bound on the Rényi divergence of Skellam noise, moved by a vector of whole numbers, from itself.

    α·Δ₂²/(2V) + min(((2α - 1)·Δ₂² + 6·Δ₁)/(4V²), 3·Δ₁/(2V)): Agarwal, Kairouz and Liu, "The Skellam mechanism for
    differentially private federated learning", NeurIPS 2021 (arXiv 2110.04995), the multi-dimensional bound.

    Args:
        order: α, a whole number of at least 2.
        l2: length of the vector, in steps; l1: its L1 norm, at most l2², since a whole number is at most its square.
        variance: V of each coordinate of the noise, in squared steps.

    >>> round(divergence(2, l2=1.0, l1=1.0, variance=100.0), 6)
    0.010225
    """
    rest = min(((2 * order - 1) * l2**2 + 6 * l1) / (4 * variance**2), 3 * l1 / (2 * variance))
    return order * l2**2 / (2 * variance) + rest


@dataclass(frozen=True)
class SkellamSum:
    """Sums of whole numbers with Skellam noise.

    Args:
        noise_multiplier: z, the noise's standard deviation over the longest that one client's whole numbers are.
        steps: that length is at least so many steps; of a longer one, the same z costs less.
    """

    noise_multiplier: float
    steps: float

    def rdp(self, order: int) -> float:
        """Return the curve at α: with Δ₁ <= Δ₂² and V = (z·Δ₂)² the bound falls with Δ₂, so its least stands for all.

        >>> round(SkellamSum(1.0, 2.0**16).rdp(2), 6)
        1.0
        """
        longest = self.steps
        return divergence(order, longest, longest**2, (self.noise_multiplier * longest) ** 2)

    def epsilon(self, rounds: int, delta: float) -> float:
        """Return epsilon of so many sums, converted by dp-accounting.

        >>> round(SkellamSum(1.0, 2.0**18).epsilon(1, 1e-5), 4)
        4.7527
        """
        try:
            from dp_accounting.rdp import compute_epsilon
        except ModuleNotFoundError as error:
            raise MissingExtra("accounting for privacy needs dp-accounting: pip install 'fedloom[privacy]'") from error
        return float(compute_epsilon(ORDERS, [rounds * self.rdp(order) for order in ORDERS], delta)[0])
