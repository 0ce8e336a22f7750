"""Federated averaging as McMahan et al. (AISTATS 2017) ran it: MNIST, 100 clients, 10 a round, batch 10, one epoch.

fedloom run examples/mnist.py                                                    # the 2NN, IID
fedloom run examples/mnist.py --set model.name=cnn --set rounds=20               # their CNN
MNIST_SPLIT=shards fedloom run examples/mnist.py --set rounds=700                # two digits a client
"""

import os

import fedloom

SPLITS = {"iid": fedloom.Iid(100), "shards": fedloom.Shards(100, per_client=2)}

app = fedloom.App(
    name="mnist",
    model=fedloom.BuiltIn(name="mlp"),
    data=fedloom.Data(source=fedloom.mnist(), partition=SPLITS[os.environ.get("MNIST_SPLIT", "iid")], holdout=0.0),
    strategy=fedloom.fedavg(fedloom.sgd(lr=0.1, epochs=1, batch_size=10), cohort=10),
    rounds=100,
    stop=fedloom.Stop(target={"accuracy": 0.97}),
)
