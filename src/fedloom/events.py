"""What a run says, as values for `--json`, the journal and the report; docs/events.md is their schema."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from .core.metrics import Metrics
from .core.state import State
from .privacy.guarantee import told


def round_event(state: State) -> dict[str, Any]:
    """Return the event of the round that `state` closes; figures are missing in rounds that were not evaluated."""
    record = state.record
    assert record is not None, "a state that closes a round has its record"
    event: dict[str, Any] = {"event": "round", "round": state.round}
    if state.metrics is not None:
        event |= measured(state)
    if record.staleness:
        event["staleness"] = list(record.staleness)
    return event | {
        "training": figures(record.training),
        "cohort": list(record.cohort),
        "counted": len(record.counted),
        "bytes_down": record.bytes_down,
        "bytes_up": record.bytes_up,
        "seconds": round(record.seconds, 6),
        **privacy(state),
        "faults": [asdict(fault) | {"trace": list(fault.trace)} for fault in record.faults],
    }


def end_event(
    state: State, run: str | None, model: str | None, sha256: str | None, guarantee: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the last event of a run; with `guarantee` what its epsilon means."""
    event: dict[str, Any] = {"event": "end", "run": run, "status": state.status, "reason": state.reason}
    event |= {"rounds": state.round, "metrics": {}, "sites": {}}
    if state.metrics is not None:
        event |= measured(state)
    event |= privacy(state) | ({} if guarantee is None else {"guarantee": dict(guarantee)})
    return event | {"model": model, "sha256": sha256}


def privacy(state: State) -> dict[str, Any]:
    """Return what was spent: epsilon, "infinity" where nothing is claimed and never left blank; its delta; by site."""
    spent = {"epsilon": told(state.epsilon)} | ({} if state.delta is None else {"delta": state.delta})
    return spent | ({"epsilons": {site: told(each) for site, each in state.epsilons.items()}} if state.epsilons else {})


def measured(state: State) -> dict[str, Any]:
    """Return the figures of an evaluated state: pooled, and by site."""
    sites = {name: figures(metrics.view()) for name, metrics in state.sites.items()}
    metrics = figures((state.metrics or Metrics({})).view())
    found = {"metrics": metrics, "measured_on": "test" if state.central else "sites", "sites": sites}
    return found | ({"measured_at": dict(state.measured_at)} if state.measured_at else {})


def figures(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return figures that strict JSON can hold: NaN and infinity become None.

    >>> figures({"auc": float("nan"), "examples": 3})
    {'auc': None, 'examples': 3}
    """
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
