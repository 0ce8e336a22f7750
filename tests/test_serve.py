"""Members come and go between rounds, and not in a round that is run again."""

from types import SimpleNamespace

import pytest

from fedloom.core.errors import WireError
from fedloom.core.task import Member, Ready
from fedloom.runtime.net.hall import Hall
from fedloom.runtime.net.seats import Seat
from fedloom.serve import Coordinator, Serving, _seatable
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


def names(there):
    return [member.name for member in there.hall.roster]


def test_who_is_prepared_comes_and_who_leaves_goes_when_a_round_is_closed(there):
    Coordinator._between_rounds(there, 1)
    assert names(there) == there.measured == ["a", "c"]
    assert isinstance(there.hall.seats["b"], Seat)


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
