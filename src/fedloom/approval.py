"""What an app lets leave a site, built from the site's own copy of it, and who approved that.

An approval is a file, HOME/approvals/DIGEST.json: whoever can write there can approve.
"""

import getpass
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import unified_diff
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .app import App
from .core.errors import ConfigError
from .core.event import DpEvent
from .core.examples import Examples
from .core.layout import MODEL, Layout
from .core.metrics import Metrics
from .core.rng import stream
from .core.strategy import Strategy
from .core.update import Update, weigh
from .load import Loaded
from .privacy import gate
from .store.files import synced, write_whole
from .store.folders import made
from .store.runs import now
from .trust import EPSILON, trust
from .version import __version__

FOLDER = "approvals"
_PROBE = 2.0**-10  # standard deviation of the made-up delta that is encoded: well within every bound
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Tensor:
    """One leaf that leaves: its name, shape, dtype in the model, kind, and bits a value on the wire, on average."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: str
    bits: float


@dataclass(frozen=True)
class Leaving:
    """What an app lets leave a site that takes part in all its rounds.

    Args:
        tensors: of every update; home: leaves of the model that stay.
        wire: what an update is on the wire, its dtype, and bytes_up: its size.
        protections: stages, gather and differential privacy, in words.
        rounds: of the app; evaluations: as it measures, besides those for a report after the last round. A site
            refuses a round after the last; how often it answers, its policy bounds.
        training: sums beside each update; weight: what tells how much it counts.
        metrics: sums of each evaluation, and bytes_measured: their size, as float64.
        statistics: sums over columns, before round 1.
        trust: who could learn what.
    """

    tensors: tuple[Tensor, ...]
    home: tuple[str, ...]
    wire: str
    bytes_up: int
    protections: tuple[str, ...]
    rounds: int
    evaluations: int
    training: str
    weight: str
    metrics: tuple[str, ...]
    bytes_measured: int
    statistics: tuple[str, ...]
    trust: str

    def lines(self) -> list[str]:
        """Return it as lines "field: value", one for each thing that can differ between two versions."""
        tensors = [f"tensor: {_said(tensor)}" for tensor in self.tensors]
        named = {"stays at home": self.home, "protection": self.protections, "measured": self.metrics}
        several = [f"{name}: {value}" for name, values in named.items() for value in values]
        single = {
            "on the wire": self.wire,
            "bytes up a round": f"{self.bytes_up:,}",
            "bytes up an evaluation": f"{self.bytes_measured:,}",
            "rounds at most": self.rounds,
            "evaluations at most": f"{self.evaluations}, besides those for a report after the last round",
            "with each update": self.training,
            "weight": self.weight,
        }
        columns = [f"statistic: {value}" for value in self.statistics]
        singles = [f"{name}: {value}" for name, value in single.items()]
        return [*tensors, *several, *columns, *singles, f"trust: {self.trust}"]


@dataclass(frozen=True)
class Approval:
    """A version of an app that somebody has approved at this site.

    Args:
        digest: of settings and code; name: of the app.
        when: in UTC; who: login name; version: of fedloom.
        lines: what was shown then.
        revoked: when that ended; empty while it holds.
    """

    digest: str
    name: str
    when: str
    who: str
    version: str
    lines: tuple[str, ...] = field(repr=False)
    revoked: str = ""


def leaving(app: App) -> Leaving:
    """Return what leaves, found by encoding a made-up update and measuring made-up rows with the app's own parts."""
    strategy, layout, sums = app.strategy, app.built.layout, _measured(app).sums
    payload, sent = strategy.payload(layout), _encoded(strategy, layout)
    values = payload.size if strategy.each else payload.size + 1  # a sum has its weight behind it
    bits = round(8 * sent.vector.nbytes / values, 2)
    travels = {leaf.name for leaf in payload.leaves if leaf.block == MODEL}
    return Leaving(
        tensors=tuple(Tensor(n, leaf.shape, leaf.dtype, leaf.kind, bits) for n, leaf in payload.named()),
        home=tuple(leaf.name for leaf in layout.leaves if leaf.name not in travels),
        wire=f"{sent.vector.dtype}{', inside what hides it' if strategy.gather.hides else ''}",
        bytes_up=sent.size_bytes,
        protections=_protections(strategy),
        rounds=app.rounds,
        evaluations=-(-app.rounds // app.evaluate_every),
        training="sums of the local training's metrics (of this library: examples, loss)",
        weight=_weight(strategy),
        metrics=tuple(name if np.ndim(v) == 0 else f"{name} ({np.size(v)} bins)" for name, v in sums.items()),
        bytes_measured=8 * sum(np.size(value) for value in sums.values()),
        statistics=_statistics(app),
        trust=trust(
            strategy, None if gate.depends_on_members(strategy) else gate.guarantee(strategy, app.rounds, None)
        ),
    )


def _encoded(strategy: Strategy, layout: Layout) -> Update:
    """Return a made-up update as it would leave: encoded by the stages, then weighed, as a party does it."""
    streams, layouts = stream(0, "approval"), strategy.layouts(layout)
    delta = streams("delta").standard_normal(layouts[0].size) * _PROBE
    update = Update(delta.astype(layouts[0].dtype), layouts[0])
    for i, (stage, given) in enumerate(zip(strategy.stages, layouts, strict=False)):
        public = stage.public(stage.start(given))
        update, _ = stage.encode(update, stage.init(given), public, streams.child("stage").child(i))
    if strategy.each:
        return Update(update.vector, update.layout, side={**update.side, "weight": 1.0})
    return weigh(update.vector, layouts[-1].weighted(), 1.0)


def _protections(strategy: Strategy) -> tuple[str, ...]:
    stages = [f"stage {stage!r}" for stage in strategy.stages] or ["stages: none"]
    hides = "hides single updates" if strategy.gather.hides else "the coordinator sees each update"
    events = [strategy.local.event(), *(stage.event() for stage in strategy.stages)]
    private = [_event(event) for event in events if event.private]
    return (
        *stages,
        f"gather {strategy.gather!r}: {hides}",
        *(f"differential privacy: {each}" for each in private or [f"none, epsilon = {EPSILON}"]),
    )


def _event(event: DpEvent) -> str:
    return ", ".join([f"{event.kind} {dict(event.values)}", *(_event(inner) for inner in event.inner)])


def _weight(strategy: Strategy) -> str:
    told = "tells the number of training rows" if strategy.weights.private else "tells nothing of the rows"
    return f"{strategy.weights!r}, {told}; the numbers of training and held-out rows are declared besides"


def _measured(app: App) -> Metrics:
    """Return the sums that an evaluation sends, of two made-up rows; raises `ConfigError` if the model refuses them."""
    source, model = app.data.source, app.built
    targets = np.arange(2) % source.classes if source.classes else np.zeros(2, np.float32)
    rows = Examples(np.zeros((2, *source.input_shape), np.float32), targets)
    try:
        return model.evaluate(model.load(model.init(stream(0, "approval"))), rows)
    except Exception as error:  # the border to the user's model
        raise ConfigError(
            f"what {app.name} measures cannot be found out: its model fails on made-up rows of shape "
            f"{source.input_shape} ({type(error).__name__}: {error}); let it take such rows."
        ) from error


def _statistics(app: App) -> tuple[str, ...]:
    schema = app.data.source.schema
    return tuple(f"{name}: count, sum, squares" for name in schema.numeric) if schema is not None else ()


def _said(tensor: Tensor) -> str:
    return f"{tensor.name} {list(tensor.shape)} {tensor.dtype} {tensor.kind}, {tensor.bits:g} bits a value"


def approval_of(loaded: Loaded, shown: Leaving) -> Approval:
    """Return the approval of an app by whoever is logged in, now; it holds once it is stored."""
    return Approval(loaded.identity, loaded.app.name, now(), _login(), __version__, tuple(shown.lines()))


def store(home: Path, approval: Approval) -> Path:
    """Write an approval to the site's disk, and return where."""
    path = _path(home, approval.digest)
    made(path.parent, "choose another --home")
    write_whole(path, json.dumps(asdict(approval), indent=1).encode())
    synced(path.parent)  # a power cut cannot bring it back
    return path


def approved(home: Path, digest: str) -> bool:
    """Has this version of an app been approved here, and not been revoked? A damaged approval is a `ConfigError`.

    >>> from tempfile import mkdtemp
    >>> approved(Path(mkdtemp()), "0" * 64)
    False
    """
    path = _path(home, digest)
    try:
        there = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return _holds(path, (there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns))


@lru_cache(maxsize=1)
def _holds(path: Path, looks: tuple[int, ...]) -> bool:
    """Does what lies there hold? It is looked at for every task, and read again if it looks otherwise than before."""
    return not _read(path).revoked


def listed(home: Path) -> list[Approval]:
    """Return all approvals, oldest first, those that were revoked among them."""
    return sorted((_read(path) for path in (home / FOLDER).glob("*.json")), key=lambda each: (each.when, each.digest))


def last(home: Path, name: str) -> Approval | None:
    """Return the approval of an app of this name that was given last and still holds."""
    return next((each for each in reversed(listed(home)) if each.name == name and not each.revoked), None)


def revoke(home: Path, digest: str) -> Approval:
    """End an approval, given its digest or how it begins, and return it; raises `ConfigError` if there is none."""
    held = [each for each in listed(home) if not each.revoked]
    found = [each for each in held if digest and each.digest.startswith(digest)]
    if len(found) != 1:
        known = ", ".join(each.digest[:12] for each in found or held) or "none"
        what = "is more than one approval" if found else "is no approval that holds"
        raise ConfigError(f"{digest!r} {what}; there are {known}. `fedloom approve --list` shows them.")
    ended = Approval(**{**asdict(found[0]), "revoked": now()})
    store(home, ended)
    return ended


def difference(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """Return what changed between two summaries, as a unified diff without its head; nothing if nothing did.

    >>> difference(["rounds: 2", "weight: equal"], ["rounds: 3", "weight: equal"])
    ['-rounds: 2', '+rounds: 3', ' weight: equal']
    """
    return [line for line in list(unified_diff(before, after, lineterm="", n=1))[2:] if not line.startswith("@@")]


def _path(home: Path, digest: str) -> Path:
    if not _DIGEST.fullmatch(digest):
        raise ConfigError(f"a digest is 64 hexadecimal digits, got {digest!r}; `fedloom approve --list` shows them.")
    return home / FOLDER / f"{digest}.json"


def _read(path: Path) -> Approval:
    try:
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        approval = Approval(**{**found, "lines": tuple(found["lines"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"the approval {path} cannot be read: {error}; delete it, and approve again.") from error
    if approval.digest != path.stem:
        raise ConfigError(f"the approval {path} is of another app, {approval.digest!r:.20}; delete it.")
    return approval


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"user {os.getuid()}" if hasattr(os, "getuid") else "unknown"
