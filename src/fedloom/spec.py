"""Apps without code: what a TOML file may say, and the typed objects that it means, one to one.

Every table is checked by pydantic; a key that is not known is an error that names the nearest known one.
"""

import inspect
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from . import recipes
from .adapters.losses import named
from .app import App, Data
from .core.errors import ConfigError
from .core.needs import Needs
from .core.parts import Schedule, Stage, Weights
from .core.strategy import Strategy
from .core.weights import ByExamples, Equal, Given
from .data import KNOWN, Column, Csv, Idx, Npz, Parquet, Partition, Schema, Shifted, SklearnSet, Source
from .data.partition import ByColumn, Dirichlet, Drawn, Iid, Quantity, Shards, Whole
from .data.sources import SKLEARN_SETS
from .gather import Encrypted, Plain, SecAgg
from .models import BuiltIn
from .runtime.traces import Traces
from .select import Poisson
from .stages import (
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
from .stop import Stop

Table = dict[str, Any]
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
PARTITIONS: dict[str, type] = {
    "iid": Iid,
    "dirichlet": Dirichlet,
    "shards": Shards,
    "quantity": Quantity,
    "drawn": Drawn,
    "by_column": ByColumn,
    "whole": Whole,
}
ARRAYS: dict[str, type] = {"idx": Idx, "npz": Npz}
TABLES = ("csv", "parquet")
SCHEDULE = ("quorum", "early", "deadline_s", "staleness", "faults")


class Strict(BaseModel):
    """A table in which every key is known."""

    model_config = ConfigDict(extra="forbid", strict=False)


class AppTable(Strict):
    """The top of the file."""

    name: str | None = None
    seed: int = 0
    rounds: int = Field(20, ge=1)
    evaluate_every: int = Field(1, ge=1)
    evaluate_sites: int | None = Field(None, ge=1)
    data: str | Table
    clients: int | None = Field(None, ge=1)
    model: str | Table = "logistic"
    loss: str | None = None
    strategy: str | Table = "fedavg"
    target: dict[str, float] = {}
    stop: Table = {}
    needs: Table = {}


class NeedsTable(Strict):
    """[needs], and [needs.clients.NAME]."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int | str = 0
    clients: dict[str, Table] = {}


class DataTable(Strict):
    """[data]: a known set, one of scikit-learn's, or one's own file."""

    source: str
    path: str | None = None
    test_path: str | None = None
    delimiter: str = ","
    holdout: float | None = Field(None, ge=0, lt=1)
    scaling: Literal["measured", "range"] = "measured"
    partition: str | Table | None = None
    label: Table | None = None
    columns: dict[str, Table] = {}
    arrays: Table = {}


class LabelTable(Strict):
    """[data.label]."""

    column: str
    task: Literal["binary", "multiclass", "regression"] = "binary"
    classes: list[str | int | float] = []
    positive: str | int | float | None = None
    above: float | None = None
    missing: Literal["error", "drop"] = "error"
    missing_values: list[str] = [""]


class ColumnTable(Strict):
    """[data.columns.NAME]."""

    kind: Literal["numeric", "categorical"] = "numeric"
    categories: list[str | int | float] = []
    missing: Literal["error", "mean", "other", "drop"] = "error"
    indicator: bool = False
    unseen: Literal["error", "ignore"] = "error"
    range: tuple[float, float] | None = None
    missing_values: list[str] = [""]
    scaling: Literal["measured", "range"] = "measured"


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


def load(path: Path, overrides: Sequence[str] = ()) -> App:
    """Return the app that a TOML file describes; raises `ConfigError` with the file's name and the key."""
    table = _read(path)
    for override in overrides:
        put(table, override)
    return build(table, path.parent, path.name, path.stem)


def _read(path: Path) -> Table:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; check the name.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from error


def put(table: Table, override: str) -> None:
    """Write "strategy.cohort=10" into a table; a name that stands for a table becomes one first.

    >>> put(table := {"strategy": "fedavg"}, "strategy.cohort=10")
    >>> table
    {'strategy': {'name': 'fedavg', 'cohort': 10}}
    """
    key, given, value = override.partition("=")
    if not given or not key.strip():
        raise ConfigError(f"--set takes key=value, such as rounds=5; got {override!r}.")
    *way, last = key.strip().split(".")
    for part in way:
        inner = table.setdefault(part, {})
        if isinstance(inner, str):
            inner = table[part] = {_shorthand(part): inner}
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {key}: {part!r} is a value and has no parts.")
        table = inner
    whole = last in table and isinstance(table[last], dict) and isinstance(parsed(value), str)
    if whole and last in ("model", "strategy", "data"):
        table[last] = {**table[last], _shorthand(last): parsed(value)}
    else:
        table[last] = parsed(value)


def parsed(text: str) -> Any:
    """Return a TOML value, or the text itself where it is a bare word.

    >>> parsed("0.5"), parsed("mlp"), parsed("[1, 2]")
    (0.5, 'mlp', [1, 2])
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def build(table: Table, folder: Path, where: str, stem: str) -> App:
    """Return the app of a parsed file; paths in it are relative to `folder`."""
    top = checked(AppTable, table, where)
    stop = _made(Stop, {"target": top.target, **top.stop}, f"{where}: stop")
    if top.loss is not None:
        stop.check(named(top.loss).figures)
    return App(
        name=top.name or stem,
        model=_model(_named("model", top.model), top.loss, where),
        data=_data(_named("data", top.data), top.clients, folder, where),
        strategy=_strategy(_named("strategy", top.strategy), where),
        rounds=top.rounds,
        seed=top.seed,
        evaluate_every=top.evaluate_every,
        evaluate_sites=top.evaluate_sites,
        stop=stop,
        needs=_needs(top.needs, f"{where}: needs"),
    )


def _needs(table: Table, where: str) -> Needs:
    found: NeedsTable = checked(NeedsTable, table, where)
    clients = {name: _needs(own, f"{where}.clients.{name}") for name, own in found.clients.items()}
    return Needs(cpus=found.cpus, gpus=found.gpus, memory=found.memory, clients=clients)


def checked(kind: type[Any], table: Mapping[str, Any], where: str) -> Any:
    """Return the table as `kind`, or raise a `ConfigError` for the first thing that is wrong, in one sentence."""
    try:
        return kind(**table)
    except ValidationError as error:
        found = error.errors()
    first = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
    key = _key(table, first["loc"]) or str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        raise ConfigError(f"{where}: unknown key {key!r}; {_nearest(key, list(kind.model_fields))}")
    if first["type"] == "missing" and len(first["loc"]) == 1:
        raise ConfigError(f"{where}: {key!r} is missing.")
    raise ConfigError(f"{where}: {key!r}: {first['msg'][0].lower()}{first['msg'][1:]}, got {first['input']!r}.")


def _key(value: Any, place: Sequence[str | int]) -> str:
    """Return the place in a table as a key with dots; pydantic's names for members of a union are not part of it."""
    kept = []
    for part in place:
        inside = part in value if isinstance(value, Mapping) else isinstance(value, list) and part in range(len(value))
        if inside:
            kept.append(str(part))
            value = value[part]
    return ".".join(kept)


def _nearest(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}."


def _shorthand(part: str) -> str:
    return {"data": "source", "partition": "kind"}.get(part, "name")


def _named(part: str, value: str | Table) -> Table:
    return {_shorthand(part): value} if isinstance(value, str) else value


def _made(kind: Callable[..., Any], arguments: Mapping[str, Any], where: str) -> Any:
    """Call a class or recipe with a table, checked against its signature."""
    return kind(**_arguments(kind, arguments, where))


def _arguments(kind: Callable[..., Any], arguments: Mapping[str, Any], where: str) -> Table:
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[name] = (Table if name == "sgd" else parameter.annotation, default)
    table = create_model("Arguments", __base__=Strict, **fields)
    found = checked(table, arguments, where)
    return {name: getattr(found, name) for name in found.model_fields_set}


def _model(table: Table, loss: str | None, where: str) -> BuiltIn:
    table = table if loss is None else {"loss": loss, **table}
    built: BuiltIn = _made(BuiltIn, table, f"{where}: model")
    return built


def _strategy(table: Table, where: str) -> Strategy:
    where = f"{where}: strategy"
    known = {recipe.__name__: recipe for recipe in recipes.RECIPES}
    name = table.get("name", "fedavg")
    if name not in known:
        raise ConfigError(f"{where}: there is no recipe {name!r}; {_nearest(str(name), list(known))}")
    recipe = known[name]
    own = set(inspect.signature(recipe).parameters)
    unknown = sorted(set(table) - own - set(StrategyTable.model_fields))
    if unknown:
        everything = [*own, *StrategyTable.model_fields]
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; {_nearest(unknown[0], everything)}")
    arguments = _arguments(recipe, {key: value for key, value in table.items() if key in own}, where)
    if "sgd" in arguments:
        arguments["sgd"] = _made(recipes.sgd, arguments["sgd"], f"{where}.sgd")
    common = checked(StrategyTable, {key: value for key, value in table.items() if key not in own}, where)
    return _adapted(recipe(**arguments), common, where)


def _adapted(strategy: Strategy, common: StrategyTable, where: str) -> Strategy:
    changes: Table = {}
    if common.stages:
        changes["stages"] = tuple(_stage(table, where) for table in common.stages)
    if common.weights is not None:
        changes["weights"] = _weights(common.weights)
    if common.poisson is not None:
        changes["select"] = Poisson(common.poisson)
    if common.gather is not None:
        table = {"name": common.gather} if isinstance(common.gather, str) else common.gather
        changes["gather"] = _chosen(GATHERS, "name", "gather", table, f"{where}.gather")
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


def traces(path: Path) -> Traces:
    """Return the traces of a TOML file with a table [traces]; raises `ConfigError` with the file's name and the key."""
    table = _read(path)
    if set(table) != {"traces"} or not isinstance(table["traces"], dict):
        raise ConfigError(f"{path.name} must hold one table, [traces], such as mean_s = 10.0; got {sorted(table)}.")
    found: Traces = _made(Traces, table["traces"], f"{path.name}: traces")
    return found


def _weights(value: str | Mapping[str, float]) -> Weights:
    if isinstance(value, str):
        return ByExamples() if value == "examples" else Equal()
    return Given(value)


def _stage(table: Table, where: str) -> Stage[Any, Any, Any]:
    stage: Stage[Any, Any, Any] = _chosen(STAGES, "name", "stage", table, f"{where}.stages")
    return stage


def _chosen(known: Mapping[str, type], key: str, what: str, table: Table, where: str) -> Any:
    name = str(table.get(key))
    if name not in known:
        raise ConfigError(f"{where}: there is no {what} {name!r}; {_nearest(name, list(known))}")
    return _made(known[name], {k: v for k, v in table.items() if k != key}, f"{where}: {name}")


def _data(table: Table, clients: int | None, folder: Path, where: str) -> Data:
    where = f"{where}: data"
    found: DataTable = checked(DataTable, table, where)
    source = _source(found, folder, where)
    if found.scaling == "range":
        source = _ranged(source, where)
    holdout = found.holdout if found.holdout is not None else (0.0 if _has_test(source) else 0.2)
    return Data(source=source, partition=_partition(found, clients, where), holdout=holdout)


def _has_test(source: Source) -> bool:
    if isinstance(source, Npz):
        return source.test_inputs is not None
    return isinstance(source, Idx) or (isinstance(source, Csv | Parquet) and source.test_path is not None)


def _partition(found: DataTable, clients: int | None, where: str) -> Partition:
    if found.partition is None:
        if found.source == "heart_disease" and clients is None:
            return ByColumn("site")
        return Iid(clients or 10)
    table = _named("partition", found.partition)
    if clients is not None:
        if "clients" not in inspect.signature(PARTITIONS.get(table.get("kind", ""), Iid)).parameters:
            raise ConfigError(
                f"{where}.partition: {table.get('kind')!r} has its own clients; leave the key 'clients' out."
            )
        table = {"clients": clients, **table}
    own = {key: value for key, value in table.items() if key != "shift"}
    partition: Partition = _chosen(PARTITIONS, "kind", "partition", own, f"{where}.partition")
    return _shifted(partition, table["shift"], f"{where}.partition.shift") if "shift" in table else partition


def _shifted(inner: Partition, shift: Any, where: str) -> Partition:
    if not isinstance(shift, dict):
        raise ConfigError(f"{where}: it is a table, such as shift = {{ noise = 0.1 }}; got {shift!r}.")
    shifted: Partition = _made(partial(Shifted, inner), shift, where)
    return shifted


def _source(found: DataTable, folder: Path, where: str) -> Source:
    if found.source in KNOWN:
        return KNOWN[found.source]()
    if found.source in SKLEARN_SETS:
        return SklearnSet(found.source)
    path = None if found.path is None else _beside(folder, found.path)
    if found.source in ARRAYS:
        arrays: Source = _made(ARRAYS[found.source], {"path": path, **found.arrays}, f"{where}.arrays")
        return arrays
    if found.source not in TABLES:
        known = [*ARRAYS, *TABLES, *KNOWN, *SKLEARN_SETS]
        raise ConfigError(f"{where}: there is no source {found.source!r}; {_nearest(found.source, known)}")
    if path is None or found.label is None or not found.columns:
        raise ConfigError(
            f"{where}: a {found.source} needs 'path', 'label' and 'columns'; `fedloom new FILE.csv` writes them."
        )
    test = None if found.test_path is None else _beside(folder, found.test_path)
    if found.source == "csv":
        return Csv(path, _schema(found, where), found.delimiter, test)
    return Parquet(path, _schema(found, where), test)


def _ranged(source: Source, where: str) -> Source:
    if not isinstance(source, Csv | Parquet):
        raise ConfigError(f"{where}: 'scaling' is for the columns of a table; this source has none.")
    return replace(source, schema=source.schema.ranged())


def _beside(folder: Path, path: str) -> str:
    return path if path.startswith("$") else str(folder / Path(path).expanduser())


def _schema(found: DataTable, where: str) -> Schema:
    label: LabelTable = checked(LabelTable, found.label or {}, f"{where}.label")
    columns = tuple(_column(name, table, f"{where}.columns.{name}") for name, table in found.columns.items())
    return Schema(
        columns,
        label.column,
        label.task,
        tuple(str(name) for name in label.classes),
        None if label.positive is None else str(label.positive),
        label.above,
        label.missing,
        tuple(label.missing_values),
    )


def _column(name: str, table: Table, where: str) -> Column:
    found: ColumnTable = checked(ColumnTable, table, where)
    return Column(
        name,
        found.kind,
        tuple(str(category) for category in found.categories),
        found.missing,
        found.indicator,
        found.unseen,
        found.range,
        tuple(found.missing_values),
        found.scaling,
    )
