"""dp-accounting behind our own functions: epsilon of one of its events, composed so often.

By privacy loss distributions (PLD), and by Rényi differential privacy (RDP).
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

from ..core.errors import MissingExtra, StrategyError


def pld_epsilon(single: Any, rounds: int, delta: float) -> float:
    """Return epsilon by privacy loss distributions, zero-out, of a dp-accounting event composed so often."""
    from dp_accounting.pld import PLDAccountant

    dp = library()
    if isinstance(single, dp.GaussianDpEvent):  # composes to another Gaussian, in closed form
        accountant = PLDAccountant(dp.NeighboringRelation.REPLACE_SPECIAL)
        return float(accountant.compose(single, rounds).get_epsilon(delta))
    return float(losses(single).self_compose(rounds).get_epsilon_for_delta(delta))


@lru_cache(64)
def losses(single: Any, interval: float = 1e-4) -> Any:
    """Return one release's privacy loss distribution; it takes longer than to compose it, so it is kept for all rounds.

    What the library's accountant would build anew each time it is asked. `interval` is its grid: a coarser one is
    quicker, and an upper bound still.
    """
    from dp_accounting.pld import privacy_loss_distribution as pld

    dp = library()
    relation = dp.NeighboringRelation.REPLACE_SPECIAL
    match single:
        case dp.LaplaceDpEvent():
            return pld.from_laplace_mechanism(single.noise_multiplier, value_discretization_interval=interval)
        case dp.PoissonSampledDpEvent(event=dp.LaplaceDpEvent() as inner):
            return pld.from_laplace_mechanism(
                inner.noise_multiplier,
                value_discretization_interval=interval,
                sampling_prob=single.sampling_probability,
            )
        case dp.PoissonSampledDpEvent(event=dp.GaussianDpEvent() as inner):
            rate = single.sampling_probability
            return pld.from_gaussian_mechanism(
                inner.noise_multiplier,
                value_discretization_interval=interval,
                sampling_prob=rate,
                neighboring_relation=relation,
            )
        case dp.TruncatedSubsampledGaussianDpEvent():
            return pld.from_truncated_subsampled_gaussian_mechanism(
                single.dataset_size,
                single.sampling_probability,
                single.truncated_batch_size,
                single.noise_multiplier,
                value_discretization_interval=interval,
                neighboring_relation=relation,
            )
        case dp.GaussianDpEvent():
            return pld.from_gaussian_mechanism(single.noise_multiplier, value_discretization_interval=interval)
    raise StrategyError(f"privacy loss distributions of {single} are not known.")


def rdp_epsilon(single: Any, rounds: int, delta: float, *, replace: bool = False) -> float:
    """Return epsilon by Rényi differential privacy, of a dp-accounting event composed so often."""
    from dp_accounting.rdp import compute_epsilon

    orders, curve = _curve(single, replace)
    with quiet():
        return float(compute_epsilon(orders, rounds * curve, delta)[0])


@lru_cache(64)
def _curve(single: Any, replaced: bool) -> tuple[Any, Any]:
    """Return orders, and one release's divergences: they add up, so they are kept for all rounds."""
    from dp_accounting.rdp import RdpAccountant

    relations = library().NeighboringRelation
    accountant = RdpAccountant(neighboring_relation=relations.REPLACE_ONE if replaced else relations.REPLACE_SPECIAL)
    with quiet():
        accountant.compose(single)
    return accountant._orders, accountant._rdp


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back what the library logs about orders that it leaves out: that only makes its bound looser."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def library() -> Any:
    """Return dp-accounting; raises `MissingExtra` where it is not installed."""
    try:
        import dp_accounting
    except ModuleNotFoundError as error:
        raise MissingExtra("accounting for privacy needs dp-accounting: pip install 'fedloom[privacy]'") from error
    return dp_accounting


@cache
def version() -> str:
    """Return its version."""
    from importlib import metadata

    return metadata.version("dp-accounting")
