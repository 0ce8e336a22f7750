"""What a report is made of: plain values that any run can be turned into.

Nothing here knows how a run was stored or which library trained it; `page`, `tables` and `pictures` read only this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..data.holds import Held


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % bootstrap interval; bounds that cannot be known are NaN."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SiteRow:
    """One site's figure on its own held-out rows, by how the model was trained; None where it was not.

    Args:
        site: its name.
        examples: number of held-out rows behind the figures.
        alone: trained on this site's rows only.
        federated: the shared model.
        personal: the shared model, adapted to this site.
        pooled: trained on everybody's rows in one pot, which only a simulation can do.
    """

    site: str
    examples: int
    alone: Estimate | None = None
    federated: Estimate | None = None
    personal: Estimate | None = None
    pooled: Estimate | None = None


@dataclass(frozen=True)
class RunView:
    """A run as its report sees it.

    Args:
        run: its id, as `fedloom show` takes it.
        app: name of the app.
        digest: the app's digest.
        status: "completed", "target_reached", "converged", "stopped", "failed" or "running".
        reason: why it ended so, in a sentence; may be empty.
        started: when, as text.
        engine: what trained the clients.
        seed: of every random number in the run.
        figure: the main figure, such as "auc"; higher is better unless it is in `LOWER_IS_BETTER`.
        settings: what was trained, as text by name; "model digest" is repeated where the page says how to reproduce.
        trust: who could learn what, in a paragraph.
        epsilon: the privacy that was spent; "∞ (no differential privacy)" where nothing protects. Never blank.
        rounds: the run's round events, as `--json` prints them, in order.
        held: who holds what.
        comparison: a row per site; may be empty.
        comparison_note: how the comparison was made, or why there is none.
        exposure: what attacks on the app found, as `fedloom audit --report` keeps it; None where none was made.

    Raises:
        ValueError: `epsilon` is blank.
    """

    run: str
    app: str
    digest: str
    status: str
    reason: str
    started: str
    engine: str
    seed: int
    figure: str
    settings: Mapping[str, str]
    trust: str
    epsilon: str
    rounds: Sequence[Mapping[str, Any]]
    held: Sequence[Held]
    comparison: Sequence[SiteRow]
    comparison_note: str
    exposure: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse a report that is silent about privacy."""
        if not self.epsilon.strip():
            raise ValueError(
                "The 'epsilon' of RunView must say what privacy was spent. Got blank text instead; without protection "
                "give '∞ (no differential privacy)'."
            )
