"""Your own torch module, with batch normalisation that stays at each site (FedBN).

fedloom run examples/own_module.py
"""

from torch import nn

import fedloom


def make_module():
    """Return the network; every party builds its own."""
    return nn.Sequential(nn.Linear(30, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))


app = fedloom.App(
    name="own_module",
    model=fedloom.torch_model(make_module, "cross_entropy"),
    data=fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Dirichlet(5, 0.5, min_size=20)),
    strategy=fedloom.fedbn(fedloom.sgd(lr=0.1, batch_size=16)),
    rounds=10,
)

if __name__ == "__main__":
    for state in app.run():
        figures = state.metrics.view()
        print(f"round {state.round}: loss {figures['loss']:.3f}, AUC {figures['auc']:.3f}")
