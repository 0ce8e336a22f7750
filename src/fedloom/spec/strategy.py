"""[strategy]: a recipe by its name, its arguments, and what may be said beside them."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from .. import recipes
from ..core.errors import ConfigError
from ..core.parts import Schedule, Weights
from ..core.strategy import Strategy
from ..core.weights import ByExamples, Equal, Given
from ..gather import Encrypted, Plain, SecAgg
from ..select import Poisson
from ..stages import (
    AdaptiveNoise,
    BandNoise,
    Clip,
    FixedPoint,
    GaussianNoise,
    LaplaceNoise,
    LocalGaussianNoise,
    LocalLaplaceNoise,
    NormBound,
    Quantize,
    Rotate,
    SkellamNoise,
    TreeNoise,
)
from .table import Strict, Table, checked, chosen, fitted, made, nearest

STAGES: dict[str, type] = {
    "clip": Clip,
    "fixed_point": FixedPoint,
    "norm_bound": NormBound,
    "quantize": Quantize,
    "gaussian_noise": GaussianNoise,
    "laplace_noise": LaplaceNoise,
    "adaptive_noise": AdaptiveNoise,
    "local_gaussian_noise": LocalGaussianNoise,
    "local_laplace_noise": LocalLaplaceNoise,
    "rotate": Rotate,
    "tree_noise": TreeNoise,
    "band_noise": BandNoise,
    "skellam_noise": SkellamNoise,
}
GATHERS: dict[str, type] = {"plain": Plain, "secagg": SecAgg, "encrypted": Encrypted}
SCHEDULE = ("quorum", "early", "deadline_s", "staleness", "faults")


class StrategyTable(Strict):
    """What every [strategy] may say besides its recipe's own arguments."""

    name: str = "fedavg"
    stages: list[Table] = []
    weights: Literal["examples", "equal"] | dict[str, float] | None = None
    poisson: Annotated[float, Field(gt=0, le=1)] | None = None
    gather: str | Table | None = None
    quorum: int | float | None = None
    early: bool | None = None
    deadline_s: float | None = None
    staleness: str | None = None
    faults: int | None = None


def strategy_of(table: Table, where: str) -> Strategy:
    """Return the strategy of [strategy]; raises `ConfigError` for a recipe or a key that is not known."""
    where = f"{where}: strategy"
    recipe = _recipe(str(table.get("name", "fedavg")), where)
    own = set(inspect.signature(recipe).parameters)
    unknown = sorted(set(table) - own - set(StrategyTable.model_fields))
    if unknown:
        everything = [*own, *StrategyTable.model_fields]
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; {nearest(unknown[0], everything)}")
    arguments = fitted(recipe, {key: value for key, value in table.items() if key in own}, where)
    if "sgd" in arguments:
        arguments["sgd"] = made(recipes.sgd, arguments["sgd"], f"{where}.sgd")
    common = checked(StrategyTable, {key: value for key, value in table.items() if key not in own}, where)
    return _adapted(recipe(**arguments), common, where)


def _recipe(name: str, where: str) -> Callable[..., Strategy]:
    known = {recipe.__name__: recipe for recipe in recipes.RECIPES}
    if name not in known:
        raise ConfigError(f"{where}: there is no recipe {name!r}; {nearest(name, list(known))}")
    return known[name]


def _adapted(strategy: Strategy, common: StrategyTable, where: str) -> Strategy:
    changes: Table = {}
    if common.stages:
        changes["stages"] = tuple(chosen(STAGES, "name", "stage", table, f"{where}.stages") for table in common.stages)
    if common.weights is not None:
        changes["weights"] = _weights(common.weights)
    if common.poisson is not None:
        changes["select"] = Poisson(common.poisson)
    if common.gather is not None:
        table = {"name": common.gather} if isinstance(common.gather, str) else common.gather
        changes["gather"] = chosen(GATHERS, "name", "gather", table, f"{where}.gather")
    changes["schedule"] = _scheduled(strategy.schedule, common, where)
    return replace(strategy, **changes)


def _scheduled(schedule: Any, common: StrategyTable, where: str) -> Schedule:
    given = {name: getattr(common, name) for name in SCHEDULE if getattr(common, name) is not None}
    known = {one.name for one in fields(schedule)}
    for name in given:
        if name not in known:
            raise ConfigError(
                f"{where}: {name!r} is not for {type(schedule).__name__}, which knows {', '.join(sorted(known))}."
            )
    scheduled: Schedule = replace(schedule, **given)
    return scheduled


def _weights(value: str | Mapping[str, float]) -> Weights:
    if isinstance(value, str):
        return ByExamples() if value == "examples" else Equal()
    return Given(value)
