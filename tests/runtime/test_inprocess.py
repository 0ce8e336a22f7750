import pytest

from fedloom.adapters.numpy import logistic
from fedloom.core.errors import RunError
from fedloom.core.task import Evaluate, Task
from fedloom.recipes import fedavg
from small import classification, small


def made(**options):
    return small(logistic(4), fedavg(), classification(), **options)


def tasks(there, *names):
    return [Task(number, name, Evaluate(there.state.vector)) for number, name in enumerate(names, 1)]


def test_nobody_works_before_somebody_waits():
    worked = []
    there = made(slow=worked.append)
    ask = there.federation.send(tasks(there, "site0", "site1"))
    assert worked == []
    assert there.federation.receive(ask, None).parties == ("site0",)
    assert worked == ["site0"]
    there.federation.cancel(ask)
    assert there.federation.receive(ask, None) is None
    assert worked == ["site0"]


def test_a_party_that_is_not_there_is_refused_before_anybody_works():
    there = made()
    with pytest.raises(RunError, match="there is no party called 'nobody'"):
        there.federation.send(tasks(there, "site0", "nobody"))
    assert there.federation.waiting == {}


def test_what_came_too_late_is_dropped():
    clock = [0.0]

    def slow(name):
        clock[0] += {"site0": 3.0, "site1": 0.5}[name]

    there = made(now=lambda: clock[0], slow=slow)
    ask = there.federation.send(tasks(there, "site0", "site1"))
    assert there.federation.receive(ask, 2.0) is None
    assert there.federation.receive(ask, 2.0).parties == ("site1",)
    assert there.federation.receive(ask, 2.0) is None
