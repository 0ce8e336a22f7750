from fedloom.adapters.numpy import logistic
from fedloom.core.task import Evaluate, Reply, Task
from fedloom.gather import Plain
from fedloom.recipes import fedavg
from small import classification, small


def made(**options):
    return small(logistic(4), fedavg(), classification(), **options)


def collected(there, close=lambda: None):
    tasks = [Task(n, f"site{n}", Evaluate(there.state.vector)) for n in range(4)]
    return [reply.parties[0] for reply in Plain().collect(there.federation, tasks, close)]


def test_it_yields_every_reply_as_it_comes():
    assert collected(made()) == ["site0", "site1", "site2", "site3"]
    assert collected(made(change=lambda replies: replies[::-1])) == ["site3", "site2", "site1", "site0"]


def test_it_stops_when_there_is_no_time_left_and_cancels():
    left = iter([5.0, 1.0, 0.0])
    there = made()
    assert collected(there, lambda: next(left)) == ["site0", "site1"]
    assert there.federation.waiting == {}


def test_it_cancels_when_its_reader_leaves():
    there = made()
    tasks = [Task(n, f"site{n}", Evaluate(there.state.vector)) for n in range(4)]
    replies = Plain().collect(there.federation, tasks, lambda: None)
    next(replies)
    replies.close()
    assert there.federation.waiting == {}


def test_it_does_not_wait_for_ever_for_who_never_answers():
    strangers = made(change=lambda replies: [Reply((99,), ("x",), replies[0].body), *replies[1:]])
    assert collected(strangers) == ["x", "site1", "site2", "site3"]


def test_a_client_sends_its_work_as_it_is():
    reply = Reply((1,), ("a",), None)
    assert Plain().answer(None, "prior", lambda: reply) == (reply, "prior")
