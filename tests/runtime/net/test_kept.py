"""What was asked, accepted and closed survives a crash at any point, without sockets."""

import pytest
from sqlalchemy import event

from fedloom.core.task import Fault, Trained
from fedloom.store.dispatches import Accepted
from posts import Office, evaluate, evaluated, train, trained, value


@pytest.fixture(params=[False, True], ids=["bodies dropped", "bodies kept"])
def office(tmp_path, request):
    office = Office(tmp_path, keep=request.param)
    yield office
    office.close()


def drained(office, ask):
    replies = []
    while (reply := office.kept.receive(ask, 0.0)) is not None:
        replies.append(reply)
    return replies


def test_after_a_crash_only_who_has_not_answered_is_asked_again(office):
    tasks = train((1, "a"), (2, "b"), (3, "c"))
    ask = office.come().kept.send(tasks)
    office.offer("c", ["train/3"], trained(3.0))
    office.offer("a", ["train/1"], trained(1.0))
    assert [reply.numbers for reply in drained(office, ask)] == [(3,), (1,)]
    ask = office.crash().come().kept.send(tasks)
    assert [office.kinds(name) for name in "abc"] == [[], ["task"], []]
    office.offer("b", ["train/2"], trained(2.0))
    replies = drained(office, ask)
    assert [(reply.numbers, reply.parties, value(reply)) for reply in replies] == [
        ((3,), ("c",), 3.0),
        ((1,), ("a",), 1.0),
        ((2,), ("b",), 2.0),
    ]


def test_a_body_that_a_power_cut_has_damaged_is_asked_for_again(office):
    """Bodies are not written through to the disk: what they are called tells whether they have come through."""
    tasks = train((1, "a"), (2, "b"))
    ask = office.come().kept.send(tasks)
    for name, number in (("a", 1), ("b", 2)):
        digest = office.offer(name, [f"train/{number}"], trained(float(number)))
    assert len(drained(office, ask)) == 2
    path = office.hall.seats["b"].spool.path(digest)
    path.write_bytes(bytes(path.stat().st_size))
    ask = office.crash().come().kept.send(tasks)
    assert [office.kinds(name) for name in "ab"] == [[], ["task"]]
    assert not path.exists()
    office.offer("b", ["train/2"], trained(2.0))
    assert [value(reply) for reply in drained(office, ask)] == [1.0, 2.0]


def test_what_was_asked_from_several_models_is_asked_again_together(office):
    """As a buffered schedule does after a crash."""
    for number, name in ((1, "a"), (2, "b"), (3, "c")):
        ask = office.come().kept.send(train((number, name), round=number))
    office.offer("b", ["train/2"], trained(2.0))
    tasks = [*train((1, "a")), *train((2, "b"), round=2), *train((3, "c"), round=3), *train((4, "a"), round=3)]
    ask = office.crash().come().kept.send(tasks)
    assert [office.kinds(name) for name in "abc"] == [["task", "task"], ["task"], ["task"]]
    for name, number in (("a", 1), ("b", 2), ("c", 3), ("a", 4)):
        office.offer(name, [f"train/{number}"], trained(float(number)))
    assert [value(reply) for reply in drained(office, ask)] == [1.0, 2.0, 3.0, 4.0]


def test_what_had_arrived_and_was_not_received_is_asked_again(office):
    """It was not written down, so nothing was done with it."""
    tasks = train((1, "a"))
    office.come().kept.send(tasks)
    office.offer("a", ["train/1"], trained(1.0))
    ask = office.crash().come().kept.send(tasks)
    assert office.kinds("a") == ["task"]
    office.offer("a", ["train/1"], trained(1.0))
    assert [value(reply) for reply in drained(office, ask)] == [1.0]


def test_a_closed_round_stays_as_it_was_closed(office):
    tasks = train((1, "a"), (2, "b"), (3, "c"))
    ask = office.come().kept.send(tasks)
    for name, number in (("b", 2), ("a", 1)):
        office.offer(name, [f"train/{number}"], trained(float(number)))
    assert len(drained(office, ask)) == 2
    office.kept.cancel(ask)
    office.kept.settle((2,))  # the schedule has let 1 in as a fault, and closed without 3
    for name, counted, void in (("a", [], [1]), ("b", [2], []), ("c", [], [3])):  # each hears of its own
        (settle,) = [said for said in office.said(name) if isinstance(said, dict) and said["kind"] == "settle"]
        assert (settle["counted"], settle["void"]) == (counted, void)
    ask = office.crash().come().kept.send(tasks)
    assert [office.kinds(name) for name in "abc"] == [[], [], []]
    first, *void = drained(office, ask)  # those that were not counted are faults at once: nobody waits for them
    assert (value(first), [(reply.numbers, reply.body.error) for reply in void]) == (
        2.0,
        [((1,), "Void"), ((3,), "Void")],
    )
    office.offer("c", ["train/3"], trained(3.0))
    assert drained(office, ask) == []
    office.kept.cancel(ask)
    office.kept.settle((2,))
    assert office.log.verdicts((1, 2, 3, 4)) == {1: False, 2: True, 3: False}
    assert office.log.open() == []


def test_bodies_of_closed_rounds_go_when_the_state_behind_them_has_been_saved(office):
    """That is when nothing else is to be done in the next round."""
    seen = []
    ask = office.come().kept.send(train((1, "a")))
    digest = office.offer("a", ["train/1"], trained())
    drained(office, ask)
    office.kept.cancel(ask)
    office.kept.settle((1,))
    spool = office.hall.seats["a"].spool
    assert spool.path(digest).exists()
    office.kept.idle = lambda: seen.append(spool.path(digest).exists())
    ask = office.kept.send(train((2, "a"), round=2))
    assert seen == []
    assert spool.path(digest).exists()
    assert office.kept.receive(ask, 0.0) is None
    assert seen == [True]
    assert spool.path(digest).exists() == office.keep


def test_faults_and_evaluations_are_not_written_down(office):
    ask = office.come().kept.send(train((1, "a"), (2, "b")))
    office.offer("a", ["train/1"], b"garbage")
    office.offer("b", ["train/2"], evaluated())
    assert all(isinstance(reply.body, Fault) for reply in drained(office, ask))
    ask = office.kept.send(evaluate((1, "c"), (5, "c")))
    for said in office.said("c"):
        office.offer("c", [said["key"]], evaluated())
    assert len(drained(office, ask)) == 2
    assert office.log.accepted(range(10)) == []
    assert sorted(office.log.open()) == [1, 2]


def test_an_update_that_answers_an_evaluation_speaks_for_nobody(office):
    """Its number would be somebody else's dispatch in a later round."""
    ask = office.come().kept.send(evaluate((1, "a"), (7, "b")))
    office.said("a")
    (said,) = office.said("b")
    office.offer("b", [said["key"]], trained(66.0))
    assert isinstance(drained(office, ask)[0].body, Fault)
    assert office.log.accepted(range(10)) == []
    # and were it in the log, it would not be taken for another party's
    digest = office.hall.seats["b"].spool.put(trained(66.0))
    office.log.accept([Accepted((7,), ("b",), digest.digest, digest.size, 0.0)])
    ask = office.kept.send(train((7, "a")))
    assert office.kinds("a") == ["task"]
    assert drained(office, ask) == []


def test_replays_come_in_the_order_of_acceptance_across_sends(office):
    """A buffered schedule sends one task after the other; what it asked depends on the order of the replies."""
    first = office.come().kept.send(train((1, "a"), (2, "b")))
    office.offer("a", ["train/1"], trained(1.0))
    assert office.kept.receive(first, 0.0).numbers == (1,)
    office.kept.send(train((3, "c")), first)
    office.offer("c", ["train/3"], trained(3.0))
    assert office.kept.receive(first, 0.0).numbers == (3,)
    office.offer("b", ["train/2"], trained(2.0))
    assert drained(office, first)[0].numbers == (2,)
    again = office.crash().come().kept.send(train((1, "a"), (2, "b")))
    assert office.kept.receive(again, 0.0).numbers == (1,)
    office.kept.send(train((3, "c")), again)
    assert [reply.numbers for reply in drained(office, again)] == [(3,), (2,)]


@pytest.fixture
def there(office):
    """Return an ask that three have answered, one of them with garbage; nothing was received."""
    ask = office.come().kept.send(train((1, "a"), (2, "b"), (3, "c")))
    office.offer("c", ["train/3"], trained(3.0))
    office.offer("b", ["train/2"], b"garbage")
    office.offer("a", ["train/1"], trained(1.0))
    return ask


def logged(office):
    return [row.numbers for row in office.log.accepted((1, 2, 3, 4))]


def test_what_is_there_is_written_down_before_anybody_is_waited_for(office, there):
    assert [office.kept.receive(there, 0.0).numbers for _ in range(3)] == [(3,), (2,), (1,)]
    assert office.kept.receive(there, 0.0) is None
    assert logged(office) == [(3,), (1,)]
    again = office.crash().come().kept.send(train((1, "a"), (2, "b"), (3, "c")))
    assert [office.kinds(name) for name in "abc"] == [[], ["task"], []]
    assert [reply.numbers for reply in drained(office, again)] == [(3,), (1,)]


def test_what_is_there_is_written_down_before_anybody_is_asked(office, there):
    """Also what is not received yet: it is received next, before what comes later."""
    assert office.kept.receive(there, 0.0).numbers == (3,)
    office.kept.send(train((4, "c")), there)
    assert logged(office) == [(3,), (1,)]
    office.offer("c", ["train/4"], trained(4.0))
    assert [reply.numbers for reply in drained(office, there)] == [(2,), (1,), (4,)]


def test_what_is_there_is_written_down_when_somebody_has_failed(office, there):
    assert office.kept.receive(there, 0.0).numbers == (3,)
    office.kept.cancel(there)
    assert logged(office) == [(3,), (1,)]


def test_what_is_there_is_written_down_with_the_verdict(office):
    commits = []
    ask = office.come().kept.send(train((1, "a"), (2, "b")))
    for name, number in (("b", 2), ("a", 1)):
        office.offer(name, [f"train/{number}"], trained(float(number)))
    event.listen(office.log._engine, "commit", commits.append)
    assert [office.kept.receive(ask, 0.0).numbers for _ in range(2)] == [(2,), (1,)]
    office.kept.cancel(ask)
    assert commits == []
    office.kept.settle((1, 2))
    assert len(commits) == 1
    assert logged(office) == [(2,), (1,)]
    assert office.log.verdicts((1, 2)) == {1: True, 2: True}


def test_a_body_that_is_gone_from_the_disk_is_asked_for_again(office):
    ask = office.come().kept.send(train((1, "a")))
    digest = office.offer("a", ["train/1"], trained())
    drained(office, ask)
    office.hall.seats["a"].spool.drop(digest)
    ask = office.crash().come().kept.send(train((1, "a")))
    assert office.kinds("a") == ["task"]
    office.offer("a", ["train/1"], trained())
    assert [type(reply.body) for reply in drained(office, ask)] == [Trained]
    assert len(office.log.accepted((1,))) == 1


def test_members_come_and_go_when_a_round_is_closed(office):
    told = []
    office.kept.closed = lambda round: told.append((round, office.log.open()))
    ask = office.come().kept.send(train((1, "a")))
    office.kept.cancel(ask)
    office.kept.settle(())
    assert told == [(1, [])]
    assert office.log.verdicts((1,)) == {1: False}


def bodies(office, name="a"):
    return [path.name for path in office.hall.seats[name].spool.folder.iterdir()]


@pytest.mark.parametrize("crash", [False, True])
def test_the_same_bytes_in_the_next_round_are_not_dropped_with_the_last_one(office, crash):
    """As of a site that has nothing to change: its next answer may be here before the last round's is dropped."""
    ask = office.come().kept.send(train((1, "a")))
    first = office.offer("a", ["train/1"], trained())
    assert [reply.numbers for reply in drained(office, ask)] == [(1,)]
    if crash:
        ask = office.crash().come().kept.send(train((1, "a")))
        assert [reply.numbers for reply in drained(office, ask)] == [(1,)]
    office.kept.settle((1,))
    ask = office.kept.send(train((2, "a"), round=2))
    assert office.offer("a", ["train/2"], trained()) == first
    replies = drained(office, ask)
    assert [type(reply.body) for reply in replies] == [Trained]
    office.kept._forget()
    assert bodies(office) == [first]
    ask = office.crash().come().kept.send(train((2, "a"), round=2))
    assert [value(reply) for reply in drained(office, ask)] == [1.0]
    office.kept.settle((2,))
    office.kept._forget()
    assert bodies(office) == ([first] if office.keep else [])


def test_the_body_of_an_update_that_came_too_late_does_not_stay(office):
    ask = office.come().kept.send(train((1, "a"), (2, "b")))
    office.offer("a", ["train/1"], trained())
    assert office.kept.receive(ask, 0.0).numbers == (1,)
    office.offer("b", ["train/2"], trained())
    office.kept.cancel(ask)
    assert (len(bodies(office, "a")), bodies(office, "b")) == (1, [])
    office.kept.settle((1,))
    assert office.log.verdicts((1, 2)) == {1: True, 2: False}


@pytest.fixture
def streams(tmp_path):
    """Return an office whose schedule streams."""
    office = Office(tmp_path, streams=True)
    yield office
    office.close()


def test_in_a_stream_a_fault_is_in_the_log_once_something_follows_from_it(streams):
    ask = streams.come().kept.send(train((1, "a"), (2, "b"), (3, "c")))
    streams.offer("a", ["train/1"], trained(1.0))
    streams.offer("b", ["train/2"], b"garbage")
    streams.offer("c", ["train/3"], trained(3.0))
    assert [streams.kept.receive(ask, 0.0).numbers for _ in range(2)] == [(1,), (2,)]
    streams.kept.send(train((4, "a")), ask)
    assert [row.numbers for row in streams.log.answers(range(9))] == [(1,), (2,)]  # 3 was not received yet
    again = streams.crash().come().kept.send(train((1, "a"), (2, "b"), (3, "c")))
    assert [streams.kinds(name) for name in "abc"] == [[], [], ["task"]]
    first, second = (streams.kept.receive(again, 0.0) for _ in range(2))
    assert (first.numbers, second.numbers, second.parties, second.body.error) == ((1,), (2,), ("b",), "RunError")
    assert streams.kept.receive(again, 0.0) is None
    assert len(streams.log.answers(range(9))) == 2  # each is there once


def test_in_a_stream_a_fault_that_ends_the_run_is_asked_again(streams):
    ask = streams.come().kept.send(train((1, "a"), (2, "b")))
    streams.offer("a", ["train/1"], b"garbage")
    streams.offer("b", ["train/2"], trained(2.0))
    assert streams.kept.receive(ask, 0.0).numbers == (1,)
    streams.kept.cancel(ask)
    assert bodies(streams, "b") == []
    again = streams.crash().come().kept.send(train((1, "a"), (2, "b")))
    assert [streams.kinds(name) for name in "ab"] == [["task"], ["task"]]
    streams.offer("a", ["train/1"], trained(1.0))
    assert [value(reply) for reply in drained(streams, again)] == [1.0]


@pytest.mark.parametrize("body", [trained(1.0), b"garbage"], ids=["an update", "a fault"])
def test_in_a_stream_what_was_not_counted_is_received_as_a_fault_and_is_not_in_flight(streams, body):
    ask = streams.come().kept.send(train((1, "a"), (2, "b")))
    streams.offer("a", ["train/1"], body)
    streams.offer("b", ["train/2"], trained(2.0))
    assert len(drained(streams, ask)) == 2
    streams.kept.settle((2,))
    again = streams.crash().come().kept.send(train((1, "a"), (2, "b")))
    assert [streams.kinds(name) for name in "ab"] == [[], []]
    replies = drained(streams, again)
    assert [reply.numbers for reply in replies] == [(1,), (2,)]
    assert isinstance(replies[0].body, Fault)
    streams.kept.settle((2,))
    assert streams.log.verdicts((1, 2)) == {1: False, 2: True}


def test_in_a_stream_an_answer_whose_body_is_lost_is_waited_for_in_its_place(streams):
    """What follows from it is not received before it, however long it takes, and no deadline passes meanwhile."""
    tasks = train((1, "a"), (2, "b"))
    ask = streams.come().kept.send(tasks)
    lost = streams.offer("a", ["train/1"], trained(1.0))
    streams.offer("b", ["train/2"], trained(2.0))
    drained(streams, ask)
    streams.hall.seats["a"].spool.drop(lost)
    again = streams.crash().come().kept.send(tasks)
    assert [streams.kinds(name) for name in "ab"] == [["task"], []]
    streams.clock.now = 50.0
    assert streams.kept.receive(again, 0.0) is None
    assert streams.kept.now() == 0.0
    streams.offer("a", ["train/1"], trained(1.0))
    assert [value(reply) for reply in drained(streams, again)] == [1.0, 2.0]
    assert streams.kept.now() == 50.0
    assert len(streams.log.answers(range(9))) == 2


def test_in_a_stream_what_is_given_up_is_a_fault_in_its_place_also_when_its_answer_came_in_between(streams):
    ask = streams.come().kept.send(train((1, "a"), (2, "b"), (3, "c")))
    streams.offer("c", ["train/3"], trained(3.0))
    assert streams.kept.receive(ask, 0.0).numbers == (3,)
    streams.offer("b", ["train/2"], trained(2.0))
    streams.kept.give_up(ask, [1, 2])
    assert [said["kind"] for said in streams.said("a")] == ["task", "cancel"]
    assert bodies(streams, "b") == []
    streams.offer("a", ["train/1"], trained(1.0))
    assert drained(streams, ask) == []
    streams.kept.settle((3,))
    assert streams.log.verdicts(range(9)) == {1: False, 2: False, 3: True}
    again = streams.crash().come().kept.send(train((1, "a"), (2, "b"), (3, "c")))
    replies = drained(streams, again)
    assert [reply.numbers for reply in replies] == [(3,), (1,), (2,)]
    assert [reply.body.error for reply in replies[1:]] == ["Deadline", "Deadline"]


def test_in_a_stream_what_is_given_up_again_is_in_the_log_once(streams):
    """Its deadline was over before the coordinator was killed."""
    ask = streams.come().kept.send(train((1, "a"), (2, "b")))
    streams.kept.give_up(ask, [1])
    streams.kept.send(train((3, "c")), ask)
    again = streams.crash().come().kept.send(train((1, "a"), (2, "b")))
    streams.kept.give_up(again, [1])
    streams.kept.send(train((3, "c")), again)
    assert [row.numbers for row in streams.log.answers(range(9))] == [(1,)]
    assert streams.kept.receive(again, 0.0) is None


def test_a_round_that_was_closed_without_its_hidden_sum_stays_so(office, tmp_path):
    kept = office.come().kept
    kept.sums = tmp_path
    ask = kept.send(train((7, "a"), (8, "b")))
    kept.backing().keep(7, {"step": "confirmed"})
    assert kept.backing().kept(7) == {"step": "confirmed"}
    kept.cancel(ask)
    kept.settle(())
    assert list(tmp_path.glob("sum-*")) == []
    kept.backing().keep(7, {"step": "confirmed"})  # as if the power had brought it back
    assert kept.backing().kept(7) is None


def test_a_round_that_goes_on_with_a_hidden_sum_is_closed_as_itself(office, tmp_path):
    """Nobody is asked to train in it by this process."""
    kept, seen = office.come().kept, []
    kept.sums = tmp_path
    kept.send(train((7, "a"), (8, "b"), round=3))
    kept.backing().keep(7, {"step": "unmasked"})
    again = office.crash().come().kept
    again.sums, again.closed = tmp_path, seen.append
    assert again.backing().kept(7) == {"step": "unmasked"}
    again.settle((7, 8))
    assert seen == [3]
