"""The pool of workers: the sequential engine's bits, whatever dies, hangs, or is interrupted on the way."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import psutil
import pytest

from fedloom.adapters.numpy import linear, logistic
from fedloom.core.errors import RunError
from fedloom.core.task import Ask, Evaluate, Fault, Task, Train, ask_all
from fedloom.local import AtHome, Custom, Scaffold, Sgd
from fedloom.optimize import Step
from fedloom.recipes import fedavg, scaffold
from fedloom.runtime import pool, processes
from fedloom.runtime.pool import Pool
from fedloom.runtime.processes import Processes
from fedloom.schedule import Sync
from fedloom.select import Poisson, Uniform
from small import classification, regression, same_tree, small

SGD = Sgd(batch_size=4, optimizer=Step(0.05))
ANY = Sync(quorum=1)


def pooled(there, size=2):
    """Return the same federation with its parties behind a pool."""
    payload, total = there.terms.payload, there.terms.total
    host = Processes(there.parties, payload, total, int, size=size)
    return replace(there, federation=Pool(host, there.parties, there.federation.roster, payload, total))


def mine(params, data, config):
    return {name: value + np.float32(0.5) for name, value in params.items()}


def custom(function, **changes):
    return replace(fedavg(), local=Custom(function=function), **changes)


def test_a_client_that_ends_its_worker_is_alone_at_fault():
    def deadly(params, data, config):
        if len(data.targets) == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return mine(params, data, config)

    sizes = (12, 20, 7, 15, 9, 11, 13, 8, 6, 5, 14, 10)
    there = pooled(small(linear(3), custom(deadly, schedule=ANY), regression(sizes)), size=1)
    with closing(there.federation):
        (state,) = there.run(1)
    assert [(fault.site, fault.error) for fault in state.record.faults] == [("site1", "WorkerDied")]
    assert len(state.record.counted) == len(sizes) - 1


def test_a_deadline_does_not_wait_for_who_is_late():
    def slow(params, data, config):
        if len(data.targets) == 20 and config["round"] == 1:
            time.sleep(60)
        return mine(params, data, config)

    there = pooled(small(linear(3), custom(slow, schedule=Sync(quorum=1, deadline_s=0.5)), regression()))
    began = time.monotonic()
    with closing(there.federation):
        first, second = there.run(2)
    assert time.monotonic() - began < 10
    assert "site1" in {fault.site for fault in first.record.faults}
    assert second.record.faults == ()


@pytest.mark.parametrize(("module", "where"), [(processes, "restore"), (processes, "dump"), (pool, "replies")])
def test_an_interrupt_anywhere_leaves_a_pool_that_works(monkeypatch, module, where):
    there = pooled(small(logistic(4), fedavg(SGD), classification()))

    def interrupted(*args):
        raise KeyboardInterrupt

    with closing(there.federation):
        with monkeypatch.context() as patch:
            patch.setattr(module, where, interrupted)
            with pytest.raises(KeyboardInterrupt):
                there.run(1)
        with alarm(20):
            (state,) = there.run(1)
    assert state.record.faults == ()


class alarm:  # noqa: N801 (a keyword of its own)
    """Ends what hangs."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __enter__(self):
        signal.signal(signal.SIGALRM, self._ring)
        signal.alarm(self.seconds)

    def __exit__(self, *error):
        signal.alarm(0)

    def _ring(self, *_):
        raise TimeoutError("it hangs")


def test_an_interrupt_in_the_middle_of_a_message_does_not_hang():
    there = pooled(small(logistic(4), fedavg(SGD), classification()))
    federation = there.federation
    with closing(federation), alarm(20):
        worker = federation.workers[0]
        os.write(worker.pipe.fileno(), b"\0\0\1\0half")
        worker.given.append(({}, False))
        federation.open = 7
        federation.cancel(Ask(7))
        (state,) = there.run(1)
    assert state.record.faults == ()


def test_two_pools_close_independently_and_at_once():
    one = pooled(small(logistic(4), fedavg(SGD), classification()))
    other = pooled(small(logistic(4), fedavg(SGD), classification()))
    processes = [worker.process for worker in one.federation.workers]
    began = time.monotonic()
    one.federation.close()
    assert time.monotonic() - began < 3
    assert {process.exitcode for process in processes} == {0}
    other.federation.close()


def test_closing_does_not_wait_for_who_works():
    def slow(params, data, config):
        time.sleep(60)
        return params

    there = pooled(small(linear(3), custom(slow), regression()))
    there.federation.send([Task(1, "site0", train_body(there))])
    began = time.monotonic()
    there.federation.close()
    assert time.monotonic() - began < 3


@dataclass
class Hall:
    """A host of so many workers, who are never asked."""

    size: int

    def start(self):
        return [object()] * self.size


@pytest.mark.parametrize(
    ("workers", "stack", "tasks", "expected"),
    [
        (2, 1, 100, 17),  # three chunks for each
        (2, 1, 1000, 50),
        (2, 1, 3, 1),
        (2, 50, 100, 50),  # a stack, and one for each worker
        (2, 100, 100, 50),
        (2, 27, 1000, 27),  # whole stacks
        (2, 10, 1000, 50),
        (4, 100, 1000, 100),
        (0, 5, 100, 30),
    ],
)
def test_chunks_are_whole_stacks_and_leave_no_worker_without(workers, stack, tasks, expected):
    made = Pool(Hall(workers), {}, (), None, None, stack=stack)
    assert made._each(tasks) == expected


def train_body(there):
    return Train(1, there.state.vector, there.terms.total.digest, there.terms.cap, ())


def test_replies_of_an_ask_that_was_left_do_not_answer_the_next():
    there = pooled(small(logistic(4), fedavg(SGD), classification()), size=1)
    federation, body = there.federation, Evaluate(there.state.vector)
    with closing(federation):
        ask = federation.send([Task(1, "site0", body), Task(2, "site1", body)])
        federation.receive(ask, None)
        federation.receive(ask, None)
        federation.ready.append("left over")
        replies = ask_all(federation, ["site2"], body)
    assert [reply.parties for reply in replies] == [("site2",)]


@dataclass(frozen=True)
class Twice:
    """Asks the first member several times in a cohort."""

    def pick(self, members, round, streams):
        return [members[0]] * 9

    def most(self, members):
        return 9


@pytest.mark.parametrize("engine", [lambda there: there, pooled])
def test_a_party_asked_several_times_remembers_the_last(engine):
    strategy = replace(scaffold(SGD), select=Twice())
    there = engine(small(linear(3), strategy, regression()))
    states = there.run(3)
    if isinstance(there.federation, Pool):
        there.federation.close()
    reference = small(linear(3), strategy, regression())
    expected = reference.run(3)
    assert states[-1].vector.tobytes() == expected[-1].vector.tobytes()
    assert same_tree(there.parties["site0"].memory, reference.parties["site0"].memory)


@pytest.mark.parametrize("order", [(8, 16), (16, 8)])
def test_memory_does_not_depend_on_the_order_of_acceptance(order):
    party = small(linear(3), scaffold(SGD), regression()).parties["site0"]
    party.pending = {number: {"local": number} for number in order}
    party.settle(order)
    assert party.memory == {"local": 16}


@dataclass(frozen=True, kw_only=True)
class Moody(Scaffold):
    """Fails for one client in every second round."""

    def train(self, model, start, data, memory, *, round, streams):
        if data.size == 20 and round % 2:
            raise ValueError("not today")
        return super().train(model, start, data, memory, round=round, streams=streams)


@dataclass(frozen=True, kw_only=True)
class MoodySgd(Sgd):
    """Fails for one client in every second round."""

    def train(self, model, start, data, memory, *, round, streams):
        if data.size == 20 and round % 2:
            raise ValueError("not today")
        return super().train(model, start, data, memory, round=round, streams=streams)


@pytest.mark.parametrize(
    "local", [Moody(sgd=SGD), AtHome(local=MoodySgd(batch_size=4), leaves=("bias",))], ids=["scaffold", "home"]
)
def test_memories_survive_faults_alike(local):
    recipe = scaffold if isinstance(local, Scaffold) else fedavg
    strategy = replace(recipe(SGD, cohort=3), local=local, schedule=ANY)
    one = small(linear(3), strategy, regression())
    many = pooled(small(linear(3), strategy, regression()))
    expected = one.run(5)
    with closing(many.federation):
        found = many.run(5)
        figures = [
            {r.parties[0]: r.body.metrics.view() for r in ask_all(each.federation, one.parties, Evaluate(s.vector))}
            for each, s in ((one, expected[-1]), (many, found[-1]))
        ]
    assert found[-1].vector.tobytes() == expected[-1].vector.tobytes()
    assert all(same_tree(many.parties[name].memory, party.memory) for name, party in one.parties.items())
    assert figures[0] == figures[1]
    assert any(state.record.faults for state in expected)


@pytest.mark.parametrize("select", [Poisson(0.2), Uniform(clients=1)])
def test_small_cohorts_have_the_same_bits(select):
    strategy = replace(fedavg(SGD), select=select)
    one, many = (small(linear(3, dtype="float64"), strategy, regression()) for _ in range(2))
    expected, many = one.run(12), pooled(many)
    with closing(many.federation):
        found = many.run(12)
    assert found[-1].vector.tobytes() == expected[-1].vector.tobytes()
    assert [s.record.training for s in found] == [s.record.training for s in expected]
    assert min(len(s.record.cohort) for s in expected) <= 1


def test_large_messages_do_not_lock_each_other():
    strategy = scaffold(Sgd(batch_size=None, optimizer=Step(1e-3)))
    there = pooled(small(logistic(300_000), strategy, classification((3,) * 12, inputs=300_000)), size=1)
    with closing(there.federation), alarm(60):
        states = there.run(2)
    assert states[-1].record.faults == ()


ORPHAN = """
import sys, time
sys.path[:0] = {path!r}
from fedloom.adapters.numpy import linear
from small import regression, small
import test_pool

def slow(params, data, config):
    time.sleep(60)

there = test_pool.pooled(small(linear(3), test_pool.custom(slow), regression()))
there.federation.send([test_pool.Task(1, "site0", test_pool.train_body(there))])
print(*(worker.process.pid for worker in there.federation.workers), flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker ends after its chunk")
def test_workers_end_with_a_coordinator_that_is_killed():
    here = os.path.dirname(__file__)
    code = ORPHAN.format(path=[here, os.path.dirname(here)])
    coordinator = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pids = [int(word) for word in coordinator.stdout.readline().split()]
    assert len(pids) == 2
    coordinator.kill()
    coordinator.communicate()
    until = time.monotonic() + 5
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, pids))


def alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_a_thousand_rounds_do_not_grow():
    there = pooled(small(logistic(4), scaffold(SGD), classification()))
    with closing(there.federation):
        rounds = there.strategy.schedule.run(there.strategy, there.terms, there.federation, there.state)
        processes = [psutil.Process(), *(psutil.Process(w.process.pid) for w in there.federation.workers)]
        used = []
        for _ in islice(rounds, 1100):
            used.append(sum(process.memory_info().rss for process in processes))
    assert used[-1] - used[100] < 4e6


def test_a_fault_names_what_the_user_raised():
    def broken(params, data, config):
        raise KeyError("age")

    there = pooled(small(linear(3), custom(broken, schedule=Sync(quorum=1)), regression()))
    with closing(there.federation):
        ask = there.federation.send([Task(1, "site0", train_body(there))])
        body = there.federation.receive(ask, None).body
    assert isinstance(body, Fault)
    assert (body.site, body.phase, body.error) == ("site0", "train", "KeyError")


def test_no_task_joins_an_open_ask():
    there = pooled(small(linear(3), fedavg(SGD), regression()))
    with closing(there.federation):
        ask = there.federation.send([Task(1, "site0", train_body(there))])
        with pytest.raises(RunError, match="no task joins an open ask; take the engine sequential"):
            there.federation.send([Task(2, "site1", train_body(there))], ask)
        assert there.federation.receive(ask, None).parties == ("site0",)
