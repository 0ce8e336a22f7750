"""Whole runs in which clients add the noise themselves: what the coordinator gets, and what each client refuses."""

from dataclasses import replace

import numpy as np
import pytest
from test_gate import SKELLAM, app
from test_run import told

import fedloom
from fedloom.adapters.numpy import linear
from fedloom.core.errors import QuorumLost
from fedloom.core.hidden import Advertise, Confirm
from fedloom.core.task import Task, Train, Trained
from fedloom.core.update import weigh
from fedloom.privacy import gate
from fedloom.privacy.accountant import spent
from fedloom.running import begin
from fedloom.trust import trust
from hidden import Clients, layout
from small import regression, small

SITES = tuple(range(5, 25))


def last(gather):
    strategy = fedloom.dp_secagg_fedavg(fedloom.sgd(0.3), survivors=8, delta=1e-3, seeded=True)
    *_, state = app(replace(strategy, gather=gather)).run()
    assert not state.record.faults
    return state.vector.tobytes()


def test_a_hidden_sum_has_the_bits_of_the_plain_one():
    assert last(fedloom.SecAgg(survivors=8)) == last(fedloom.Plain())


def test_epsilon_is_told_every_round_and_is_against_the_coordinator_too():
    said = told(begin(app(SKELLAM)))
    costs = [round(spent(SKELLAM.event, rounds, 1e-3).epsilon, 6) for rounds in (1, 2, 3)]
    assert [event["epsilon"] for event in said] == [*costs, costs[-1]]
    assert "the coordinator too" in said[-1]["guarantee"]["against"]
    assert said[-1]["guarantee"]["cross_check"] is None
    assert all(event["training"] == {} and not event["faults"] for event in said[:-1])


def test_a_turned_delta_gives_the_same_model_up_to_the_grid():
    quiet = fedloom.SkellamNoise(clip=4.0, noise_multiplier=0.01, delta=1e-3, survivors=8, bits=18, seeded=True)
    ends = []
    for stages in ((quiet,), (fedloom.Rotate(), quiet)):
        ends.append(small(linear(3), replace(SKELLAM, local=fedloom.sgd(0.3), stages=stages), regression(SITES)).run(3))
    assert np.abs(ends[0][-1].vector).max() > 0.2
    np.testing.assert_allclose(ends[0][-1].vector, ends[1][-1].vector, atol=0.03)


def training(failing):
    def train(params, data, config):
        if data.size in failing:
            raise OSError("gone")
        return {name: value + 0.01 for name, value in params.items()}

    return fedloom.Custom(function=train)


def test_a_round_of_too_few_is_lost_changes_nothing_and_is_paid_for():
    strategy = replace(SKELLAM, local=training(range(5, 12)))
    lost, kept = (small(linear(3), strategy if bad else SKELLAM, regression(SITES)) for bad in (True, False))
    (state,) = lost.run(1)
    assert state.vector.tobytes() == lost.state.vector.tobytes()
    assert (state.round, state.record.counted) == (1, ())
    assert any("nothing was unmasked" in fault.message for fault in state.record.faults)
    (state,) = kept.run(1)
    assert len(state.record.counted) == 20
    assert np.abs(state.vector - kept.state.vector).max() > 0


def test_dropouts_down_to_the_threshold_leave_a_sum_with_the_promised_noise():
    strategy = replace(SKELLAM, local=training(range(5, 11)))
    (state,) = small(linear(3), strategy, regression(SITES)).run(1)
    assert len(state.record.counted) == 14
    assert np.isfinite(state.vector).all()


@pytest.mark.slow
def test_over_a_network_sites_add_their_shares():
    from wired import networked

    strategy = fedloom.dp_secagg_fedavg(fedloom.sgd(0.3), survivors=4, clip=4.0, noise_multiplier=0.01, delta=1e-3)
    made = small(linear(3), strategy, regression())
    with networked(made) as federation:
        made.federation = federation
        states = made.run(2)
    assert [(len(state.record.counted), state.record.faults) for state in states] == [(5, ())] * 2
    assert np.abs(states[-1].vector).max() > 0.1


class Listening:
    """A federation that keeps what parties answer."""

    def __init__(self, inner):
        self.inner, self.heard = inner, []

    def receive(self, ask, timeout_s):
        reply = self.inner.receive(ask, timeout_s)
        self.heard.append(reply)
        return reply

    def __getattr__(self, name):
        return getattr(self.inner, name)


@pytest.mark.parametrize("strategy", [SKELLAM, fedloom.dp_fedavg(delta=1e-3)], ids=["distributed", "central"])
def test_no_training_metrics_leave_a_client(strategy):
    made = small(linear(3), replace(strategy, gather=fedloom.Plain()), regression(SITES))
    made.federation = Listening(made.federation)
    made.run(1)
    told = [reply.body.metrics.sums for reply in made.federation.heard if isinstance(reply.body, Trained)]
    assert told == [{"examples": 0}] * 20


def advertised(gather, clients, asked):
    body = Advertise("ab" * 16, 1, "content", tuple(asked))
    return gather.answer(Task(1, asked[0], body), None, lambda: None, clients.registry.identity(asked[0]))


def test_a_coordinator_that_asks_a_handful_is_refused_by_each_client():
    """It tells three clients that they are the cohort: their threshold would be three, and their noise too little."""
    names, gather = [f"site{i}" for i in range(9)], fedloom.SecAgg(survivors=8)
    clients = Clients(dict.fromkeys(names), gather)
    with pytest.raises(QuorumLost, match="asked are: 3 clients, and a hidden sum here needs 8"):
        advertised(gather, clients, names[:3])
    assert advertised(gather, clients, names)[0].body is not None
    assert advertised(fedloom.SecAgg(), clients, names[:3])[0].body is not None


def test_a_coordinator_that_leaves_clients_out_of_the_sum_gets_no_unmasking():
    """It says that all but three fell out; without differential privacy a threshold of t alone would bear more."""
    names, total = [f"site{i}" for i in range(10)], layout(4, 10)
    updates = {name: weigh(np.ones(4, np.float32), total, 1.0) for name in names}

    def spoil(task):
        if isinstance(task.body, Confirm):
            return replace(task, body=replace(task.body, alive=task.body.alive[:8]))
        return task

    clients = Clients(updates, fedloom.SecAgg(survivors=9), spoil=spoil)
    strategy = replace(fedloom.fedavg(), gather=clients.gather, stages=(fedloom.FixedPoint(),))
    body = Train(1, np.zeros(4, np.float32), total.digest, 1, (None,), 10)
    tasks = [Task(i + 1, name, body) for i, name in enumerate(names)]
    replies = list(strategy.gather.collect(clients, tasks, lambda: None))
    assert not any(isinstance(reply.body, Trained) for reply in replies)
    assert any("in the sum are: 8 clients, and a hidden sum here needs 9" in said for _, _, said in clients.refused)


def test_the_paragraph_of_trust_says_who_could_learn_what():
    said = trust(replace(SKELLAM, gather=fedloom.SecAgg(survivors=10)), spent(SKELLAM.event, 3, 1e-3, 20))
    for part in (
        "each client refuses a sum of fewer than 10 clients",
        "8 honest ones bring the noise that is promised; 2 more may work for the coordinator",
        "who takes part, who fails and with which error, and how many rows each site has",
        "the coordinator too",
    ):
        assert part in said
    assert "∞" not in said
    assert "training metrics" not in said


def test_with_few_neighbours_nothing_is_claimed_against_a_coordinator_that_lies():
    few = replace(SKELLAM, gather=fedloom.SecAgg(survivors=8, neighbours="auto"))
    assert gate.guarantee(few, 1, 20).against.endswith("and while the coordinator follows the protocol")
    assert not gate.guarantee(SKELLAM, 1, 20).against.endswith("protocol")
