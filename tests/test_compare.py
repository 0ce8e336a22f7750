from dataclasses import replace

import numpy as np
import pytest

import fedloom
from apps import app
from fedloom.compare import compare, main_figure
from fedloom.simulation import pooled, simulate


def compared(**changes):
    simulation = simulate(app(**changes))
    *_, state = simulation.rounds(simulation.first())
    return compare(simulation, state), simulation, state


@pytest.mark.parametrize(
    ("figures", "stop", "expected"),
    [
        (["loss", "auc", "accuracy"], fedloom.Stop(), "auc"),
        (["loss", "accuracy"], fedloom.Stop(), "accuracy"),
        (["loss", "rmse", "r2"], fedloom.Stop(), "rmse"),
        (["surprise"], fedloom.Stop(), "surprise"),
        (["loss", "auc"], fedloom.Stop(watch="loss"), "loss"),
        (["loss", "auc"], fedloom.Stop(target={"accuracy": 0.9}), "accuracy"),
    ],
)
def test_the_main_figure(figures, stop, expected):
    assert main_figure(figures, stop) == expected


def test_every_site_gets_a_row_with_what_it_would_have():
    found, simulation, state = compared()
    assert found.figure == "auc"
    assert [row.site for row in found.rows] == ["client-000", "client-001", "client-002"]
    for row in found.rows:
        assert row.examples == simulation.held[row.site].held_out.size
        assert row.federated.value == pytest.approx(state.sites[row.site].view()["auc"], abs=0.01)
        for estimate in (row.alone, row.federated, row.pooled):
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
        assert row.personal is None
    assert "for 2 rounds" in found.note


def test_alone_is_what_the_site_reaches_by_itself():
    found, simulation, _ = compared(stop=fedloom.Stop(watch="loss"))
    name = "client-001"
    alone = simulate(simulation.app, held={name: simulation.held[name]})
    *_, state = alone.rounds(alone.first())
    (row,) = [row for row in found.rows if row.site == name]
    assert row.alone.value == pytest.approx(state.metrics.view()["loss"], rel=1e-5)


def test_pooled_is_one_site_with_everybodys_rows():
    found, simulation, _ = compared(stop=fedloom.Stop(watch="loss"))
    pot = simulate(simulation.app, held={"pooled": pooled(simulation.held)})
    *_, state = pot.rounds(pot.first())
    assert pooled(simulation.held).train.size == sum(own.train.size for own in simulation.held.values())
    replies = {
        name: simulation.model.predict(state.vector, party.split.held_out.inputs)
        for name, party in simulation.parties.items()
    }
    for row in found.rows:
        targets = simulation.parties[row.site].split.held_out.targets
        # Statistics of all rows are the same in one pot, so the inputs are too.
        losses = -np.log(replies[row.site][np.arange(len(targets)), targets])
        assert row.pooled.value == pytest.approx(losses.mean(), rel=1e-4)


def test_leaves_that_stay_home_are_compared_as_personal():
    found, _, state = compared(strategy=fedloom.fedbn(leaves=("bias",)))
    for row in found.rows:
        assert row.federated is None
        assert row.personal.value == pytest.approx(state.sites[row.site].view()["auc"], abs=0.01)


def test_it_does_not_stop_early_or_leave_anybody_out():
    seen = []
    simulation = simulate(app(strategy=fedloom.fedavg(cohort=1), stop=fedloom.Stop(target={"auc": 0.1}, patience=1)))
    *_, state = simulation.rounds(simulation.first())
    assert state.round == 1
    found = compare(simulation, state, seen.append)
    assert seen == ["pooled", "client-000", "client-001", "client-002"]
    assert len(found.rows) == 3


def test_without_held_out_rows_there_is_nothing_to_compare():
    source = fedloom.Arrays(np.eye(12), np.arange(12) % 2, classes=2, test_part=(np.eye(12)[:4], np.arange(4) % 2))
    found, *_ = compared(data=fedloom.Data(source=source, partition=fedloom.Iid(2), holdout=0.0))
    assert (found.rows, found.note) == ((), "There is no comparison: no site holds rows out.")


def test_before_the_first_round_there_is_nothing_to_compare():
    simulation = simulate(app())
    found = compare(simulation, simulation.evaluated(simulation.first()))
    assert (found.rows, found.note) == ((), "There is no comparison: no round has been closed.")


def test_it_changes_nothing_of_the_run():
    simulation = simulate(app(strategy=replace(fedloom.scaffold(), stages=())))
    *_, state = simulation.rounds(simulation.first())
    before = state.vector.copy()
    compare(simulation, state)
    assert np.array_equal(state.vector, before)
    assert simulation.evaluated(state).metrics.view() == state.metrics.view()


def test_sites_that_this_machine_is_too_small_for_are_not_compared():
    simulation = simulate(app())
    *_, state = simulation.rounds(simulation.first())
    large = replace(simulation, app=replace(simulation.app, needs=fedloom.Needs(cpus=5000)))
    found = compare(large, state)
    assert found.rows == ()
    assert "There is no comparison: client-000 needs 5000 CPUs" in found.note


def test_comparing_alone_is_not_kept_from_by_other_sites_needs():
    needs = fedloom.Needs(clients={"client-002": fedloom.Needs(cpus=0.5)})
    assert len(compared(needs=needs)[0].rows) == 3


def test_sites_that_train_under_masks_are_compared_too():
    stages = (fedloom.Clip(1.0), fedloom.FixedPoint(limit=1.0))
    plain = replace(fedloom.fedavg(), stages=stages)
    hidden, _, _ = compared(strategy=replace(plain, gather=fedloom.SecAgg()))
    assert hidden == compared(strategy=plain)[0]


@pytest.mark.parametrize("strategy", [fedloom.krum(byzantine=1), fedloom.trimmed_mean()])
def test_where_sites_outvote_each_other_one_alone_keeps_its_own_word(strategy):
    data = fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Iid(6))
    found, simulation, _ = compared(data=data, strategy=strategy)
    plain, _, _ = compared(data=data, strategy=replace(strategy, aggregate=fedloom.Mean()))
    assert len(found.rows) == len(simulation.held) == 6
    assert [row.alone for row in found.rows] == [row.alone for row in plain.rows]
