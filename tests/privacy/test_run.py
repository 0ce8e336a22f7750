"""Whole runs under central differential privacy: what is told, what is saved when, and what nobody can read off."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from shutil import copy
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
from test_gate import PRIVATE, app

import fedloom
from fedloom import events
from fedloom.adapters.numpy import linear
from fedloom.core.errors import DigestMismatch, RecordError, RunError, StrategyError
from fedloom.core.task import Member
from fedloom.privacy.accountant import spent
from fedloom.running import begin, resume
from fedloom.runtime.net.hall import Hall
from fedloom.serve import Coordinator, Serving
from fedloom.simulation import simulate
from fedloom.store.runs import JOURNAL, journal
from fedloom.trust import trust
from small import regression, small

SCHEMA = jsonschema.Draft202012Validator(
    json.loads((Path(__file__).parents[2] / "docs" / "events.schema.json").read_text())
)


def told(recording):
    """Run a recording to its end; return its events."""
    with closing(recording):
        said = [events.round_event(state) for state in recording.rounds()]
    return [json.loads(json.dumps(event, allow_nan=False)) for event in [*said, recording.summary]]


def test_epsilon_is_told_every_round_and_explained_at_the_end():
    said = told(begin(app()))
    for event in said:
        SCHEMA.validate(event)
    costs = [round(spent(PRIVATE.event, rounds, 1e-3).epsilon, 6) for rounds in (1, 2, 3)]
    assert [event["epsilon"] for event in said] == [*costs, costs[-1]]
    assert {event["delta"] for event in said} == {1e-3}
    assert said[-1]["guarantee"] == spent(PRIVATE.event, 3, 1e-3, 20).figures()
    assert all(event["training"] == {} and event["sites"] == {} for event in said[:-1])
    assert said[0]["measured_on"] == "test"


def test_seeded_noise_is_told_to_claim_nothing():
    strategy = fedloom.dp_fedavg(rate=0.5, seeded=True)
    said = told(begin(app(strategy)))
    for event in said:
        SCHEMA.validate(event)
    assert {event["epsilon"] for event in said} == {"infinity"}
    assert not any("delta" in event or "guarantee" in event for event in said)
    assert "the noise is drawn from a seed, for tests, so nothing is claimed (ε = ∞)" in trust(strategy)


def test_the_paragraph_of_trust_has_the_number_and_what_it_means():
    said = trust(PRIVATE, spent(PRIVATE.event, 3, 1e-3, 20))
    for part in ("client-level differential privacy", "ε = ", "δ = 0.001", "zero-out", "not the coordinator"):
        assert part in said
    assert "against whoever sees the shared models" in trust(PRIVATE)
    assert "∞" not in said


def test_a_run_ends_before_the_round_that_would_exceed_its_budget():
    cost = [spent(PRIVATE.event, rounds, 1e-3).epsilon for rounds in (3, 4)]
    said = told(begin(app(rounds=10, stop=fedloom.Stop(epsilon=(cost[0] + cost[1]) / 2))))
    assert [event["event"] for event in said] == ["round"] * 3 + ["end"]
    assert (said[-1]["status"], said[-1]["rounds"]) == ("completed", 3)
    assert "the privacy budget of ε = " in said[-1]["reason"]
    assert f"round 4 would bring it to {cost[1]:.4g}" in said[-1]["reason"]


def test_rounds_beyond_the_budget_are_not_even_begun():
    simulation = simulate(app(stop=fedloom.Stop(epsilon=spent(PRIVATE.event, 2, 1e-3).epsilon)))
    state = simulation.first().but(round=2)
    with pytest.raises(RunError, match=r"is spent: round 3 would bring it to .*nothing to go on with"):
        next(simulation.rounds(state))


def test_two_runs_differ_and_seeded_ones_do_not():
    def last(strategy):
        *_, state = app(strategy).run()
        return state.vector.tobytes()

    assert last(PRIVATE) != last(PRIVATE)
    seeded = fedloom.dp_fedavg(rate=0.5, seeded=True)
    assert last(seeded) == last(seeded)


def test_a_noised_model_is_on_the_disk_before_anybody_sees_it(tmp_path):
    recording = begin(app(rounds=4), tmp_path)
    with closing(recording), closing(journal(recording.folder)) as book:
        for state in recording.rounds():
            assert book.last().vector.tobytes() == state.vector.tobytes()
            assert book.last().round == state.round == len(book.rounds())


def test_what_is_on_the_disk_does_not_wait_in_a_log(tmp_path):
    """The database's main file alone, as it is after a power cut that lost the write-ahead log."""
    recording = begin(app(rounds=4), tmp_path / "runs")
    with closing(recording):
        rounds = recording.rounds()
        for round in (1, 2):
            next(rounds)
            (there := tmp_path / str(round)).mkdir()
            copy(recording.folder / JOURNAL, there / JOURNAL)
            with closing(journal(there)) as book:
                assert book.last().round == round
        rounds.close()


def test_a_resumed_run_keeps_what_was_shown_and_draws_the_open_round_anew(tmp_path):
    recording = begin(app(rounds=4), tmp_path)
    rounds = recording.rounds()
    shown = [next(rounds), next(rounds)]
    rounds.close()
    recording.close()
    ends = []
    for _ in range(2):
        again = resume(app(rounds=4), recording.folder)
        with closing(again):
            assert again.state.vector.tobytes() == shown[-1].vector.tobytes()
            rounds = again.simulation.rounds(again.state)  # not recorded: as if it had crashed before it was closed
            ends.append(next(rounds))
    assert ends[0].round == ends[1].round == 3
    assert ends[0].record.cohort == ends[1].record.cohort  # the secret is in the journal, the noise is nowhere
    assert not np.any(ends[0].vector == ends[1].vector)
    assert ends[0].epsilon == spent(PRIVATE.event, 3, 1e-3).epsilon


def test_a_state_older_than_what_was_shown_is_refused(tmp_path):
    """Its rounds would be released a second time, with other noise, and be counted once."""
    recording = begin(app(rounds=6), tmp_path)
    rounds = recording.rounds()
    shown = [next(rounds) for _ in range(3)]
    rounds.close()
    recording.close()

    def back_at(state):
        with closing(journal(recording.folder)) as book:
            book.save(state, [], {})
        return resume(app(rounds=6), recording.folder)

    for state in shown[1:]:  # a crash may come between what the record says and the state
        back_at(state).close()
    with pytest.raises(RecordError, match="of round 1, and models up to round 3 were shown: their noise would be draw"):
        back_at(shown[0])


def test_another_noise_in_the_middle_of_a_run_is_refused(tmp_path):
    recording = begin(app(rounds=4), tmp_path)
    rounds = recording.rounds()
    next(rounds)
    rounds.close()
    recording.close()
    changed = fedloom.dp_fedavg(rate=0.5, noise_multiplier=1.0, delta=1e-3)
    with pytest.raises(DigestMismatch, match="has changed since the run"):
        resume(app(changed, rounds=4), recording.folder)


def test_who_is_drawn_does_not_follow_from_the_seed_that_everybody_has():
    cohorts = {tuple(state.record.cohort for state in app().run()) for _ in range(3)}
    assert len(cohorts) == 3  # equal ones: once in 2^60


class Watched:
    """A federation that keeps the tasks that were sent."""

    def __init__(self, inner):
        self.inner, self.tasks = inner, []

    def send(self, tasks, ask=None):
        self.tasks.append(list(tasks))
        return self.inner.send(tasks, ask)

    def __getattr__(self, name):
        return getattr(self.inner, name)


def test_a_task_tells_nobody_how_many_others_were_drawn():
    made = small(linear(3), replace(PRIVATE, select=fedloom.Poisson(0.4)), regression((5,) * 20))
    watched = Watched(made.federation)
    made.federation = watched
    states = made.run(8)
    sizes = [len(tasks) for tasks in watched.tasks]
    assert len(set(sizes)) > 1
    assert {task.body.cohort for tasks in watched.tasks for task in tasks} == {8}  # 0.4 · 20: what is expected
    for at, (tasks, state) in enumerate(zip(watched.tasks, states, strict=True)):
        numbers = [task.number for task in tasks]
        assert len(set(numbers)) == len(numbers)
        assert all(20 * at < number <= 20 * (at + 1) for number in numbers)
        assert state.dispatched == 20 * (at + 1)
    assert any([task.number for task in tasks] != sorted(task.number for task in tasks) for tasks in watched.tasks)


def test_a_round_without_anybody_is_a_release_like_any_other():
    strategy = fedloom.dp_fedavg(rate=1e-9, noise_multiplier=2.0, delta=1e-3)
    made = small(linear(3), strategy, regression())
    (state,) = made.run(1)
    assert state.record.counted == ()
    assert np.abs(state.vector).min() > 0
    assert np.isfinite(state.vector).all()


def test_a_client_whose_delta_is_no_number_counts_as_none_and_ends_nothing():
    def train(params, data, config):
        return {name: value * np.nan for name, value in params.items()} if data.size == 30 else params

    strategy = replace(fedloom.dp_fedavg(delta=1e-3), local=fedloom.Custom(function=train))
    made = small(linear(3), strategy, regression((30, 20, 25)))
    (state,) = made.run(1)
    assert [fault.error for fault in state.record.faults] == ["NotFinite"]
    assert len(state.record.counted) == 2


def test_the_denominator_does_not_follow_who_answered():
    def train(params, data, config):
        if data.size < 25:
            raise OSError("gone")
        return {name: value + 0.25 for name, value in params.items()}

    strategy = fedloom.dp_fedavg(clip=10.0, noise_multiplier=1e-9, seeded=True)
    made = small(linear(3), replace(strategy, local=fedloom.Custom(function=train)), regression((30, 20, 25, 5)))
    (state,) = made.run(1)
    np.testing.assert_allclose(state.vector, 0.25 * 2 / 4, atol=1e-6)


@pytest.mark.slow
def test_members_that_come_are_refused_where_the_cost_depends_on_their_number(monkeypatch):
    simulation = simulate(app(replace(PRIVATE, select=fedloom.Poisson(0.5, cap=15))))
    first = simulation.first()
    next(simulation.rounds(first))
    there = list(simulation.federation.members())
    monkeypatch.setattr(type(simulation.federation), "members", lambda _: [*there, there[0]])
    with pytest.raises(RunError, match="there were 20 members and are 21"):
        simulation.guarantee(2)


def test_after_a_restart_the_founders_count_still():
    """A network's roster may have grown by then; what past rounds cost is of those who were there."""
    simulation = simulate(app(replace(PRIVATE, select=fedloom.Uniform(clients=5))))
    with pytest.raises(RunError, match="there were 19 members and are 20"):
        replace(simulation, founders=19).guarantee(2)


def test_a_state_is_saved_before_anybody_sees_it_even_where_another_could_wait(tmp_path):
    with closing(begin(app(fedloom.dp_fedavg(rate=0.5)), tmp_path)) as recording:
        recording.save_every_s, recording.waits = 1000.0, True
        next(recording.rounds())
        assert recording.journal.last().round == 1


def test_a_delta_is_refused_that_is_too_large_for_as_many_as_may_come():
    members = [Member(f"site {i}", 5) for i in range(4)]
    there = SimpleNamespace(
        loaded=SimpleNamespace(app=app(fedloom.dp_fedavg(delta=0.02))),
        hall=Hall("run"),
        log=None,
        measured=[],
        _between_rounds=None,
        folder=None,
        serving=Serving(sites=4, capacity=40),
    )
    assert Coordinator._training(there, members, {}).founders == 4
    there.serving = Serving(sites=4, capacity=60)
    with pytest.raises(StrategyError, match=r"delta of 0\.02 is not below one over 60 clients"):
        Coordinator._training(there, members, {})


def test_the_report_says_what_was_spent(tmp_path):
    from fedloom.publish import publish

    recording = begin(app(), tmp_path)
    with closing(recording):
        *_, last = recording.rounds()
        page = publish(recording, last).path.read_text()
    assert "Privacy spent: <strong>ε = 2" in page or "Privacy spent: <strong>ε = 1" in page or "ε = 3" in page
    for part in ("δ = 0.001 after 3 rounds", "zero-out", "Poisson sampling, rate 0.5", "dp-accounting 0.6.0, PLD"):
        assert part in page
    assert "∞" not in page


@pytest.mark.parametrize("engine", ["pool", "vectorized"])
def test_other_engines_spend_the_same(engine):
    *_, state = app().run(engine=engine)
    assert state.epsilon == spent(PRIVATE.event, 3, 1e-3).epsilon
    assert not state.record.faults


def test_over_a_network_the_drawn_numbers_carry_the_rounds():
    """The coordinator's log and the parties take dispatch numbers with gaps, in no order."""
    from wired import networked

    strategy = fedloom.dp_fedavg(rate=0.6, clip=10.0, noise_multiplier=1e-6, delta=1e-3)
    made = small(linear(3), strategy, regression())
    with networked(made) as federation:
        made.federation = federation
        states = made.run(4)
    assert not any(state.record.faults for state in states)
    assert [len(state.record.counted) for state in states] == [len(state.record.cohort) for state in states]
    assert states[-1].dispatched == 4 * 5
    assert np.abs(states[-1].vector).max() > 0.01
