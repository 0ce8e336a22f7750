"""Seconds per round of the engines, beside a bare PyTorch loop in the same run.

    python benchmarks/engines.py                    # W1, W2 and W3; about ten minutes on two cores
    python benchmarks/engines.py --work W1 --rounds 13

Fashion-MNIST from Debian's package dataset-fashion-mnist (MNIST from FEDLOOM_DATA where it is not installed):

    W1  1000 clients × 60 examples, 100 a round, 1 epoch, batch 10, SGD 0.05, MLP 784-200-200-10
    W2  100 clients × about 600, Dirichlet(0.3), 10 a round, 1 epoch, batch 20, SGD 0.05, CNN 5×5 32/64 + 512
    W3  1000 clients × 60 examples, all in every round, one full-batch step, SGD 0.05, logistic 784-10

The bare loop is two processes of one thread each: plain modules, torch.optim.SGD, a float32 weighted mean, no
framework; it trains the same clients on the same batches. Median of the rounds after three for warming up; runs of the
engines and of the bare loop alternate. Memory (`--memory`) is the sum of the processes' proportional set sizes (PSS).
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import fedloom
from fedloom.adapters.torch_nets import cnn, linear, mlp
from fedloom.core.rng import stream
from fedloom.data.idx import Idx
from fedloom.simulation import Simulation, simulate

FASHION = Path("/usr/share/datasets/fashion-mnist")
SHAPE = (28, 28)
WARM = 3


@dataclass(frozen=True)
class Work:
    """One of the works above."""

    net: Callable[[], nn.Module]
    partition: Any
    cohort: int
    batch_size: int | None
    engines: tuple[str, ...]


WORKS = {
    "W1": Work(mlp(SHAPE, 10), fedloom.Iid(1000), 100, 10, ("sequential", "pool", "vectorized")),
    "W2": Work(cnn(SHAPE, 10), fedloom.Dirichlet(100, 0.3), 10, 20, ("pool",)),
    "W3": Work(linear(SHAPE, 10), fedloom.Iid(1000), 1000, None, ("sequential", "pool", "vectorized")),
}


def app_of(work: Work) -> fedloom.App:
    source = Idx(FASHION) if FASHION.is_dir() else fedloom.mnist()
    return fedloom.App(
        model=fedloom.torch_model(work.net),
        data=fedloom.Data(source=source, partition=work.partition, holdout=0.0),
        strategy=fedloom.fedavg(fedloom.sgd(0.05, batch_size=work.batch_size), cohort=work.cohort),
        rounds=10_000,
    )


def engine_rounds(simulation: Simulation) -> Iterator[np.ndarray]:
    """Yield the shared vector after each round, without evaluation."""
    app = simulation.app
    for state in app.strategy.schedule.run(app.strategy, simulation.terms, simulation.federation, simulation.first()):
        yield state.vector


def bare_rounds(simulation: Simulation, work: Work) -> Iterator[np.ndarray]:
    """Yield the vector of the bare loop: the same cohorts and batches, in two processes that only train and add."""
    splits = {name: party.prepared().train for name, party in simulation.parties.items()}
    context, pipes = get_context("fork"), []
    for _ in range(2):
        ours, theirs = context.Pipe()
        context.Process(target=_bare_worker, args=(theirs, splits, work), daemon=True).start()
        pipes.append(ours)
    vector, number, members = simulation.first().vector.copy(), 0, simulation.federation.members()
    for round in range(1, 10_000):
        cohort = simulation.app.strategy.select.pick(members, round, stream(0, f"round {round}").child("select"))
        asked = [(number + i, member.name) for i, member in enumerate(cohort, start=1)]
        number += len(asked)
        for at, pipe in enumerate(pipes):
            pipe.send((vector, asked[at::2]))
        sums = [pipe.recv() for pipe in pipes]
        vector = (sums[0][0] + sums[1][0]) / (sums[0][1] + sums[1][1])
        yield vector


def _bare_worker(pipe: Any, splits: dict[str, Any], work: Work) -> None:
    torch.set_num_threads(1)
    net = work.net()
    tensors = {n: (torch.tensor(s.inputs), torch.tensor(s.targets)) for n, s in splits.items()}
    while True:
        try:
            vector, asked = pipe.recv()
        except EOFError:
            return
        total, weight = torch.zeros(len(vector)), 0
        for number, name in asked:
            nn.utils.vector_to_parameters(torch.from_numpy(vector), net.parameters())
            for parameter in net.parameters():
                parameter.data = parameter.data.clone()
            optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
            inputs, targets = tensors[name]
            size = work.batch_size or len(targets)
            order = np.arange(len(targets))
            if len(targets) > size:
                shuffle = stream(0, number).child("local").child("shuffle")
                order = shuffle("0").permutation(len(targets))
            for at in range(0, len(targets), size):
                rows = torch.from_numpy(order[at : at + size])
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(inputs[rows]), targets[rows]).backward()
                optimizer.step()
            total.add_(nn.utils.parameters_to_vector(net.parameters()).detach(), alpha=len(targets))
            weight += len(targets)
        pipe.send((total.numpy(), weight))


def memory_mb() -> float:
    """Return the proportional set size of this process and its children, in MB (Linux)."""
    import psutil

    own = psutil.Process()
    return sum(p.memory_full_info().pss for p in [own, *own.children(recursive=True)]) / 1e6


def accuracy(simulation: Simulation, vector: np.ndarray) -> float:
    model, test = simulation.model, simulation.test
    assert test is not None
    return model.evaluate(model.load(vector), test).view()["accuracy"]


def measure(name: str, rounds: int, chunk: int | None) -> None:
    work = WORKS[name]
    app = app_of(work)
    runs: dict[str, Iterator[np.ndarray]] = {}
    open_: list[Simulation] = []
    began = time.perf_counter()
    reference = simulate(app)
    print(f"\n{name}: set up in {time.perf_counter() - began:.1f} s")
    runs["bare, 2 processes"] = bare_rounds(reference, work)
    for engine in work.engines:
        extra = {"chunk": chunk} if chunk else {}
        open_.append(simulate(app, engine=engine, **extra))
        runs[engine] = engine_rounds(open_[-1])
    seconds: dict[str, list[float]] = {kind: [] for kind in runs}
    vectors: dict[str, np.ndarray] = {}
    for _ in range(WARM + rounds):
        for kind, run in runs.items():
            began = time.perf_counter()
            vectors[kind] = next(run)
            seconds[kind].append(time.perf_counter() - began)
    median = {kind: statistics.median(times[WARM:]) for kind, times in seconds.items()}
    bare = median["bare, 2 processes"]
    print("| engine | s/round | of bare | µs/client | test accuracy |")
    print("|---|---|---|---|---|")
    for kind, value in median.items():
        each = value / work.cohort * 1e6
        print(f"| {kind} | {value:.4f} | {value / bare:.2f} | {each:.0f} | {accuracy(reference, vectors[kind]):.4f} |")
    for simulation in open_:
        simulation.close()


def footprint(name: str, engine: str, rounds: int) -> None:
    """Run one engine alone: start-up, and memory of all processes after some rounds and after the last."""
    began, app = time.perf_counter(), app_of(WORKS[name])
    simulation = simulate(app, engine=engine)
    run = engine_rounds(simulation)
    next(run)
    ready, early = time.perf_counter() - began, 0.0
    for at in range(2, rounds + 1):
        next(run)
        early = memory_mb() if at == max(2, rounds // 10) else early
    print(f"| {name} | {engine} | {ready:.1f} | {early:.0f} | {memory_mb():.0f} |")
    simulation.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", choices=[*WORKS, "all"], default="all")
    parser.add_argument("--rounds", type=int, default=17, help="measured rounds, after three for warming up")
    parser.add_argument("--memory", metavar="ENGINE", help="instead: start-up and memory of this engine alone")
    parser.add_argument("--chunk", type=int, help="clients that train at a time in the vectorized engine")
    chosen = parser.parse_args()
    names = list(WORKS) if chosen.work == "all" else [chosen.work]
    if chosen.memory:
        print("| work | engine | s to the first round | MB after a tenth of the rounds | MB after all |")
        print("|---|---|---|---|---|")
        for name in names:
            footprint(name, chosen.memory, chosen.rounds)
        return
    for name in names:
        measure(name, chosen.rounds, chosen.chunk)


if __name__ == "__main__":
    main()
