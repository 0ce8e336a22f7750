"""DP-SGD against a literal loop; what it draws, and that nothing else leaves."""

import os

import numpy as np
import pytest

from fedloom.adapters.numpy import linear, logistic
from fedloom.adapters.torch import torch_model
from fedloom.adapters.torch_device import TorchResident
from fedloom.adapters.torch_nets import mlp
from fedloom.core.draws import gaussian, uniform
from fedloom.core.errors import StrategyError
from fedloom.core.event import EXAMPLES, SEEDED
from fedloom.core.examples import Examples
from fedloom.core.rng import stream
from fedloom.local import DpSgd
from fedloom.optimize import Adam, Step

RNG = np.random.default_rng(0)
SETTINGS = {"lot": 0.4, "clip": 0.7, "noise_multiplier": 0.5, "delta": 1e-3, "seeded": True}
STREAMS = stream(0, 1).child("local")


def data(n, inputs=3):
    return Examples(RNG.normal(size=(n, inputs)).astype(np.float32), RNG.integers(0, 2, n))


def literal(local, model, start, rows, streams, rate=0.1):
    """Algorithm 1 of Abadi et al. 2016 as it is written, an example at a time, with the same draws."""
    w, plan = start.astype(np.float64), local.lots(rows.size)
    for step in range(plan.steps):
        source = streams.child("lot").child(step)
        lot = np.flatnonzero(uniform(rows.size, source) < plan.rate)
        total = np.zeros(len(w))
        for i in lot:
            x = model.load(w.astype(np.float32))
            gradient = np.array(model.read(model.grad(x, rows.take([i]), stream(0, 1)).vector), np.float64)
            total += gradient / max(1.0, np.linalg.norm(gradient) / local.clip)
        noise = gaussian(len(w), source) * local.noise_multiplier * local.clip
        w -= rate * (total + noise) / (plan.rate * rows.size)
    return w - start


@pytest.mark.parametrize("changes", [{}, {"lot": 6, "epochs": 2}, {"lot": 1.0, "steps": 3}, {"lot": 100}])
@pytest.mark.parametrize("build", [lambda: logistic(3), lambda: torch_model(mlp((3,), 2, hidden=(4,)))])
def test_it_is_algorithm_1(changes, build):
    local, model, rows = DpSgd(**SETTINGS | changes), build(), data(20)
    start = model.init(stream(0, "init"))
    found = local.train(model, start, rows, None, round=1, streams=STREAMS)
    expected = literal(local, model, start, rows, STREAMS)
    np.testing.assert_allclose(found.delta, expected, atol=2e-4)  # the noise is for a clip 2.5e-4 longer
    assert found.examples == 20


@pytest.mark.parametrize("resident", [False, True])
def test_many_at_once_are_as_one_by_one(resident):
    local, model = DpSgd(**SETTINGS | {"lot": 4}), torch_model(mlp((3,), 2, hidden=(4,)))
    held, start = [data(n) for n in (9, 20, 0, 8, 21)], model.init(stream(0, "init"))
    stack = TorchResident(model.stack()) if resident else model.stack()
    rows = [stack.put(one) for one in held] if resident else held
    streams = [stream(0, k).child("local") for k in range(5)]
    works = local.train_many(stack, model.layout, start, rows, [None] * 5, round=1, streams=streams)
    deltas = stack.read(works.deltas)
    for k, (one, drawn) in enumerate(zip(held, streams, strict=True)):
        alone = local.train(model, start, one, None, round=1, streams=drawn)
        np.testing.assert_allclose(deltas[k], alone.delta, atol=1e-6)
    assert not deltas[2].any()
    assert works.examples == (9, 20, 0, 8, 21)


def test_each_client_may_start_elsewhere():
    local, model, held = DpSgd(**SETTINGS), linear(3), [data(9), data(5)]
    starts = RNG.normal(size=(2, 4)).astype(np.float32)
    streams = [stream(0, k) for k in range(2)]
    deltas = local.train_many(model.stack(), model.layout, starts, held, [None] * 2, round=1, streams=streams).deltas
    for k in range(2):
        alone = local.train(model, starts[k], held[k], None, round=1, streams=streams[k])
        np.testing.assert_allclose(deltas[k], alone.delta, atol=1e-6)


def test_an_empty_lot_is_a_step_of_noise(monkeypatch):
    local, model = DpSgd(**SETTINGS | {"lot": 1e-9, "steps": 1}), logistic(3)
    work = local.train(model, np.zeros(4, np.float32), data(10), None, round=1, streams=STREAMS)
    noise = gaussian(4, STREAMS.child("lot").child(0)) * 0.5 * 0.7 / 1e-8
    np.testing.assert_allclose(work.delta, -0.1 * noise, rtol=1e-3)


def test_the_divisor_is_what_is_expected_and_not_what_was_drawn():
    """One example of gradient (clip, 0): drawn or not, its part is clip/(q·n)."""
    rows = Examples(np.array([[1.0]] * 4, np.float32), np.full(4, 100.0, np.float32))
    local = DpSgd(lot=0.5, steps=1, clip=1.0, noise_multiplier=1e-9, delta=1e-3, optimizer=Step(1.0), seeded=True)
    seen = set()
    for dispatch in range(40):
        streams = stream(0, dispatch)
        drawn = int((uniform(4, streams.child("lot").child(0)) < 0.5).sum())
        delta = local.train(linear(1), np.zeros(2, np.float32), rows, None, round=1, streams=streams).delta
        assert np.linalg.norm(delta) == pytest.approx(drawn / (0.5 * 4), abs=1e-5)
        seen.add(drawn)
    assert {0, 1, 3} < seen


def test_nothing_else_leaves_and_no_two_rounds_are_alike():
    local = DpSgd(**SETTINGS | {"seeded": False})
    one, other = (
        local.train(logistic(3), np.zeros(4, np.float32), data(10), None, round=1, streams=STREAMS) for _ in "ab"
    )
    assert one.metrics.sums == {"examples": 0}
    assert one.memory is None
    assert not np.any(one.delta == other.delta)


def test_lots_noise_and_dropout_come_from_the_operating_system(monkeypatch):
    import secrets

    asked = []
    monkeypatch.setattr(os, "urandom", lambda size: asked.append(size) or b"\x55" * size)
    monkeypatch.setattr("fedloom.local.dpsgd.randbits", lambda bits: asked.append("seed") or secrets.randbelow(9))
    local = DpSgd(**SETTINGS | {"seeded": False, "steps": 1})
    local.train(logistic(3), np.zeros(4, np.float32), data(10), None, round=1, streams=STREAMS)
    assert asked == [8 * 10, "seed", 24 * 8]  # chances of ten examples, and sixteen normals in pairs for four values


def test_the_noise_has_its_deviation():
    local = DpSgd(lot=1.0, steps=1, clip=2.0, noise_multiplier=3.0, delta=1e-3, optimizer=Step(1.0))
    model, rows = linear(4000), Examples(np.zeros((5, 4000), np.float32), np.zeros(5, np.float32))
    delta = local.train(model, np.zeros(4001, np.float32), rows, None, round=1, streams=STREAMS).delta
    assert delta.std() == pytest.approx(3.0 * 2.0 / 5, rel=0.06)  # 4001 normals: five deviations of their deviation


@pytest.mark.parametrize(("dtype", "resident"), [("float32", False), ("float64", False), ("float32", True)])
@pytest.mark.parametrize("z", [3.0, 0.01])
def test_sum_and_noise_are_on_one_grid(dtype, resident, z):
    """Else a small value with fine digits shows that no example was added to it (Mironov, CCS 2012)."""
    local = DpSgd(lot=1.0, steps=1, clip=2.0, noise_multiplier=z, delta=1e-3, optimizer=Step(1.0))
    rows = data(7, 50)
    if resident:
        model = torch_model(mlp((50,), 1, hidden=()), "mse")
        stack = TorchResident(model.stack())
        held = stack.put(Examples(rows.inputs, rows.targets.astype(np.float32)))
    else:
        model, held = linear(50, dtype=dtype), rows
        stack = model.stack()
    works = local.train_many(stack, model.layout, np.zeros(51, dtype), [held], [None], round=1, streams=[STREAMS])
    steps = np.asarray(stack.read(works.deltas), np.float64) / (2.0 ** (np.floor(np.log2(z * 2.0 / 7)) - 20))
    assert np.array_equal(steps, np.rint(steps))
    assert not np.array_equal(steps / 2, np.rint(steps / 2))  # and on no coarser one


def test_any_optimizer_decay_and_rate():
    local = DpSgd(**SETTINGS, optimizer=Adam(0.05), weight_decay=0.1, rate=lambda round: 0.0 if round == 2 else 1.0)
    start = np.ones(4, np.float32)
    assert local.train(logistic(3), start, data(10), None, round=1, streams=STREAMS).delta.any()
    assert not local.train(logistic(3), start, data(10), None, round=2, streams=STREAMS).delta.any()


def test_what_it_says_of_itself():
    event = DpSgd(**SETTINGS | {"seeded": False}).event()
    assert (event.kind, event.values, event.private) == (EXAMPLES, {"fraction": 0.4, "epochs": 1}, True)
    assert event.inner[0].values == {"noise_multiplier": 0.5, "delta": 1e-3}
    assert DpSgd(**SETTINGS | {"seeded": False, "lot": 5, "steps": 3}).event().values == {"lot": 5, "steps": 3}
    assert DpSgd(**SETTINGS).event() is SEEDED


REFUSED = {
    "lot": [(0, "number of examples, or a fraction"), (1.5, "a fraction in (0, 1], got 1.5"), (0.0, "got 0.0")],
    "clip": [(0, "DpSgd.clip must be above 0 and finite, got 0"), (float("inf"), "finite")],
    "noise_multiplier": [(0.0, "must be above 0"), (float("nan"), "finite, got nan")],
    "delta": [(0.0, "must be in (0, 1)"), (1.0, "well below one over the rows")],
    "epochs": [(0, "DpSgd.epochs must be at least 1, got 0")],
    "steps": [(0, "DpSgd.steps must be at least 1, got 0")],
    "weight_decay": [(-1.0, "must not be negative, got -1.0")],
}


@pytest.mark.parametrize(("name", "value", "text"), [(n, v, t) for n, cases in REFUSED.items() for v, t in cases])
def test_settings_that_protect_nothing_are_refused(name, value, text):
    with pytest.raises(StrategyError) as caught:
        DpSgd(**SETTINGS | {name: value})
    assert text in str(caught.value)
