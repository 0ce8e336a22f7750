"""A long run keeps no more than a short one: the memory of all its processes does not grow over a thousand rounds."""

from contextlib import closing
from dataclasses import replace
from itertools import islice

import psutil
import pytest

import fedloom
from apps import app
from fedloom.recipes import fedavg, scaffold, sgd
from fedloom.running import begin
from fedloom.simulation import simulate

pytestmark = pytest.mark.slow

SETTLED, ROUNDS = 200, 1000  # rounds after which caches are full; rounds in all
MORE = 8 << 20  # bytes; a vector kept in each of the rounds between would be 15 MB in float32
APP = app(
    model=fedloom.BuiltIn(name="mlp", hidden=(64,)),
    data=fedloom.Data(source=fedloom.SklearnSet("digits"), partition=fedloom.Iid(4)),
    strategy=fedavg(sgd(0.05, steps=1), cohort=2),
    rounds=ROUNDS,
)


def grown(rounds):
    """Return by how many bytes this process and its children grow after the first rounds: resident, shared or not."""
    here, seen = psutil.Process(), {}
    for number, _ in enumerate(islice(rounds, ROUNDS), start=1):
        if number in (SETTLED, ROUNDS):
            processes = (here, *here.children(recursive=True))
            seen[number] = sum(each.memory_info().rss for each in processes)
    return seen[ROUNDS] - seen[SETTLED]


@pytest.mark.parametrize(
    ("recipe", "engine"),
    [(fedavg, "sequential"), (scaffold, "pool"), (fedavg, "vectorized/2"), (scaffold, "vectorized/2")],
)
def test_a_thousand_rounds_need_the_memory_of_two_hundred(recipe, engine):
    made = replace(APP, strategy=recipe(sgd(0.05, steps=1), cohort=2))
    with closing(simulate(made, engine=engine)) as there:
        rounds = made.strategy.schedule.run(made.strategy, there.terms, there.federation, there.first())
        assert grown(rounds) < MORE


def test_a_recorded_run_keeps_its_history_on_the_disk(tmp_path):
    with closing(begin(APP, tmp_path, engine="sequential")) as recording:
        assert grown(recording.rounds()) < MORE
