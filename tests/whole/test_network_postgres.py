"""A coordinator whose journal is in PostgreSQL: with its disk lost or the database down, the bits are the same."""

import shutil
import sys
from pathlib import Path

import pytest

from wired import COORDINATOR, Federated, clients, simulated, slow

sys.path.insert(0, str(Path(__file__).parents[1] / "store"))
from postgres import controlled, server

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


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_database_that_is_stopped_stops_the_run_and_no_site_learns_where_it_is(tmp_path, mode):
    app = slow(tmp_path, sites=2, rounds=25, seconds=0.03)
    with controlled() as (url, control), Federated(tmp_path, app, clients(2), options=("--database", url)) as there:
        there.start()
        there.until(lambda: there.rounds() > 5)
        control("-m", mode, "stop")
        there.until(lambda: there.processes[COORDINATOR].poll() is not None)
        assert there.processes.pop(COORDINATOR).returncode == 1
        assert "FL450" in there.said(COORDINATOR)
        for name in there.names:
            there.until_said(name, '"paused"')
            assert there.processes[name].poll() is None
        control("start")
        there.start(COORDINATOR)
        end = there.ended()
        said = "".join(map(there.said, there.names))
    assert (end["status"], end["rounds"]) == ("completed", 25)
    assert end["sha256"] == simulated(app, tmp_path)["sha256"]
    assert "StorageError at the coordinator; calling until" in said
    assert "pg8000" not in said
    assert ".s.PGSQL" not in said


def test_two_federations_with_one_database_know_nothing_of_each_other(tmp_path):
    """Of the same app, one while the other runs and when that has ended; a copy of a home is refused meanwhile."""
    for name in ("one", "two", "copy"):
        (tmp_path / name).mkdir()
    app = slow(tmp_path, sites=2, rounds=80, seconds=0.15)
    with server() as url:
        options = ("--database", url)
        with (
            Federated(tmp_path / "one", app, clients(2), options) as one,
            Federated(tmp_path / "two", app, clients(2), options) as two,
        ):
            one.start().until(lambda: one.rounds() > 2)
            two.start().until(lambda: two.rounds() > 2)
            assert one.row().run != two.row().run
            with Federated(tmp_path / "copy", app, (), (*options, "--sites", "2")) as copy:
                shutil.rmtree(copy.home)
                shutil.copytree(one.home, copy.home, ignore=shutil.ignore_patterns("runs"))
                copy.start(COORDINATOR).until(lambda: copy.processes[COORDINATOR].poll() is not None)
                assert "is served by another coordinator" in copy.said(COORDINATOR)
            ends = one.ended(), two.ended()
            before = two.said(COORDINATOR).count('"waiting"')
            two.start(COORDINATOR).until(lambda: two.said(COORDINATOR).count('"waiting"') > before)
            assert len(list(two.runs.glob("*/journal.url"))) == 2  # its own, and a new one
        assert [end["rounds"] for end in ends] == [80, 80]
        assert {end["sha256"] for end in ends} == {simulated(app, tmp_path)["sha256"]}
