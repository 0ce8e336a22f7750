"""Each message to a witness goes on from the one before on its connection, and from what it says on a new one."""

from types import SimpleNamespace

import pytest

from fedloom.core.errors import WireError
from fedloom.core.task import Member
from fedloom.runtime.net.audience import Audience
from fedloom.runtime.net.hall import Hall
from fedloom.runtime.net.seats import Seat
from posts import Post


class Grows:
    """A record of which only the size is told."""

    size = 1

    def introduced(self, name, key, commitment):
        pass

    def message(self, names, since, commitment):
        return {"note": f"origin\n{self.size}\nroot\n", "since": since}

    def cosigned(self, name, size, line):
        return True


@pytest.fixture
def audience():
    hall, line = Hall("run"), SimpleNamespace(received=0, sent=0, close=lambda: None)
    hall.seats["north"] = seat = Seat("north", (Member("north", 1),), None)
    seat.begin(SimpleNamespace(line=line), 0.0)
    made = Audience(hall, Grows(), lambda name: bytes(32))
    made.line = line
    return made


def said(seat):
    """Return what each message that waits goes on from, and where it leads."""
    post = Post()
    post.write(seat.jobs)
    return [(each["since"], int(each["note"].split("\n")[1])) for each in post.said]


def introduce(audience, size):
    audience.hear(audience.hall.seats["north"], {"kind": "witness", "size": size, "data": "d"})


def grow(audience, size):
    audience.record.size = size
    audience.publish()


def test_who_distrusts_the_record_has_said_its_last_word(audience):
    seat = audience.hall.seats["north"]
    with pytest.raises(WireError, match="distrusts the record"):
        audience.hear(seat, {"kind": "distrust", "reason": "it has shrunk."})
    assert [fault.message for _, fault in seat.faults] == ["it has shrunk."]


def test_what_was_said_before_a_checkpoint_came_does_not_lead_back(audience):
    introduce(audience, 0)
    grow(audience, 3)
    introduce(audience, 1)  # sent before the site had heard of 3, which is on its way
    grow(audience, 4)
    assert said(audience.hall.seats["north"]) == [(0, 1), (1, 3), (3, 3), (3, 4)]


def test_on_a_new_connection_nothing_is_shown_before_the_site_says_what_it_has_seen(audience):
    seat = audience.hall.seats["north"]
    introduce(audience, 0)
    grow(audience, 3)  # lost with the connection
    seat.begin(SimpleNamespace(line=audience.line), 1.0)
    grow(audience, 4)
    assert said(seat) == []
    introduce(audience, 1)
    assert said(seat) == [(1, 4)]


def test_what_no_witness_says_is_refused(audience):
    with pytest.raises(WireError, match="which size of the record it has seen"):
        introduce(audience, -1)
    audience.key = lambda name: None
    with pytest.raises(WireError, match="which size of the record it has seen"):
        introduce(audience, 1)
