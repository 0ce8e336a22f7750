"""Views to render: four hospitals, and a large simulation. Run it with the name of a file to look at the page."""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fedloom.data.holds import Held
from fedloom.report.page import render
from fedloom.report.view import Estimate, RunView, SiteRow

HELD = [
    Held("cleveland", 242, 61, {"healthy": 131, "diseased": 111}),
    Held("hungary", 235, 59, {"healthy": 150, "diseased": 85}),
    Held("long beach", 160, 40, {"healthy": 42, "diseased": 118}),
    Held("switzerland", 98, 25, {"healthy": 7, "diseased": 91}),
]
COMPARISON = [
    SiteRow(
        "cleveland", 61, Estimate(0.871, 0.79, 0.94), Estimate(0.902, 0.83, 0.96), None, Estimate(0.91, 0.84, 0.96)
    ),
    SiteRow("hungary", 59, Estimate(0.866, 0.77, 0.94), Estimate(0.884, 0.79, 0.95), None, Estimate(0.89, 0.8, 0.96)),
    SiteRow(
        "long beach", 40, Estimate(0.741, 0.57, 0.88), Estimate(0.722, 0.55, 0.87), None, Estimate(0.75, 0.58, 0.89)
    ),
    SiteRow("switzerland", 25, Estimate(0.43, 0.21, 0.64), Estimate(0.71, 0.65, 0.9), None, Estimate(0.7, 0.42, 0.91)),
]
SETTINGS = {
    "model": "linear model with 13 features, 27 parameters",
    "strategy": "FedProx, mu = 0.1",
    "local": "2 epochs of SGD, batch 16, learning rate 0.05",
    "weights": "number of examples",
    "selection": "every site in every round",
    "model digest": "sha256:51c07be2a9",
}
FAULT = {
    "site": "switzerland",
    "phase": "train",
    "error": "TimeoutError",
    "message": "no answer within 60 s; its update of this round was left out",
}


def events(sites: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Return round events as a run prints them; round 7 has a fault."""
    noise = np.random.default_rng(0)
    found = []
    for number in range(1, rounds + 1):
        fading = math.exp(-number / 5)
        aucs = 0.87 - 0.25 * fading - 0.004 * (np.arange(len(sites)) % 30) + noise.normal(0, 0.008, len(sites))
        event = {
            "event": "round",
            "round": number,
            "metrics": {"examples": 185, "loss": 0.36 + 0.33 * fading, "auc": 0.87 - 0.25 * fading},
            "sites": {site: {"examples": 40, "auc": float(auc)} for site, auc in zip(sites, aucs, strict=True)},
            "training": {"loss": 0.34 + 0.33 * fading},
            "bytes_down": 61_440,
            "bytes_up": 58_112,
            "seconds": 0.31,
            "faults": [FAULT] if number == 7 else [],
        }
        found.append(event)
    return found


def hospitals() -> RunView:
    """Return a realistic run: 20 rounds, 4 hospitals, one fault."""
    return RunView(
        run="heart-20250301-7f3a",
        app="heart",
        digest="sha256:9b1f5c0e77aa41d2",
        status="completed",
        reason="",
        started="2025-03-01 09:14",
        engine="vectorized",
        seed=7,
        figure="auc",
        settings=SETTINGS,
        trust="The coordinator sees each hospital's update of 27 numbers and could try to infer rows from it. "
        "The hospitals see only the shared model.",
        epsilon="∞ (no differential privacy)",
        rounds=events([site.site for site in HELD], 20),
        held=HELD,
        comparison=COMPARISON,
        comparison_note="Alone: the same model trained on one hospital's rows. Pooled: on all rows in one place.",
    )


def many(sites: int = 200, rounds: int = 500) -> RunView:
    """Return a simulation with many sites and ten labels."""
    noise = np.random.default_rng(1)
    names = [f"client-{place:03d}" for place in range(sites)]
    counts = [noise.multinomial(100, noise.dirichlet([0.3] * 10)) for _ in names]
    held = [Held(n, 100, 20, {str(i): int(c) for i, c in enumerate(row)}) for n, row in zip(names, counts, strict=True)]
    alone, gains = noise.uniform(0.5, 0.7, sites).tolist(), noise.normal(0.1, 0.08, sites).tolist()
    rows = [SiteRow(n, 20, around(a), around(a + d)) for n, a, d in zip(names, alone, gains, strict=True)]
    return replace(hospitals(), rounds=events(names, rounds), held=held, comparison=rows)


def around(value: float) -> Estimate:
    """Return an estimate with an interval of ±0.1."""
    return Estimate(value, value - 0.1, value + 0.1)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(many() if "many" in sys.argv else hospitals()), encoding="utf-8")
