"""What happens to institutions: it is said in a sentence, and nothing is lost."""

import json
import shutil

import pytest

from fedloom.status import standing
from wired import COORDINATOR, Federated, clients, simulated, slow

pytestmark = pytest.mark.slow

PLAIN = {"kind": "Sgd", "recipe": "fedavg", "changes": "local=Slow()"}


def last(there, name):
    return json.loads(there.said(name).splitlines()[-1])


def test_a_site_joined_from_an_old_copy_of_its_folder_fights_with_nobody_and_loses_nothing(tmp_path):
    """The first process is told, and ends; the copy has forgotten what it signed, and ends; then all goes on."""
    first, other = clients(2)
    app = slow(tmp_path, sites=2, rounds=40, seconds=0.1, **PLAIN)
    with Federated(tmp_path, app, clients(2)) as there:
        there.start().until(lambda: there.rounds() > 2)
        shutil.copytree(tmp_path / first, tmp_path / "copy")
        seen = there.rounds()
        there.until(lambda: there.rounds() > seen + 2)
        process, there.homes[first] = there.processes[first], tmp_path / "copy"
        there.start(first)
        there.until(lambda: process.poll() is not None and there.processes[first].poll() is not None)
        assert (process.returncode, there.processes[first].returncode) == (2, 2)
        assert f"another process has joined as '{first}', from another folder" in there.said(first)
        assert "an older copy of its folder lies in its place" in there.said(first)
        del there.homes[first]
        end = there.start(first).ended()
    assert (end["status"], end["sha256"]) == ("completed", simulated(app, tmp_path)["sha256"])
    assert there.said(other).count('"connected"') == 1
    there.consistent()


def test_a_second_coordinator_of_one_folder_is_refused_in_a_sentence(tmp_path):
    app = slow(tmp_path, sites=2, rounds=3, **PLAIN)
    with Federated(tmp_path, app, clients(2)) as there:
        there.start(COORDINATOR).until_said(COORDINATOR, "listening")
        process = there.processes.pop(COORDINATOR)
        there.start(COORDINATOR).until(lambda: there.processes[COORDINATOR].poll() is not None)
        assert f"another coordinator serves from {there.home}; stop it" in last(there, COORDINATOR)["said"]
        there.processes[COORDINATOR] = process
        assert there.start(*clients(2)).ended()["status"] == "completed"


def test_a_site_that_is_away_for_too_long_stops_a_run_which_goes_on_when_it_is_back(tmp_path):
    """All sites have to answer here. The others' answers are kept, and they call until the coordinator is back."""
    lost, *others = names = clients(3)
    app = slow(tmp_path, sites=3, rounds=12, seconds=0.1)
    with Federated(tmp_path, app, names, ("--away", "1")) as there:
        there.start().until(lambda: there.rounds() > 2)
        process = there.processes.pop(lost)
        process.kill()
        process.wait()
        there.until(lambda: there.processes[COORDINATOR].poll() is not None)
        assert there.processes.pop(COORDINATOR).returncode == 1
        assert f"{lost} (wait): LeaseExpired" in there.said(COORDINATOR)
        row, seen = there.row(), standing(there.home)
        assert (row.status, seen.status, seen.ended) == ("stopped", "stopped", False)
        assert f"after round {seen.closed}, since round {seen.closed + 1}: 2 of 3 clients counted" in seen.reason
        for name in others:
            there.until_said(name, "too few sites answered; calling until the coordinator is back")
            assert lost not in there.said(name).split('"paused"')[1]
        end = there.start(COORDINATOR, lost).ended()  # nobody is away before it may have called again
    assert (end["status"], end["rounds"], end["sha256"]) == ("completed", 12, simulated(app, tmp_path)["sha256"])
    assert len(there.consistent()) == 36
    assert [there.said(name).count('"key": "train/') for name in others] == [12, 12]


FULL = """\
mended = pathlib.Path("mended").exists()
if len(trained) == 4 and "client-001" in sys.argv and not mended:
    raise MemoryError("the GPU is full")
time.sleep(0.02)
"""


def test_a_site_whose_training_failed_stops_a_run_which_goes_on_when_it_is_mended(tmp_path):
    app = slow(tmp_path, sites=2, rounds=8, **PLAIN, does=FULL)
    with Federated(tmp_path, app, clients(2)) as there:
        there.start().until(lambda: there.processes[COORDINATOR].poll() is not None)
        assert there.processes.pop(COORDINATOR).returncode == 1
        assert there.row().status == "stopped"
        assert "client-001 (train): MemoryError" in there.row().reason
        (tmp_path / "mended").touch()
        end = there.start(COORDINATOR).ended()
    assert (end["status"], end["rounds"], end["sha256"]) == ("completed", 8, simulated(app, tmp_path)["sha256"])
    assert len(there.consistent()) == 16


LATE = """
import time
from fedloom.serve import Coordinator

recording = Coordinator.recording


def late(self, waiting):
    time.sleep(2)
    return recording(self, waiting)


Coordinator.recording = late
"""


def test_who_calls_while_a_run_is_being_taken_up_is_prepared_first(tmp_path):
    """All have lost their power; reading a large state may take long, and the sites are quicker."""
    app = slow(tmp_path, sites=2, rounds=8, seconds=0.1, **PLAIN)
    app.write_text(app.read_text() + LATE)
    with Federated(tmp_path, app, clients(2)) as there:
        there.start().until(lambda: there.rounds() > 2)
        for process in there.processes.values():
            process.kill()
            process.wait()
        end = there.start().ended()
    assert (end["status"], end["rounds"], end["sha256"]) == ("completed", 8, simulated(app, tmp_path)["sha256"])
    assert len(there.consistent()) == 16
