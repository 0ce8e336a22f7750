"""The one accountant: what a description of releases costs, judged by dp-accounting behind our own translation.

Privacy loss distributions give the number that is shown; Rényi differential privacy is the cross-check, and the number
where only it is known. What is not understood is refused; what is not protected costs infinity.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache
from typing import Any

from ..core.errors import MissingExtra, StrategyError
from ..core.event import DpEvent
from .bands import Bands
from .skellam import SkellamSum

ZERO_OUT = "zero-out: one client's whole contribution, there or not; who is a member is public"
REPLACE = "replace-one: one client's whole contribution, exchanged for any other"
AGAINST = (
    "whoever sees the shared models of all rounds, clients and the public; not the coordinator, who sees what clients "
    "send, nor whoever reads its journal and reports, where the cohorts are"
)
ZERO_OUT_SEEN = "zero-out: one client's whole contribution, there or replaced by nothing; who takes part is public"
AGAINST_ALL = (
    "whoever sees the sums and the shared models of all rounds, the coordinator too, as far as it cannot break the "
    "cryptography of the hidden sums and each of them holds {survivors:g} honest clients or more"
)
ANY_TWO = "replace: any two reports of one client"
AGAINST_EVERYBODY = "everybody: whoever sees a client's reports of all rounds, the coordinator too"
LOCAL = ("local gaussian", "local laplace")
SAMPLED = ("poisson sampled", "sampled without replacement")
COVERS = "the shared model after every round"
COVERS_REPORTS = "every client's own reports, and all that is made of them"
APART = 3.0  # RDP may be so many times what PLD says, and one more: it is loose for rare sampling


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """What may be said: (epsilon, delta)-differential privacy, and all that the two numbers mean nothing without.

    Args:
        epsilon: of all rounds so far; infinity where nothing is claimed.
        delta: the probability that goes with it.
        rounds: how many releases; adjacency: which two federations are told apart; unit: of what.
        sampling: how clients were drawn; mechanism: what was added.
        against: whom; covers: which releases.
        accountant: name and version of what computed it.
        cross_check: epsilon by the other accountant, at least as large up to rounding; None where it has none.
        warnings: sentences about what is doubtful.
        sites: epsilon by site, where each accounts for its own examples; `epsilon` is the largest.
    """

    epsilon: float
    delta: float
    rounds: int
    adjacency: str
    unit: str = "client"
    sampling: str
    mechanism: str
    against: str = AGAINST
    covers: str = COVERS
    accountant: str
    cross_check: float | None
    warnings: tuple[str, ...] = ()
    sites: Mapping[str, float] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it."""
        said = asdict(self) | {"epsilon": told(self.epsilon), "warnings": list(self.warnings)}
        sites = {name: told(epsilon) for name, epsilon in said.pop("sites").items()}
        return said | ({"sites": sites} if sites else {})

    def sentence(self) -> str:
        """Return it in words."""
        return (
            f"ε = {self.epsilon:.3g} at δ = {self.delta:g} after {self.rounds} rounds ({self.adjacency}; unit: "
            f"{self.unit}; {self.sampling}; {self.mechanism}; {self.accountant}), against {self.against}."
        )


def told(epsilon: float) -> float | str:
    """Return epsilon as events say it: a number, or "infinity", never left blank.

    >>> told(1.23456789), told(math.inf)
    (1.234568, 'infinity')
    """
    return "infinity" if math.isinf(epsilon) else round(epsilon, 6)


@dataclass(frozen=True)
class Translated:
    """A round's release in dp-accounting's words: `single` for PLD (None: only RDP knows it), `rdp` for RDP.

    What dp-accounting has no words for is `own`, and says itself what so many rounds cost.
    """

    single: Any
    rdp: Any
    replace: bool
    sampling: str
    mechanism: str
    own: Any = None
    adjacency: str = ZERO_OUT
    every: int = 1  # a client takes part in one of so many rounds


def spent(event: DpEvent, rounds: int, delta: float, members: int | None = None) -> Guarantee:
    """Return what so many rounds of `event` cost.

    Args:
        event: of one round, as `Strategy.event` composes it.
        rounds: how many, at least 0.
        delta: in (0, 1), and below one over the members.
        members: of the federation, where the sampling depends on it.

    Raises `StrategyError` for an event that is not understood, or a number that means nothing.

    >>> z = DpEvent("gaussian", {"noise_multiplier": 1.0})
    >>> round(spent(z, 1, 1e-5).epsilon, 3)  # Balle and Wang, ICML 2018: 4.377178
    4.377
    """
    if rounds < 0:
        raise StrategyError(f"a number of rounds must be at least 0, got {rounds}.")
    warnings = checked_delta(delta, members)
    found = translated(event, members)
    shown, check = (0.0, 0.0) if rounds == 0 else _both(found, rounds, delta)
    return Guarantee(
        epsilon=shown,
        delta=delta,
        rounds=rounds,
        adjacency=REPLACE if found.replace else found.adjacency,
        sampling=found.sampling,
        mechanism=found.mechanism,
        against=against(event),
        covers=COVERS_REPORTS if found.adjacency == ANY_TWO else COVERS,
        accountant=f"dp-accounting {_version()}, {'RDP' if found.single is None else 'PLD'}",
        cross_check=None if found.single is None else check,
        warnings=(*warnings, *_doubts(shown, None if found.single is None else check)),
    )


def against(event: DpEvent) -> str:
    """Say whom a release is private against: that depends on who adds the noise."""
    while event.inner:
        event = event.inner[0]
    if event.kind in LOCAL:
        return AGAINST_EVERYBODY
    return AGAINST_ALL.format(**event.values) if event.kind == "skellam" else AGAINST


def checked_delta(delta: float, members: int | None) -> tuple[str, ...]:
    """Return a warning if delta is large for so many members; refuse one that lets a client be shown whole."""
    if not 0 < delta < 1:
        raise StrategyError(f"delta must be in (0, 1), got {delta}; take well below one over the number of clients.")
    if members is None or members < 2:
        return ()
    if delta >= 1 / members:
        raise StrategyError(
            f"delta of {delta:g} is not below one over {members} clients: publishing one of them whole would be "
            f"allowed by it; take at most {members**-1.1:.1e}."
        )
    if delta > members**-1.1:
        return (f"delta of {delta:g} is above {members**-1.1:.1e}, which is usual for {members} clients (N^-1.1).",)
    return ()


def translated(event: DpEvent, members: int | None = None) -> Translated:
    """Return a round's release in dp-accounting's words, and in ours; refuses what is not understood."""
    dp = _library()
    match event:
        case DpEvent("gaussian", {"noise_multiplier": z}):
            single = dp.GaussianDpEvent(_positive(z))
            return Translated(single, single, False, "everyone every round", f"Gaussian noise, multiplier {z:g}")
        case DpEvent("laplace", {"noise_multiplier": z}):
            single = dp.LaplaceDpEvent(_positive(z))
            return Translated(single, single, False, "everyone every round", f"Laplace noise, multiplier {z:g}")
        case DpEvent("skellam", {"noise_multiplier": z, "steps": steps, "survivors": survivors}):
            said = f"Skellam noise of the clients, multiplier {z:g} from {survivors:g} of them"
            return Translated(
                *(None, None, False, "everyone every round", said, SkellamSum(_positive(z), float(steps))),
                adjacency=ZERO_OUT_SEEN,
            )
        case DpEvent("tree", {"noise_multiplier": z, "rounds": steps}):
            return _tree(dp, _positive(z), int(steps))
        case DpEvent("bands", {"noise_multiplier": z, "bands": bands, "every": every}):
            own = Bands(_positive(z), int(bands), int(every), parts=True)
            said = f"Gaussian noise, multiplier {z:g}, correlated over {bands:g} rounds"
            return Translated(None, None, False, f"each client {_apart(every)}", said, own)
        case DpEvent("spaced", {"every": every}, (inner,)):
            return _spaced(int(every), inner)
        case DpEvent(kind, {"noise_multiplier": z}) if kind in LOCAL:
            law = "Gaussian" if kind == LOCAL[0] else "Laplace"
            single = (dp.GaussianDpEvent if kind == LOCAL[0] else dp.LaplaceDpEvent)(_positive(z))
            said = f"{law} noise of each client on its own report, multiplier {z:g}"
            return Translated(single, single, False, "a report in every round, asked or not", said, None, ANY_TWO)
        case DpEvent(kind, _, (inner,)) if kind in SAMPLED and inner.kind in LOCAL:
            return translated(inner, members)
        case DpEvent("poisson sampled", {"rate": rate, **more}, (inner,)):
            return _poisson(dp, float(rate), more.get("cap"), inner, members)
        case DpEvent("sampled without replacement", size, (inner,)):
            return _fixed_size(dp, size.get("clients"), size.get("fraction"), inner, members)
    raise StrategyError(
        f"the accountant does not know what {event.kind!r} costs; take GaussianNoise, LaplaceNoise or AdaptiveNoise, "
        f"and Everyone, Poisson or Uniform to select."
    )


def _tree(dp: Any, z: float, steps: int) -> Translated:
    """Return one part in a tree: it is in at most log2(steps) + 1 nodes, so one Gaussian of z over the root of that."""
    rdp, nodes = dp.SingleEpochTreeAggregationDpEvent(z, steps), steps.bit_length()
    said = f"Gaussian noise on the nodes of a tree of {steps} rounds, multiplier {z:g}"
    return Translated(dp.GaussianDpEvent(z / math.sqrt(nodes)), rdp, False, "each client once in a tree", said)


def _apart(every: float) -> str:
    return "in any round" if every == 1 else f"in one of any {every:g} rounds in a row"


def _spaced(every: int, inner: DpEvent) -> Translated:
    """Return what rounds cost of which a client takes part in one of any `every` in a row."""
    found, needed = translated(inner), int(inner.values.get("rounds", inner.values.get("every", 1)))
    if every < needed:
        raise StrategyError(
            f"{found.mechanism}: it is for clients that take part in one of any {needed} rounds, and they are asked in "
            f"one of {every}; take Cyclic(every={needed}) to select."
        )
    if inner.kind == "bands":
        own = Bands(inner.values["noise_multiplier"], int(inner.values["bands"]), needed)
        return replace(found, own=own, sampling=f"each client {_apart(every)}")
    if inner.kind not in ("gaussian", "laplace", "tree"):
        raise StrategyError(f"{found.mechanism}: it is accounted for everyone in every round; take Everyone().")
    return replace(found, every=every, sampling=f"each client {_apart(every)}")


def _poisson(dp: Any, rate: float, cap: float | None, inner: DpEvent, members: int | None) -> Translated:
    if not 0 < rate <= 1:
        raise StrategyError(f"a sampling rate must be in (0, 1], got {rate}.")
    mechanism = translated(inner)
    if mechanism.own is not None:
        raise StrategyError(
            f"{mechanism.mechanism}: sampling amplifies nothing against whoever knows who was drawn, which it is for; "
            f"take Everyone() to select."
        )
    if inner.inner:
        raise StrategyError("a sample of a sample is not accounted; select once.")
    if inner.kind not in ("gaussian", "laplace"):
        raise StrategyError(f"{mechanism.mechanism}: it is not accounted for samples; take Cyclic(every=…) to select.")
    if cap is None:
        single = dp.PoissonSampledDpEvent(rate, mechanism.single)
        rdp = single if inner.kind == "gaussian" else None
        return Translated(single, rdp, False, f"Poisson sampling, rate {rate:g}", mechanism.mechanism)
    if inner.kind != "gaussian":
        raise StrategyError("a capped Poisson sample is accounted for Gaussian noise alone; leave the cap out.")
    if members is None:
        raise StrategyError("a capped Poisson sample is accounted for a number of members; say how many there are.")
    single = dp.TruncatedSubsampledGaussianDpEvent(members, rate, int(cap), inner.values["noise_multiplier"])
    said = f"Poisson sampling of {members} clients, rate {rate:g}, cut off at {cap:g}"
    return Translated(single, None, False, said, mechanism.mechanism)


def _fixed_size(
    dp: Any, clients: float | None, fraction: float | None, inner: DpEvent, members: int | None
) -> Translated:
    """Return a fixed number of clients drawn without replacement: RDP, replace-one, with half the noise multiplier.

    dp-accounting 0.6.0 leaves out that replacing moves a sum by twice the clip (google/differential-privacy, issue
    378), so it is handed z/2; `tests/privacy/test_replace_one.py` fails when that is mended there.
    """
    if inner.kind != "gaussian":
        raise StrategyError("sampling without replacement is accounted for Gaussian noise alone; take Poisson.")
    if members is None:
        raise StrategyError("sampling without replacement is accounted for a number of members; say how many.")
    size = int(clients) if clients is not None else max(1, round((fraction or 0) * members))
    z = _positive(inner.values["noise_multiplier"])
    rdp = dp.SampledWithoutReplacementDpEvent(members, size, dp.GaussianDpEvent(z / 2))
    said = f"{size} of {members} clients drawn without replacement"
    return Translated(None, rdp, True, said, translated(inner).mechanism)


def _positive(z: float) -> float:
    if not 0 < z < math.inf:
        raise StrategyError(f"a noise multiplier must be above 0 and finite, got {z}.")
    return float(z)


@cache
def _both(found: Translated, rounds: int, delta: float) -> tuple[float, float | None]:
    """Return the epsilon that is shown, and the other accountant's."""
    if found.own is not None or found.single is None:
        return shown(found, rounds, delta), None
    return shown(found, rounds, delta), found.rdp and rdp_epsilon(found.rdp, -(-rounds // found.every), delta)


def shown(found: Translated, rounds: int, delta: float) -> float:
    """Return epsilon of so many rounds by the accountant whose number is shown."""
    if found.own is not None:
        return float(found.own.epsilon(rounds, delta))
    times = -(-rounds // found.every)
    if found.single is None:
        return rdp_epsilon(found.rdp, times, delta, replace=True)
    return pld_epsilon(found.single, times, delta)


def pld_epsilon(single: Any, rounds: int, delta: float) -> float:
    """Return epsilon by privacy loss distributions, zero-out, of a dp-accounting event composed so often."""
    from dp_accounting.pld import PLDAccountant

    library = _library()
    if isinstance(single, library.GaussianDpEvent):  # composes to another Gaussian, in closed form
        accountant = PLDAccountant(library.NeighboringRelation.REPLACE_SPECIAL)
        return float(accountant.compose(single, rounds).get_epsilon(delta))
    return float(losses(single).self_compose(rounds).get_epsilon_for_delta(delta))


@lru_cache(64)
def losses(single: Any, interval: float = 1e-4) -> Any:
    """Return one release's privacy loss distribution; it takes longer than to compose it, so it is kept for all rounds.

    What the library's accountant would build anew each time it is asked. `interval` is its grid: a coarser one is
    quicker, and an upper bound still.
    """
    from dp_accounting.pld import privacy_loss_distribution as pld

    library = _library()
    relation = library.NeighboringRelation.REPLACE_SPECIAL
    match single:
        case library.LaplaceDpEvent():
            return pld.from_laplace_mechanism(single.noise_multiplier, value_discretization_interval=interval)
        case library.PoissonSampledDpEvent(event=library.LaplaceDpEvent() as inner):
            return pld.from_laplace_mechanism(
                inner.noise_multiplier,
                value_discretization_interval=interval,
                sampling_prob=single.sampling_probability,
            )
        case library.PoissonSampledDpEvent(event=library.GaussianDpEvent() as inner):
            rate = single.sampling_probability
            return pld.from_gaussian_mechanism(
                inner.noise_multiplier,
                value_discretization_interval=interval,
                sampling_prob=rate,
                neighboring_relation=relation,
            )
        case library.TruncatedSubsampledGaussianDpEvent():
            return pld.from_truncated_subsampled_gaussian_mechanism(
                single.dataset_size,
                single.sampling_probability,
                single.truncated_batch_size,
                single.noise_multiplier,
                value_discretization_interval=interval,
                neighboring_relation=relation,
            )
        case library.GaussianDpEvent():
            return pld.from_gaussian_mechanism(single.noise_multiplier, value_discretization_interval=interval)
    raise StrategyError(f"privacy loss distributions of {single} are not known.")


def rdp_epsilon(single: Any, rounds: int, delta: float, *, replace: bool = False) -> float:
    """Return epsilon by Rényi differential privacy, of a dp-accounting event composed so often."""
    from dp_accounting.rdp import compute_epsilon

    orders, curve = _curve(single, replace)
    with _quiet():
        return float(compute_epsilon(orders, rounds * curve, delta)[0])


@lru_cache(64)
def _curve(single: Any, replaced: bool) -> tuple[Any, Any]:
    """Return orders, and one release's divergences: they add up, so they are kept for all rounds."""
    from dp_accounting.rdp import RdpAccountant

    relations = _library().NeighboringRelation
    accountant = RdpAccountant(neighboring_relation=relations.REPLACE_ONE if replaced else relations.REPLACE_SPECIAL)
    with _quiet():
        accountant.compose(single)
    return accountant._orders, accountant._rdp


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the library logs about orders that it leaves out: that only makes its bound looser."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _doubts(shown: float, check: float | None) -> tuple[str, ...]:
    if check is None or math.isinf(shown):
        return ()
    if shown > check * 1.01 + 1e-3 or check > APART * shown + 1:
        return (
            f"the two accountants disagree: ε = {shown:.4g} by PLD, {check:.4g} by RDP, which is an upper bound; do "
            f"not rely on either before somebody has looked.",
        )
    return ()


def _library() -> Any:
    try:
        import dp_accounting
    except ModuleNotFoundError as error:
        raise MissingExtra("accounting for privacy needs dp-accounting: pip install 'fedloom[privacy]'") from error
    return dp_accounting


@cache
def _version() -> str:
    from importlib.metadata import version

    return version("dp-accounting")
