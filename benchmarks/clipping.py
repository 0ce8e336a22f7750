"""What clipping single examples costs: a step of plain SGD, of DP-SGD here, and with Opacus' per-example gradients.

    python benchmarks/clipping.py

One client, one thread, lots of 256 made-up 28 x 28 images, ten classes. "clipped" is the clipped sum alone; "with
noise" is the whole step, with Gaussian noise for every parameter from the operating system. Opacus is its
GradSampleModule, the clip as its documentation has it, and no noise; "ghost" is its
GradSampleModuleFastGradientClipping with its own loss wrapper. Medians; rows take turns. All gradients are compared
with each other first. In brackets: times the plain step.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import nn
from torch.nn import functional

from fedloom.adapters.torch import torch_model
from fedloom.adapters.torch_nets import linear, mlp
from fedloom.core.draws import gaussian
from fedloom.core.model import Batch
from fedloom.core.rng import stream

LOT, CLIP = 256, 1.0
NETS = {"logistic, 7,850 parameters": linear, "mlp, 199,210 parameters": mlp}


def rows(name: str, lot: int) -> dict[str, Callable[[], np.ndarray | None]]:
    build = NETS[name]((28, 28), 10)
    model = torch_model(build)
    start, rng = model.init(stream(0, "init")), np.random.default_rng(0)
    inputs, targets = rng.random((lot, 28, 28), np.float32), rng.integers(0, 10, lot)
    batch = Batch(inputs[None], targets[None], np.full((1, lot), 1 / lot, np.float32))
    stack = model.clipping()
    x, images, classes = stack.load(start, 1), torch.tensor(inputs), torch.tensor(targets)

    def theirs(wrapped: type[nn.Module]) -> nn.Module:
        module = build()
        for key, parameter in module.named_parameters():
            parameter.data.copy_(torch.tensor(model.layout.unpack(start)[key]))
        return (
            wrapped(module, loss_reduction="mean")
            if wrapped is GradSampleModule
            else wrapped(module, max_grad_norm=CLIP, use_ghost_clipping=True, loss_reduction="mean")
        )

    def noised() -> None:
        found = stack.clipped(x, batch, CLIP, 0)
        found.add_(stack.load(gaussian(found.shape[1], None)[None] / lot, 1))

    sampled = theirs(GradSampleModule)

    def opacus() -> np.ndarray:
        sampled.zero_grad()
        functional.cross_entropy(sampled(images), classes).backward()
        each = [p.grad_sample for p in sampled.parameters()]
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in each]).norm(dim=0)
        factor = (CLIP / (norms + 1e-6)).clamp(max=1.0)
        return torch.cat([torch.einsum("i,i...", factor, g).flatten() for g in each]).numpy() / lot

    found = {
        "plain SGD": lambda: stack.grad(x, Batch(inputs[None], targets[None], np.ones((1, lot), np.float32))) and None,
        "clipped": lambda: stack.read(stack.clipped(x, batch, CLIP, 0))[0],
        "clipped, with noise": noised,
        "Opacus, clipped": opacus,
    }
    ghost = theirs(GradSampleModuleFastGradientClipping)
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(ghost.parameters(), lr=0.0), noise_multiplier=0.0, max_grad_norm=CLIP, expected_batch_size=lot
    )
    criterion = DPLossFastGradientClipping(ghost, optimizer, nn.CrossEntropyLoss(reduction="mean"), "mean")

    def ghosts() -> np.ndarray:
        optimizer.zero_grad()
        criterion(ghost(images), classes).backward()
        return torch.cat([p.grad.flatten() for p in ghost.parameters()]).numpy()

    found["Opacus, ghost clipping"] = ghosts
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=15)
    said = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| ms a step, lot of {LOT} | " + " | ".join(NETS) + " |\n|---|" + "---|" * len(NETS))
    table: dict[str, list[str]] = {}
    for name in NETS:
        works, times = rows(name, LOT), {}
        sums = {key: found for key, work in works.items() if (found := work()) is not None}
        for key, found in sums.items():
            assert (
                np.abs(found / np.linalg.norm(found) - sums["clipped"] / np.linalg.norm(sums["clipped"])).max() < 1e-4
            ), key
        for _ in range(said.times):
            for key, work in works.items():
                began = time.perf_counter()
                work()
                times.setdefault(key, []).append(time.perf_counter() - began)
        for key, each in times.items():
            table.setdefault(key, []).append(
                f"{median(each) * 1e3:.1f} ({median(each) / median(times['plain SGD']):.2f})"
            )
    for key, cells in table.items():
        print(f"| {key} | {' | '.join(cells + [''] * (len(NETS) - len(cells)))} |")


if __name__ == "__main__":
    main()
