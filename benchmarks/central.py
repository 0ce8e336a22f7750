"""Federated against pooled: AUC on all sites' held-out rows, the same model on the same folds, five seeds.

    python benchmarks/central.py

"Pooled" trains with the app's own local work and as many rounds on everybody's training rows in one place.
"""

import statistics
from dataclasses import replace
from pathlib import Path

import fedloom
from fedloom.compare import trained_on
from fedloom.core.metrics import total
from fedloom.core.task import Evaluate, Evaluated, ask_all
from fedloom.load import load
from fedloom.simulation import Simulation, pooled, simulate

EXAMPLES = Path(__file__).parent.parent / "examples"


def auc(simulation: Simulation, vector: object) -> float:
    """Return the AUC over all sites' held-out rows."""
    replies = ask_all(simulation.federation, simulation.measured, Evaluate(vector))
    return total(reply.body.metrics for reply in replies if isinstance(reply.body, Evaluated)).view()["auc"]


def both(app: fedloom.App) -> tuple[float, float]:
    """Return the AUC of the federated and of the pooled model."""
    simulation = simulate(app)
    *_, state = simulation.rounds(simulation.first())
    central = trained_on(app, {"pooled": pooled(simulation.held)}, app.rounds)
    return auc(simulation, state.vector), auc(simulation, central)


def main() -> None:
    print("| app | federated AUC, median | pooled AUC, median | median difference | seeds |")
    print("|---|---|---|---|---|")
    for name in ("hospitals", "churn"):
        app = load(str(EXAMPLES / f"{name}.toml")).app
        pairs = [both(replace(app, seed=seed)) for seed in range(5)]
        federated, central = (statistics.median(column) for column in zip(*pairs, strict=True))
        gap = statistics.median(f - c for f, c in pairs)
        print(f"| {name} | {federated:.4f} | {central:.4f} | {gap:+.4f} | {len(pairs)} |")


if __name__ == "__main__":
    main()
