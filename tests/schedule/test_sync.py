import re
from dataclasses import replace
from inspect import signature

import numpy as np
import pytest

from fedloom.adapters.numpy import linear, logistic
from fedloom.core.errors import QuorumLost, StrategyError
from fedloom.core.layout import Layout, Leaf
from fedloom.core.metrics import Metrics
from fedloom.core.rng import stream
from fedloom.core.task import Evaluated, Fault, Reply, Trained
from fedloom.gather import Plain
from fedloom.local import Custom
from fedloom.recipes import RECIPES, fedadam, fedavg, fedbn, median, scaffold
from fedloom.schedule import Sync
from fedloom.select import Poisson
from fedloom.stages import Clip, Quantize
from small import classification, regression, small


def tolerant(strategy=None, **settings):
    return replace(strategy or fedavg(), schedule=Sync(**{"quorum": 1} | settings))


def run(change=None, strategy=None, rounds=2, **options):
    made = small(logistic(4), strategy or tolerant(), classification(), change=change, **options)
    return made, made.run(rounds)


def altered(vector=None, side=None, **changes):
    """Return a change of the first reply's update."""

    def change(replies):
        first, *others = replies
        update = first.body.update
        fields = dict(changes)
        if vector is not None:
            fields["vector"] = vector(update.vector.copy())
        if side is not None:
            fields["side"] = side(dict(update.side))
        return [replace(first, body=replace(first.body, update=replace(update, **fields))), *others]

    return change


def without_first():
    """What the honest four give: the first site's reply is replaced by a fault."""

    def drop(replies):
        body = Fault(replies[0].parties[0], "train", "Gone", "gone")
        return [replace(replies[0], body=body), *replies[1:]]

    return drop


def value(at, what):
    def put(vector):
        vector[at] = what
        return vector

    return put


OTHER = Layout((Leaf("v", (5,)),)).weighted(5)
BAD_UPDATES = {
    "nan": (altered(value(0, np.nan)), "NotFinite"),
    "infinity": (altered(value(2, np.inf)), "NotFinite"),
    "beyond the bound": (altered(value(1, 17.0)), "OutOfBound"),
    "off the grid": (altered(value(1, 2.0**-60)), "UpdateError"),
    "no weight": (altered(value(-1, 0.0)), "OutOfBound"),
    "negative weight": (altered(value(-1, -1.0)), "OutOfBound"),
    "too much weight": (altered(value(-1, 2.0)), "OutOfBound"),
    "too short": (altered(lambda v: v[1:]), "LayoutMismatch"),
    "float64": (altered(lambda v: v.astype(np.float64)), "LayoutMismatch"),
    "objects": (altered(lambda v: v.astype(object)), "LayoutMismatch"),
    "a list": (altered(lambda v: v.tolist()), "LayoutMismatch"),
    "another layout": (altered(layout=OTHER), "LayoutMismatch"),
    "three clients in one": (altered(lambda v: v.astype(np.float64), count=3), "UpdateError"),
    "no clients": (altered(count=0), "UpdateError"),
    "side values": (altered(side=lambda s: {"weight": 1.0}), "UpdateError"),
    "another body": (lambda r: [replace(r[0], body=Evaluated(Metrics({"examples": 1}))), *r[1:]], "UpdateError"),
    "a bare update": (lambda r: [replace(r[0], body=r[0].body.update), *r[1:]], "UpdateError"),
    "another name": (lambda r: [replace(r[0], parties=("site1",)), *r[1:]], "UpdateError"),
    "no number": (lambda r: [replace(r[0], numbers=(), parties=()), *r[1:]], "UpdateError"),
    "a number twice": (
        lambda r: [replace(r[0], numbers=r[0].numbers * 2, parties=("site0",) * 2), *r[1:]],
        "UpdateError",
    ),
}


@pytest.mark.parametrize("case", BAD_UPDATES)
def test_a_bad_reply_is_a_fault_and_leaves_the_sum_alone(case):
    change, error = BAD_UPDATES[case]
    _, states = run(change)
    _, honest = run(without_first())
    for state, without in zip(states, honest, strict=True):
        faults = [fault for fault in state.record.faults if fault.phase == "admit"]
        assert [fault.error for fault in faults] == [error]
        assert len(state.record.counted) == 4
        assert state.vector.tobytes() == without.vector.tobytes()
        assert np.isfinite(state.vector).all()


@pytest.mark.parametrize(("quorum", "final"), [(5, True), (4, False)])
def test_a_quorum_that_refused_answers_make_impossible_is_lost_for_good(quorum, final):
    """Two are missing: the one that was refused would be refused again, the one that failed may do better."""

    def change(replies):
        first, second, *others = BAD_UPDATES["nan"][0](replies)
        return [first, replace(second, body=Fault(second.parties[0], "train", "OSError", "full")), *others]

    with pytest.raises(QuorumLost, match=f"3 of 5 clients counted, {quorum} are needed") as caught:
        run(change, tolerant(quorum=quorum))
    assert caught.value.final == final


QUANTIZED = replace(fedavg(), stages=(Quantize(8),))
BAD_CODES = {
    "no weight": (altered(side=lambda s: {k: v for k, v in s.items() if k != "weight"}), "UpdateError"),
    "nan weight": (altered(side=lambda s: s | {"weight": np.nan}), "OutOfBound"),
    "weight above one": (altered(side=lambda s: s | {"weight": 1.5}), "OutOfBound"),
    "weight that is a word": (altered(side=lambda s: s | {"weight": "1"}), "UpdateError"),
    "no scales": (altered(side=lambda s: {"weight": s["weight"]}), "LayoutMismatch"),
    "nan scale": (altered(side=lambda s: s | {"quantize.scales": np.float32([np.nan, 1])}), "NotFinite"),
    "huge scale": (altered(side=lambda s: s | {"quantize.scales": np.float32([1e30, 1])}), "OutOfBound"),
    "words": (altered(side=lambda s: s | {"quantize.scales": np.array(["a", "b"])}), "LayoutMismatch"),
    "too few codes": (altered(lambda v: v[:-1]), "LayoutMismatch"),
    "floats": (altered(lambda v: v.astype(np.float32)), "LayoutMismatch"),
    "a list": (altered(lambda v: v.tolist()), "LayoutMismatch"),
    "codes beyond": (altered(lambda v: v * 0 + 255), "LayoutMismatch"),
    "another layout of that size": (
        altered(layout=Layout((Leaf("bias", (4,)), Leaf("weight", (1,))))),
        "LayoutMismatch",
    ),
    "several clients": (altered(count=2), "UpdateError"),
}


@pytest.mark.parametrize("case", BAD_CODES)
def test_bad_codes_are_a_fault_too(case):
    change, error = BAD_CODES[case]
    _, states = run(change, tolerant(QUANTIZED))
    for state in states:
        assert [(fault.phase, fault.error) for fault in state.record.faults] == [("admit", error)]
        assert len(state.record.counted) == 4
        assert np.isfinite(state.vector).all()


def test_nan_at_the_client_is_a_fault_of_its_training():
    def poison(params, data, config):
        return {name: array * np.nan if data.size == 20 else array + 0.1 for name, array in params.items()}

    _, states = run(strategy=tolerant(replace(fedavg(), local=Custom(function=poison))))
    (fault,) = states[0].record.faults
    assert (fault.site, fault.phase, fault.error) == ("site1", "train", "NotFinite")
    np.testing.assert_allclose(states[0].vector, 0.1, rtol=1e-5)


def test_a_client_that_raises_is_a_fault_with_a_redacted_trace():
    def broken(params, data, config):
        secret = "patient 4711"
        raise ValueError(f"{len(secret)} rows are wrong")

    def sometimes(params, data, config):
        return broken(params, data, config) if data.size == 7 else params

    _, states = run(strategy=tolerant(replace(fedavg(), local=Custom(function=sometimes))))
    (fault,) = states[0].record.faults
    assert (fault.site, fault.phase, fault.error, fault.message) == (
        "site2",
        "train",
        "ValueError",
        "12 rows are wrong",
    )
    assert re.fullmatch(r"test_sync\.py:\d+ broken", fault.trace[-1])
    assert all(re.fullmatch(r"\w+\.py:\d+ [\w<>.]+", line) for line in fault.trace)
    assert "4711" not in repr(fault)


def test_a_repeated_reply_counts_once():
    _, once = run()
    _, twice = run(lambda replies: [replies[0], *replies[:-1], replies[-1]])
    for state, single in zip(twice, once, strict=True):
        assert state.vector.tobytes() == single.vector.tobytes()
        assert [fault.error for fault in state.record.faults] == ["UpdateError"]
        assert "was answered before; not counted again" in state.record.faults[0].message
        assert len(state.record.counted) == len(set(state.record.counted)) == 5


def test_a_reply_that_nobody_asked_for_is_ignored():
    def surplus(replies):
        return [Reply((999,), ("stranger",), replies[0].body), *replies]

    _, once = run()
    _, states = run(surplus)
    assert states[-1].vector.tobytes() == once[-1].vector.tobytes()
    assert states[0].record.faults[0].site == "stranger"
    assert "dispatch (999,) was not asked for" in states[0].record.faults[0].message


def test_a_late_reply_of_an_earlier_round_is_ignored():
    kept = []

    def late(replies):
        kept.extend(replies[:1])
        return replies if len(kept) == 1 else [kept[0], *replies]

    _, once = run()
    _, states = run(late)
    assert states[1].vector.tobytes() == once[1].vector.tobytes()
    assert "dispatch (1,) was not asked for" in states[1].record.faults[0].message


@pytest.mark.parametrize("recipe", [r for r in RECIPES if isinstance(r().schedule, Sync)], ids=lambda r: r.__name__)
@pytest.mark.parametrize("stages", [(), (Clip(0.5), Quantize(6))], ids=["plain", "encoded"])
def test_the_order_of_answers_does_not_change_a_bit(recipe, stages):
    rng = np.random.default_rng(0)

    def shuffled(replies):
        return [replies[i] for i in rng.permutation(len(replies))]

    settings = {"leaves": ("bias",)} if recipe is fedbn else {}
    settings |= {"seeded": True} if "seeded" in signature(recipe).parameters else {}
    made = replace(recipe(**settings), stages=stages, gather=Plain())
    splits = regression()
    straight = small(linear(3), made, splits).run(3)
    permuted = small(linear(3), made, splits, change=shuffled).run(3)
    for one, other in zip(straight, permuted, strict=True):
        assert one.vector.tobytes() == other.vector.tobytes()
        assert one.record.training == other.record.training
    assert straight[0].record.counted != permuted[0].record.counted


def clocked(seconds):
    """Return a clock, and what moves it when a site is asked."""
    clock = [100.0]

    def slow(name):
        clock[0] += seconds.get(name, 1.0)

    return (lambda: clock[0]), slow


def test_after_the_deadline_the_round_closes_with_whoever_answered():
    now, slow = clocked({"site2": 50.0})
    _, states = run(strategy=tolerant(deadline_s=10.0), rounds=1, now=now, slow=slow)
    record = states[0].record
    assert [record.cohort[n - record.first] for n in record.counted] == ["site0", "site1"]
    assert record.faults == tuple(
        Fault(name, "wait", "Deadline", "no reply in 10.0 s") for name in ("site2", "site3", "site4")
    )
    assert record.seconds == 52.0


def test_a_late_clients_memory_does_not_move():
    now, slow = clocked({"site4": 50.0})
    made, _ = run(strategy=tolerant(scaffold(), deadline_s=10.0), rounds=2, now=now, slow=slow)
    assert made.parties["site0"].remembered()["local"].any()
    assert not made.parties["site4"].remembered()["local"].any()
    assert not made.parties["site4"].pending


def test_without_a_deadline_everybody_is_waited_for():
    now, slow = clocked({"site4": 1e6})
    _, states = run(strategy=tolerant(), rounds=1, now=now, slow=slow)
    assert len(states[0].record.counted) == 5


def test_a_federation_that_falls_silent_ends_the_round_without_a_deadline():
    _, states = run(lambda replies: replies[:-1], rounds=1)
    assert states[0].record.faults == (Fault("site4", "wait", "Deadline", "no reply"),)


@pytest.mark.parametrize(
    ("quorum", "asked", "needed"),
    [(1.0, 5, 5), (0.5, 5, 3), (0.2, 5, 1), (0.1, 5, 1), (0.3, 10, 3), (1.0, 0, 0), (4, 5, 4), (1, 5, 1), (0.7, 10, 7)],
)
def test_a_quorum_is_a_number_or_a_fraction(quorum, asked, needed):
    assert Sync(quorum=quorum).needed(asked) == needed


@pytest.mark.parametrize("quorum", [3, 0.6])
def test_a_quorum_that_is_met_closes_the_round_and_one_that_is_not_names_the_faults(quorum):
    def lose(n):
        def some(replies):
            return [
                replace(r, body=Fault(r.parties[0], "train", "OSError", "disk full")) for r in replies[:n]
            ] + replies[n:]

        return some

    strategy = replace(fedavg(), schedule=Sync(quorum=quorum))
    _, states = run(lose(2), strategy)
    assert len(states[1].record.counted) == 3
    with pytest.raises(QuorumLost) as caught:
        run(lose(3), strategy)
    text = str(caught.value)
    assert text.startswith(
        "round 1: 2 of 5 clients counted, 3 are needed; site0, site1, site2 (train): OSError: disk full."
    )
    assert text.endswith("Mend the sites, or begin a run with a smaller quorum.")


def test_many_faults_are_told_shortly():
    def lose(replies):
        return [replace(r, body=Fault(r.parties[0], "train", "OSError", "disk full")) for r in replies]

    with pytest.raises(QuorumLost, match=r"site0, site1 and 3 more \(train\): OSError: disk full\. Mend"):
        run(lose)


def test_by_default_nobody_may_be_lost():
    with pytest.raises(QuorumLost, match="4 of 5 clients counted, 5 are needed"):
        run(without_first(), fedavg())


@pytest.mark.parametrize(
    "settings", [{"quorum": -1}, {"quorum": -0.5}, {"quorum": 1.5}, {"quorum": float("nan")}, {"quorum": float("inf")}]
)
def test_a_quorum_out_of_range_is_refused(settings):
    with pytest.raises(StrategyError, match=r"Sync\.quorum must be a number of clients, or a fraction in \(0, 1\]"):
        Sync(**settings)


@pytest.mark.parametrize("deadline", [0, -1.0, float("nan")])
def test_a_deadline_out_of_range_is_refused(deadline):
    with pytest.raises(StrategyError, match=r"Sync\.deadline_s must be above 0 seconds"):
        Sync(deadline_s=deadline)


def test_an_empty_cohort_leaves_the_model_as_it_is():
    strategy = replace(fedadam(), select=Poisson(0.05))
    made = small(logistic(4), strategy, classification())
    before, states = made.state, made.run(12)
    empty = [(a, b) for a, b in zip([before, *states], states, strict=False) if not b.record.cohort]
    assert empty
    for earlier, later in empty:
        assert later.vector.tobytes() == earlier.vector.tobytes()
        assert later.optimizer is earlier.optimizer
        assert later.record.training == {"examples": 0}
        assert later.round == earlier.round + 1
    assert any(state.record.cohort for state in states)


def test_rounds_and_dispatches_count_from_one():
    _, states = run(strategy=tolerant(fedavg(cohort=2)), rounds=3)
    assert [(s.round, s.record.round, s.record.first, s.dispatched) for s in states] == [
        (1, 1, 1, 2),
        (2, 2, 3, 4),
        (3, 3, 5, 6),
    ]
    assert all(sorted(s.record.counted) == [s.record.first, s.record.first + 1] for s in states)


def test_a_state_is_not_written_to_by_later_rounds():
    made = small(logistic(4), fedadam(), classification())
    states = made.run(1)
    kept = states[0].vector.copy(), states[0].optimizer["m"].copy()
    made.state = states[0]
    made.run(3)
    np.testing.assert_array_equal(states[0].vector, kept[0])
    np.testing.assert_array_equal(states[0].optimizer["m"], kept[1])
    assert states[0].optimizer["steps"] == 1


def test_training_figures_and_bytes_are_in_the_record():
    _, states = run(rounds=1)
    record = states[0].record
    assert record.training["examples"] == 63
    assert 0.2 < record.training["loss"] < 1
    assert (record.bytes_down, record.bytes_up) == (5 * 5 * 4, 5 * 6 * 4)


def test_only_what_was_counted_is_settled():
    made, states = run(without_first(), tolerant(median()))
    assert made.federation.settled == [state.record.counted for state in states]
    assert 1 not in made.federation.settled[0]


def test_a_bias_that_nobody_trained_stays():
    """One site with weight; the mean of one is that one's delta, whatever its weight."""
    made = small(logistic(4), tolerant(), {"a": classification()["site0"]})
    (state,) = made.run(1)
    alone = made.strategy.local.train(
        made.model, made.state.vector, made.parties["a"].split.train, None, round=1, streams=stream(0, 1).child("local")
    )
    np.testing.assert_allclose(state.vector, made.state.vector + alone.delta, rtol=1e-6)


def test_merged_answers_count_every_client():
    """An engine may add before it answers: then one reply names all."""

    def merged(replies):
        total = replies[0].body.update + replies[1].body.update
        metrics = replies[0].body.metrics + replies[1].body.metrics
        numbers = tuple(n for r in replies[:2] for n in r.numbers)
        return [Reply(numbers, ("site0", "site1"), Trained(total, metrics)), *replies[2:]]

    _, once = run()
    _, states = run(merged)
    assert states[-1].vector.tobytes() == once[-1].vector.tobytes()
    assert sorted(states[0].record.counted) == [1, 2, 3, 4, 5]
    assert states[0].record.training == once[0].record.training
    assert not states[0].record.faults


def test_merged_answers_are_refused_where_single_clients_are_needed():
    def merged(replies):
        total = replies[0].body.update + replies[1].body.update
        return [Reply((1, 2), ("site0", "site1"), Trained(total, replies[0].body.metrics)), *replies[2:]]

    _, states = run(merged, tolerant(median()), rounds=1)
    assert "the median needs every client's update, got a sum of 2" in states[0].record.faults[0].message


def test_an_update_cannot_be_infinite_in_the_end():
    """At the bounds of every leaf, round after round, the state stays finite."""

    def far(params, data, config):
        return {name: array + 16 for name, array in params.items()}

    strategy = tolerant(replace(fedavg(), local=Custom(function=far)))
    _, states = run(strategy=strategy, rounds=5)
    assert np.isfinite(states[-1].vector).all()
    assert states[-1].vector.max() <= 80


def test_an_update_of_nothing_moves_nothing():
    made = small(logistic(4), tolerant(replace(fedavg(), local=Custom(function=lambda p, d, c: p))), classification())
    (state,) = made.run(1)
    assert state.vector.tobytes() == made.state.vector.tobytes()


def test_a_task_says_how_many_different_clients_are_asked(monkeypatch):
    made, heard = small(logistic(4), tolerant(fedavg(cohort=3)), classification()), []
    send = made.federation.send
    monkeypatch.setattr(made.federation, "send", lambda tasks: [heard.extend(tasks), send(tasks)][1])
    made.run(2)
    assert len(heard) == 6
    assert {task.body.cohort for task in heard} == {3} == {len({task.party for task in heard[:3]})}
