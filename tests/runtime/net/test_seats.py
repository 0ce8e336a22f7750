"""What is to be said on a connection: in its order, together where it can be, and never kept for long."""

from queue import Queue

import pytest

from fedloom.core.errors import WireError
from fedloom.core.task import Fault, Member
from fedloom.runtime.net import seats
from fedloom.runtime.net.seats import CLASSES, OTHER, Seat, Words, writing
from fedloom.runtime.net.spool import Spool
from fedloom.runtime.net.talk import MOST_TOGETHER
from posts import Post


class Frames(Post):
    """A channel that keeps what is sent, frame by frame."""

    def send_all(self, messages):
        self.said.append([message["kind"] for message in messages])


def word(kind, later=False):
    return Words({"kind": kind}, later)


def stream(channel):
    channel.said.append("stream")


def frames(*jobs, beat_s=60.0):
    """Return what a connection's writer sends for these, which wait for it."""
    queue, channel = Queue(), Frames()
    for job in (*jobs, None):
        queue.put(job)
    writing(channel, queue, beat_s)
    return channel.said


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ([], []),
        ([word("task")], [["task"]]),
        ([word("settle", True), word("record", True), word("task")], [["settle", "record", "task"]]),
        ([word("task"), stream, word("task")], [["task"], "stream", ["task"]]),
        ([word("receipt", True), stream], [["receipt"], "stream"]),
        ([word("receipt", True)], [["receipt"]]),
    ],
)
def test_words_are_said_together_in_their_order(jobs, said):
    assert frames(*jobs) == said


def test_a_frame_has_only_so_many():
    many = [word("task", at % 2 > 0) for at in range(MOST_TOGETHER + 1)]
    assert [len(frame) for frame in frames(*many)] == [MOST_TOGETHER, 1]


class Timed(Queue):
    """A queue that notes how long it is waited for, and is never waited for in vain."""

    def __init__(self, *jobs):
        super().__init__()
        self.waited, self.jobs = [], list(jobs)

    def get(self, timeout):
        self.waited.append(timeout)
        job = self.jobs.pop(0)
        if job is seats.Empty:
            raise seats.Empty
        return job


def test_what_can_wait_does_so_for_a_moment_and_then_is_said_alone(monkeypatch):
    monkeypatch.setattr(seats, "monotonic", lambda: 0.0)
    queue, channel = Timed(word("receipt", True), seats.Empty, seats.Empty, word("task"), None), Frames()
    writing(channel, queue, 10.0)
    assert channel.said == [["receipt"], ["beat"], ["task"]]
    assert queue.waited == [10.0, seats.LATER_S, 10.0, 10.0, 10.0]


def test_what_can_wait_is_not_put_off_by_more_that_can(monkeypatch):
    """As where records are shown, one a round, to a party that is told nothing else."""
    now, channel = [0.0], Frames()

    class Coming(Timed):
        def get(self, timeout):
            if not self.jobs:
                return None
            now[0] += min(timeout, 0.4 * seats.LATER_S)  # so often there is something more
            if timeout < 0.4 * seats.LATER_S:
                raise seats.Empty
            return self.jobs.pop(0)

    monkeypatch.setattr(seats, "monotonic", lambda: now[0])
    writing(channel, Coming(*[word(f"record {number}", True) for number in range(9)]), 10.0)
    assert channel.said == [[f"record {number + at}" for at in range(3)] for number in (0, 3, 6)]


@pytest.mark.parametrize("error", [OverflowError("negative"), OSError("no route"), WireError("too long")])
def test_whatever_ends_a_writer_closes_its_line(error):
    def failing(channel):
        raise error

    queue, channel = Queue(), Frames()
    for job in (word("task"), failing, word("task")):
        queue.put(job)
    writing(channel, queue, 60.0)
    assert (channel.said, channel.line.closed) == ([["task"]], True)


def test_a_party_that_invents_classes_of_faults_is_counted_and_fills_nothing(tmp_path):
    seat = Seat("a", (Member("a", 1),), Spool(tmp_path, 100))
    for number in range(3000):
        seat.note(Fault("a", "prepare", f"E{number}", "x"), float(number))
        seat.note(Fault("a", "prepare", "E0", "x"), float(number))
    assert seat.failed == dict.fromkeys([f"E{number}" for number in range(1, CLASSES)], 1) | {
        "E0": 3001,
        OTHER: 3000 - CLASSES,
    }
    assert [at for at, _ in seat.faults][-1] == 2999.0


def test_a_connection_that_two_threads_end_is_counted_once(tmp_path):
    seat, post = Seat("a", (Member("a", 1),), Spool(tmp_path, 100)), Post()
    seat.begin(post, 1.0)
    post.line.received, post.line.sent = 30, 40
    post.line.close = lambda: seat.end(3.0, post)  # as the reader does, which wakes
    seat.end(2.0)
    assert (seat.traffic, seat.away) == ((30, 40), 2.0)
