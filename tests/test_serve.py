"""Members come and go between rounds, and not in a round that is run again."""

from types import SimpleNamespace

import pytest

from fedloom.core.errors import ConfigError, QuorumLost, StorageError, WireError
from fedloom.core.task import Fault, Member, Ready
from fedloom.load import load
from fedloom.runtime.net.hall import Hall
from fedloom.runtime.net.seats import Seat
from fedloom.runtime.provisioning import provision
from fedloom.serve import Coordinator, Serving, _seatable, serve
from fedloom.store.dispatches import Dispatches, Joined
from fedloom.store.journal import opened_engine
from wired import authority, enrolled


@pytest.fixture
def there(tmp_path):
    """Return a coordinator after round 1 of "a" and "b"; "b" leaves, and "c" is prepared."""
    engine = opened_engine(f"sqlite:///{tmp_path / 'log.db'}")
    log, hall = Dispatches(engine), Hall("run")
    log.join([Joined(Member(name, 5), name, 1) for name in "ab"])
    hall.roster = [one.member for one in log.joined()]
    log.ask({1: "a", 2: "b"}, 1)
    for name in "abc":
        hall.take_seat(name, (Member(name, 5),), lambda: None)
        hall.seats[name].ready = {name: Ready(4, 1)}
    hall.seats["b"].left = True
    yield SimpleNamespace(hall=hall, log=log, measured=["a", "b"], serving=Serving(sites=2, capacity=9))
    engine.dispose()


def test_who_has_left_keeps_a_seat_for_what_it_was_asked_before(there):
    """A buffered schedule may wait for its answer, or have it in the log."""
    there.hall.seats["b"].given = {"train/2": None}
    said = []
    there.hall.seats["b"].say = lambda kind, **fields: said.append(kind)
    Coordinator._between_rounds(there, 1)
    assert said == []  # it is let go when it has answered
    there.hall.seats["b"].given = {}
    Coordinator._between_rounds(there, 2)
    assert said == ["end"]
    there.hall, there.door = Hall("run"), SimpleNamespace(reception=SimpleNamespace(spool=lambda name: None))
    Coordinator._seat(there, 2)
    assert {name: seat.left for name, seat in there.hall.seats.items()} == {"a": False, "b": True, "c": False}
    Coordinator._seat(there, 0)  # before that it was a member, and "c" is about to be one
    assert {name: seat.left for name, seat in there.hall.seats.items()} == {"a": False, "b": False, "c": False}


def test_a_relay_is_seated_with_those_who_are_still_there(there):
    there.log.join([Joined(Member(name, 5), "relay", 1) for name in "de"], 1)
    there.log.leave(["d"], 2)
    there.door = SimpleNamespace(reception=SimpleNamespace(spool=lambda name: None))
    Coordinator._seat(there, 2)
    relay = there.hall.seats["relay"]
    assert ([member.name for member in relay.members], relay.left) == (["e"], False)
    assert there.hall.seat_of("d") is relay


def names(there):
    return [member.name for member in there.hall.roster]


def test_who_is_prepared_comes_and_who_leaves_goes_when_a_round_is_closed(there):
    Coordinator._between_rounds(there, 1)
    assert names(there) == there.measured == ["a", "c"]
    assert isinstance(there.hall.seats["b"], Seat)


def test_the_hall_is_told_of_closed_rounds_and_not_of_those_of_a_run_that_had_ended(there):
    state = SimpleNamespace(round=3, record=SimpleNamespace(faults=(Fault("a", "wait", "Deadline", "late"),)))
    there.record = None
    Coordinator.closed(there, state)
    assert there.hall.closed == 0
    there.record = object()
    Coordinator.closed(there, state)
    assert (there.hall.closed, there.hall.seats["a"].failed) == (3, {"Deadline": 1})


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (None, "it was stopped after round 3"),
        (QuorumLost("north is away."), "after round 3: too few sites answered"),
        (StorageError("/srv/secret/journal.db is full."), "after round 3: StorageError at the coordinator"),
        (FileNotFoundError("/srv/secret"), "after round 3: FileNotFoundError at the coordinator"),
    ],
)
def test_sites_are_told_no_place_of_the_coordinators(broken, told):
    paused, shut = [], lambda: paused.append("shut")
    there = SimpleNamespace(hall=SimpleNamespace(pause=paused.append), door=SimpleNamespace(shut=shut))
    Coordinator.close(there, SimpleNamespace(status="stopped", reason="after round 3", round=3), broken)
    assert paused == [told, "shut"]


def test_a_relay_answers_for_nobody_who_may_call_itself(tmp_path):
    trusted = authority(tmp_path / "home")
    enrolled(trusted, tmp_path / "south", "south")
    east = SimpleNamespace(name="east", role="relay")
    hall = Hall("run")
    with pytest.raises(WireError, match="answers for 'south', who may call here itself"):
        _seatable(hall, trusted, east, (Member("north", 1), Member("south", 1)), 9)
    _seatable(hall, trusted, east, (Member("north", 1), Member("east", 1)), 9)
    trusted.deny("south", "it is behind east now")
    _seatable(hall, trusted, east, (Member("north", 1), Member("south", 1)), 9)


def test_a_round_that_was_asked_by_an_earlier_process_keeps_its_members(there):
    there.log.ask({3: "a", 4: "b"}, 2)  # before the state of round 1 was saved
    again = Dispatches(there.log._engine)
    there.log = again
    Coordinator._between_rounds(there, 1)
    assert names(there) == there.measured == ["a", "b"]
    Coordinator._between_rounds(there, 2)
    assert names(there) == there.measured == ["a", "c"]
    assert [one.member.name for one in again.joined(1)] == ["a", "b"]


@pytest.mark.parametrize("start_s", [0.0, float("inf"), float("nan")])
def test_a_run_begins_in_a_time_that_ends(start_s):
    with pytest.raises(ConfigError, match=r"Serving\.start_s \(--start\) must be above 0 s and at most 31,536,000 s"):
        Serving(sites=2, start_s=start_s)


def test_a_run_does_not_begin_with_more_sites_than_it_waits_for():
    with pytest.raises(ConfigError, match="1 to its 2 sites, got 3; change --least or --sites"):
        Serving(sites=2, least=3)


def test_a_home_that_cannot_be_written_in_is_named(tmp_path, read_only):
    provision(tmp_path / "home", ["localhost"])
    read_only()
    with pytest.raises(ConfigError, match=r"cannot make the folder .*runs: Read-only file system; let this user write"):
        serve(load("demo"), tmp_path / "home", "127.0.0.1", 0, Serving(sites=1))
