"""What is waited for, by ask: answered once, ended at once, and asked again elsewhere."""

import pytest

from fedloom.core.task import Member
from fedloom.runtime.net.awaited import Awaited
from fedloom.runtime.net.seats import Given, Offer, Seat
from fedloom.runtime.net.spool import Body, Spool
from posts import train


@pytest.fixture
def seats(tmp_path):
    return [Seat(name, (Member(name, 1),), Spool(tmp_path / name, 100, claimed=True)) for name in "ab"]


def given(number, ask):
    (task,) = train((number, "a"))
    return Given(f"train/{number}", task, ask, {}, 0.0)


def test_what_is_answered_is_waited_for_no_more_and_the_rest_ends_together(seats):
    (a, b), awaited = seats, Awaited()
    first, second, third, other = given(1, 7), given(2, 7), given(3, 7), given(4, 8)
    for seat, each in ((a, first), (b, second), (a, third), (a, other)):
        awaited.add(seat, each)
    awaited.remove(a, first)
    assert list(awaited.of(7)) == [(b, second), (a, third)]
    assert awaited.end(7) == {b: [second], a: [third]}
    assert (list(awaited.of(7)), awaited.end(7), awaited.end(9)) == ([], {}, {})
    assert (list(awaited.of(8)), a.given, b.given) == ([(a, other)], {"train/4": other}, {})


def test_what_is_asked_again_elsewhere_is_waited_for_there_alone(seats):
    (a, _), awaited = seats, Awaited()
    awaited.add(a, given(1, 7))
    again = given(1, 8)
    awaited.add(a, again)
    assert (list(awaited.of(7)), list(awaited.of(8))) == ([], [(a, again)])
    assert awaited.end(7) == {}
    assert a.given == {"train/1": again}


def test_what_has_come_of_an_answer_goes_with_the_wait(seats):
    (a, _), awaited, body = seats, Awaited(), Body("ab" * 32, 9)
    awaited.add(a, given(1, 7))
    a.spool.claim(body.digest)
    a.incoming.append(Offer(("train/1",), body, 0.0))
    a.spool.take(body, 0, memoryview(b"12345"))
    awaited.end(7)
    assert (a.incoming, list(a.spool.folder.iterdir())) == ([], [])
