"""Hostile clients in a simulation: who they are, and parties that do what they do. The app does not know of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

import numpy as np

from .app import App
from .core.errors import ConfigError
from .core.examples import Examples
from .core.layout import Vector
from .core.rng import stream
from .core.strategy import Strategy, Terms
from .local.attacks import ALittle, Attack, Backdoor, LabelFlip, Noise, Scaling, SignFlip
from .local.hostile import Hostile
from .stages.ignored import Ignored

ATTACKS: Mapping[str, Callable[..., Attack]] = {
    "sign_flip": SignFlip,
    "scaling": Scaling,
    "noise": Noise,
    "label_flip": LabelFlip,
    "backdoor": Backdoor,
    "a_little": ALittle,
}


@dataclass(frozen=True)
class Attackers:
    """Some clients of a simulation are hostile; the app is not told.

    They take part as others do, through the same seam: they train with the app's own local work, ignore the limits of
    stages that nobody checks, and send what the server admits. The coordinator sees nothing else of them.

    Args:
        attack: what they do.
        share: of the clients, in (0, 1), rounded and at least one; drawn by the app's seed.
        names: who, in place of a share.

    >>> Attackers(SignFlip(), share=0.3).chosen([f"client-{i}" for i in range(10)], seed=0)
    ('client-0', 'client-2', 'client-6')
    """

    attack: Attack
    share: float = 0.2
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ConfigError(f"the share of attackers must be in (0, 1), got {self.share}.")

    def chosen(self, names: Sequence[str], seed: int) -> tuple[str, ...]:
        """Return who is hostile; raises `ConfigError` for one that is not there."""
        if unknown := sorted(set(self.names) - set(names)):
            raise ConfigError(f"there is no client {unknown[0]!r} to be an attacker.")
        if self.names:
            return self.names
        many = max(1, round(self.share * len(names)))
        drawn = stream(seed, "attackers")("who").choice(len(names), many, replace=False)
        return tuple(names[at] for at in sorted(drawn.tolist()))

    def strategies(
        self, app: App, terms: Terms, names: Sequence[str], rows: Callable[[str], Examples]
    ) -> Callable[[str], Strategy]:
        """Return name -> the strategy that this party follows: the app's, or a hostile copy of it."""
        who = self.chosen(names, app.seed)
        strategy, limits = app.strategy, _limits(terms)
        layout = strategy.local.payload(app.built.layout)
        hostile = Hostile(
            local=strategy.local,
            attack=self.attack,
            classes=app.data.source.classes,
            clients=terms.total.cohort,
            limits=limits[: layout.size],
            allies=who,
            seed=app.seed,
            rows=rows,
        )
        stages: tuple[Any, ...] = tuple(Ignored(stage) for stage in strategy.stages)
        copy, members = replace(strategy, local=hostile, stages=stages), frozenset(who)
        return lambda name: copy if name in members else strategy

    def tree(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {"attack": called(self.attack), "share": self.share, "names": list(self.names)}

    @staticmethod
    def of(attack: str, share: float = 0.2, names: Sequence[str] = ()) -> "Attackers":
        """Return attackers by a name, with settings behind it: raises `ConfigError` for what is not known.

        >>> Attackers.of("sign_flip:scale=4").attack
        SignFlip(scale=4.0)
        """
        name, _, given = attack.partition(":")
        if name not in ATTACKS:
            near = get_close_matches(name, ATTACKS, 1)
            raise ConfigError(
                f"there is no attack {name!r}; {f'did you mean {near[0]!r}?' if near else f'there are {_all()}.'}"
            )
        return Attackers(ATTACKS[name](**_settings(name, given)), share, tuple(names))


def called(attack: Attack) -> str:
    """Return the text that `Attackers.of` takes back.

    >>> called(Backdoor(target=3))
    'backdoor:target=3,size=3,value=1.0,part=0.5,scale=1.0'
    """
    name = next(name for name, kind in ATTACKS.items() if type(attack) is kind)
    settings = ",".join(f"{key}={value}" for key, value in asdict(attack).items() if value is not None)  # type: ignore[call-overload]
    return f"{name}:{settings}" if settings else name


def _settings(name: str, given: str) -> dict[str, float]:
    known = {field.name: field.type for field in fields(ATTACKS[name])}  # type: ignore[arg-type]
    found: dict[str, float] = {}
    for pair in filter(None, given.split(",")):
        key, _, value = pair.partition("=")
        if key not in known:
            raise ConfigError(f"the attack {name} knows no {key!r}; it knows {', '.join(known) or 'no settings'}.")
        try:
            found[key] = int(value) if known[key] is int else float(value)
        except ValueError:
            raise ConfigError(f"the attack {name} takes a number for {key!r}, got {value!r}.") from None
    return found


def _limits(terms: Terms) -> Vector:
    """Return the largest |δ| that is admitted, by element: a hair below the bounds, for float32 rounds."""
    return np.concatenate([np.full(leaf.size, leaf.bound * (1 - 2.0**-20)) for leaf in terms.payload.leaves])


def _all() -> str:
    return ", ".join(ATTACKS)
