"""What a party is told when it connects, and when a line is given up."""

from queue import Queue
from threading import Thread
from types import SimpleNamespace

import pytest

from fedloom.core.errors import ConfigError, StorageError, WireError
from fedloom.core.task import Member
from fedloom.runtime.identity import utc_now
from fedloom.runtime.net.hall import Hall
from fedloom.runtime.net.line import LineLost
from fedloom.runtime.net.reception import MOST_UNSAID, PROTOCOL, Reception
from fedloom.runtime.net.snapshot import snapshot
from fedloom.runtime.net.talk import Chunk
from posts import Office, Post, train, trained

HELLO = {"kind": "hello", "protocol": PROTOCOL, "app": "digest", "members": [["north", 5]], "process": "p"}
NORTH = SimpleNamespace(name="north", role="site", key=b"")


class Calling(Post):
    """A channel on which a party says hello, and what is given."""

    def __init__(self, **changes):
        super().__init__()
        self.says = [HELLO | changes]

    def then(self, said):
        self.says.append(said)
        return self

    def receive(self, timeout_s):
        return self.says.pop(0)


def reception(**changes):
    allow = {"denied": lambda peer, age_s: None, "welcome": lambda peer, members: None}
    rest = {"renew": None, "verdicts": None, "spool": lambda name: None, "digest": "digest"}
    return Reception(Hall("run"), **allow | rest | changes)


def cannot_look(*_):
    raise ConfigError("deny.json cannot be understood.")


@pytest.mark.parametrize(
    ("changes", "hello", "error", "said"),
    [
        ({}, {"protocol": 1}, WireError, ["refused"]),
        ({}, {"app": "another"}, WireError, ["refused"]),
        ({"denied": lambda peer, age_s: "it left"}, {}, WireError, ["refused"]),
        ({"denied": cannot_look}, {}, ConfigError, []),
        ({"welcome": cannot_look}, {}, ConfigError, []),
    ],
)
def test_what_cannot_be_looked_up_here_sends_nobody_away_for_good(changes, hello, error, said):
    """Who is told "refused" calls no more; and why it could not be looked up is not told to it."""
    channel = Calling(**hello)
    with pytest.raises(error):
        reception(**changes).session(channel, NORTH, lambda: None)
    assert [message["kind"] for message in channel.said] == said


def test_who_was_refused_is_known_until_it_comes():
    there = reception()
    with pytest.raises(WireError):
        there.session(Calling(app="another"), NORTH, lambda: None)
    (seen,) = snapshot(there.hall, utc_now())["refused"]
    assert seen["name"] == "north"
    assert seen["why"].startswith("the app of ")
    with pytest.raises(WireError, match="after a welcome"):
        there.session(Calling().then({"kind": "beat"}), NORTH, lambda: None)
    assert there.hall.refused == {}


def test_nobody_waits_for_a_line_whose_writer_has_ended():
    channel, writer = Post(), Thread(target=lambda: None)
    seat = SimpleNamespace(jobs=Queue(), channel=channel)
    for _ in range(MOST_UNSAID + 1):
        seat.jobs.put(None)
    writer.start()
    writer.join()
    reception()._slow_down(channel, seat, writer)  # it would wait for ever
    assert seat.jobs.qsize() > MOST_UNSAID


def test_a_verdict_is_told_to_the_seat_that_was_asked(tmp_path):
    office = Office(tmp_path).come()
    office.hall.take_seat("c", (Member("c", 5), Member("behind", 5)), lambda: None)
    office.hall.take_seat("c", (Member("c", 5),), lambda: None)  # a relay for whom one answers no more
    tasks = train((1, "a"), (2, "b"), (3, "c"), (4, "behind"))
    ask = office.kept.send(tasks)
    for number, name in ((1, "a"), (4, "c")):
        office.offer(name, [f"train/{number}"], trained())
        office.kept.receive(ask, 0.0)
    office.kept.cancel(ask)
    office.kept.settle((1, 4))
    nobody = SimpleNamespace(receive=lambda timeout_s: {"kind": "pending", "numbers": [1, 2, 3, 4, 5]})
    reception = Reception(office.hall, None, None, None, office.log.verdicts, None, "digest")
    for name, counted, void in (("a", [1], []), ("b", [], [2]), ("c", [4], [3])):
        office.said(name)
        reception._settled(nobody, office.hall.seats[name])
        (said,) = office.said(name)
        assert (said["counted"], said["void"]) == (counted, void)
    office.close()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "what a sends cannot be kept: [Errno 28] No space left on device."),
        (StorageError("the file is full."), "the file is full."),
    ],
)
def test_a_disk_that_keeps_nothing_more_stops_who_waits_and_what_is_here_comes_first(tmp_path, error, said):
    office = Office(tmp_path).come("a", "b")
    ask = office.kept.send(train((1, "a"), (2, "b")))
    office.offer("b", ["train/2"], trained())
    there = reception()
    there.hall = office.hall
    office.hall._arrivals.chunk = lambda seat, chunk: (_ for _ in ()).throw(error)
    with pytest.raises(type(error)):
        there._heard(office.hall.seats["a"], Chunk("ab" * 32, 0, memoryview(b"x")))
    assert office.kept.receive(ask, None).numbers == (2,)
    with pytest.raises(StorageError) as caught:
        office.kept.receive(ask, None)
    assert str(caught.value) == said
    office.close()


def test_a_body_that_is_gone_ends_the_call_and_not_the_run(tmp_path):
    office = Office(tmp_path).come("a")
    office.kept.send(train((1, "a")))
    there = reception()
    there.hall = office.hall
    office.hall._arrivals.chunk = lambda seat, chunk: (tmp_path / "gone").stat()
    with pytest.raises(LineLost, match="what a sends is not here any more"):
        there._heard(office.hall.seats["a"], Chunk("ab" * 32, 0, memoryview(b"x")))
    assert office.hall.broken is None
    office.close()


def test_connections_are_ended_in_the_lock_in_which_their_readers_end_them():
    there, locked = reception(), []
    seat = there.hall.take_seat("north", (Member("north", 5),), lambda: None)
    seat.end = lambda now: locked.append(there.hall.changed._is_owned())
    there.end()
    assert locked == [True]
