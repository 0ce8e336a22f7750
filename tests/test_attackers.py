"""Hostile clients through the party seam: who they are, that they act, what they cannot do, and that they resume."""

from dataclasses import replace

import numpy as np
import pytest

import fedloom
from fedloom.attackers import Attackers, called
from fedloom.core.errors import ConfigError, StrategyError
from fedloom.core.event import DpEvent
from fedloom.local import ALittle, Backdoor, Noise, Scaling, SignFlip
from fedloom.running import begin, resume
from fedloom.simulation import simulate

SGD = fedloom.sgd(0.5, batch_size=8)


def app(strategy=None, clients=10, rounds=4, **changes):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(400, 6)).astype(np.float32)
    labels = (inputs @ rng.normal(size=6) > 0).astype(int)
    source = fedloom.Arrays(inputs[:300], labels[:300], classes=2, test_part=(inputs[300:], labels[300:]))
    data = fedloom.Data(source=source, partition=fedloom.Iid(clients), holdout=0.0)
    model = fedloom.BuiltIn(name="logistic")
    return fedloom.App(model=model, data=data, strategy=strategy or fedloom.fedavg(SGD), rounds=rounds, **changes)


def reached(made, attackers=None, **options):
    *_, last = fedloom.run(made, attackers=attackers, **options)
    return last.metrics.view()["accuracy"]


def test_flipped_signs_ruin_a_mean_and_not_a_median():
    flip = Attackers(SignFlip(10.0), share=0.3)
    assert reached(app()) > 0.9
    assert reached(app(), flip) < 0.5
    assert reached(app(fedloom.median(SGD)), flip) > 0.9


def test_who_is_hostile_is_drawn_once_and_may_be_named():
    names = [f"client-{i:03}" for i in range(10)]
    assert Attackers(SignFlip(), 0.3).chosen(names, 1) == Attackers(Noise(), 0.3).chosen(names, 1)
    assert len(Attackers(SignFlip(), 0.01).chosen(names, 1)) == 1
    named = Attackers(SignFlip(), names=("client-004",))
    made = simulate(app(), attackers=named)
    hostile = [name for name, party in made.parties.items() if party.strategy is not made.app.strategy]
    assert hostile == ["client-004"]
    with pytest.raises(ConfigError, match="there is no client 'nobody' to be an attacker"):
        simulate(app(), attackers=Attackers(SignFlip(), names=("nobody",)))


def test_without_attackers_nothing_changes():
    *_, one = fedloom.run(app())
    *_, other = fedloom.run(app(), attackers=None)
    assert one.vector.tobytes() == other.vector.tobytes()


def test_a_clip_of_clients_is_ignored_and_a_bound_of_the_server_is_not():
    """The same limit, at clients and at the server: one attacker's scaled update against nine honest ones."""
    lone = Attackers(SignFlip(1000.0), names=("client-000",))
    clipped = replace(fedloom.fedavg(SGD), stages=(fedloom.Clip(0.5),))
    bounded = replace(fedloom.fedavg(SGD), stages=(fedloom.NormBound(0.5),))
    assert reached(app(clipped), lone) < 0.6
    assert reached(app(bounded), lone) > 0.85


def test_what_is_sent_is_within_the_bounds_so_that_it_counts():
    *_, last = fedloom.run(app(), attackers=Attackers(Scaling(1e9), share=0.3))
    assert last.record.faults == ()
    assert len(last.record.counted) == 10


@pytest.mark.parametrize(
    "strategy",
    [
        replace(fedloom.fedavg(SGD), stages=(fedloom.Clip(1.0), fedloom.Quantize(8))),
        replace(fedloom.fedavg(SGD), stages=(fedloom.FixedPoint(limit=1.0),), gather=fedloom.SecAgg()),
        replace(fedloom.dp_fedavg(SGD, noise_multiplier=1.0, delta=1e-3)),
        fedloom.scaffold(SGD),
        fedloom.fedbuff(SGD, size=4, concurrency=4),
        replace(
            fedloom.dp_fedavg(SGD), stages=(fedloom.AdaptiveNoise(noise_multiplier=1.0, delta=1e-3, bit_noise=1.0),)
        ),
    ],
    ids=["quantize", "secagg", "dp", "scaffold", "fedbuff", "adaptive"],
)
@pytest.mark.parametrize("attack", [SignFlip(5.0), ALittle()], ids=["flip", "little"])
def test_attackers_take_part_in_any_strategy(strategy, attack):
    *_, last = fedloom.run(app(strategy, rounds=2), attackers=Attackers(attack))
    assert (last.status, last.record.faults) == ("completed", ())


def test_those_who_collude_send_the_same():
    made = simulate(app(), attackers=Attackers(ALittle(), share=0.3))
    sent = []
    add = made.app.strategy.aggregate.add
    for name in made.app.strategy.select.pick(made.federation.members(), 1, None):
        from fedloom.core.task import Task, Train

        state = made.first()
        body = Train(1, state.vector, made.terms.total.digest, made.terms.cap)
        (reply,) = made.parties[name.name].answer([Task(1, name.name, body)])
        sent.append(reply.body.update.vector.tobytes())
    assert add is not None
    assert len(set(sent)) == 10 - 3 + 1


def test_a_pool_gives_the_bits_of_one_process():
    attackers = Attackers(ALittle(), share=0.3)
    *_, one = fedloom.run(app(rounds=2), attackers=attackers)
    *_, other = fedloom.run(app(rounds=2), attackers=attackers, engine="pool")
    assert one.vector.tobytes() == other.vector.tobytes()


@pytest.mark.parametrize("engine", ["vectorized", "ray"])
def test_engines_that_train_all_alike_are_refused(engine):
    with pytest.raises(ConfigError, match=f"attackers train one by one, and {engine} does not"):
        simulate(app(), attackers=Attackers(SignFlip()), engine=engine)


def test_a_run_that_was_stopped_goes_on_with_its_attackers(tmp_path):
    attackers = Attackers(Backdoor(size=1, scale=3.0), share=0.3)
    *_, whole = fedloom.run(app(), attackers=attackers)
    recording = begin(app(), tmp_path, attackers=attackers)
    states = recording.rounds()
    next(states)
    states.close()
    recording.close()
    again = resume(app(), recording.folder)
    *_, last = again.rounds()
    again.close()
    assert last.vector.tobytes() == whole.vector.tobytes()


def test_a_hidden_sum_refuses_what_would_have_to_see_single_clients():
    hidden = replace(fedloom.fedavg(SGD), stages=(fedloom.FixedPoint(limit=1.0),), gather=fedloom.SecAgg())
    with pytest.raises(StrategyError, match="SecAgg hides single clients, but NormBound must see them"):
        replace(hidden, stages=(*hidden.stages, fedloom.NormBound(1.0)))
    with pytest.raises(StrategyError, match="SecAgg hides single clients, but Median must see them"):
        replace(hidden, aggregate=fedloom.Median())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sign_flop", "did you mean 'sign_flip'"),
        ("xyz", "there are sign_flip, scaling"),
        ("sign_flip:speed=3", "knows no 'speed'; it knows scale"),
        ("label_flip:a=1", "it knows no settings"),
        ("scaling:scale=much", "takes a number for 'scale', got 'much'"),
        ("scaling:scale=0", "must be above 0"),
    ],
)
def test_names_that_mean_nothing_are_refused(text, said):
    with pytest.raises(ConfigError, match=said):
        Attackers.of(text)
    with pytest.raises(ConfigError, match=r"share of attackers must be in \(0, 1\)"):
        Attackers.of("noise", 1.0)


@pytest.mark.parametrize("attack", [SignFlip(2.0), Backdoor(target=3), ALittle(), ALittle(z=1.5), Noise()])
def test_an_attack_is_called_as_it_is_written(attack):
    assert Attackers.of(called(attack)).attack == attack


def test_a_hostile_copy_claims_what_the_app_claims():
    made = simulate(app(fedloom.dp_fedavg(SGD, delta=1e-3)), attackers=Attackers(SignFlip(), names=("client-000",)))
    assert made.parties["client-000"].strategy.event == made.app.strategy.event
    assert isinstance(made.parties["client-000"].strategy.event, DpEvent)


def test_the_command_says_that_an_attack_is_simulated(command, tmp_path):
    (tmp_path / "app.toml").write_text('data = "breast_cancer"\nclients = 5\nrounds = 1\n')
    told = command("run", "app.toml", "--attack", "sign_flip", "--no-compare")
    assert told.code == 0
    assert "SIMULATED ATTACK, sign_flip:scale=1.0, by 1 of 5: client-00" in told.err
    assert command("run", "app.toml", "--attack", "flip").code == 2
