"""What an attacker gets of an app's rows: without protection, with a hidden sum, with differential privacy."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .aggregate import Mean
from .app import App
from .auditing import Audit, audit
from .core.errors import ConfigError
from .core.event import NOT_PRIVATE
from .core.examples import Examples
from .core.layout import Vector
from .core.rng import stream
from .core.strategy import Strategy
from .core.update import Update, fold, weigh
from .gather import Plain
from .local import Sgd
from .privacy.inversion import closest, first_layer, psnr, ssim
from .shadows import SHADOWS, Inferred, infer
from .simulation import Simulation, simulate
from .stages import GaussianNoise

EXPOSURE_FILE = "exposure.json"
COHORT = 10  # clients of one image each, in a sum that is attacked
STAND_IN = GaussianNoise(clip=1.0, noise_multiplier=1.0, delta=1e-5)  # where the app has no noise of its own
Tick = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What an attacker makes of one image's update.

    Args:
        what: the update was, in words; image: shape `(height, width)`, in [0, 1].
        psnr: in decibels; ssim: in [-1, 1]; both against the true image.
    """

    what: str
    image: NDArray[np.float64]
    psnr: float
    ssim: float

    def figures(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "what": self.what,
            "psnr": round(self.psnr, 3),
            "ssim": round(self.ssim, 4),
            "image": _rounded(self.image),
        }


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """The attacks on one app.

    Args:
        bare, private: canaries against the app without its noise, and as it is; None where it claims nothing.
        members_bare, members_private: membership inference, alike.
        pictures: the true image first, then what is recovered; empty where inputs are no images.
    """

    bare: Audit
    private: Audit | None
    members_bare: Inferred | None
    members_private: Inferred | None
    pictures: tuple[Recovered, ...]

    def figures(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        told: Any = {name: getattr(self, name) for name in ("bare", "private", "members_bare", "members_private")}
        found = {name: None if value is None else value.figures() for name, value in told.items()}
        return found | {"pictures": [picture.figures() for picture in self.pictures]}


def expose(
    app: App, *, canaries: int, shadows: int = SHADOWS, seed: int = 0, tick: Tick = lambda said: None
) -> Exposure:
    """Attack an app: canary clients, membership inference with so many shadow models (0: none), gradient inversion."""
    bare = stripped(app)
    claims = app.strategy.private or app.strategy.examples.private
    variants = {"bare": bare} | ({"private": app} if claims else {})
    audits, inferred = {}, {}
    for name, variant in variants.items():
        tick(f"canaries, {name}")
        if not variant.strategy.examples.private:
            audits[name] = audit(variant, canaries=canaries, seed=seed)
        if shadows:
            inferred[name] = _members(variant, shadows, seed, tick)
    tick("gradient inversion")
    return Exposure(
        bare=audits["bare"],
        private=audits.get("private"),
        members_bare=inferred.get("bare"),
        members_private=inferred.get("private"),
        pictures=pictures(app, seed=seed),
    )


def stripped(app: App) -> App:
    """Return the app without its noise: what is trained otherwise stays."""
    strategy = app.strategy
    stages = tuple(stage for stage in strategy.stages if stage.event() == NOT_PRIVATE)
    aggregate = Mean() if isinstance(strategy.aggregate, Mean) and strategy.private else strategy.aggregate
    local: Any = strategy.local
    if strategy.examples.private:
        local = Sgd(epochs=local.epochs, optimizer=local.optimizer)
    changed: Strategy = replace(strategy, stages=stages, aggregate=aggregate, local=local, gather=Plain())
    return replace(app, strategy=changed, stop=replace(app.stop, epsilon=None))


def _members(app: App, shadows: int, seed: int, tick: Tick) -> Inferred:
    made = simulate(replace(app, evaluate_every=app.rounds))
    try:
        tick("the app itself")
        *_, last = made.rounds(made.first())
        return infer(made, last.vector, shadows=shadows, seed=seed, tick=tick)
    finally:
        made.close()


def pictures(app: App, *, seed: int = 0) -> tuple[Recovered, ...]:
    """Return a training image, and what can be recovered of it; nothing where inputs are no images of one channel.

    The worst case for the client: it has one image and takes one step; the attacker knows model, rate and label, and of
    all that it finds the picture most like the truth is shown. With a hidden sum it has the sum of `COHORT` such
    clients; with differential privacy that sum as the app's noise leaves it (or noise of multiplier 1 on a clip of 1).
    """
    shape = app.data.source.input_shape
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] != 1) or min(shape[-2:]) < 4:
        return ()
    made = simulate(app)
    try:
        pot = _pot(made)
        rows = pot.take(np.unique(np.linspace(0, pot.size - 1, COHORT).astype(int)))
        start = made.shared(made.first().vector)
    finally:
        made.close()
    deltas = [_step(made, start, rows.take(slice(at, at + 1))) for at in range(rows.size)]
    truth, label = rows.inputs[0].reshape(shape[-2:]), int(rows.targets[0])

    def attacked(what: str, update: Vector) -> Recovered:
        image = closest(_candidates(app, made, start, update, label, seed), truth)
        return Recovered(what=what, image=image, psnr=psnr(image, truth), ssim=ssim(image, truth))

    mean = np.mean(pot.inputs[1:], axis=0).reshape(truth.shape)
    many = f"the sum of {rows.size} clients"
    return (
        Recovered(what="a client's image", image=truth, psnr=psnr(truth, truth), ssim=1.0),
        Recovered(what="no attack: the mean image", image=mean, psnr=psnr(mean, truth), ssim=ssim(mean, truth)),
        attacked("no protection: its update", deltas[0]),
        attacked(f"secure aggregation: {many}", np.sum(deltas, axis=0)),
        attacked(f"differential privacy: {many}, noised", noised(app, made, deltas)),
    )


def noised(app: App, made: Simulation, deltas: Sequence[Vector]) -> Vector:
    """Return the sum of these deltas as the app's noise stage publishes it, or as `STAND_IN` does."""
    own = [stage for stage in app.strategy.stages if isinstance(stage, GaussianNoise)]
    stage = own[0] if own else STAND_IN
    layout = made.model.layout
    total, streams = None, stream(app.seed, "inversion")
    for delta in deltas:
        sent, _ = stage.encode(Update(np.asarray(delta, layout.dtype), layout), None, None, streams)
        total = fold(total, weigh(sent.vector, layout.weighted(len(deltas)), 1.0))
    assert total is not None, "there is a delta"
    return np.asarray(stage.finish(total, None, streams)[0].vector[:-1])


def _pot(made: Simulation) -> Examples:
    """Return training images of the first clients, in their order."""
    first, *more = [made.held[name].train for name in list(made.held)[:COHORT]]
    return first.join(list(more)).examples(made.statistics)


def _step(made: Simulation, start: Vector, row: Examples) -> Vector:
    """Return δ of one plain step of rate 1 on that row."""
    model = made.model
    found = model.grad(model.load(start), row, stream(made.app.seed, "inversion"))
    return -np.array(model.read(found.vector), np.float64)


def _candidates(
    app: App, made: Simulation, start: Vector, update: Vector, label: int, seed: int
) -> NDArray[np.float64]:
    inputs = int(np.prod(app.data.source.input_shape))
    try:
        return first_layer(update, made.model.layout, inputs)
    except ConfigError:
        from .adapters.torch import TorchModel
        from .adapters.torch_invert import match

        assert isinstance(made.model, TorchModel), "a model without a linear layer in front is a torch module"
        return np.asarray(
            match(
                made.model,
                start,
                -np.asarray(update, np.float32),
                label,
                shape=app.data.source.input_shape,
                streams=stream(seed, "inversion"),
            )
        )[None]


def keep(folder: Path, found: Exposure) -> None:
    """Write what was found beside a run, where its report looks for it."""
    from .store.files import write_whole

    write_whole(folder / EXPOSURE_FILE, json.dumps(found.figures()).encode())


def kept(folder: Path) -> Mapping[str, Any] | None:
    """Return what was written there; None where nothing was."""
    path = folder / EXPOSURE_FILE
    found: Mapping[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return found


def _rounded(image: NDArray[np.float64]) -> list[list[float]]:
    return np.asarray(image, np.float64).round(3).tolist()  # type: ignore[no-any-return]
