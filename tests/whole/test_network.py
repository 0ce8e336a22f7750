"""A federation of real processes has the bits of `fedloom run`, whatever is killed, cut or slowed on the way."""

import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
from proxy import Harm, proxy, seeded
from safetensors.numpy import load_file

from apps import needs_data, written
from fedloom.core.rng import stream
from fedloom.load import load
from fedloom.runtime.net.line import CHUNK_BYTES
from fedloom.runtime.net.spool import Body, Spool
from wired import COORDINATOR, Federated, clients, simulated, slow

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("FEDLOOM_KILLS", "16"))
PLAIN = {"kind": "Sgd", "recipe": "fedavg", "changes": "local=Slow()"}
RUNS = 4  # the kills are spread over so many runs
PER_RUN = -(-KILLS // RUNS)
LONG = max(40, 12 * PER_RUN)  # rounds that outlast the kills: who is killed as it leaves calls for ever


def whole(folder, app, names, **changes):
    """Run an app between processes; return the federation and the coordinator's last event."""
    with Federated(folder, app, names, **changes) as there:
        return there, there.start().ended()


@needs_data
def test_four_hospitals_have_the_bits_of_one_process(tmp_path):
    text = (Path(__file__).parents[2] / "examples" / "hospitals.toml").read_text()
    app = written(tmp_path, text.replace("rounds = 20", "rounds = 6"))
    there, end = whole(tmp_path, app, ("cleveland", "hungarian", "switzerland", "va_long_beach"))
    alone = simulated(app, tmp_path)
    assert (end["status"], end["rounds"], end["sha256"]) == ("completed", 6, alone["sha256"])
    assert end["metrics"] == alone["metrics"]
    assert len(there.consistent()) == 24


def test_statistics_of_columns_are_the_same_between_processes(tmp_path):
    app = written(tmp_path, 'data = "breast_cancer"\nclients = 3\nrounds = 3\n')
    there, end = whole(tmp_path, app, clients(3))
    assert end["sha256"] == simulated(app, tmp_path)["sha256"]
    assert len(there.consistent()) == 9


def test_memories_stay_at_the_sites_and_move_as_in_one_process(tmp_path):
    app = slow(tmp_path, rounds=12)
    there, end = whole(tmp_path, app, clients(3))
    assert end["sha256"] == simulated(app, tmp_path)["sha256"]
    assert len(there.consistent()) == 36


def draws(seed):
    """Return seeded instants: how long after the last one, and who is killed."""
    drawn = random.Random(seed)
    return [(drawn.uniform(0.05, 1.2), drawn.choice((COORDINATOR, *clients(2)))) for _ in range(PER_RUN)]


def bits_survive(folder, app, rounds, seed):
    """Run an app between processes that are killed at seeded instants, and compare with one that is not."""
    alone, killed = simulated(app, folder), []
    with Federated(folder, app, clients(2)) as there:
        there.start()
        for wait_s, name in draws(seed):
            instant = time.monotonic() + wait_s
            there.until(lambda instant=instant: time.monotonic() >= instant)
            if there.kill(name):
                killed.append(name)
        end = there.ended()
    assert killed
    assert (end["status"], end["rounds"], end["sha256"]) == ("completed", rounds, alone["sha256"])
    assert end["metrics"] == alone["metrics"]
    assert len(there.consistent()) == 2 * rounds


@pytest.mark.parametrize("seed", range(RUNS))
def test_kill_9_at_any_instant_changes_no_bit(tmp_path, seed):
    bits_survive(tmp_path, slow(tmp_path, sites=2, rounds=LONG, seconds=0.03), LONG, seed)


def test_kill_9_changes_no_bit_where_bodies_are_written_over_earlier_ones(tmp_path):
    app = slow(tmp_path, sites=2, rounds=15, features=600_000, seconds=0.03, **PLAIN)
    bits_survive(tmp_path, app, 15, seed=RUNS)


DYING = """
import os, pathlib
from fedloom.recording import Recording

catch_up = Recording.catch_up


def die_once(self):
    once = pathlib.Path(__file__).with_name(f"died in round {self.state.round}")
    if self._unsaved and self.state.round in (3, 7, 8) and not once.exists():
        once.touch()
        os.kill(os.getpid(), 9)
    catch_up(self)


Recording.catch_up = die_once
"""


@pytest.mark.parametrize("power_cut", [False, True])
def test_a_coordinator_that_dies_before_it_has_saved_a_round_that_sites_know_to_be_closed_runs_it_again(
    tmp_path, power_cut
):
    """The next round is asked by then. A power cut takes the updates too: the sites send the same bytes again."""
    app = slow(tmp_path, sites=3, rounds=12, seconds=0.2)
    app.write_text(app.read_text() + DYING)
    alone, damaged = simulated(app, tmp_path), 0
    with Federated(tmp_path, app, clients(3)) as there:
        there.start()
        for _ in range(3):
            there.until(lambda: there.processes[COORDINATOR].poll() is not None)
            for body in there.runs.glob("*/bodies/*/*") if power_cut else ():
                body.write_bytes(bytes(body.stat().st_size))
                damaged += 1
            there.start(COORDINATOR)
        end = there.ended()
    assert len(list(tmp_path.glob("died in round *"))) == 3
    assert damaged >= 9 * power_cut
    assert (end["status"], end["rounds"], end["sha256"]) == ("completed", 12, alone["sha256"])
    assert end["metrics"] == alone["metrics"]
    assert len(there.consistent()) == 36


# -- a line that does harm


@pytest.mark.parametrize("seed", range(2))
def test_a_line_that_cuts_slows_and_corrupts_changes_no_bit(tmp_path, seed):
    app = slow(tmp_path, sites=2, rounds=25, seconds=0.01)
    with Federated(tmp_path, app, clients(2)) as there, proxy(there.port, seeded(seed, 7, 60_000)) as line:
        there.through[clients(2)[0]] = line.port
        end = there.start().ended()
        assert line.harmed >= 4
    assert end["sha256"] == simulated(app, tmp_path)["sha256"]
    assert len(there.consistent()) == 50
    assert list(there.runs.glob("*/bodies")) == []


def test_a_body_goes_on_where_it_was_cut_off(tmp_path):
    """Counted at the proxy: a cut costs at most the piece that was on its way, in either direction."""
    features, rounds = 600_000, 2
    app = slow(tmp_path, sites=2, rounds=rounds, features=features, **PLAIN)
    bodies = {"up": rounds * 4 * features, "down": (rounds + 1) * 4 * features}  # the last one is only evaluated
    harms = [
        Harm(after=after, abrupt=at % 2 == 0)
        for at, after in enumerate([800_000, 1_300_000, 1_700_000, 900_000, 3_000])
    ]
    with Federated(tmp_path, app, clients(2)) as there, proxy(there.port, harms) as line:
        there.through[clients(2)[0]] = line.port
        end = there.start().ended(120.0)
        harmed = line.harmed  # the last of them comes only if enough was sent again before
        again = {"up": line.up - bodies["up"], "down": line.down - bodies["down"]}
    assert end["sha256"] == simulated(app, tmp_path)["sha256"]
    assert 3 <= harmed <= len(harms)
    assert all(0 < bytes_ < harmed * CHUNK_BYTES + 300_000 for bytes_ in again.values()), again


# -- what a run counted can be added up again from what it kept


def replayed(there, quorum_of):
    """Return the parameters that plain NumPy makes of the log's rows and the bodies that were kept."""
    loaded = load(str(there.app))
    strategy, model = loaded.app.strategy, loaded.app.built
    folder = there.runs / there.row().run
    payload = strategy.payload(model.layout)
    total = payload.weighted(strategy.select.most(len(there.names)))
    vector = np.asarray(model.init(stream(loaded.app.seed, "init")), np.float64)
    log, number, sizes = there.log(), 0, []
    for event in there.events():
        asked = range(number + 1, number + len(event["cohort"]) + 1)
        number += len(event["cohort"])
        counted = {each for each, yes in log.verdicts(asked).items() if yes}
        rows = [row for row in log.accepted(asked) if set(row.numbers) <= counted]
        assert len(rows) == event["counted"]
        sizes.append(len(rows))
        summed = np.zeros(total.size)
        for row in rows:
            spool = Spool(folder / "bodies" / row.parties[0], 1 << 30)
            summed += spool.get(Body(row.digest, row.size))["vector"].astype(np.float64)
        vector = (vector + summed[:-1] / summed[-1]).astype(np.float32).astype(np.float64)  # rounded once
    assert quorum_of(sizes)
    return vector.astype(np.float32), folder


ILL = """\
well = pathlib.Path("well")
while len(trained) == 8 and not well.exists():
    time.sleep(0.01)
if 4 <= len(trained) <= 7 and "client-001" in sys.argv:
    raise OSError("ill")
"""


def test_a_run_by_quorum_is_the_replay_of_its_journal(tmp_path):
    """One site fails in four rounds, and the coordinator is killed in the next: no clock decides who is counted."""
    changes = "local=Slow(), schedule=fedloom.Sync(quorum=2)"
    app = slow(tmp_path, sites=3, rounds=12, **PLAIN | {"changes": changes}, does=ILL)
    with Federated(tmp_path, app, clients(3), ("--keep-updates",)) as there:
        there.start().until(lambda: there.rounds() == 7)
        for number, name in enumerate(clients(3), start=22):  # of round 8
            there.until_said(name, f'"key": "train/{number}"')
        there.kill(COORDINATOR)
        (tmp_path / "well").touch()
        end = there.ended()
    assert (end["status"], end["rounds"]) == ("completed", 12)
    there.consistent()
    vector, folder = replayed(there, lambda sizes: sizes == [3, 3, 3, 2, 2, 2, 2, 3, 3, 3, 3, 3])
    saved = load_file(folder / "model.safetensors")
    layout = load(str(app)).app.built.layout
    np.testing.assert_array_equal(layout.pack(saved), vector)


def replayed_in_steps(there, size):
    """Return the parameters that plain NumPy makes of a buffered run's log, and how stale its updates were."""
    app = load(str(there.app)).app
    folder, rounds = there.runs / there.row().run, dict(there.asked())
    total = app.strategy.payload(app.built.layout).weighted(app.strategy.cohort(len(there.names)))
    step = np.float32(total.runs[0][1])
    vector = np.asarray(app.built.init(stream(app.seed, "init")), np.float64)
    counted = {number for number, yes in there.log().verdicts(rounds).items() if yes}
    rows = [row for row in there.log().accepted(counted) if set(row.numbers) <= counted]
    assert len(rows) == size * app.rounds
    stale = []
    for at in range(app.rounds):
        summed = np.zeros(total.size)
        for row in rows[at * size : (at + 1) * size]:
            update = Spool(folder / "bodies" / row.parties[0], 1 << 30).get(Body(row.digest, row.size))["vector"].copy()
            stale.append(at + 1 - rounds[row.numbers[0]])
            if stale[-1]:
                update[:-1] = np.rint(update[:-1] * np.float32((1 + stale[-1]) ** -0.5) / step) * step
            summed += update.astype(np.float64)
        vector = (vector + summed[:-1] / summed[-1]).astype(np.float32).astype(np.float64)
    return vector.astype(np.float32), stale


@pytest.mark.parametrize("seed", range(2))
def test_kill_9_at_any_instant_leaves_a_buffered_run_the_replay_of_its_journal(tmp_path, seed):
    """Who is in which step depends on who answers first, and who fails; that it is what was written down does not."""
    buffered = "select=fedloom.Uniform(clients=1), schedule=fedloom.Buffered(size=2, concurrency=2, faults=20)"
    fails = "time.sleep(0.03)\nif len(trained) % 3 == 2 and sys.argv[-1].endswith('client-001'):\n    raise MemoryError"
    changes = {"changes": f"local=Slow(), {buffered}", "does": fails}
    app = slow(tmp_path, sites=3, rounds=LONG, **PLAIN | changes)
    drawn, killed = random.Random(seed), []
    with Federated(tmp_path, app, clients(3), ("--keep-updates",)) as there:
        there.start().until(lambda: there.rounds() > 0)
        for _ in range(KILLS // 2):
            instant, name = time.monotonic() + drawn.uniform(0.05, 1.0), drawn.choice((*[COORDINATOR] * 3, *clients(3)))
            there.until(lambda instant=instant: time.monotonic() >= instant)
            if there.kill(name):
                killed.append(name)
        end = there.ended()
    assert killed
    assert (end["status"], end["rounds"]) == ("completed", LONG)
    events = there.events()
    assert {fault["error"] for event in events for fault in event["faults"]} == {"MemoryError"}
    vector, stale = replayed_in_steps(there, 2)
    assert min(stale) == 0 < max(stale)
    saved = load_file(there.runs / there.row().run / "model.safetensors")
    np.testing.assert_array_equal(load(str(app)).app.built.layout.pack(saved), vector)
