from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps import app
from fedloom.adapters.numpy import linear, logistic
from fedloom.aggregate import Mean
from fedloom.core.errors import ConfigError, QuorumLost, StrategyError, UpdateError
from fedloom.core.event import DpEvent
from fedloom.core.layout import Layout, Leaf
from fedloom.core.rng import stream
from fedloom.core.state import State
from fedloom.core.task import Fault
from fedloom.core.update import Update, verify, weigh
from fedloom.core.weights import Equal
from fedloom.gather import Plain
from fedloom.local import Custom, Scaffold, Sgd
from fedloom.optimize import Step
from fedloom.recipes import fedasync, fedavg, fedbn, fedbuff, median, sgd
from fedloom.runtime.traces import Traces
from fedloom.runtime.virtual import Virtual
from fedloom.schedule import Buffered, Sync
from fedloom.schedule.buffered import discounted
from fedloom.select import Everyone, Poisson, Uniform
from fedloom.simulation import simulate
from fedloom.stages import Clip, Quantize
from fedloom.stages.stateless import Stateless
from fedloom.store.files import dump, restore
from small import classification, regression, same_tree, small

LOCAL = sgd(0.1, batch_size=4)
SLOW = Traces(compute="lognormal", mean_s=1.0, sigma=1.5)


def virtual(strategy, traces=SLOW, splits=None, **options):
    made = small(linear(3), strategy, splits or regression(), **options)
    made.federation = Virtual(made.federation, traces, 0)
    return made


def buff(**settings):
    """Return FedBuff for five sites; settings are the schedule's."""
    given = {"size": 2, "concurrency": 4} | settings
    return replace(fedbuff(LOCAL), schedule=Buffered(**given))


def literal(made, steps, traces):
    """FedBuff's and FedAsync's pseudocode in plain loops, on an event list; nothing is shared with the schedule.

    The draws are the run's own, by dispatch number, since the pseudocode leaves open who is sampled.
    """
    schedule, members = made.strategy.schedule, list(made.parties)
    x, version, number, clock = made.state.vector.astype(np.float64), 0, 0, 0.0
    training, buffer, told, found = [], [], [], []
    while version < steps:
        while len(training) < schedule.concurrency:
            number += 1
            busy, attempt = {name for _, _, name, _, _ in training}, 0
            while True:
                draws = stream(0, number).child("select").child(attempt)("cohort")
                name = members[int(draws.choice(len(members), 1, replace=False, shuffle=False)[0])]
                if name not in busy:
                    break
                attempt += 1
            due = clock + round(traces.duration(name, number, 0, 0), 6)
            training.append((due, number, name, version, x.copy()))
        training.sort(key=lambda one: (round(one[0], 6), one[1]))
        clock, n, name, sent, start = training.pop(0)
        party = made.parties[name]
        work = made.strategy.local.train(
            made.model, start.astype(np.float32), party.split.train, None, round=sent + 1,
            streams=stream(0, n).child("local"),
        )  # fmt: skip
        stale = version - sent
        if schedule.max_staleness is not None and stale > schedule.max_staleness:
            continue
        s = {"polynomial": (1 + stale) ** -schedule.a, "constant": 1.0}.get(schedule.staleness)
        if schedule.staleness == "hinge":
            s = 1.0 if stale <= schedule.b else 1 / (schedule.a * (stale - schedule.b) + 1)
        change = work.delta if schedule.mix == "deltas" else start + work.delta - x
        buffer.append(s * change)
        told.append((name, stale))
        if len(buffer) == schedule.size:
            x = x + made.strategy.optimizer.lr * sum(buffer) / schedule.size
            version += 1
            found.append((x.copy(), tuple(told)))
            buffer, told = [], []
    return found


ORACLE = {
    "fedbuff": buff(),
    "fedbuff, slow server": replace(buff(size=3, concurrency=5), optimizer=Step(0.5)),
    "constant": buff(staleness="constant"),
    "hinge": buff(staleness="hinge", a=2.0, b=1, concurrency=5),
    "max_staleness": buff(max_staleness=1, concurrency=5),
    "a half a step": buff(a=1.0, size=1),
    "fedasync": fedasync(LOCAL, concurrency=4),
}


@pytest.mark.parametrize("case", ORACLE)
def test_it_is_the_pseudocode(case):
    made = virtual(ORACLE[case])
    states = made.run(12)
    expected = literal(virtual(ORACLE[case]), 12, SLOW)
    for state, (x, told) in zip(states, expected, strict=True):
        assert tuple(zip(state.record.parties, state.record.staleness, strict=True)) == told
        np.testing.assert_allclose(state.vector, x, rtol=2e-4, atol=2e-5)
    assert max(max(state.record.staleness) for state in states) >= 1


@dataclass(frozen=True)
class Scripted:
    """Asks the same member in the same round, whoever asks."""

    def pick(self, members, round, streams):
        return [members[(round * round) % len(members)]]

    def most(self, members):
        return 1

    def event(self, inner):
        return inner


def test_with_one_client_at_a_time_it_is_synchronous_to_the_bit():
    sync = replace(fedavg(LOCAL), select=Scripted(), weights=Equal())
    one = replace(sync, schedule=Buffered(size=1, concurrency=1))
    expected = small(linear(3), sync, regression()).run(6)
    for found in (small(linear(3), one, regression()).run(6), virtual(one).run(6)):
        assert [s.vector.tobytes() for s in found] == [s.vector.tobytes() for s in expected]
        assert [s.record.parties for s in found] == [s.record.parties for s in expected]
        assert all(state.record.staleness == (0,) for state in found)


CONTINUED = {
    "plain": buff(),
    "stages": replace(buff(), stages=(Clip(0.5), Quantize(6))),
    "fedasync": fedasync(LOCAL, concurrency=5),
    "dropouts": buff(faults=5, deadline_s=3.0),
}
TRACED = {
    "lognormal": SLOW,
    "ties": Traces(compute="constant", mean_s=0.1),
    "dropouts": Traces(sigma=1.0, dropout=0.2),
}


@pytest.mark.parametrize(
    ("case", "traces"),
    [(case, traces) for case in CONTINUED for traces in (*TRACED, None) if traces != "dropouts" or case == "dropouts"],
)
def test_stored_at_any_step_it_goes_on_with_the_same_bits(case, traces):
    def made():
        there = virtual(CONTINUED[case], TRACED[traces]) if traces else None
        return there or small(linear(3), CONTINUED[case], regression())

    ahead = made().run(8)
    for at, state in enumerate(ahead[:-1]):
        again = made()
        again.state = State.of(restore(dump(state.tree())))
        assert same_tree(again.state.tree(), state.tree())
        for one, other in zip(again.run(7 - at), ahead[at + 1 :], strict=True):
            assert one.vector.tobytes() == other.vector.tobytes()
            assert (one.dispatched, one.record.counted, one.record.staleness) == (
                other.dispatched,
                other.record.counted,
                other.record.staleness,
            )
    assert max(max(state.record.staleness) for state in ahead) > 0


def test_memories_of_the_clients_go_on_too():
    strategy = replace(buff(), local=fedbn(LOCAL, leaves=("bias",)).local)
    ahead = virtual(strategy).run(6)
    first = virtual(strategy)
    state = first.run(3)[-1]
    second = virtual(strategy)
    second.state = State.of(restore(dump(state.tree())))
    for name, party in first.parties.items():
        if party.memory is not None:
            second.parties[name].memory = restore(dump(party.memory))
    assert [s.vector.tobytes() for s in second.run(3)] == [s.vector.tobytes() for s in ahead[3:]]


def test_nobody_trains_twice_at_a_time_and_every_slot_is_taken():
    made = virtual(buff(size=3, concurrency=4))
    for state in made.run(15):
        parties = [party for _, party, _, _ in state.schedule["flights"]]
        assert len(parties) == len(set(parties)) == 3  # the slot that came free last is given away in the next step
        versions = {str(version) for _, _, version, _ in state.schedule["flights"]}
        assert versions == set(state.schedule["starts"])
        assert state.dispatched == 3 * state.round + 3


def test_everybody_is_drawn_sooner_or_later():
    made = virtual(buff(size=5, concurrency=1), Traces(compute="constant"))
    parties = [party for state in made.run(200) for party in state.record.parties]
    assert all(150 < parties.count(name) < 250 for name in made.parties)


LAYOUT = Layout((Leaf("w", (4,)),)).weighted(cohort=8)
VALUES = st.lists(st.floats(-10, 10, width=32), min_size=4, max_size=4)


@settings(max_examples=60)
@given(st.lists(st.tuples(VALUES, st.integers(0, 40)), min_size=2, max_size=8), st.randoms())
def test_a_discounted_sum_has_the_same_bits_in_any_order(clients, random):
    schedule = Buffered(size=8, concurrency=8)
    updates = [discounted(weigh(np.float32(delta), LAYOUT, 0.5), schedule.discount(stale)) for delta, stale in clients]
    exact = sum(update.vector.astype(object) for update in updates)
    for update, (delta, stale) in zip(updates, clients, strict=True):
        assert verify(update, LAYOUT).vector[-1] == 0.5
        np.testing.assert_allclose(
            update.vector[:-1], 0.5 * np.float32(delta) / np.sqrt(1 + stale), rtol=3e-7, atol=2.0**-40
        )
    random.shuffle(updates)
    total = updates[0]
    for update in updates[1:]:
        total = total + update
    assert total.vector.tolist() == [float(value) for value in exact]


def test_fresh_updates_are_not_touched_and_sums_are_refused():
    update = weigh(np.float32([1, 2, 3, 4]), LAYOUT, 0.5)
    assert discounted(update, 1.0) is update
    with pytest.raises(UpdateError, match="weighs every client by its staleness; got a sum of 2"):
        discounted(update + update, 0.5)


def test_a_sum_of_several_clients_is_a_fault():
    def merged(replies):
        first, *others = replies
        double = first.body.update + first.body.update
        return [replace(first, body=replace(first.body, update=Update(double.vector, double.layout, 2))), *others]

    made = Garbled(small(linear(3), buff(faults=1), regression()), merged)
    state = made.there.run(1)[0]
    assert [(fault.phase, fault.error) for fault in state.record.faults] == [("admit", "UpdateError")]
    assert 1 not in state.record.counted


class Garbled:
    """A federation whose first reply is changed."""

    def __init__(self, there, change):
        self.inner, self.there, self.left = there.federation, there, 1
        self.change = change
        there.federation = self

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def receive(self, ask, timeout_s):
        reply = self.inner.receive(ask, timeout_s)
        if not self.left:
            return reply
        self.left = 0
        return self.change([reply])[0]


def test_what_is_too_stale_is_dropped_told_and_no_failure():
    states = virtual(buff(size=1, concurrency=5, max_staleness=1)).run(20)
    stale = [fault for state in states for fault in state.record.faults]
    assert stale
    assert {(fault.phase, fault.error) for fault in stale} == {("admit", "Stale")}
    assert all(fault.message.endswith("steps old, and max_staleness is 1") for fault in stale)
    assert max(max(state.record.staleness) for state in states) == 1


def test_a_silent_client_is_given_up_and_its_slot_goes_to_another():
    made = virtual(buff(faults=9, deadline_s=4.0), Traces(compute="constant", mean_s=1.0, dropout=0.3))
    states = made.run(10)
    faults = [fault for state in states for fault in state.record.faults]
    assert faults
    assert {(fault.phase, fault.error, fault.message) for fault in faults} == {
        ("wait", "Deadline", "no reply in 4.0 s")
    }


def test_without_a_deadline_silence_ends_the_run_with_a_reason():
    made = virtual(buff(faults=9), Traces(dropout=0.9))
    with pytest.raises(QuorumLost, match=r"nobody who trains will answer any more; no faults\. .*set a deadline\."):
        made.run(50)


def test_too_many_faults_end_the_run():
    def broken(params, data, config):
        raise OSError("disk full")

    strategy = replace(buff(faults=2), local=Custom(function=broken))
    with pytest.raises(QuorumLost) as caught:
        small(linear(3), strategy, regression()).run(1)
    assert "step 1: 0 of 2 updates counted, and 3 clients failed, and 2 may; " in str(caught.value)
    assert "OSError: disk full" in str(caught.value)


def test_who_has_left_the_run_while_it_trained_is_no_failure():
    def gone(replies):
        (reply,) = replies
        made.inner.roster = [member for member in made.inner.roster if member.name != reply.parties[0]]
        return replace(reply, body=Fault(reply.parties[0], "wait", "LeaseExpired", "not connected")), *replies[1:]

    made = Garbled(small(linear(3), buff(), regression()), gone)
    state = made.there.run(1)[0]
    assert [fault.error for fault in state.record.faults] == ["LeaseExpired"]
    assert len(state.record.counted) == 2


def test_where_somebody_has_left_fewer_train_at_a_time_and_nobody_is_looked_for_for_ever():
    def leaves(replies):
        made.inner.roster = made.inner.roster[:3]
        return replies

    made = Garbled(small(linear(3), buff(concurrency=5, faults=9), regression()), leaves)
    states = made.there.run(4)
    assert set(states[-1].record.parties) <= {"site0", "site1", "site2"}


@pytest.mark.parametrize(("faults", "final"), [(0, True), (1, False)])
def test_updates_that_would_be_refused_again_end_a_run_for_good(faults, final):
    """One is refused here, and then clients fail: mended, they may be counted, where one may be lost."""
    calls = []

    def moody(params, data, config):
        calls.append(params)
        if len(calls) > 1:
            raise OSError("full")
        return params

    def spoilt(replies):
        update = replies[0].body.update
        bad = replace(update, vector=np.full_like(update.vector, np.nan))
        return (replace(replies[0], body=replace(replies[0].body, update=bad)),)

    strategy = replace(buff(faults=faults), local=Custom(function=moody))
    made = Garbled(small(linear(3), strategy, regression()), spoilt)
    with pytest.raises(QuorumLost) as caught:
        made.there.run(1)
    assert caught.value.final == final


def test_by_default_nobody_may_be_lost():
    with pytest.raises(QuorumLost, match="1 client failed, and 0 may"):
        virtual(buff(), Traces(dropout=0.5, timeout_s=2.0)).run(20)


def test_figures_and_bytes_are_in_the_record():
    states = virtual(buff()).run(3)
    first, second, _ = (state.record for state in states)
    assert (first.bytes_down, first.bytes_up) == (5 * 4 * 4, 2 * 5 * 4)
    assert second.bytes_down == 2 * 4 * 4
    assert (second.first, second.cohort) == (states[0].dispatched + 1, second.parties)
    assert first.training["examples"] > 0


@dataclass(frozen=True)
class Hidden(Plain):
    hides: ClassVar[bool] = True


@dataclass(frozen=True)
class Summing(Stateless):
    each: ClassVar[bool] = False
    sums: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class PrivateSgd(Sgd):
    def event(self):
        return DpEvent("gaussian", {"noise": 1.0})


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "a hiding gather": (
        lambda: replace(buff(), gather=Hidden()),
        "Hidden needs a cohort that answers together, and Buffered has none; take Sync.",
    ),
    "scaffold": (
        lambda: replace(buff(), local=Scaffold(sgd=LOCAL), aggregate=Mean(over={"control": "members"})),
        "a mean over all members is one of a round, and Buffered has none; take Sync.",
    ),
    "a robust rule": (
        lambda: replace(median(), schedule=buff().schedule),
        "whoever answers quickly is in many buffers; take Sync, or aggregate with Mean().",
    ),
    "a stage on the sum": (
        lambda: replace(buff(), stages=(Summing(),)),
        "Summing finishes on one round's sum, and a buffer holds updates that were encoded in several; take Sync",
    ),
    "privacy": (
        lambda: replace(buff(), local=PrivateSgd()),
        "the privacy of PrivateSgd is accounted for cohorts drawn by round, and Buffered has none; take Sync.",
    ),
    "size": (lambda: Buffered(size=0, concurrency=1), "Buffered.size must be at least 1, got 0."),
    "concurrency": (lambda: Buffered(size=1, concurrency=0), "Buffered.concurrency must be at least 1, got 0."),
    "faults": (lambda: buff(faults=-1), "Buffered.faults must be at least 0, got -1."),
    "max_staleness": (lambda: buff(max_staleness=-1), "Buffered.max_staleness must be at least 0, got -1."),
    "a": (lambda: buff(a=float("nan")), "Buffered.a must be a number from 0 on, got nan."),
    "deadline_s": (lambda: buff(deadline_s=0.0), "Buffered.deadline_s must be above 0 seconds, got 0.0."),
    "staleness": (lambda: buff(staleness="linear"), "Buffered.staleness is one of polynomial, hinge, constant; got"),
    "mix": (lambda: buff(mix="both"), "Buffered.mix is one of deltas, models; got 'both'."),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case):
    make, text = REFUSED[case]
    with pytest.raises(StrategyError) as caught:
        make()
    assert text in str(caught.value)


@pytest.mark.parametrize("select", [Everyone(), Poisson(0.3), Uniform(clients=2), Uniform(fraction=0.5)])
def test_a_selector_of_cohorts_is_refused(select):
    with pytest.raises(StrategyError, match=r"asks one client whenever a slot is free.*select=Uniform\(clients=1\)"):
        small(logistic(4), replace(buff(), select=select), classification())


def test_more_concurrency_than_members_is_refused():
    with pytest.raises(StrategyError, match="6 clients cannot train at a time where there are 5; set concurrency to"):
        small(linear(3), buff(concurrency=6), regression())


def test_the_sum_is_declared_for_the_buffer():
    made = small(linear(3), buff(size=7), regression())
    assert made.terms.total.cohort == 7


def test_a_pool_is_refused_where_tasks_come_one_by_one():
    strategy = fedbuff(LOCAL, size=2, concurrency=2)
    with pytest.raises(ConfigError, match="Buffered takes clients one by one, and pool whole rounds; take sequential"):
        simulate(app(strategy=strategy), engine="pool")
    with pytest.raises(ConfigError, match="virtual time takes clients one by one, and vectorized whole rounds"):
        simulate(app(), engine="vectorized", traces=SLOW)
    assert str(simulate(app(strategy=strategy), engine="auto").engine) == "sequential"


def test_sync_with_an_early_close_counts_the_first():
    strategy = replace(fedavg(), schedule=Sync(quorum=3, early=True))
    (state,) = small(logistic(4), strategy, classification()).run(1)
    assert (state.record.parties, state.record.faults) == (("site0", "site1", "site2"), ())
