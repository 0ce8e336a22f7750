"""Nothing is lost by federating: against the same model trained centrally on the same folds, and against the paper."""

from dataclasses import replace
from statistics import median

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import fedloom
from apps import needs_data
from fedloom.simulation import simulate

pytestmark = [pytest.mark.slow, needs_data]

SEEDS = range(5)
HEART = fedloom.App(
    model=fedloom.BuiltIn(name="logistic"),
    data=fedloom.Data(source=fedloom.heart_disease(), partition=fedloom.ByColumn("site"), holdout=0.25),
    strategy=fedloom.fedavg(fedloom.sgd(lr=0.1, epochs=1, batch_size=32)),
    rounds=30,
)
CHURN = replace(
    HEART,
    data=fedloom.Data(source=fedloom.telco_churn(), partition=fedloom.ByColumn("InternetService"), holdout=0.25),
    strategy=fedloom.fedavg(fedloom.sgd(lr=0.05, epochs=1, batch_size=64)),
)


def aucs(app):
    """Return the pooled held-out AUC of the federated model, and of scikit-learn's on everybody's training rows."""
    simulation = simulate(app)
    *_, state = simulation.rounds(simulation.first())
    splits = [party.split for party in simulation.parties.values()]
    x, y = (np.concatenate([getattr(s.train, part) for s in splits]) for part in ("inputs", "targets"))
    held_x, held_y = (np.concatenate([getattr(s.held_out, part) for s in splits]) for part in ("inputs", "targets"))
    central = LogisticRegression(max_iter=5000).fit(x, y).predict_proba(held_x)[:, 1]
    federated = app.built.predict(app.built.load(simulation.shared(state.vector)), held_x)[:, 1]
    exact = roc_auc_score(held_y, federated)
    assert state.metrics.view()["auc"] == pytest.approx(exact, abs=0.002)  # pooled of histograms, without scores
    return exact, roc_auc_score(held_y, central)


@pytest.mark.parametrize(("app", "least"), [(HEART, 0.82), (CHURN, 0.83)], ids=["heart_disease", "telco_churn"])
def test_federated_is_as_good_as_central(app, least):
    found = [aucs(replace(app, seed=seed)) for seed in SEEDS]
    assert median(central - federated for federated, central in found) <= 0.02, found
    assert median(federated for federated, _ in found) >= least, found


def test_mnist_2nn_reaches_97_percent_within_100_rounds():
    app = fedloom.App(
        model=fedloom.BuiltIn(name="mlp"),
        data=fedloom.Data(source=fedloom.mnist(), partition=fedloom.Iid(100), holdout=0.0),
        strategy=fedloom.fedavg(fedloom.sgd(lr=0.1, epochs=1, batch_size=10), cohort=10),
        rounds=100,
        stop=fedloom.Stop(target={"accuracy": 0.97}),
        evaluate_every=5,
    )
    *_, state = app.run()
    assert state.status == "target_reached", state.reason
