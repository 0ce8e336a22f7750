"""Means and scales of numeric columns over all sites: two rounds of sums, and no look at anybody's rows.

First every site sends Σx and the number of present cells, then Σ(x - mean)². A sum is sent as a fixed-point number of
320 bits in ten limbs of 32, each a count of the update: exact in any order and grouping, and nothing about a column's
magnitude has to be known or revealed beforehand (a long accumulator as in Kulisch, "Computer Arithmetic and
Validity", 2008, cut down to what columns need). Besides the total, a sum of limbs shows the carries between them.
Range: |x| < 2^63, at most 2^32 rows at a site and 2^20 sites; spreads below 2^-64 count as none.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ConfigError, DataError, QuorumLost, UpdateError
from ..core.layout import Layout, Leaf
from ..core.task import Measure
from ..core.update import Update, fold, verify, weigh
from .schema import Schema

LIMBS, BITS, FRACTION_BITS, SITES = 10, 32, 158, 2**20


def layout_of(what: str, names: Sequence[str]) -> Layout:
    """Return the layout of a pass: for each column its limbs, lowest first, and the number of present cells."""
    if what not in ("mean", "variance"):
        raise ConfigError(f'a statistic is "mean" or "variance", got {what!r}.')
    leaf = {"shape": (LIMBS + 1,), "dtype": "float64", "kind": "count", "bound": 2.0**BITS}
    return Layout(tuple(Leaf(f"{what} of {name}", **leaf) for name in names)).weighted(SITES)  # type: ignore[arg-type]


def measure(columns: Mapping[str, NDArray[np.float64]], what: str, known: Mapping[str, Any]) -> Update:
    """Return one site's sums.

    Args:
        columns: numeric columns, each of shape `(n,)`, NaN where a cell is missing.
        what: "mean" (Σx) or "variance" (Σ(x - mean)²).
        known: for "variance", {"mean": …} by column.
    """
    layout = layout_of(what, tuple(columns))
    parts = [_sums(name, values[~np.isnan(values)], what, known) for name, values in columns.items()]
    return weigh(np.concatenate([np.empty(0), *parts]), layout, 1.0)


def statistics(ask: Callable[[Measure], Sequence[Update]], schema: Schema | None) -> dict[str, dict[str, float]]:
    """Return {"mean": …, "scale": …} by numeric column, over the training rows of all sites.

    scale = sqrt(Σ(x - mean)²/n), the population's standard deviation; 1 for a constant column.

    Args:
        ask: sends the request to all members and returns their updates, merged or not, in any order.
        schema: of the source; None (images, arrays) or one without numeric columns asks nothing.

    Raises `DataError` for a column without a single present cell at any site, `UpdateError` for a malformed answer.

    >>> site = {"age": np.array([40.0, 60.0, np.nan])}
    >>> from .schema import Column
    >>> schema = Schema((Column("age", missing="mean"),), "sick", classes=("no", "yes"))
    >>> statistics(lambda body: [measure(site, body.what, body.known)], schema)
    {'age': {'mean': 50.0, 'scale': 10.0}}
    """
    names = schema.numeric if schema is not None else ()
    if not names:
        return {}
    means = {name: {"mean": float(mean)} for name, mean in _means(ask(Measure("mean")), "mean", names).items()}
    variances = _means(ask(Measure("variance", means)), "variance", names)
    return {name: {**means[name], "scale": math.sqrt(variances[name]) or 1.0} for name in names}


def checked(update: Update, what: str, names: Sequence[str]) -> Update:
    """Return one site's answer; raises `UpdateError` for what no rows give, so that it is known whose it is."""
    sums = verify(update, layout_of(what, names)).vector[:-1].reshape(len(names), LIMBS + 1)
    if what == "variance" and any(_joined(row[:-1]) < 0 for row in sums):
        raise UpdateError("a sum of squared deviations is negative; the site has sent something else.")
    return update


def _means(updates: Sequence[Update], what: str, names: Sequence[str]) -> dict[str, Fraction]:
    if not updates:
        raise QuorumLost(f"no site answered when asked for the {what} of its columns.")
    layout = layout_of(what, names)
    first, *others = (verify(update, layout) for update in updates)
    parts = reduce(fold, others, fold(None, first)).vector[:-1].reshape(len(names), LIMBS + 1)
    empty = [name for name, part in zip(names, parts, strict=True) if part[-1] < 1]
    if empty:
        raise DataError(
            f"column {empty[0]!r}: the cell is missing in every training row of every site; leave the column out."
        )
    means = {name: _joined(part[:-1]) / int(part[-1]) for name, part in zip(names, parts, strict=True)}
    if what == "variance" and min(means.values()) < 0:
        raise UpdateError("a sum of squared deviations is negative; a site has sent something else.")
    return means


def _sums(name: str, present: NDArray[np.float64], what: str, known: Mapping[str, Any]) -> NDArray[np.float64]:
    if what == "variance":
        if "mean" not in known.get(name, {}):
            raise DataError(f"column {name!r}: no mean is known; the schema here is not the one of the run.")
        present = (present - known[name]["mean"]) ** 2
    return np.array([*_limbs(exact_sum(present.tolist())), len(present)], np.float64)


def exact_sum(values: list[float]) -> Fraction:
    """Return Σ of the values to twice the digits of a float: the rounded sum, and what rounding it left.

    >>> exact_sum([0.1] * 10) / 10 == Fraction(0.1)
    True
    """
    rounded = math.fsum(values)
    return Fraction(rounded) + Fraction(math.fsum([*values, -rounded]))


def _limbs(value: Fraction) -> list[int]:
    whole = round(value * 2**FRACTION_BITS)
    if abs(whole) >> BITS * LIMBS:
        raise DataError("a column's numbers are not below 2^63; change its unit.")
    sign = -1 if whole < 0 else 1
    return [sign * (abs(whole) >> BITS * at & (2**BITS - 1)) for at in range(LIMBS)]


def _joined(limbs: NDArray[np.float64]) -> Fraction:
    return Fraction(sum(int(limb) << BITS * at for at, limb in enumerate(limbs)), 2**FRACTION_BITS)
