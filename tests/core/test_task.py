from fedloom.adapters.numpy import logistic
from fedloom.core.task import Evaluate, Evaluated, Fault, ask_all
from fedloom.recipes import fedavg
from small import Changed, classification, small


def made(**options):
    return small(logistic(4), fedavg(), classification(), **options)


def test_answers_come_in_the_order_of_the_names_whatever_their_own():
    there = made(change=lambda replies: replies[::-1])
    names = ["site3", "site0", "site4"]
    replies = ask_all(there.federation, names, Evaluate(there.state.vector))
    assert [reply.parties for reply in replies] == [(name,) for name in names]
    assert all(isinstance(reply.body, Evaluated) and reply.body.metrics.examples == 4 for reply in replies)


def test_who_does_not_answer_in_time_is_a_fault():
    clock = [0.0]

    def slow(name):
        clock[0] += 10 if name == "site1" else 1

    there = made(now=lambda: clock[0], slow=slow)
    replies = ask_all(there.federation, ["site0", "site1", "site2"], Evaluate(there.state.vector), timeout_s=5.0)
    assert isinstance(replies[0].body, Evaluated)
    assert [reply.body for reply in replies[1:]] == [
        Fault(name, "wait", "Deadline", "no reply in 5.0 s") for name in ("site1", "site2")
    ]


def test_nobody_is_asked_nothing():
    there = made()
    assert ask_all(there.federation, [], Evaluate(there.state.vector)) == []


def test_a_federation_with_nothing_more_to_say_ends_the_wait():
    there = made(change=lambda replies: replies[:1])
    assert isinstance(there.federation, Changed)
    bodies = [reply.body for reply in ask_all(there.federation, ["site0", "site1"], Evaluate(there.state.vector))]
    assert isinstance(bodies[0], Evaluated)
    assert isinstance(bodies[1], Fault)
    assert bodies[1].message == "no reply"
