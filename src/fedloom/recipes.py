"""Named algorithms: each is a choice on the axes, with its source. Adapt one with `dataclasses.replace`.

Shared arguments: `sgd` is how a client descends; `cohort` who is asked: None everyone, a whole number so many clients
drawn uniformly, a fraction that part of them.
"""

from dataclasses import replace
from typing import Any

from .aggregate import GeometricMedian, Krum, Mean, Median, TrimmedMean
from .core.parts import Optimizer, Selector
from .core.strategy import Strategy
from .core.tree import Tree
from .core.weights import ByExamples, Equal
from .gather import Plain, SecAgg
from .local import AtHome, DpSgd, Prox, Scaffold, Sgd
from .local.scaffold import CONTROL
from .optimize import Adagrad, Adam, Momentum, PerBlock, Step, Yogi
from .schedule import Buffered, Sync
from .select import Cyclic, Everyone, Poisson, Uniform
from .stages import BandNoise, GaussianNoise, LocalGaussianNoise, SkellamNoise, TreeNoise

Cohort = int | float | None


def sgd(
    lr: float = 0.1,
    *,
    epochs: int = 1,
    batch_size: int | None = 32,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    steps: int | None = None,
) -> Sgd:
    """Return the usual local work in the usual words; see `Sgd` for all of it.

    >>> sgd(0.05, batch_size=10).optimizer
    Step(lr=0.05)
    """
    optimizer: Optimizer[Tree] = Momentum(lr, momentum) if momentum else Step(lr)
    return Sgd(epochs=epochs, batch_size=batch_size, steps=steps, optimizer=optimizer, weight_decay=weight_decay)


def selector(cohort: Cohort) -> Selector:
    """Return who is asked: None everyone, a whole number of clients, or a fraction of them.

    >>> selector(10)
    Uniform(clients=10, fraction=None)
    """
    if cohort is None:
        return Everyone()
    return Uniform(clients=cohort) if isinstance(cohort, int) else Uniform(fraction=cohort)


def fedavg(sgd: Sgd = Sgd(), *, cohort: Cohort = None) -> Strategy:
    """Federated averaging: McMahan et al., AISTATS 2017 (arXiv 1602.05629v4), Algorithm 1.

    >>> fedavg(cohort=10).select
    Uniform(clients=10, fraction=None)
    """
    return Strategy(
        local=sgd,
        weights=ByExamples(),
        select=selector(cohort),
        gather=Plain(),
        aggregate=Mean(),
        optimizer=Step(1.0),
        schedule=Sync(),
    )


def fedsgd(lr: float = 0.1, *, cohort: Cohort = None) -> Strategy:
    """One step on all of a client's examples: McMahan et al. 2017, section 2, FederatedSGD (E = 1, B = ∞)."""
    return fedavg(Sgd(batch_size=None, optimizer=Step(lr)), cohort=cohort)


def fedavgm(sgd: Sgd = Sgd(), *, cohort: Cohort = None, server_lr: float = 1.0, beta: float = 0.9) -> Strategy:
    """Server momentum: Hsu et al. 2019 (arXiv 1909.06335v1), section 4: v ← βv + Δw; w ← w - v."""
    return replace(fedavg(sgd, cohort=cohort), optimizer=Momentum(server_lr, beta))


def fedprox(sgd: Sgd = Sgd(), *, cohort: Cohort = None, mu: float = 0.01) -> Strategy:
    """A proximal term holds clients to the shared model: Li et al., MLSys 2020 (arXiv 1812.06127v5), Algorithm 2.

    There devices are drawn in proportion to their examples and averaged equally; here they are drawn uniformly and
    weighted by examples, as in FedAvg and in the authors' code.
    """
    return replace(fedavg(sgd, cohort=cohort), local=Prox(mu=mu, sgd=sgd))


def scaffold(sgd: Sgd = Sgd(), *, cohort: Cohort = None, server_lr: float = 1.0) -> Strategy:
    """Control variates: Karimireddy et al., ICML 2020 (arXiv 1910.06378v4), Algorithm 1, option II.

    Lines 16-17: x ← x + η_g·mean Δy over the cohort; c ← c + (|S|/N)·mean Δc, which is Σ Δc over all N members.
    """
    return replace(
        fedavg(sgd, cohort=cohort),
        local=Scaffold(sgd=sgd),
        weights=Equal(),
        aggregate=Mean(over={CONTROL: "members"}),
        optimizer=PerBlock(Step(server_lr), {CONTROL: Step(1.0)}),
    )


def fedadagrad(
    sgd: Sgd = Sgd(), *, cohort: Cohort = None, server_lr: float = 0.1, tau: float = 1e-3, beta1: float = 0.0
) -> Strategy:
    """Adaptive server: Reddi et al., ICLR 2021 (arXiv 2003.00295v5), Algorithm 2, FedAdagrad."""
    return replace(fedavg(sgd, cohort=cohort), optimizer=Adagrad(server_lr, beta1, tau))


def fedadam(
    sgd: Sgd = Sgd(),
    *,
    cohort: Cohort = None,
    server_lr: float = 0.1,
    tau: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.99,
) -> Strategy:
    """Adaptive server: Reddi et al., ICLR 2021 (arXiv 2003.00295v5), Algorithm 2, FedAdam."""
    return replace(fedavg(sgd, cohort=cohort), optimizer=Adam(server_lr, beta1, beta2, tau))


def fedyogi(
    sgd: Sgd = Sgd(),
    *,
    cohort: Cohort = None,
    server_lr: float = 0.1,
    tau: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.99,
) -> Strategy:
    """Adaptive server: Reddi et al., ICLR 2021 (arXiv 2003.00295v5), Algorithm 2, FedYogi."""
    return replace(fedavg(sgd, cohort=cohort), optimizer=Yogi(server_lr, beta1, beta2, tau))


def fedbn(sgd: Sgd = Sgd(), *, cohort: Cohort = None, leaves: tuple[str, ...] = ()) -> Strategy:
    """Batch normalisation stays home: Li et al., ICLR 2021 (arXiv 2102.07623v2), Algorithm 1.

    With `leaves` (shell patterns such as ("head.*",)) those stay home instead, which is FedPer (arXiv 1912.00818v1).
    """
    return replace(fedavg(sgd, cohort=cohort), local=AtHome(local=sgd, leaves=leaves))


def fedbuff(
    sgd: Sgd = Sgd(),
    *,
    size: int = 10,
    concurrency: int = 10,
    server_lr: float = 1.0,
    a: float = 0.5,
    max_staleness: int | None = None,
) -> Strategy:
    """Buffered asynchronous training: Nguyen et al., AISTATS 2022 (arXiv 2106.06639v4), Algorithm 1.

    `concurrency` clients train at any time; after `size` updates, each times (1 + staleness)^-a, the server moves.
    """
    return replace(
        fedavg(sgd, cohort=1),
        weights=Equal(),
        optimizer=Step(server_lr),
        schedule=Buffered(size=size, concurrency=concurrency, a=a, max_staleness=max_staleness),
    )


def fedasync(
    sgd: Sgd = Sgd(),
    *,
    concurrency: int = 10,
    alpha: float = 0.6,
    a: float = 0.5,
    mu: float = 0.005,
    max_staleness: int | None = None,
) -> Strategy:
    """Asynchronous training: Xie et al. 2019 (arXiv 1903.03934v5), Algorithm 1, FedAsync with the polynomial of 5.2.

    Every update moves the server: x ← x + α·(1 + staleness)^-a·(x_client - x). `mu` is the clients' proximal term, ρ;
    see section 5.2.
    """
    return replace(
        fedbuff(sgd, size=1, concurrency=concurrency, server_lr=alpha),
        local=Prox(mu=mu, sgd=sgd),
        schedule=Buffered(size=1, concurrency=concurrency, a=a, mix="models", max_staleness=max_staleness),
    )


def median(sgd: Sgd = Sgd(), *, cohort: Cohort = None) -> Strategy:
    """The coordinate-wise median: Yin et al., ICML 2018 (arXiv 1803.01498v2), Algorithm 1, option I; on deltas."""
    return replace(fedavg(sgd, cohort=cohort), weights=Equal(), aggregate=Median())


def trimmed_mean(sgd: Sgd = Sgd(), *, cohort: Cohort = None, beta: float = 0.2) -> Strategy:
    """The coordinate-wise trimmed mean: Yin et al., ICML 2018 (arXiv 1803.01498v2), Algorithm 1, option II; on deltas.

    Needs at least 1/beta clients in a round.
    """
    return replace(fedavg(sgd, cohort=cohort), weights=Equal(), aggregate=TrimmedMean(beta))


def krum(sgd: Sgd = Sgd(), *, cohort: Cohort = None, byzantine: int = 1) -> Strategy:
    """The client closest to its neighbours: Blanchard et al., NeurIPS 2017 (arXiv 1703.02757v1), section 4; on deltas.

    Needs at least 2·byzantine + 3 clients in a round.
    """
    return replace(fedavg(sgd, cohort=cohort), weights=Equal(), aggregate=Krum(byzantine))


def multi_krum(sgd: Sgd = Sgd(), *, cohort: Cohort = None, byzantine: int = 1, keep: int | None = None) -> Strategy:
    """The mean of the best by Krum's score: Blanchard et al., NeurIPS 2017 (arXiv 1703.02757v1), Multi-Krum; section 4.

    Of n clients n - byzantine are kept, unless `keep` says how many.
    """
    return replace(fedavg(sgd, cohort=cohort), weights=Equal(), aggregate=Krum(byzantine, keep))


def geometric_median(
    sgd: Sgd = Sgd(), *, cohort: Cohort = None, iterations: int = 10, tolerance: float = 1e-6
) -> Strategy:
    """The geometric median: Pillutla et al., IEEE TSP 2022 (arXiv 1912.13445v2), Algorithm 2; clients count alike."""
    return replace(fedavg(sgd, cohort=cohort), weights=Equal(), aggregate=GeometricMedian(iterations, tolerance))


def dp_fedavg(
    sgd: Sgd = Sgd(),
    *,
    rate: float = 1.0,
    clip: float = 1.0,
    noise_multiplier: float = 1.0,
    delta: float = 1e-5,
    server_lr: float = 1.0,
    seeded: bool = False,
) -> Strategy:
    """Client-level differential privacy: McMahan et al., ICLR 2018 (arXiv 1710.06963v3), Algorithm 1, DP-FedAvg.

    Each client takes part with probability `rate`; deltas of at most `clip` are summed, and noise of
    `noise_multiplier · clip` is added, then divided by the expected cohort. Epsilon is told at `delta`; `fedloom
    calibrate` finds the noise. Flat clipping, equal weights. `seeded` noise is for tests and claims nothing.
    """
    noise = GaussianNoise(clip=clip, noise_multiplier=noise_multiplier, delta=delta, seeded=seeded)
    return replace(
        fedavg(sgd),
        weights=Equal(),
        select=Everyone() if rate == 1 else Poisson(rate),
        stages=(noise,),
        aggregate=Mean(expected=rate),
        optimizer=Step(server_lr),
        schedule=Sync(quorum=0),
    )


def dp_sgd_fedavg(
    sgd: Sgd = Sgd(),
    *,
    cohort: Cohort = None,
    lot: int | float | None = None,
    clip: float = 1.0,
    noise_multiplier: float = 1.0,
    delta: float = 1e-5,
    seeded: bool = False,
) -> Strategy:
    """Example-level differential privacy at each site: Abadi et al., CCS 2016 (arXiv 1607.00133v2), Algorithm 1.

    FedAvg whose clients descend by DP-SGD: `lot` examples at a time on average (a number, or a fraction of each
    client's; by default `sgd`'s batch_size), every example's gradient at most `clip` long, noise of `noise_multiplier ·
    clip` on each sum. Epsilon is told at `delta`, for each site by itself. Equal weights.

    >>> dp_sgd_fedavg(sgd(0.5, epochs=2), lot=0.25).local.lots(200)
    Lots(rate=0.25, steps=8, expected=50.0)
    """
    drawn = lot if lot is not None else sgd.batch_size or 1.0
    how: dict[str, Any] = {
        name: getattr(sgd, name) for name in ("epochs", "steps", "optimizer", "weight_decay", "rate")
    }
    local = DpSgd(lot=drawn, clip=clip, noise_multiplier=noise_multiplier, delta=delta, seeded=seeded, **how)
    return replace(fedavg(cohort=cohort), local=local, weights=Equal())


def dp_secagg_fedavg(
    sgd: Sgd = Sgd(),
    *,
    survivors: int = 3,
    clip: float = 1.0,
    noise_multiplier: float = 1.0,
    delta: float = 1e-5,
    server_lr: float = 1.0,
    seeded: bool = False,
) -> Strategy:
    """FedAvg, distributed differential privacy, secure aggregation: Agarwal et al., NeurIPS 2021 (arXiv 2110.04995v2).

    The protocol of section 4, without sampling: all clients, clipped to `clip`, add shares of Skellam noise to whole
    numbers, and the coordinator sees the masked sum alone, of at least `survivors` clients, whose noise is
    `noise_multiplier · clip`. So epsilon, told at `delta`, holds against the coordinator too.
    """
    noise = SkellamNoise(clip=clip, noise_multiplier=noise_multiplier, delta=delta, survivors=survivors, seeded=seeded)
    return replace(dp_fedavg(sgd, server_lr=server_lr), stages=(noise,), gather=SecAgg(survivors=max(3, survivors)))


def local_dp_fedavg(
    sgd: Sgd = Sgd(),
    *,
    cohort: Cohort = None,
    clip: float = 1.0,
    noise_multiplier: float = 1.0,
    delta: float = 1e-5,
    server_lr: float = 1.0,
    seeded: bool = False,
) -> Strategy:
    """Local differential privacy: Kasiviswanathan et al., FOCS 2008 (arXiv 0803.0924); nobody is trusted with a delta.

    A client clips its delta to `clip` and adds noise of `noise_multiplier · 2·clip` itself; the noise is that of Balle
    and Wang, ICML 2018 (arXiv 1805.06530v2), Algorithm 1. So much noise needs many clients. Epsilon, told at `delta`,
    is of one client's reports in all rounds, as if it were asked in each.
    """
    noise = LocalGaussianNoise(clip=clip, noise_multiplier=noise_multiplier, delta=delta, seeded=seeded)
    return replace(fedavg(sgd, cohort=cohort), weights=Equal(), stages=(noise,), optimizer=Step(server_lr))


def dp_ftrl(
    sgd: Sgd = Sgd(),
    *,
    every: int = 1,
    bands: int | None = None,
    clip: float = 1.0,
    noise_multiplier: float = 1.0,
    delta: float = 1e-5,
    seeded: bool = False,
) -> Strategy:
    """Differential privacy without sampling: Kairouz et al., ICML 2021 (arXiv 2103.00039v3), DP-FTRL, section 3.

    Clients are asked in turn, each in one of `every` rounds; noise on the sum of all rounds grows with the logarithm of
    their number, in trees of `every` rounds. With `bands` noise is correlated over so many rounds instead, by the
    banded inverse square root (Kalinin et al. 2025, arXiv 2505.12128v1). The server's step is plain: x ← x + mean.
    """
    how: dict[str, Any] = {"clip": clip, "noise_multiplier": noise_multiplier, "delta": delta, "seeded": seeded}
    noise: Any = TreeNoise(steps=every, **how) if bands is None else BandNoise(every=every, bands=bands, **how)
    return replace(dp_fedavg(sgd), select=Cyclic(every), stages=(noise,), aggregate=Mean(expected=1 / every))


RECIPES = (
    *(fedavg, fedsgd, fedavgm, fedprox, scaffold, fedadam, fedyogi, fedadagrad, fedbn, fedbuff, fedasync),
    *(median, trimmed_mean, krum, multi_krum, geometric_median, dp_fedavg, dp_sgd_fedavg, dp_secagg_fedavg),
    *(local_dp_fedavg, dp_ftrl),
)
