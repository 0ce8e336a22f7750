"""A canary audit of an app: what its protections let through, as a lower bound on epsilon, beside what is accounted."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .app import App
from .canaries import Cage, spread
from .core.errors import ConfigError
from .core.rng import Streams, stream
from .privacy import gate
from .privacy.audit import Coins, Scores, best_guesses, least_epsilon, rates, sharpest
from .privacy.guarantee import Guarantee, told
from .privacy.tradeoff import Curve, declared

CANARIES, FEWEST = 1000, 20


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What canaries proved.

    Args:
        accounted: what the accountant says of these rounds; None where nothing is claimed.
        one_run: the lower bound on epsilon that holds for any mechanism.
        independent: the lower bound within the declared family, from independent canaries; None where nothing is
            claimed, or where the accountant has no curve.
        canaries: how many; included: of them; runs: of the app's members they were spread over; rounds: of each run.
        confidence: that all bounds are right together.
    """

    accounted: Guarantee | None
    one_run: float
    independent: float | None
    canaries: int
    included: int
    runs: int
    rounds: int
    confidence: float

    @property
    def epsilon(self) -> float:
        """What is accounted; infinity where nothing is claimed."""
        return math.inf if self.accounted is None else self.accounted.epsilon

    @property
    def bound(self) -> float:
        """The larger of the two lower bounds."""
        return max(self.one_run, self.independent or 0.0)

    @property
    def broken(self) -> bool:
        """Is more privacy lost than is accounted for?"""
        return self.bound > self.epsilon

    def figures(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it."""
        said = {name: getattr(self, name) for name in ("canaries", "included", "runs", "rounds", "confidence")}
        bounds = {"one_run": round(self.one_run, 6), "bound": round(self.bound, 6)}
        found = {} if self.independent is None else {"independent": round(self.independent, 6)}
        delta = {} if self.accounted is None else {"delta": self.accounted.delta}
        return {"epsilon": told(self.epsilon), **delta, **bounds, **found, "broken": self.broken, **said}

    def sentence(self) -> str:
        """Return it in words."""
        sure = f"at a confidence of {self.confidence:g}"
        if self.broken:
            return (
                f"BROKEN: canaries prove that at least ε = {self.bound:.3g} is lost {sure}, and {self.epsilon:.3g} is "
                f"accounted for; do not publish models of this build before somebody has looked at clip, noise and "
                f"sampling."
            )
        if self.accounted is None:
            return f"Nothing is claimed (ε = ∞); canaries prove that at least ε = {self.bound:.3g} is lost {sure}."
        return (
            f"ε = {self.epsilon:.3g} is accounted for at δ = {self.accounted.delta:g}; canaries prove a loss of at "
            f"least {self.bound:.3g} {sure}, which is within it."
        )


def audit(
    app: App,
    *,
    canaries: int = CANARIES,
    rounds: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Audit:
    """Put canary clients in or leave them out by fair coins, publish the models, guess, and bound epsilon from below.

    Steinke, Nasr and Jagielski, NeurIPS 2023 (arXiv 2305.08846), on client-level privacy. A canary is a client whose
    delta is a direction of its own, orthogonal to the others' and cut by the app's own clip; one that is left out
    sends zeros. Its score is the likelihood ratio of in and out under the declared mechanism, of the inner products of
    every round's change with its direction. Nothing is trained. Deviation: the app's clients, so many and no more,
    become canaries, and a run has at most as many canaries as the model has parameters, so that several runs share
    them; their noise is independent, so all together are as private as one.

    Args:
        app: whose protections are audited.
        canaries: at least 20.
        rounds: of each run, by default the app's; as many are accounted for.
        confidence: in (0, 1): that a build as declared is not called broken.
        seed: of coins and directions; noise and selection are the app's.
    """
    if canaries < FEWEST:
        raise ConfigError(f"an audit needs {FEWEST} canaries or more to prove anything, got {canaries}.")
    if app.strategy.examples.private:
        raise ConfigError(
            "canaries are whole clients, and this app protects single examples, of which an audit proves nothing; "
            "audit one with dp_fedavg."
        )
    rounds = app.rounds if rounds is None else rounds
    if rounds < 1 or not 0 < confidence < 1:
        raise ConfigError(
            f"rounds must be at least 1 and confidence in (0, 1), got rounds={rounds}, confidence={confidence}."
        )
    cage, streams = Cage.of(app, canaries), stream(seed, "audit")
    cost = gate.guarantee(app.strategy, rounds, len(cage.members))
    found = spread(cage, canaries, rounds, streams)
    scores = np.concatenate([scores for scores, _ in found])[:canaries]
    coins = np.concatenate([coins for _, coins in found])[:canaries]
    half = (1 + confidence) / 2  # the two bounds share the error
    return Audit(
        accounted=cost,
        one_run=best_guesses(scores, coins, delta=cost.delta if cost else 0.0, confidence=half),
        independent=None if cost is None else _independent(cage, scores, coins, cost, half, streams),
        canaries=len(scores),
        included=int(coins.sum()),
        runs=len(found),
        rounds=rounds,
        confidence=confidence,
    )


def _independent(
    cage: Cage, scores: Scores, coins: Coins, cost: Guarantee, confidence: float, streams: Streams
) -> float | None:
    event, members = cage.strategy.event, len(cage.members)
    if cage.mechanism is None or declared(event, 1, members) is None:
        return None

    def curve(scale: float) -> Curve:
        made = declared(event, cost.rounds, members, scale)
        assert made is not None, "there is a curve for every scale, or for none"
        return made

    first, each = len(scores) // 3, (1 + confidence) / 2  # a third chooses a threshold, on which the others are judged
    line = sharpest(scores[:first], coins[:first], curve(1.0))
    lines = cage.mechanism.thresholds(cost.rounds, streams)
    found = (*rates(scores, coins, lines, each), *rates(scores[first:], coins[first:], (line,), each))
    return least_epsilon(found, curve, cost.delta)
