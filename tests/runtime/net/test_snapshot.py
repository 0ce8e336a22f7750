"""A snapshot says who is awaited and why, as the hall knows it; the file about it is there when it must be."""

import json
import threading
from datetime import UTC, datetime, timedelta
from queue import Queue

import numpy as np
import pytest

from fedloom.core.layout import Layout, Leaf
from fedloom.core.metrics import Metrics
from fedloom.core.task import Evaluate, Evaluated, Fault, Member, Reply, Task, Train, Trained
from fedloom.core.update import Update
from fedloom.runtime.net import snapshot as module
from fedloom.runtime.net.hall import Hall
from fedloom.runtime.net.leases import Leases
from fedloom.runtime.net.snapshot import Watch, snapshot
from fedloom.runtime.net.spool import Spool

LAYOUT = Layout((Leaf("w", (2,)),)).weighted(4)
WALL = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Wire:
    """A connection that remembers what is sent on it."""

    def __init__(self):
        self.line = self
        self.received, self.sent = 120, 340

    def close(self):
        pass


@pytest.fixture
def hall(tmp_path):
    clock = Clock()
    hall = Hall("run-1", leases=Leases(away_s=60, task_s=600), now=clock)
    for name in ("north", "south"):
        hall.take_seat(name, (Member(name, 10),), lambda name=name: Spool(tmp_path / name, 1000))
    hall.roster = [Member("north", 10), Member("south", 10)]
    return hall


def asked(hall, name, number=7, body=None):
    body = Train(3, np.zeros(2, np.float32), "digest", 16) if body is None else body
    return hall.send([Task(number, name, body)])


def connected(hall, name):
    seat = hall.seats[name]
    seat.begin(Wire(), hall.now())
    hall.come_in(seat)
    return seat


def at(seconds):
    return (WALL + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_somebody_connected_is_awaited_until_the_task_lapses(hall):
    connected(hall, "north")
    asked(hall, "north")
    hall.now.now += 5
    (one,) = snapshot(hall, WALL)["awaited"]
    assert one == {
        "party": "north",
        "site": "north",
        "task": "train",
        "number": 7,
        "attempt": 1,
        "asked": at(-5),
        "away_since": None,
        "came": True,
        "lease_until": at(595),
    }


def test_somebody_away_is_awaited_for_the_shorter_lease(hall):
    connected(hall, "north")
    asked(hall, "north")
    hall.now.now += 5
    hall.seats["north"].end(hall.now())
    hall.now.now += 20
    (one,) = snapshot(hall, WALL)["awaited"]
    assert (one["asked"], one["away_since"], one["lease_until"]) == (at(-25), at(-20), at(40))


def test_when_the_lease_that_is_shown_has_run_out_the_hall_gives_up_and_not_before(hall):
    ask = asked(hall, "south")
    (one,) = snapshot(hall, WALL)["awaited"]
    left = (datetime.fromisoformat(one["lease_until"]) - WALL).total_seconds()
    hall.now.now += left - 0.01
    assert hall.receive(ask, 0.0) is None
    hall.now.now += 0.02
    assert hall.receive(ask, 0.0).body.error == "LeaseExpired"
    assert snapshot(hall, WALL)["awaited"] == []


def test_a_site_is_told_with_its_traffic_its_faults_and_its_seconds(hall):
    seat = connected(hall, "north")
    asked(hall, "north")
    fault = Fault("north", "train", "OSError", "silent", ("own.py:3 train",))
    (given,) = seat.given.values()
    with hall.changed:
        hall._answer(seat, [given], Reply((7,), ("north",), fault, 1.25))
    north, south = snapshot(hall, WALL)["sites"]
    assert (north["connected"], north["bytes_in"], north["bytes_out"]) == (True, 120, 340)
    assert (north["answered"], north["seconds"], north["failed"]) == (1, [], {"OSError": 1})
    assert north["faults"] == [
        {
            "at": at(0),
            "site": "north",
            "phase": "train",
            "error": "OSError",
            "message": "silent",
            "trace": ["own.py:3 train"],
        }
    ]
    assert (south["connected"], south["away_since"], south["faults"]) == (False, at(0), [])


def test_the_seconds_that_are_shown_are_those_of_trainings(hall):
    seat = connected(hall, "north")
    bodies = {1: Trained(Update(np.zeros(3, np.float32), LAYOUT, 1), Metrics({})), 2: Evaluated(Metrics({}))}
    for number, body, seconds in ((1, None, 1.25), (2, Evaluate(np.zeros(1, np.float32)), 0.001)):
        asked(hall, "north", number, body)
        (given,) = seat.given.values()
        with hall.changed:
            hall._answer(seat, [given], Reply((number,), ("north",), bodies[number], seconds))
    north, _ = snapshot(hall, WALL)["sites"]
    assert (north["answered"], north["seconds"]) == (2, [1.25])


def test_the_open_round_is_the_one_after_the_last_closed_whenever_who_trains_was_asked(hall):
    """In a buffered run everybody may have been asked in an earlier one."""
    asked(hall, "north", body=Train(21, np.zeros(1, np.float32), "d", 1))
    hall.close(24, [])
    seen = snapshot(hall, WALL)
    assert (seen["doing"], seen["round"], seen["closed"]) == ("training, round 25", 25, 24)


def test_who_has_not_come_since_this_start_is_away_for_as_long_as_that(tmp_path):
    clock = Clock()
    hall = Hall("run-1", leases=Leases(away_s=60, task_s=600), now=clock)
    hall.take_seat("north", (Member("north", 10),), lambda: Spool(tmp_path, 1000), late_s=90.0)
    asked(hall, "north")
    clock.now += 30
    seen = snapshot(hall, WALL)
    assert [(one["away_since"], one["came"]) for one in seen["awaited"]] == [(at(-30), False)]
    assert (seen["began"], seen["sites"][0]["away_since"]) == (at(-30), at(-30))


@pytest.mark.parametrize(
    ("body", "doing", "round"),
    [
        (None, "between rounds", None),
        (Train(4, np.zeros(1, np.float32), "d", 1), "training, round 4", 4),
        (Evaluate(np.zeros(1, np.float32)), "evaluating", None),
    ],
)
def test_what_goes_on_follows_from_what_is_asked(hall, body, doing, round):
    if body is not None:
        asked(hall, "north", body=body)
    seen = snapshot(hall, WALL)
    assert (seen["doing"], seen["round"]) == (doing, round)


def test_before_there_are_members_sites_are_waited_for(hall):
    hall.roster = []
    assert snapshot(hall, WALL)["doing"] == "waiting for sites"


def test_a_snapshot_is_plain_values(hall):
    asked(hall, "north")
    seen = snapshot(hall, WALL)
    assert json.loads(json.dumps(seen)) == seen


def written(monkeypatch):
    """Return a queue of what is written, in place of the disk."""
    queue = Queue()
    monkeypatch.setattr(module, "write_json", lambda path, value: queue.put(value))
    return queue


def test_a_change_is_written_and_no_change_is_not(hall, tmp_path, monkeypatch):
    queue = written(monkeypatch)
    watch = Watch(hall, tmp_path / "status.json", {"name": "app"}, apart_s=0.005, beat_s=3600.0).open()
    try:
        assert queue.get(timeout=10)["awaited"] == []
        asked(hall, "north")
        assert [one["number"] for one in queue.get(timeout=10)["awaited"]] == [7]
        connected(hall, "south")
        assert queue.get(timeout=10)["sites"][1]["connected"] is True
    finally:
        watch.close()
    last = queue.get(timeout=10)
    assert (last["name"], queue.empty()) == ("app", True)


def test_it_is_written_now_and_then_without_a_change(hall, tmp_path, monkeypatch):
    queue = written(monkeypatch)
    watch = Watch(hall, tmp_path / "status.json", {}, apart_s=0.005, beat_s=0.005).open()
    try:
        times = [queue.get(timeout=10)["written"] for _ in range(3)]
    finally:
        watch.close()
    assert times == sorted(times)


def test_nobody_waits_for_the_disk(hall, tmp_path, monkeypatch):
    writing, go_on = threading.Event(), threading.Event()

    def slowly(path, value):
        writing.set()
        assert go_on.wait(10)

    watch = Watch(hall, tmp_path / "status.json", {}, apart_s=0.005, beat_s=0.005)
    monkeypatch.setattr(module, "write_json", slowly)
    thread = threading.Thread(target=watch.open)
    thread.start()
    try:
        assert writing.wait(10)
        assert hall.changed.acquire(timeout=10)  # held by nobody while the disk is slow
        hall.changed.release()
    finally:
        go_on.set()
        thread.join()
        watch.close()


def test_a_full_disk_ends_nothing_and_is_told_once(hall, tmp_path, caplog):
    watch = Watch(hall, tmp_path / "missing" / "status.json", {})
    watch.open()
    watch.close()
    assert [record.message for record in caplog.records] == ["no status"]
