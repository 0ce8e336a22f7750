"""An app: model, data, strategy, and when to stop. No transport in sight; the same app runs anywhere."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from .core.errors import ConfigError
from .core.model import Model
from .core.needs import Needs
from .core.state import State
from .core.strategy import Strategy
from .data.partition import Iid, Partition
from .data.sources import Source
from .digest import digest
from .models import ModelFor
from .privacy import gate
from .recipes import fedavg
from .stop import Stop


@dataclass(frozen=True, kw_only=True)
class Data:
    """Rows in two halves: a source with its schema, the same everywhere, and who holds what.

    Args:
        source: where rows come from and what they mean.
        partition: how a simulation divides them; in a real federation every institution brings its own.
        holdout: the fraction in [0, 1) of each site's rows that it holds out to measure on.
    """

    source: Source
    partition: Partition = Iid(10)
    holdout: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.holdout < 1:
            raise ConfigError(f"Data.holdout must be in [0, 1), got {self.holdout}.")


_PARTS: tuple[tuple[str, type, str], ...] = (
    ("data", Data, "fedloom.Data(source=…)"),
    ("strategy", Strategy, "fedloom.fedavg()"),
    ("stop", Stop, "fedloom.Stop(target={…})"),
    ("needs", Needs, "fedloom.Needs(cpus=1)"),
)


@dataclass(frozen=True, kw_only=True)
class App:
    """What is trained.

    Args:
        model: a `Model`, or what makes one once the data's shape is known, such as `BuiltIn`.
        data: whose rows.
        strategy: how; see `fedloom.recipes`.
        rounds: at most so many.
        stop: a target, or patience.
        seed: of every random number; from -2^63 to 2^63 - 1.
        evaluate_every: measure after every so many rounds, and after the last.
        evaluate_sites: at most so many sites measure the model then, drawn anew each time; by default all of them.
        name: for people.
        needs: what a client takes of a machine while it trains.

    >>> from fedloom import App, Data, ByColumn, SklearnSet, BuiltIn
    >>> app = App(model=BuiltIn(name="logistic"), data=Data(source=SklearnSet("breast_cancer")), rounds=3)
    >>> [state.round for state in app.run()]
    [1, 2, 3]
    """

    model: Model | ModelFor
    data: Data
    strategy: Strategy = field(default_factory=fedavg)
    rounds: int = 20
    stop: Stop = Stop()
    seed: int = 0
    evaluate_every: int = 1
    evaluate_sites: int | None = None
    name: str = "app"
    needs: Needs = Needs()

    def __post_init__(self) -> None:
        for name in ("rounds", "evaluate_every", "evaluate_sites"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"App.{name} must be at least 1, got {getattr(self, name)}.")
        if not -(2**63) <= self.seed < 2**63:
            raise ConfigError(f"App.seed must be at least -2^63 and less than 2^63, got {self.seed}; take another one.")
        for name, kind, example in _PARTS:
            if not isinstance(getattr(self, name), kind):
                got = type(getattr(self, name)).__name__
                raise ConfigError(f"App.{name} must be a {kind.__name__}, got {got}; write {name}={example}.")
        schema = self.data.source.schema
        numeric = schema.numeric if schema is not None else ()
        gate.check(self.strategy, holdout=self.data.holdout, standardised=numeric, budget=self.stop.epsilon)

    @cached_property
    def built(self) -> Model:
        """The model, sized for the data; the target is checked against what it measures."""
        model = self.model if isinstance(self.model, Model) else self.model(self.data.source)
        self.stop.check(model.figures)
        return model

    @cached_property
    def digest(self) -> str:
        """SHA-256 over settings, code and layout: not over where rows lie and who holds them."""
        parts = [self.data, self.strategy, self.rounds, self.stop, self.seed, self.evaluate_every, self.evaluate_sites]
        return digest([self.model, self.built.layout.digest, *parts])

    def run(
        self, *, out: Path | str | None = None, start: Path | str | None = None, engine: str = "sequential"
    ) -> Iterator[State]:
        """Yield the state after each round; see `fedloom.run`."""
        from .running import run

        return run(self, out=out, start=start, engine=engine)
