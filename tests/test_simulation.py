from dataclasses import replace

import numpy as np
import pytest

import fedloom
from apps import app
from fedloom.core.errors import ConfigError, DataError, StrategyError
from fedloom.simulation import simulate


def arrays(**changes):
    inputs = np.random.default_rng(0).normal(size=(40, 3))
    return fedloom.Arrays(**{"inputs": inputs, "targets": np.arange(40) % 2, "classes": 2} | changes)


def data(source=None, **changes):
    return fedloom.Data(**{"source": source or arrays(), "partition": fedloom.Iid(4)} | changes)


def test_nothing_is_trained_when_it_is_set_up():
    simulation = simulate(app())
    state = simulation.first()
    assert (state.round, state.status, state.metrics) == (0, "running", None)
    assert not np.any(state.vector)
    assert set(simulation.parties) == {"client-000", "client-001", "client-002"}


def test_statistics_are_those_of_all_training_rows():
    simulation = simulate(app())
    held = [own.train for own in simulation.held.values()]
    name = "mean radius"
    values = np.concatenate([rows.table.values[name][rows.index] for rows in held])
    found = simulation.statistics[name]
    assert found["mean"] == pytest.approx(values.mean(), rel=1e-6)
    assert found["scale"] == pytest.approx(values.std(), rel=1e-3)


def test_pooled_figures_are_those_of_the_sites():
    *_, state = app().run()
    sites = [metrics.view() for metrics in state.sites.values()]
    pooled = state.metrics.view()
    examples = sum(site["examples"] for site in sites)
    assert pooled["examples"] == examples
    assert pooled["loss"] == pytest.approx(sum(site["loss"] * site["examples"] for site in sites) / examples)
    assert not state.central


def test_an_official_test_part_is_measured_in_the_middle():
    source = arrays(test_part=(np.ones((5, 3)), np.array([0, 1, 0, 1, 1])))
    *_, state = app(data=data(source)).run()
    assert (state.central, state.metrics.view()["examples"]) == (True, 5)
    assert sum(metrics.view()["examples"] for metrics in state.sites.values()) == 8


def test_where_leaves_stay_home_the_sites_are_measured():
    source = arrays(test_part=(np.ones((5, 3)), np.array([0, 1, 0, 1, 1])))
    *_, state = app(data=data(source), strategy=fedloom.fedbn(leaves=("bias",))).run()
    assert (state.central, state.metrics.view()["examples"]) == (False, 8)


def test_rounds_that_are_not_evaluated():
    seen = {state.round: state.metrics is not None for state in app(rounds=5, evaluate_every=2).run()}
    assert seen == {1: False, 2: True, 3: False, 4: True, 5: True}


def test_all_the_seeds_are_the_apps():
    def vector(**changes):
        *_, state = app(**changes).run()
        return state.vector.tobytes()

    assert vector() == vector()
    assert vector() != vector(seed=1)


REFUSED = {
    "nothing held out": (
        {"data": data(holdout=0.0)},
        ConfigError,
        "there is nothing to measure on: no site holds rows out; raise data.holdout, or use fewer clients.",
    ),
    "a site without training rows": (
        {"data": data(partition=fedloom.Iid(41))},
        DataError,
        r"fewer clients|rows",
    ),
    "a quorum larger than the federation": (
        {"strategy": replace(fedloom.fedavg(), schedule=fedloom.Sync(quorum=4))},
        StrategyError,
        "a quorum of 4 cannot be reached by a cohort of 3",
    ),
    "a cohort larger than the federation": ({"strategy": fedloom.fedavg(cohort=100)}, StrategyError, "100"),
    "a target that cannot be measured": (
        {"stop": fedloom.Stop(target={"rmse": 1.0})},
        ConfigError,
        "'rmse' cannot be a target with this loss",
    ),
    "a model of another size": ({"model": fedloom.logistic(7)}, (ConfigError, DataError, fedloom.RunError), "7|30"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_refused_before_anything_begins(kind):
    changes, error, sentence = REFUSED[kind]
    with pytest.raises(error, match=sentence):
        [state.round for state in app(**changes).run()]


def test_a_malformed_file_is_named(tmp_path):
    path = tmp_path / "rows.csv"
    schema = fedloom.Schema((fedloom.Column("x"),), "y", classes=("0", "1"))
    for content, sentence in (
        ("x,y\n1,0\n2\n", "line 3: the header names 2"),
        ("x,y\n1,7\n", "'7' is not a declared class"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=sentence) as caught:
            simulate(app(data=data(fedloom.Csv(path, schema))))
        assert str(path) in str(caught.value)


def test_a_site_in_which_everything_is_missing(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(
        "site,x,y\n" + "".join(f"a,{i},{i % 2}\n" for i in range(10)) + "".join(f"b,,{i % 2}\n" for i in range(6))
    )
    schema = fedloom.Schema((fedloom.Column("x", missing="mean"),), "y", classes=("0", "1"))
    *_, state = app(data=data(fedloom.Csv(path, schema), partition=fedloom.ByColumn("site"))).run()
    assert set(state.sites) == {"a", "b"}


def test_a_site_of_one_row(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("site,x,y\n" + "".join(f"a,{i},{i % 2}\n" for i in range(10)) + "b,3,1\n")
    schema = fedloom.Schema((fedloom.Column("x"),), "y", classes=("0", "1"))
    simulation = simulate(app(data=data(fedloom.Csv(path, schema), partition=fedloom.ByColumn("site"))))
    assert simulation.measured == ("a",)
    *_, state = simulation.rounds(simulation.first())
    assert state.status == "completed"
