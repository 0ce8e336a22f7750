"""What each rule survives: accuracy under every simulated attack, by the share of hostile clients, IID and not.

scikit-learn's 1,797 digits of 8 x 8 pixels, a softmax regression, 20 clients, all of them in every round. Under a
backdoor the second number is the part of other classes' stamped test digits that are called the target.

    python benchmarks/robust.py [--rounds 15] [--seeds 1] [--attacks noise,backdoor] [--rules krum] [--divided iid]
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from statistics import median

import numpy as np

import fedloom
from fedloom import recipes
from fedloom.attackers import Attackers
from fedloom.local import Backdoor

CLIENTS, TRAIN = 20, 1400
SGD = fedloom.sgd(0.5, epochs=2, batch_size=16)
MOST = 6  # attackers that the rules are set for: 30 %
RULES = {
    "mean": recipes.fedavg(SGD),
    "mean, Clip(1) by clients": replace(recipes.fedavg(SGD), stages=(fedloom.Clip(1.0),)),
    "mean, NormBound(1)": replace(recipes.fedavg(SGD), stages=(fedloom.NormBound(1.0),)),
    "median": recipes.median(SGD),
    "trimmed mean, 0.35": recipes.trimmed_mean(SGD, beta=0.35),
    "Krum, f = 6": recipes.krum(SGD, byzantine=MOST),
    "Multi-Krum, f = 6": recipes.multi_krum(SGD, byzantine=MOST),
    "geometric median": recipes.geometric_median(SGD),
}
ATTACKS = {
    "sign_flip": "sign_flip:scale=5",
    "scaling": "scaling:scale=20",
    "noise": "noise:deviation=1",
    "label_flip": "label_flip",
    "a_little": "a_little",
    "backdoor": "backdoor:size=2,scale=5",
}
DIVIDED = {"IID": fedloom.Iid(CLIENTS), "Dirichlet(0.3)": fedloom.Dirichlet(CLIENTS, alpha=0.3, min_size=5)}


def digits() -> fedloom.Arrays:
    """Return the digits as images in [0, 1], the last 397 of a fixed shuffle to measure on."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    images, labels = (found.images / 16).astype(np.float32)[order], found.target[order]
    return fedloom.Arrays(images[:TRAIN], labels[:TRAIN], classes=10, test_part=(images[TRAIN:], labels[TRAIN:]))


def measured(app: fedloom.App, attackers: Attackers | None) -> tuple[float, float | None]:
    """Return the accuracy after the last round, and how far a backdoor got."""
    *_, last = fedloom.run(app, attackers=attackers)
    attack = None if attackers is None else attackers.attack
    won = None
    if isinstance(attack, Backdoor):
        won = attack.success(app.built, last.vector, app.data.source.test().examples({}))
    return last.metrics.view()["accuracy"], won


def cells(rule: str, divided: str, attack: str | None, rounds: int, seeds: int) -> Iterator[str]:
    """Yield a cell for each share of attackers: medians over seeds."""
    for share in (0.1, 0.2, 0.3) if attack else (0.1,):
        found = []
        for seed in range(seeds):
            data = fedloom.Data(source=SOURCE, partition=DIVIDED[divided], holdout=0.0)
            app = fedloom.App(
                model=fedloom.BuiltIn(name="logistic"),
                data=data,
                strategy=RULES[rule],
                rounds=rounds,
                evaluate_every=rounds,
                seed=seed,
            )
            found.append(measured(app, Attackers.of(ATTACKS[attack], share) if attack else None))
        accuracy = f"{median(a for a, _ in found):.2f}"
        yield accuracy if found[0][1] is None else f"{accuracy} ({median(w for _, w in found):.0%})"


SOURCE = digits()

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--attacks", default=",".join(ATTACKS))
    parser.add_argument("--rules", default="", help="only rules whose name has this in it")
    parser.add_argument("--divided", default="", help="only divisions whose name has this in it")
    given = parser.parse_args()
    names = given.attacks.split(",")
    for divided in (one for one in DIVIDED if given.divided.lower() in one.lower()):
        print(f"\n{divided}; each cell: 10 / 20 / 30 % of the clients are hostile\n")
        print("| rule | nobody | " + " | ".join(names) + " |")
        print("|---" * (len(names) + 2) + "|")
        for rule in (one for one in RULES if given.rules.lower() in one.lower()):
            row = [" / ".join(cells(rule, divided, attack, given.rounds, given.seeds)) for attack in (None, *names)]
            print(f"| {rule} | " + " | ".join(row) + " |", flush=True)
