"""The coordinator's side, without sockets and on a clock that tests set."""

import threading

import numpy as np
import pytest
from blake3 import blake3

from fedloom.core.errors import RunError, WireError
from fedloom.core.task import Ask, Evaluated, Fault, Member, Prepare, Ready, Task, Train, Trained
from fedloom.runtime.net.codec import reply_tree
from fedloom.runtime.net.leases import Leases
from fedloom.runtime.net.line import CHUNK_BYTES
from fedloom.runtime.net.spool import Spool
from fedloom.runtime.net.talk import Chunk
from fedloom.store.files import dump
from posts import NAMES, START, Office, evaluate, evaluated, train, trained, value


@pytest.fixture
def office(tmp_path):
    office = Office(tmp_path)
    yield office
    office.close()


def test_a_task_names_its_bodies_and_they_are_given_to_whom_was_asked(office):
    office.come().hall.send(train((1, "a")))
    (task,) = office.said("a")
    assert (task["kind"], task["run"], task["key"], task["number"], task["attempt"]) == ("task", "run", "train/1", 1, 1)
    ((digest, size),) = task["arrays"].values()
    content = dump(START)
    assert size == len(content)
    given = office.posts["a"].given
    assert given == [(digest, 0, content)]  # small, so it came unasked
    get = {"kind": "get", "run": "run", "digest": digest, "offset": 3}
    office.hall.hear(office.hall.seats["a"], get)
    assert office.said("a") == []
    assert given[1:] == [(digest, 3, content[3:])]
    office.hall.hear(office.hall.seats["b"], get)  # who was not asked about it
    assert office.said("b") == office.posts["b"].given == []


def test_a_small_body_comes_unasked_once_on_a_connection_and_a_large_one_never(office):
    office.come("a").hall.send(train((1, "a")))
    office.hall.send(train((2, "a")))
    office.said("a")
    (first,) = office.posts["a"].given
    office.go("a")
    office.come("a").said("a")
    assert office.posts["a"].given == [first]
    large = Train(1, np.zeros(CHUNK_BYTES // 4 + 1, np.float32), "", 1)
    office.hall.send([Task(3, "a", large)])
    assert office.kinds("a") == ["task"]
    assert office.posts["a"].given == [first]


def test_a_reply_is_received_once_however_often_it_is_offered(office):
    ask = office.come().hall.send(train((1, "a")))
    office.said("a")
    for _ in range(3):
        office.offer("a", ["train/1"], trained(7.0))
        assert office.said("a") == [{"kind": "receipt", "run": "run", "keys": ("train/1",)}]
    reply = office.hall.receive(ask, 1.0)
    assert (reply.numbers, reply.parties, value(reply), reply.seconds) == ((1,), ("a",), 7.0, 0.5)
    assert office.hall.receive(ask, None) is None


def test_a_large_reply_is_asked_for_from_where_it_broke_off(office):
    office.hall.seats["a"].spool.most = 4 * CHUNK_BYTES
    office.come().hall.send(train((1, "a")))
    offer = {"kind": "offer", "run": "run", "keys": ["train/1"], "digest": "ab" * 32, "size": 3 * CHUNK_BYTES}
    office.said("a")
    for here in (0, 5):
        office.hall.hear(office.hall.seats["a"], offer | {"seconds": 0.0})
        assert office.said("a") == [{"kind": "have", "run": "run", "digest": "ab" * 32, "offset": here}]
        office.hall.hear(office.hall.seats["a"], Chunk("ab" * 32, here, memoryview(b"12345")))
        office.go("a")
        office.come("a").said("a")


def test_another_answer_takes_the_place_of_a_half_one(office):
    ask = office.come().hall.send(train((1, "a")))
    half = office.offer("a", ["train/1"], trained(1.0), size=9000)
    office.offer("a", ["train/1"], trained(2.0))
    assert value(office.hall.receive(ask, None)) == 2.0
    assert office.hall.seats["a"].incoming == []
    assert [p.name for p in office.hall.seats["a"].spool.folder.iterdir() if p.name.startswith(half)] == []


def half(office, name, key, value):
    """Let a party offer an answer of which only the beginning comes; return its digest and the rest."""
    content = dump(trained(value))
    digest, seat = blake3(content).hexdigest(), office.hall.seats[name]
    said = {"kind": "offer", "run": "run", "keys": [key], "digest": digest, "size": len(content), "seconds": 0.5}
    office.hall.hear(seat, said)
    office.hall.hear(seat, Chunk(digest, 0, memoryview(content)[:9]))
    return Chunk(digest, 9, memoryview(content)[9:])


@pytest.mark.parametrize("how", ["cancelled", "given up", "left out of the next"])
def test_what_has_come_of_an_answer_that_nobody_waits_for_does_not_stay(office, how):
    """Neither a file nor a claim; and the rest of it, which is on its way, is passed over."""
    ask = office.come().hall.send(train((1, "a"), (2, "b")))
    rest = half(office, "a", "train/1", 1.0)
    if how == "cancelled":
        office.hall.cancel(ask)
    elif how == "given up":
        office.clock.now = 2000.0
        assert isinstance(office.hall.receive(ask, 0.0).body, Fault)
    else:
        rest = half(office, "a", "train/1", 2.0) and rest
        office.hall.cancel(ask)
    office.hall.hear(office.hall.seats["a"], rest)
    seat = office.hall.seats["a"]
    assert (seat.incoming, list(seat.spool.folder.iterdir()), seat.spool._arriving) == ([], [], {})


def test_two_members_of_a_relay_may_answer_the_same(office):
    """Both offers are there before the body, which comes once."""
    office.come()
    relay = office.hall.take_seat("relay", (Member("x", 5), Member("y", 5)), lambda: Spool(office.folder / "r", 10_000))
    ask = office.hall.send(train((1, "x"), (2, "y")))
    content = dump(trained(3.0))
    body = {"digest": blake3(content).hexdigest(), "size": len(content), "seconds": 0.5}
    for number in (1, 2):
        office.hall.hear(relay, {"kind": "offer", "run": "run", "keys": [f"train/{number}"], **body})
    office.hall.hear(relay, Chunk(body["digest"], 0, memoryview(content)))
    replies = [office.hall.receive(ask, 0.0) for _ in range(2)]
    assert [(reply.numbers, value(reply)) for reply in replies] == [((1,), 3.0), ((2,), 3.0)]
    for left in (1, 0):
        relay.spool.drop(body["digest"])
        assert len(list(relay.spool.folder.iterdir())) == left


def test_what_was_read_is_not_kept_on_the_disk_but_updates_are(office):
    office.come()
    first = office.hall.send(evaluate((1, "a")))
    key = office.said("a")[0]["key"]
    office.offer("a", [key], evaluated())
    second = office.hall.send(train((1, "a")))
    digest = office.offer("a", ["train/1"], trained())
    assert isinstance(office.hall.receive(first, None).body, Evaluated)
    assert isinstance(office.hall.receive(second, None).body, Trained)
    assert [path.name for path in office.hall.seats["a"].spool.folder.iterdir()] == [digest]


def test_tasks_wait_for_who_is_away_and_are_sent_again_when_it_is_back(office):
    ask = office.hall.send(train((1, "a"), (2, "b")))
    office.come("a", "b")
    office.offer("a", ["train/1"], trained())
    office.said("a"), office.said("b")
    for attempt in (2, 3):
        office.go("a", "b")
        office.come("a", "b")
        assert office.said("a") == []  # it has answered
        (task,) = office.said("b")
        assert (task["key"], task["attempt"]) == ("train/2", attempt)
    assert office.hall.receive(ask, None).numbers == (1,)
    assert office.hall.receive(ask, 0.0) is None


def test_who_has_not_learned_yet_what_was_counted_is_asked_nothing(office):
    """Or else it would train from a memory that is about to move."""
    from posts import Post

    seat = office.hall.seats["a"]
    office.posts["a"] = Post()
    with office.hall.changed:
        seat.begin(office.posts["a"], 0.0)
    office.hall.send(train((1, "a")))
    office.hall.tell((9,), ())
    assert office.kinds("a") == ["settle"]
    office.hall.come_in(seat)
    (task,) = office.said("a")
    assert (task["key"], task["attempt"]) == ("train/1", 1)


def test_a_lease_expires_on_the_clock(office):
    office.come("a")
    ask = office.hall.send(train((1, "a"), (2, "b")))
    office.clock.now = 99.0
    assert office.hall.receive(ask, 0.0) is None
    office.clock.now = 100.0
    fault = office.hall.receive(ask, None).body
    assert (fault.site, fault.phase, fault.error) == ("b", "wait", "LeaseExpired")
    assert fault.message == "not connected for 100 s"
    office.clock.now = 1000.0
    fault = office.hall.receive(ask, None).body
    assert (fault.site, fault.message) == ("a", "no answer for 1000 s")
    assert office.kinds("a") == ["task", "cancel"]
    office.offer("a", ["train/1"], trained())
    assert office.kinds("a") == ["receipt"]
    assert office.hall.receive(ask, None) is None


def test_who_was_here_in_the_last_process_is_away_only_once_it_may_have_called_again(office):
    spool = office.hall.seats["b"].spool
    del office.hall.seats["b"]
    office.hall.take_seat("b", (Member("b", 5),), lambda: spool, late_s=90.0)
    ask = office.hall.send(train((1, "b")))
    office.clock.now = 189.0
    assert office.hall.receive(ask, 0.0) is None
    office.clock.now = 190.0
    assert office.hall.receive(ask, None).body.message == "not connected for 100 s"


def test_an_evaluation_waits_for_nobody_beyond_its_own_deadline(office):
    """Whoever is away, or connected and silent; training goes on to wait as long as its lease says."""
    office.hall.leases = Leases(away_s=1000.0, task_s=2000.0, evaluate_s=50.0)
    office.come("a")
    ask, training = office.hall.send(evaluate((1, "a"), (2, "b"))), office.hall.send(train((3, "b")))
    office.clock.now = 49.0
    assert office.hall.receive(ask, 0.0) is None
    office.clock.now = 50.0
    faults = [office.hall.receive(ask, None).body for _ in range(2)]
    assert [(fault.site, fault.error) for fault in faults] == [("a", "LeaseExpired"), ("b", "LeaseExpired")]
    assert {fault.message for fault in faults} == {"no answer to an evaluation for 50 s"}
    assert office.kinds("a") == ["task", "cancel"]
    assert office.hall.receive(training, 0.0) is None


def test_whoever_comes_back_in_time_keeps_its_task(office):
    ask = office.hall.send(train((1, "b")))
    office.clock.now = 90.0
    office.come("b").go("b")
    office.clock.now = 180.0
    assert office.hall.receive(ask, 0.0) is None
    office.come("b").offer("b", ["train/1"], trained())
    assert isinstance(office.hall.receive(ask, None).body, Trained)


def test_who_leaves_for_good_has_its_lease_for_what_is_open(office):
    office.come("a")
    ask = office.hall.send(train((1, "a")))
    office.hall.seats["a"].left = True
    office.go("a")
    assert office.hall.receive(ask, 0.0) is None
    office.clock.now = 100.0
    assert office.hall.receive(ask, None).body.error == "LeaseExpired"


def test_a_reply_wakes_whoever_waits(office):
    ask = office.come().hall.send(train((1, "a")))
    found = []
    thread = threading.Thread(target=lambda: found.append(office.hall.receive(ask, None)))
    thread.start()
    office.offer("a", ["train/1"], trained(3.0))
    thread.join(20.0)
    assert value(found[0]) == 3.0


def test_what_was_cancelled_is_told_once_and_its_answer_not_received(office):
    ask = office.come("a").hall.send(train((1, "a"), (2, "a"), (3, "b")))
    office.offer("a", ["train/2"], trained())
    office.said("a")
    office.hall.cancel(ask)
    office.hall.cancel(ask)
    assert office.said("a") == [{"kind": "cancel", "run": "run", "keys": ["train/1"]}]
    office.offer("a", ["train/1"], trained())
    assert office.kinds("a") == ["receipt"]
    assert office.hall.receive(ask, None) is None
    assert office.come("b").said("b") == []
    with pytest.raises(RunError, match="cannot join an ask that is not open"):
        office.hall.send(train((4, "a")), ask)
    with pytest.raises(RunError, match="cannot join"):
        office.hall.send(train((4, "a")), Ask(99))


def test_one_reply_to_several_tasks_that_may_be_merged(office):
    office.hall.take_seat("c", (Member("c", 1), Member("d", 1)), lambda: Spool(office.folder / "c", 10_000))
    ask = office.come().hall.send(train((1, "c"), (2, "d"), merge=True))
    office.offer("c", ["train/1", "train/2"], trained(3.0, count=2))
    reply = office.hall.receive(ask, None)
    assert (reply.numbers, reply.parties, reply.body.update.count) == ((1, 2), ("c", "d"), 2)
    assert office.hall.receive(ask, None) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"keys": ["train/1", "train/1"]},
        {"keys": ["train/1", "train/2"]},
        {"keys": [["train/1"]]},
        {"keys": [None]},
        {"keys": "train/1"},
        {"size": 0},
        {"size": -1},
        {"size": 1.0},
        {"digest": "../../x"},
        {"digest": 3},
        {"seconds": float("nan")},
        {"seconds": 1},
        {"seconds": None},
        {"run": "another"},
    ],
)
def test_a_malformed_offer_is_refused_and_the_task_stays(office, changes):
    ask = office.come().hall.send(train((1, "a"), (2, "a")))
    with pytest.raises(WireError):
        office.offer("a", ["train/1"], trained(), **changes)
    office.offer("a", ["train/1"], trained())
    assert isinstance(office.hall.receive(ask, None).body, Trained)


@pytest.mark.parametrize(
    "said",
    [
        {"kind": "get", "digest": "ab" * 32, "offset": 0},
        {"kind": "get", "run": "run", "digest": "ab" * 32, "offset": "0"},
        {"kind": "offer", "run": "run"},
        {"kind": "hello", "run": "run"},
        {"kind": "welcome", "run": "run"},
        {"kind": "", "run": "run"},
    ],
)
def test_what_means_nothing_is_refused(office, said):
    with pytest.raises(WireError):
        office.come().hall.hear(office.hall.seats["a"], said)


def test_an_offset_before_the_beginning_is_refused(office):
    office.come().hall.send(train((1, "a")))
    ((digest, _),) = office.said("a")[0]["arrays"].values()
    with pytest.raises(WireError, match="begins at byte 0, got -1"):
        office.hall.hear(office.hall.seats["a"], {"kind": "get", "run": "run", "digest": digest, "offset": -1})


def test_an_answer_in_another_s_name_is_not_taken(office):
    ask = office.come().hall.send(train((1, "a"), (2, "b")))
    office.offer("b", ["train/1"], trained(66.0))
    office.offer("a", ["train/1"], trained(1.0))
    assert value(office.hall.receive(ask, None)) == 1.0


def test_a_member_sits_in_one_place(office):
    with pytest.raises(WireError, match="'a' sits with 'a' already"):
        office.hall.take_seat("z", (Member("z", 1), Member("a", 1)), lambda: None)


@pytest.mark.parametrize(
    ("tree", "error", "sentence"),
    [
        (b"garbage that is no tree", "RunError", "not a stored value"),
        ({"reply": "x"}, "WireError", "no kind that is known"),
        ({**trained(), "layout": "0" * 64}, "WireError", "was not asked for"),
        (evaluated(), "WireError", "a reply of type Evaluated does not answer a task of type Train"),
    ],
)
def test_what_cannot_be_read_is_a_fault_of_who_sent_it(office, tree, error, sentence):
    ask = office.come().hall.send(train((1, "a")))
    office.offer("a", ["train/1"], tree)
    fault = office.hall.receive(ask, None).body
    assert isinstance(fault, Fault)
    assert (fault.site, fault.phase, fault.error) == ("a", "admit", error)
    assert sentence in fault.message
    assert list(office.hall.seats["a"].spool.folder.iterdir()) == []


def test_a_reply_that_says_it_is_huge_is_a_fault_before_a_byte_of_it_came(office):
    ask = office.come().hall.send(train((1, "a")))
    office.offer("a", ["train/1"], trained(), size=10**15)
    assert "is larger than the 10,000 that are taken in" in office.hall.receive(ask, None).body.message


def test_who_comes_is_asked_to_prepare_before_anything_else(office):
    office.hall.greeting = Prepare({})
    office.hall.send(train((1, "a")))
    first, second = office.come("a").said("a")
    assert first["key"].startswith(f"prepare/{office.hall.born}/")
    assert second["key"] == "train/1"
    office.offer("a", [first["key"]], {"reply": "ready", "train": 4, "held_out": 2})
    assert office.hall.seats["a"].ready["a"].held_out == 2


def test_what_an_earlier_process_asked_is_not_answered_to_this_one(office):
    office.come().hall.send(evaluate((1, "a")))
    (task,) = office.said("a")
    office.crash().come()
    office.hall.send(evaluate((1, "a")))
    assert office.said("a")[0]["key"] != task["key"]
    office.offer("a", [task["key"]], evaluated())
    assert office.kinds("a") == ["receipt"]


def test_bodies_that_nobody_is_asked_about_are_forgotten(office):
    office.come()
    for round in range(1, 6):
        body = train((round, "a"), round=round)[0].body
        task = train((round, "a"))[0]
        ask = office.hall.send([type(task)(round, "a", type(body)(round, START + round, body.layout, 2))])
        office.hall.cancel(ask)
    assert len(office.hall._outbox.shelf._parts) <= 1


def test_everybody_is_waited_for_when_it_is_over_but_not_for_ever(office):
    office.come("a")
    office.clock.now = 50.0
    assert not office.hall.emptied(-60.0)
    for name in NAMES:
        office.hall.seats[name].left = True
    assert office.hall.emptied(0.0)


def test_who_comes_and_goes_when_it_is_over_is_waited_for_no_longer_for_that(office):
    office.come("a")
    for name in "bc":
        office.hall.seats[name].left = True

    def calls_and_hangs_up(left_s):
        office.clock.now += 20.0
        office.come("a").go("a")

    office.hall.changed.wait = calls_and_hangs_up
    assert not office.hall.emptied(30.0)
    assert office.clock.now == 40.0


def test_what_fails_in_an_unknown_way_leaves_no_body(office, monkeypatch):
    """Its connection ends; others of a relay that answered the same lose nothing but this."""
    office.come()
    relay = office.hall.take_seat("relay", (Member("x", 5), Member("y", 5)), lambda: Spool(office.folder / "r", 10_000))
    office.hall.send(train((1, "x"), (2, "y")))
    content = dump(trained(3.0))
    body = {"digest": blake3(content).hexdigest(), "size": len(content), "seconds": 0.5}
    for number in (1, 2):
        office.hall.hear(relay, {"kind": "offer", "run": "run", "keys": [f"train/{number}"], **body})
    monkeypatch.setattr("fedloom.runtime.net.answers.reply_of", lambda *_: {}["what nobody thought of"])
    with pytest.raises(KeyError):
        office.hall.hear(relay, Chunk(body["digest"], 0, memoryview(content)))
    assert list(relay.spool.folder.iterdir()) == []
    assert set(relay.given) == {"train/1", "train/2"}  # it is asked again when it is back


def test_who_refuses_to_prepare_itself_is_known_until_it_says_that_it_may(office):
    office.hall.greeting = Prepare({})
    office.come("a")
    (asked,) = office.said("a")
    office.offer("a", [asked["key"]], reply_tree(Fault("a", "policy", "PolicyRefused", "not yet.")))
    office.said("a")
    seat = office.hall.seats["a"]
    assert seat.refused["a"].message == "not yet."
    office.hall.hear(seat, {"kind": "again", "run": "run"})
    assert seat.refused == {}
    (asked,) = office.said("a")
    office.offer("a", [asked["key"]], reply_tree(Ready(3, 1)))
    assert (seat.refused, seat.ready) == ({}, {"a": Ready(3, 1)})
    office.said("a")
    office.hall.hear(seat, {"kind": "again", "run": "run"})
    assert office.said("a") == []  # it is prepared


def test_a_new_connection_may_answer_what_the_last_one_refused(office):
    office.hall.seats["a"].refused["a"] = Fault("a", "measure", "OSError", "no such file")
    office.come("a")
    assert office.hall.seats["a"].refused == {}


def test_another_process_of_a_party_is_told_that_it_is_replaced_and_the_same_one_is_not(office):
    seat = office.come("a").hall.seats["a"]
    seat.replace("first")
    seat.replace("first")  # it has called again
    assert office.posts["a"].said == []
    seat.replace("second")
    assert [said["kind"] for said in office.posts["a"].said] == ["replaced"]


def test_who_is_at_a_training_is_busy_until_it_has_answered_or_is_at_it_no_more(office):
    office.come("a", "b")
    ask = office.hall.send([*train((1, "a"), (2, "b"), (3, "c")), *evaluate((4, "a"))])
    assert office.hall.busy() == {"a", "b", "c"}
    office.offer("a", ["train/1"], trained())
    assert office.hall.busy() == {"b", "c"}
    office.hall.cancel(ask)
    assert office.hall.busy() == {"b"}  # nothing can stop a training function; c was never there
    office.hall.hear(office.hall.seats["b"], {"kind": "cancelled", "run": "run", "keys": ["train/2", "train/99"]})
    assert office.hall.busy() == set()


@pytest.mark.parametrize("how", ["lease", "deadline"])
def test_who_is_given_up_is_busy_and_not_any_more_on_another_connection(office, how):
    ask = office.come("a").hall.send(train((1, "a")))
    if how == "lease":
        office.clock.now = 1001.0
        assert office.hall.receive(ask, None).body.error == "LeaseExpired"
    else:
        office.hall.give_up(ask, [1])
    assert office.hall.busy() == {"a"}
    office.come("a")
    assert office.hall.busy() == set()


def test_who_trains_has_the_time_of_an_evaluation_once_it_has_trained(office):
    office.hall.leases = Leases(away_s=1000.0, task_s=2000.0, evaluate_s=50.0)
    training = office.come("a").hall.send(train((1, "a")))
    ask = office.hall.send(evaluate((2, "a")))
    office.clock.now = 500.0
    assert office.hall.receive(ask, 0.0) is None
    office.offer("a", ["train/1"], trained())
    assert isinstance(office.hall.receive(training, 0.0).body, Trained)
    office.clock.now = 549.0
    assert office.hall.receive(ask, 0.0) is None
    office.clock.now = 550.0
    assert office.hall.receive(ask, 0.0).body.error == "LeaseExpired"


def test_who_is_late_and_drops_out_is_busy_no_more(office):
    office.hall.cancel(office.come("a").hall.send(train((1, "a"))))
    assert office.hall.busy() == {"a"}
    office.go("a")
    assert office.hall.busy() == set()
