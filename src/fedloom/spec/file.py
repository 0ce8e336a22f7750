"""The whole of a TOML file, as the app that it describes."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from ..adapters.losses import named as loss_named
from ..app import App
from ..core.errors import ConfigError
from ..core.needs import Needs
from ..models import BuiltIn
from ..runtime.traces import Traces
from ..stop import Stop
from .data import data_of
from .override import put
from .strategy import strategy_of
from .table import Strict, Table, checked, made, named, read


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


def load(path: Path, overrides: Sequence[str] = ()) -> App:
    """Return the app that a TOML file describes; raises `ConfigError` with the file's name and the key."""
    table = read(path)
    for override in overrides:
        put(table, override)
    return build(table, path.parent, path.name, path.stem)


def build(table: Table, folder: Path, where: str, stem: str) -> App:
    """Return the app of a parsed file; paths in it are relative to `folder`."""
    top = checked(AppTable, table, where)
    stop = made(Stop, {"target": top.target, **top.stop}, f"{where}: stop")
    if top.loss is not None:
        stop.check(loss_named(top.loss).figures)
    return App(
        name=top.name or stem,
        model=_model(named("model", top.model), top.loss, where),
        data=data_of(named("data", top.data), top.clients, folder, where),
        strategy=strategy_of(named("strategy", top.strategy), where),
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


def _model(table: Table, loss: str | None, where: str) -> BuiltIn:
    table = table if loss is None else {"loss": loss, **table}
    built: BuiltIn = made(BuiltIn, table, f"{where}: model")
    return built


def traces(path: Path) -> Traces:
    """Return the traces of a TOML file with a table [traces]; raises `ConfigError` with the file's name and the key."""
    table = read(path)
    if set(table) != {"traces"} or not isinstance(table["traces"], dict):
        raise ConfigError(f"{path.name} must hold one table, [traces], such as mean_s = 10.0; got {sorted(table)}.")
    found: Traces = made(Traces, table["traces"], f"{path.name}: traces")
    return found
