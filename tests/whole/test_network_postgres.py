"""A coordinator whose journal is in PostgreSQL: killed, and its disk lost, the run ends with the same bits."""

import shutil
import sys
from pathlib import Path

import pytest

from wired import COORDINATOR, Federated, clients, simulated, slow

sys.path.insert(0, str(Path(__file__).parents[1] / "store"))
from postgres import server

pytestmark = pytest.mark.slow


def test_a_coordinator_that_loses_its_disk_goes_on_from_the_database(tmp_path):
    """All but the signed record, which sites have seen and insist on: that is kept on another disk."""
    app = slow(tmp_path, sites=2, rounds=25, seconds=0.03)
    with server() as url, Federated(tmp_path, app, clients(2), options=("--database", url)) as there:
        there.start()
        there.until(lambda: (tmp_path / f"{COORDINATOR}.out").read_text().count('"event": "round"') > 5)
        there.processes[COORDINATOR].kill()
        there.processes[COORDINATOR].wait()
        (record,) = there.home.glob("runs/*/record")
        kept = record.rename(tmp_path / "record")
        shutil.rmtree(there.home / "runs")
        record.parent.mkdir(parents=True)
        kept.rename(record)
        there.start(COORDINATOR)
        end = there.ended()
    assert (end["status"], end["rounds"]) == ("completed", 25)
    assert end["sha256"] == simulated(app, tmp_path)["sha256"]
