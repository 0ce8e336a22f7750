"""Who could learn what, if who misbehaves: one paragraph for every strategy, in plain language."""

import math

from .core.event import NOT_PRIVATE
from .core.strategy import Strategy
from .core.words import counted
from .gather.encrypted import Encrypted
from .gather.secagg import EVERYBODY, SecAgg
from .privacy.accountant import AGAINST_EVERYBODY, against
from .privacy.guarantee import Guarantee
from .stages import SkellamNoise

EPSILON = "∞ (no differential privacy)"
ENCRYPTED = (
    "Encryption under one key that the clients share hides individual updates from a coordinator that is honest but "
    "curious and colludes with no client: it sees sums of a round's updates and training metrics, which clients "
    "decrypt for it. Any one client, or anyone who steals one client's key, together with the coordinator's traffic "
    "reads everyone's updates. There is no protection against a coordinator that sends chosen ciphertexts: secure "
    "aggregation is stronger. A sum is not private by being a sum, and what a site measures on held-out rows is told "
    "by site. In a simulation one process holds the key, which shows that the arithmetic is right and not whom to "
    "trust."
)


def trust(strategy: Strategy, cost: Guarantee | None = None) -> str:
    """Return the paragraph that is printed before a run and stands in its report.

    Args:
        strategy: of the app.
        cost: what all its rounds spend in privacy, where that is claimed and the federation is known.

    >>> from fedloom.recipes import fedavg
    >>> trust(fedavg()).startswith("Rows never leave a site.")
    True
    """
    sentences = ["Rows never leave a site."]
    if strategy.private and against(strategy.event) == AGAINST_EVERYBODY:
        sentences.append(
            "Each client adds noise to its own report before it leaves, and sends nothing else that depends on its "
            "rows: the coordinator sees every report by itself, who takes part, who fails and with which error, and "
            "how many rows each site has, but need not be trusted not to look for rows in reports."
        )
    elif not strategy.gather.hides and strategy.examples.private:
        sentences.append("The coordinator sees every client's update by itself, and no training metrics.")
    elif not strategy.gather.hides:
        sentences.append(
            "The coordinator sees every client's update by itself, and its metrics; from updates, parts of the "
            "training rows can sometimes be reconstructed, so everybody must trust the coordinator not to try."
        )
    else:
        sentences.append(_hidden(strategy))
    if strategy.weights.private:
        sentences.append("It also sees how many examples each client trained on.")
    sentences.append(_traces(strategy, cost))
    if strategy.aggregate.each:
        sentences.append(f"Clients that send nonsense are outvoted, if no more than {strategy.aggregate!r} bears.")
    else:
        sentences.append("A single client that sends nonsense within the bounds can spoil the model.")
    return " ".join(sentences)


def _hidden(strategy: Strategy) -> str:
    """Say what a hidden sum shows, and what it rests on."""
    if isinstance(strategy.gather, Encrypted):
        return ENCRYPTED
    return f"{_sums(strategy)}{_graph(strategy)}"


def _sums(strategy: Strategy) -> str:
    seen = "updates" if strategy.private else "updates and training metrics"
    return (
        f"The coordinator sees sums of a round's {seen} and no single one: {strategy.gather!r} masks them, with a "
        f"threshold of clients that must stay. {_summed(strategy)} All rests on identity keys: in a simulation one "
        "process holds them, which shows that the arithmetic is right and not whom to trust; between institutions, "
        "whoever says which key is whose could stand in for clients."
    )


def _summed(strategy: Strategy) -> str:
    """Say what a sum itself tells, and what happens if clients work for the coordinator."""
    gather, noise = strategy.gather, strategy.stages[-1] if strategy.stages else None
    if not (isinstance(gather, SecAgg) and isinstance(noise, SkellamNoise) and strategy.private):
        return "A sum is not private by being a sum, and what a site measures on held-out rows is told by site."
    return (
        f"Each client adds a share of noise to its update before it is masked, so the coordinator sees noised sums "
        f"alone, and each client refuses a sum of fewer than {gather.survivors} clients, whatever it is told. "
        f"{noise.survivors} honest ones bring the noise that is promised; {gather.survivors - noise.survivors} more "
        f"may work for the coordinator, and with more of those, what it learns is protected less than is said here. It "
        f"does know who takes part, who fails and with which error, and how many rows each site has."
    )


def _graph(strategy: Strategy) -> str:
    """Say what a graph with few neighbours gives up."""
    gather = strategy.gather
    if not isinstance(gather, SecAgg) or gather.neighbours is None:
        return ""
    many = f" in cohorts of more than {EVERYBODY}" if gather.neighbours == "auto" else ""
    return (
        f" Each client masks with a few others alone{many}: that protects against a coordinator that follows the "
        f"protocol, while up to {gather.corrupt:.0%} of the clients help it and {gather.dropouts:.0%} fall silent. One "
        "that tries out which clients to leave away could choose who masks with whom; nothing is claimed against it."
    )


def _by_example(strategy: Strategy, cost: Guarantee | None) -> str:
    """Say what noise of the sites' own limits, and what it does not."""
    if not strategy.examples.private:
        return "Gradients of single examples are noised from a seed, for tests, so nothing is claimed (ε = ∞)."
    told = (
        "What can be found of one training row in updates and shared models is limited by example-level differential "
        "privacy: each site clips every example's gradient and adds noise itself, before anything leaves it. A person "
        "with several rows is protected less, and what a whole site's rows have in common is not hidden. Figures on "
        "rows that a site holds out are told as they are."
    )
    if cost is None:
        return f"{told} Each site's ε follows from how many rows it has."
    doubts = "".join(f" Warning: {warning}" for warning in cost.warnings)
    return f"{told} At the worst site {cost.sentence()}{doubts}"


def spent(cost: Guarantee | None) -> str:
    """Return what a report says was spent; never blank.

    >>> spent(None)
    '∞ (no differential privacy)'
    """
    if cost is None or math.isinf(cost.epsilon):
        return EPSILON
    check = "" if cost.cross_check is None else f"; by RDP {cost.cross_check:.3g}"
    doubts = "".join(f" Warning: {warning}" for warning in cost.warnings)
    sites = "".join(f" {site} {epsilon:.3g}" for site, epsilon in cost.sites.items())
    by_site = f" By site:{sites}." if sites else ""
    return (
        f"{cost.epsilon:.3g} at δ = {cost.delta:g} after {counted(cost.rounds, 'round')}: {cost.adjacency}; "
        f"unit: {cost.unit}; {cost.sampling}; {cost.mechanism}; {cost.accountant}{check}; covers {cost.covers}; "
        f"against {cost.against}.{by_site}{doubts}"
    )


def _traces(strategy: Strategy, cost: Guarantee | None) -> str:
    """Say what can be found of somebody's rows in the shared models."""
    if strategy.examples != NOT_PRIVATE:
        return _by_example(strategy, cost)
    told = "A client sees the shared model of every round, and could look in it for traces of others' rows: "
    if strategy.event == NOT_PRIVATE:
        return f"{told}nothing is differentially private here (ε = ∞)."
    if not strategy.private:
        return f"{told}the noise is drawn from a seed, for tests, so nothing is claimed (ε = ∞)."
    if cost is None:
        return f"{told}that is limited by client-level differential privacy against {against(strategy.event)}."
    doubts = "".join(f" Warning: {warning}" for warning in cost.warnings)
    return f"{told}that is limited by client-level differential privacy. {cost.sentence()}{doubts}"
