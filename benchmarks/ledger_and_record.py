"""What a site's ledger and a run's record cost: seconds an answer and a round, with and without waiting for the disk.

    python benchmarks/ledger_and_record.py

`without` puts nothing in the place of fsync: what the code itself costs. The rounds are made up: nobody trains.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from types import SimpleNamespace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import fedloom
from fedloom.core.budget import Budget
from fedloom.core.state import Record as Round
from fedloom.core.state import State
from fedloom.core.task import Train
from fedloom.data.fingerprint import fingerprint
from fedloom.data.rows import ArrayRows, SiteRows
from fedloom.privacy.account import Account
from fedloom.privacy.ledger import Ledger, run_of
from fedloom.record import Recorder
from fedloom.store.checkpoint import Key
from fedloom.store.dispatches import Accepted
from fedloom.store.notes import Notes

ROUNDS = 40


def timed(act: Callable[[], object], times: int = ROUNDS) -> float:
    """Return the median of so many calls, in milliseconds."""
    seconds = []
    for _ in range(times):
        began = perf_counter()
        act()
        seconds.append(perf_counter() - began)
    return 1e3 * median(seconds)


def answers(folder: Path, private: bool) -> Callable[[], object]:
    """Return one answer, written to a ledger with a budget or without one."""
    strategy = fedloom.dp_fedavg(rate=0.5, noise_multiplier=50.0, delta=1e-5) if private else fedloom.fedavg()
    budget = Budget(epsilon=8.0, delta=1e-5) if private else None
    ledger = Ledger.opened(folder / "ledger.jsonl")
    data = ledger.known("ab" * 32, 10_000, [f"{row:032x}" for row in range(1024)])
    run = run_of(strategy, run="run", app="digest", name="app", rounds=10_000)
    account = Account.opened(ledger, data, run, budget, Notes(folder / "site.db"))
    body = Train(1, np.zeros(2), "digest", 1)

    def answer() -> None:
        assert not account.objection(body)
        assert not account.spend(body)

    answer()  # finds how many there is room for
    return answer


def rounds(folder: Path, clients: int, size: int) -> Callable[[], object]:
    """Return one round of so many clients and values, written to a record and shown to each client."""
    key, names = Ed25519PrivateKey.generate(), [f"site-{at}" for at in range(clients)]
    app = SimpleNamespace(strategy=fedloom.fedavg(), rounds=10_000)
    there = {"terms": SimpleNamespace(total=SimpleNamespace(digest="")), "engine": "network"}
    training = SimpleNamespace(app=app, federation=SimpleNamespace(members=lambda: names), **there)
    vector = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    state = [State(0, None, vector)]  # type: ignore[arg-type]
    log = Key("fedloom/benchmark/run", key.public_key().public_bytes_raw()), key.sign
    recorder = Recorder.opened(training, state[0], folder, "app", log)  # type: ignore[arg-type]
    recorder.rows = lambda numbers: [Accepted((n,), (names[n - 1],), f"{n:064x}", 9, 0.1) for n in numbers]

    def one() -> None:
        number = state[0].round + 1
        vector[0] = number
        record = Round(number, 1, tuple(names), tuple(range(1, clients + 1)))
        state[0] = state[0].but(round=number, record=record)
        recorder.close_round(state[0])
        recorder.flush()
        recorder.message({names[0]}, recorder.record.tree.size - 1, "")

    return one


def main() -> None:
    """Print one line for each case."""
    with_disk = os.fsync
    cases = {
        "ledger, one answer": lambda folder: answers(folder, False),
        "ledger, one answer, with a budget": lambda folder: answers(folder, True),
        "record, 10 clients, 7,850 values": lambda folder: rounds(folder, 10, 7_850),
        "record, 100 clients, 1,000,000 values": lambda folder: rounds(folder, 100, 1_000_000),
        "record, 1,000 clients, 1,000,000 values": lambda folder: rounds(folder, 1000, 1_000_000),
    }
    for name, made in cases.items():
        found = []
        for sync in (with_disk, lambda descriptor: None):
            os.fsync = sync
            with TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
                found.append(timed(made(Path(folder))))
        print(f"{name:42} {found[0]:6.2f} ms   {found[1]:6.2f} ms without")
    os.fsync = with_disk
    rows = ArrayRows(np.zeros((100_000, 30), np.float32), np.arange(100_000))
    site = SiteRows(rows, rows.take(np.array([], np.int64)))
    print(f"{'fingerprint of 100,000 rows of 30 values':42} {timed(lambda: fingerprint(site, b'key'), 3):6.0f} ms")


if __name__ == "__main__":
    main()
