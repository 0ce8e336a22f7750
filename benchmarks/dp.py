"""MNIST with client-level differential privacy: accuracy at about ε = 3 and ε = 8, beside the same without noise.

    python benchmarks/dp.py                      # 6000 clients, 60 rounds
    python benchmarks/dp.py --rounds 10 --clients 2000

N clients of 60,000/N examples each, drawn at random (IID); each takes part in a round with probability q (Poisson), and
passes once over its examples; logistic regression; a fixed clip. The noise is what `calibrate` finds for the budget of
all rounds, from the operating system, so figures differ a little from run to run. Measured on the official test part,
which is public here. Learning rate and clip were tried on MNIST itself, which on real data would cost privacy too.
"""

import argparse
import time

import fedloom
from fedloom.core.event import DpEvent
from fedloom.privacy.accountant import spent
from fedloom.privacy.calibrate import noise_multiplier

BUDGETS = (3.0, 8.0)


def app(
    clients: int, rate: float, rounds: int, clip: float, lr: float, noise: float | None, delta: float
) -> fedloom.App:
    local = fedloom.sgd(lr, epochs=1, batch_size=10)
    quiet = {"noise_multiplier": 1e-9, "seeded": True}  # clipped and drawn alike, and nothing is claimed
    chosen = quiet if noise is None else {"noise_multiplier": noise}
    return fedloom.App(
        name="mnist dp",
        model=fedloom.BuiltIn(name="logistic"),
        data=fedloom.Data(source=fedloom.mnist(), partition=fedloom.Iid(clients), holdout=0.0),
        strategy=fedloom.dp_fedavg(local, rate=rate, clip=clip, delta=delta, **chosen),
        rounds=rounds,
        evaluate_every=rounds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=6000, help="N")
    parser.add_argument("--rate", type=float, default=0.05, help="q")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--clip", type=float, default=0.5)
    parser.add_argument("--lr", type=float, default=0.1)
    said = parser.parse_args()
    delta = float(f"{said.clients**-1.1:.1e}")
    print(f"N = {said.clients}, q = {said.rate:g}, {said.rounds} rounds, δ = {delta:g}")
    print(f"clip {said.clip:g}, learning rate {said.lr:g}")
    print("| budget | noise multiplier | ε | ε by RDP | test accuracy | s/round |")
    print("|---|---|---|---|---|---|")
    for budget in (*BUDGETS, None):
        select = fedloom.Poisson(said.rate)
        noise = None if budget is None else noise_multiplier(budget, delta, said.rounds, sampled=select.event)
        made, began = app(said.clients, said.rate, said.rounds, said.clip, said.lr, noise, delta), time.perf_counter()
        *_, last = made.run(engine="pool")
        seconds, accuracy = (time.perf_counter() - began) / said.rounds, last.metrics.view()["accuracy"]
        if noise is None:
            print(f"| ∞ | none | ∞ | ∞ | {accuracy:.4f} | {seconds:.2f} |", flush=True)
            continue
        event = select.event(DpEvent("gaussian", {"noise_multiplier": noise}))
        cost = spent(event, said.rounds, delta, said.clients)
        row = f"{noise:.3f} | {last.epsilon:.3f} | {cost.cross_check:.3f} | {accuracy:.4f} | {seconds:.2f}"
        print(f"| {budget:g} | {row} |", flush=True)


if __name__ == "__main__":
    main()
