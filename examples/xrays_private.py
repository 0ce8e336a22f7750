"""Three hospitals, 500 chest X-rays each: pneumonia or not, with ε = 2 for every single X-ray, told at δ = 1e-4.

Example-level differential privacy inside each hospital (DP-SGD). A small model on fixed public features: pixels
averaged to 14 x 14. All 500 images are in every step, so that there is nothing to amplify and nothing to sample. A
positive example weighs what makes both classes count alike, by the class sizes that the data set's authors publish.

    python examples/xrays_private.py
"""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

import fedloom
from fedloom.data import data_folder
from fedloom.privacy.calibrate import noise_multiplier

POOL, HOSPITALS, EACH = 3200, 3, 500  # training images that hospitals draw from; the other 1,508 chose the settings
ROUNDS, STEPS, EPSILON, DELTA = 20, 4, 2.0, 1e-4
NORMAL, PNEUMONIA = 1214, 3494  # in the published training part


def features(images):
    """Return pixels averaged to 14 x 14, centred on grey; a constant map that has seen no image."""
    small = images.reshape(len(images), 14, 2, 14, 2).mean((2, 4)).reshape(len(images), 196)
    return (3 * (small / 255 - 0.5)).astype(np.float32)


def balanced(outputs, targets):
    """Return every example's logistic loss, weighed by its class."""
    weight = torch.tensor(NORMAL / PNEUMONIA)
    return functional.binary_cross_entropy_with_logits(
        outputs[:, 0], targets.to(outputs.dtype), pos_weight=weight, reduction="none"
    )


def correct(outputs, targets):
    """Return 1 for every example that is told right."""
    return ((outputs[:, 0] > 0) == (targets == 1)).to(outputs.dtype)


def read(path=None):
    """Return the files' arrays by name, labels flat."""
    with np.load(path or Path(data_folder()) / "pneumonia_mnist" / "pneumonia_mnist.npz") as found:
        return {name: found[name].reshape(-1) if "labels" in name else found[name] for name in found.files}


def make(seed=0, part="test", noise=None, seeded=False):
    """Return the app of one draw of 1,500 images, measured on a `part` that no hospital has: "test" or "val"."""
    found = read()
    rows = np.random.default_rng(seed).permutation(POOL)[: HOSPITALS * EACH]
    inputs, targets = features(found["train_images"][rows]), found["train_labels"][rows].astype(np.int64)
    held = features(found[f"{part}_images"]), found[f"{part}_labels"].astype(np.int64)
    return fedloom.App(
        name="xrays private",
        model=fedloom.torch_model(lambda: torch.nn.Linear(196, 1), balanced, {"accuracy": correct}),
        data=fedloom.Data(
            source=fedloom.Arrays(inputs, targets, classes=2, test_part=held),
            partition=fedloom.Iid(HOSPITALS),
            holdout=0.0,
        ),
        strategy=fedloom.dp_sgd_fedavg(
            fedloom.sgd(2.0, steps=STEPS),
            lot=1.0,
            clip=1.0,
            noise_multiplier=noise or noise_multiplier(EPSILON, DELTA, ROUNDS * STEPS),
            delta=DELTA,
            seeded=seeded,
        ),
        rounds=ROUNDS,
        stop=fedloom.Stop(watch="accuracy"),
        seed=seed,
        evaluate_every=ROUNDS,
    )


app = make()

if __name__ == "__main__":
    for state in app.run():
        if state.metrics is not None:
            print(f"round {state.round}: accuracy {state.metrics.view()['accuracy']:.3f}, ε = {state.epsilon:.2f}")
