"""The coordinator's log: asked, accepted, closed; each of it once."""

from contextlib import nullcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from postgres import server
from sqlalchemy import event

from fedloom.core.task import Member
from fedloom.store.dispatches import Accepted, Dispatches, Failed, Joined
from fedloom.store.journal import opened_engine


@pytest.fixture
def reopened(tmp_path):
    """Return the log as another process finds it."""
    held = []

    def again():
        held.append(opened_engine(f"sqlite:///{tmp_path / 'journal.db'}"))
        return Dispatches(held[-1])

    yield again
    for engine in held:
        engine.dispose()


def row(*numbers, party="a", digest="d"):
    return Accepted(numbers, (party,) * len(numbers), digest, 10, 0.5)


def test_members_come_change_and_go(reopened):
    log = reopened()
    log.join([Joined(Member("b", 2), "b", 1), Joined(Member("a", 3), "relay", 0)])
    log.join([Joined(Member("b", 5), "relay", 4)])
    assert reopened().joined() == [Joined(Member("a", 3), "relay", 0), Joined(Member("b", 5), "relay", 4)]
    log.leave(["a", "nobody"])
    log.leave([])
    assert [joined.member.name for joined in reopened().joined()] == ["b"]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def engine(request, tmp_path):
    with server() if request.param == "postgres" else nullcontext(f"sqlite:///{tmp_path / 'log.db'}") as url:
        opened = opened_engine(url)
        yield opened
        opened.dispose()


def test_numbers_of_64_bits_are_kept_in_any_database(engine):
    """As many rows as the wire allows, a body of several GiB, and numbers that a party may ask about."""
    log, number, large = Dispatches(engine), 2**63 - 1, Accepted((2**40,), ("a",), "d", 2**40, 0.5)
    log.join([Joined(Member("a", 2**48 - 1), "a", 2**48 - 1)])
    log.ask({number: "a", 2**40: "a"}, 2**40)
    log.accept([large, row(number)])
    log.close([number], [2**40])
    again = Dispatches(engine)
    assert again.joined() == [Joined(Member("a", 2**48 - 1), "a", 2**48 - 1)]
    assert again.accepted([2**40]) == [large]
    assert again.verdicts([2**62, 2**40, number]) == {2**40: False, number: True}


def test_who_was_asked_under_a_number_stays(reopened):
    log = reopened()
    assert log.ask({1: "a", 2: "b"}, 1) == set()
    assert log.ask({1: "z", 2: "b", 3: "c"}, 1) == {1, 2}
    assert reopened().open() == [1, 2, 3]
    log.close([1], [2])
    log.ask({1: "a", 2: "b", 3: "c"}, 1)
    assert reopened().verdicts([1, 2, 3]) == {1: True, 2: False}


def test_updates_are_in_the_order_of_acceptance_and_each_is_there_once(reopened):
    log = reopened()
    for numbers in ((3,), (1, 2), (3,), (7,), (1, 2)):
        log.accept([row(*numbers, digest=f"d{numbers[0]}")])
    log.accept([row(3, digest="another")])
    again = reopened()
    assert [(found.numbers, found.digest) for found in again.accepted(range(1, 9))] == [
        ((3,), "another"),  # in its place, and with the body that is there now
        ((1, 2), "d1"),
        ((7,), "d7"),
    ]
    assert again.accepted([3]) == [row(3, digest="another")]
    assert again.accepted([1]) == []  # it answers 2 as well
    assert again.accepted([]) == []
    assert again.accepted([100]) == []


def test_a_round_is_closed_for_good(reopened):
    log = reopened()
    log.ask(dict.fromkeys(range(1, 6), "a"), 1)
    log.close([2, 4], [1])
    again = reopened()
    assert again.verdicts(range(1, 9)) == {1: False, 2: True, 4: True}
    assert sorted(again.open()) == [3, 5]
    assert again.verdicts([]) == {}


def test_a_verdict_is_told_to_those_who_were_asked(reopened):
    log = reopened()
    log.ask({1: "a", 2: "b", 3: "c"}, 1)
    log.close([1, 2], [3])
    assert reopened().verdicts([1, 2, 3], ["a", "c"]) == {1: True, 3: False}
    assert reopened().verdicts([1, 2, 3], []) == {}


def test_who_was_asked_under_a_number_is_known_to_another_process(reopened):
    log = reopened()
    assert log.asked(1) is None
    log.ask({1: "a", 3: "b"}, 1)
    assert [log.asked(number) for number in range(1, 5)] == ["a", None, "b", None]
    assert [reopened().asked(number) for number in range(1, 5)] == ["a", None, "b", None]


def test_faults_lie_among_the_updates(reopened):
    log, fault = reopened(), Failed(2, "train", "MemoryError", "full")
    log.accept([row(3), fault])
    log.close([], [], [row(5)])
    log = reopened()
    log.accept([row(3, digest="another"), Failed(4, "wait", "Deadline", "late")])
    assert [answer.numbers for answer in reopened().answers(range(9))] == [(3,), (2,), (5,), (4,)]
    assert reopened().answers([2, 5]) == [fault, row(5)]
    assert reopened().answers([]) == []
    assert [answer.numbers for answer in reopened().accepted(range(9))] == [(3,), (5,)]


def test_a_fault_stands_where_an_update_was_that_is_lost(reopened):
    log, fault = reopened(), Failed(1, "wait", "Deadline", "late")
    log.accept([row(1), row(2)])
    log.accept([fault])
    assert reopened().answers([1, 2]) == [fault, row(2)]


def test_verdicts_of_very_many_numbers(reopened):
    """A party may say that so many are pending; most of them nobody knows."""
    log = reopened()
    log.ask(dict.fromkeys(range(1, 2001), "a"), 1)
    log.close(range(1, 2001, 2), range(2, 2001, 2))
    found = log.verdicts([*range(1, 2001), *range(10**9, 10**9 + 98_000), 2**63 - 1])
    assert found == {number: number % 2 == 1 for number in range(1, 2001)}


def test_what_parties_are_told_is_written_through_to_the_disk_and_all_before_it(reopened):
    """SQLite syncs its log when it commits with synchronous = FULL (2), and all that lies before in it; 1 is NORMAL."""
    log, levels = reopened(), []

    @event.listens_for(log._engine, "commit")
    def committed(connection):
        levels.append(connection.connection.dbapi_connection.execute("PRAGMA synchronous").fetchone()[0])

    log.ask({1: "a", 2: "b"}, 1)
    log.accept([row(1)])
    log.close([1], [2])
    log.join([Joined(Member("a", 3), "a", 0)])
    log.leave(["a"])
    log.accept([row(2)])
    assert levels == [1, 1, 2, 2, 2, 1]


STEPS = st.one_of(
    st.tuples(st.just("join"), st.sampled_from("abc"), st.integers(1, 3)),
    st.tuples(st.just("leave"), st.sampled_from("abc"), st.none()),
    st.tuples(st.just("ask"), st.sampled_from("abc"), st.integers(1, 12)),
    st.tuples(st.just("close"), st.sampled_from([0, 1]), st.integers(1, 12)),
    st.tuples(st.just("accept"), st.sampled_from("abc"), st.integers(1, 12)),
    st.tuples(st.just("look"), st.none(), st.none()),
    st.tuples(st.just("restart"), st.none(), st.none()),
)


@settings(max_examples=80, deadline=None)
@given(steps=st.lists(STEPS, max_size=25))
def test_what_is_remembered_is_what_another_process_reads(steps, tmp_path_factory):
    engine = opened_engine(f"sqlite:///{tmp_path_factory.mktemp('log') / 'journal.db'}")
    log, round, highest = Dispatches(engine), 0, 0
    for what, which, number in steps:
        match what:
            case "join":
                log.join([Joined(Member(which, number), which, 1)], round)
            case "leave":
                log.leave([which], round)
            case "ask":
                round, first = round + 1, min(number, highest + 1)  # what is new lies behind all before it
                log.ask({first: which, first + 1: "z"}, round)
                highest = max(highest, first + 1)
            case "close":
                also = [row(number, digest="closing")] if number % 2 else []
                log.close({number} if which else (), () if which else {number}, also)
            case "accept":
                log.accept([row(number, digest=which), row(number + 20, digest=which)])
            case "restart":
                log = Dispatches(engine)
        other = Dispatches(engine)
        for some in ([number or 1], range(1, 13), range(21, 33), [1, 21]):
            assert log.accepted(some) == other.accepted(some)
        for upto in (log.latest(), round, 0, 1):
            assert log.latest() == other.latest()
            assert log.standings(upto) == other.standings(upto)
            assert log.joined(upto) == other.joined(upto)
    engine.dispose()


def test_nothing_to_write_is_no_transaction(reopened):
    log, commits = reopened(), []
    event.listen(log._engine, "commit", commits.append)
    log.close([], []), log.join([]), log.leave([])
    assert commits == []
