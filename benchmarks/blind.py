"""What a prediction on encrypted rows costs: seconds of each step, bytes of each file, and the error.

    python benchmarks/blind.py

1,000 made-up rows, a logistic model of 30 and of 1,000 inputs with two classes; one thread, one process, no files.
"""

from time import perf_counter

import numpy as np

from fedloom import Npz
from fedloom.adapters.numpy import logistic
from fedloom.blind import Form, answer, ask, decrypt

ROWS = 1000


def main() -> None:
    print("| inputs | encrypt, s | answer, s | decrypt, s | in the clear, s | query, MB | answer, MB | largest error |")
    print("|---|---|---|---|---|---|---|---|")
    for inputs in (30, 1000):
        print(row(inputs))


def row(inputs: int) -> str:
    rng, model = np.random.default_rng(0), logistic(inputs)
    form = Form("blind", "binary_cross_entropy", {}, npz=Npz(None, shape=(inputs,), classes=2, scale=1.0))
    rows = rng.normal(size=(ROWS, inputs)).astype(np.float32)
    vector = rng.normal(0, inputs**-0.5, model.layout.size).astype(np.float32)
    start = perf_counter()
    query, key = ask(form, rows)
    asked = perf_counter()
    found = answer(query, form, model, vector)
    answered = perf_counter()
    outputs = decrypt(found, key, form)
    opened = perf_counter()
    expected = model.predict(model.load(vector), rows)
    clear = perf_counter() - opened
    times = f"{asked - start:.2f} | {answered - asked:.2f} | {opened - answered:.3f} | {clear:.4f}"
    sizes = f"{len(query.content) / 1e6:.1f} | {len(found.content) / 1e6:.2f}"
    return f"| {inputs:,} | {times} | {sizes} | {np.abs(outputs - expected).max():.1e} |"


if __name__ == "__main__":
    main()
