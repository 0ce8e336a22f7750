import inspect
import re

import numpy as np
import pytest

from fedloom import recipes
from fedloom.adapters.numpy import logistic
from fedloom.adapters.torch import torch_model
from fedloom.aggregate import GeometricMedian, Krum, Mean, TrimmedMean
from fedloom.core.strategy import Strategy
from fedloom.core.weights import Equal
from fedloom.local import AtHome
from fedloom.optimize import Adagrad, Adam, Momentum, PerBlock, Step, Yogi
from fedloom.recipes import (
    RECIPES,
    dp_fedavg,
    dp_ftrl,
    dp_secagg_fedavg,
    fedasync,
    fedbn,
    fedbuff,
    fedsgd,
    local_dp_fedavg,
    sgd,
)
from fedloom.schedule import Buffered, Sync
from fedloom.select import Everyone, Poisson, Uniform
from fedloom.stages import GaussianNoise
from nets import Norm
from small import classification, pooled, small

SPLITS = classification((30, 20, 25, 15, 20))
QUIET = {
    dp_fedavg: {"clip": 10.0, "noise_multiplier": 1e-3},
    dp_ftrl: {"clip": 10.0, "noise_multiplier": 1e-3},
    local_dp_fedavg: {"clip": 10.0, "noise_multiplier": 1e-3},
    dp_secagg_fedavg: {"clip": 10.0, "noise_multiplier": 1e-2, "survivors": 5},
}
BUFFERED = {fedbuff: {"size": 2, "concurrency": 4}, fedasync: {"concurrency": 4}}


@pytest.fixture(params=RECIPES, ids=lambda recipe: recipe.__name__)
def recipe(request):
    return request.param


def loss(made, vector):
    """Return the mean loss over all training rows, of what each site would deploy."""
    parts = [made.model.evaluate(party.personal(vector), party.split.train) for party in made.parties.values()]
    return sum(part.sums["loss"] for part in parts) / pooled(SPLITS).size


def test_it_beats_its_start(recipe):
    first = recipe(0.5) if recipe is fedsgd else recipe(sgd(0.2, batch_size=8), **(BUFFERED | QUIET).get(recipe, {}))
    strategy = fedbn(sgd(0.2, batch_size=8), leaves=("bias",)) if recipe is fedbn else first
    made = small(logistic(4), strategy, SPLITS)
    before = loss(made, made.state.vector)
    states = made.run(40 if recipe in BUFFERED else 12)
    assert before == pytest.approx(np.log(2), rel=1e-6)
    assert loss(made, states[-1].vector) < 0.75 * before
    assert not any(state.record.faults for state in states)


def test_batch_normalisation_at_home_learns():
    made = small(torch_model(Norm), fedbn(sgd(0.2, batch_size=8)), SPLITS)
    before = loss(made, made.state.vector)
    assert loss(made, made.run(8)[-1].vector) < 0.75 * before


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r not in BUFFERED | QUIET], ids=lambda r: r.__name__)
def test_a_cohort_is_drawn(recipe):
    assert recipe().select == Everyone()
    assert recipe(cohort=2).select == Uniform(clients=2)
    assert recipe(cohort=0.5).select == Uniform(fraction=0.5)


def test_the_docstring_cites(recipe):
    assert re.search(r"[A-Z]\w+ et al\..* (20\d\d)", recipe.__doc__, re.DOTALL)
    assert "arXiv" in recipe.__doc__ or recipe is fedsgd
    assert re.search(r"Algorithm \d|section \d", recipe.__doc__)


def test_a_recipe_is_a_dozen_lines(recipe):
    body = inspect.getsource(recipe).split('"""')[2].strip().splitlines()
    assert len(body) <= 12


def test_every_recipe_is_listed():
    found = {f for _, f in inspect.getmembers(recipes, inspect.isfunction) if f.__module__ == recipes.__name__}
    made = {f for f in found if inspect.signature(f).return_annotation is Strategy}
    assert made == set(RECIPES)


def test_what_each_recipe_chooses():
    """The defaults of the papers, by name."""
    assert recipes.fedavg().optimizer == Step(1.0)
    assert recipes.fedavgm(server_lr=0.5, beta=0.8).optimizer == Momentum(0.5, 0.8)
    assert recipes.fedadam(server_lr=0.2, tau=0.01, beta1=0.8, beta2=0.95).optimizer == Adam(0.2, 0.8, 0.95, 0.01)
    assert recipes.fedyogi(server_lr=0.2, tau=0.01, beta1=0.8, beta2=0.95).optimizer == Yogi(0.2, 0.8, 0.95, 0.01)
    assert recipes.fedadagrad(server_lr=0.2, tau=0.01, beta1=0.3).optimizer == Adagrad(0.2, 0.3, 0.01)
    assert recipes.fedprox(mu=0.3).local.mu == 0.3
    assert recipes.scaffold(server_lr=0.5).optimizer == PerBlock(Step(0.5), {"control": Step(1.0)})
    assert recipes.scaffold().weights == Equal()
    assert recipes.scaffold().aggregate == Mean(over={"control": "members"})
    assert isinstance(recipes.fedbn(leaves=("head.*",)).local, AtHome)
    assert recipes.trimmed_mean(beta=0.1).aggregate == TrimmedMean(0.1)
    assert recipes.krum(byzantine=2).aggregate == Krum(2, keep=1)
    assert recipes.multi_krum(byzantine=2).aggregate == Krum(2, keep=None)
    assert recipes.multi_krum(byzantine=2, keep=3).aggregate == Krum(2, keep=3)
    assert recipes.geometric_median(iterations=3, tolerance=0.1).aggregate == GeometricMedian(3, 0.1)
    private = dp_fedavg(rate=0.1, clip=0.5, noise_multiplier=2.0, delta=1e-6)
    assert private.stages == (GaussianNoise(clip=0.5, noise_multiplier=2.0, delta=1e-6),)
    assert (private.select, private.aggregate, private.weights) == (Poisson(0.1), Mean(expected=0.1), Equal())
    assert (private.schedule, dp_fedavg().select) == (Sync(quorum=0), Everyone())
    assert fedsgd(0.3).local.batch_size is None
    assert fedbuff(size=3, concurrency=7, a=0.3, max_staleness=9).schedule == Buffered(
        size=3, concurrency=7, a=0.3, max_staleness=9
    )
    assert (fedbuff(server_lr=0.5).optimizer, fedbuff().weights) == (Step(0.5), Equal())
    assert fedasync(concurrency=7).schedule == Buffered(size=1, concurrency=7, mix="models")
    assert (fedasync(alpha=0.9).optimizer, fedasync(mu=0.3).local.mu) == (Step(0.9), 0.3)


def test_sgd_in_the_usual_words():
    local = sgd(0.05, epochs=2, batch_size=10, momentum=0.9, weight_decay=0.01, steps=7)
    assert (local.epochs, local.batch_size, local.steps, local.weight_decay) == (2, 10, 7, 0.01)
    assert local.optimizer == Momentum(0.05, 0.9)
    assert sgd().optimizer == Step(0.1)
