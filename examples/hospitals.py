"""Four hospitals learn together to recognise heart disease, without a patient's row leaving its hospital.

fedloom run examples/hospitals.py
"""

import fedloom

app = fedloom.App(
    name="hospitals",
    model=fedloom.BuiltIn(name="logistic"),
    data=fedloom.Data(source=fedloom.heart_disease(), partition=fedloom.ByColumn("site"), holdout=0.25),
    strategy=fedloom.fedavg(fedloom.sgd(lr=0.1, epochs=1, batch_size=32)),
    rounds=20,
)

if __name__ == "__main__":
    for state in app.run():
        figures = state.metrics.view()
        print(f"round {state.round}: loss {figures['loss']:.3f}, AUC {figures['auc']:.3f}")
