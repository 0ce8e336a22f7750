"""Your own training code: `train(params, data, config)` gets NumPy arrays and returns them; fedloom does the rest.

fedloom run examples/own_training.py
"""

from dataclasses import replace

import numpy as np

import fedloom


def train(params, data, config):
    """Fit a ridge regression around what was received: w = w₀ + (XᵀX/n + λI)⁻¹ Xᵀ(y − Xw₀)/n."""
    start = np.append(params["weight"].ravel(), params["bias"])
    inputs = np.column_stack([data.inputs, np.ones(data.size)]).astype(float)
    rest = np.ravel(data.targets) - inputs @ start
    hessian = inputs.T @ inputs / data.size + config["penalty"] * np.eye(start.size)
    found = start + np.linalg.solve(hessian, inputs.T @ rest / data.size)
    return {"weight": found[:-1].reshape(params["weight"].shape), "bias": found[-1:]}


app = fedloom.App(
    name="own_training",
    model=fedloom.BuiltIn(name="linear", bound=1e4),  # more than a weight can move in a round
    data=fedloom.Data(source=fedloom.SklearnSet("diabetes"), partition=fedloom.Quantity(6, alpha=2.0)),
    strategy=replace(fedloom.fedavg(), local=fedloom.Custom(function=train, config={"penalty": 0.1})),
    rounds=10,
)

if __name__ == "__main__":
    for state in app.run():
        figures = state.metrics.view()
        print(f"round {state.round}: RMSE {figures['rmse']:.1f}, R² {figures['r2']:.3f}")
