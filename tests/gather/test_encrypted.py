"""An encrypted sum is the plain one and the masked one, whoever falls silent; the coordinator never has a key."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import fedloom
from fedloom import Clip, Encrypted, FixedPoint, Plain, SecAgg, Sync
from fedloom.core.errors import ConfigError, StrategyError, UpdateError
from fedloom.core.hidden import Advertise, Backing, Decrypt, Decrypted
from fedloom.core.layout import Layout, Leaf
from fedloom.core.metrics import Metrics
from fedloom.core.task import Member, Reply, Task, Train, Trained
from fedloom.core.update import Update, verify
from fedloom.gather.secure import bfv
from fedloom.recipes import fedavg, fedbuff, krum
from fedloom.stages import GaussianNoise
from fedloom.store.files import dump, restore
from hidden import Clients, changed, of, plain_sum, updates

LAYOUT = Layout((Leaf("w", (3,)),))


def given(count, size=5):
    return updates(count, size, bits=24)


def strategy(gather, **changes):
    return replace(fedavg(), stages=(Clip(1.0), FixedPoint(limit=1.0, bits=24)), gather=gather, **changes)


def app(gather, **changes):
    data = fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Iid(4))
    return fedloom.App(
        model=fedloom.BuiltIn(name="logistic"), data=data, strategy=strategy(gather, **changes), rounds=2
    )


def test_it_trains_to_the_bits_of_the_masked_and_of_the_plain_sum():
    ends = [list(app(gather).run())[-1] for gather in (Encrypted(), SecAgg(), Plain())]
    assert len({end.vector.tobytes() for end in ends}) == 1
    assert ends[0].record.training == ends[1].record.training
    assert ends[0].record.faults == ()


@pytest.mark.parametrize("lost", [set(), {0}, {0, 2, 5}])
def test_whoever_falls_silent_the_sum_is_that_of_the_others(lost):
    some = given(6)
    silent = {name for place, name in enumerate(some) if place in lost}
    total, _ = of(Clients(some, Encrypted(), lost=lambda step, name: name in silent).collect())
    there = [name for name in some if name not in silent]
    assert list(total.parties) == there
    plain = plain_sum([some[name] for name in there])
    assert total.body.update.vector.tobytes() == plain.vector.tobytes()
    assert verify(total.body.update, plain.layout).count == len(there)
    assert total.body.metrics.sums == {"examples": len(there), "loss": 0.5 * len(there)}


def test_a_vector_of_many_ciphertexts_comes_back_whole():
    some = given(4, size=3 * bfv.DEGREE + 5)
    total, _ = of(Clients(some, Encrypted()).collect())
    assert total.body.update.vector.tobytes() == plain_sum(some.values()).vector.tobytes()


def test_the_largest_cohort_does_not_overflow_nor_fail_to_decrypt():
    """512 clients at the ends of their range, and their metrics' limbs at the end of theirs."""
    key, total = bfv.secret(bfv.fresh()), bfv.Sum(4)
    values = np.array([2**15, -(2**15), 65535, 0])
    sealed = bfv.sealed(key, values)
    for _ in range(bfv.MOST):
        total.add(sealed)
    found = bfv.opened(key, total.content(), 4)
    assert found[:2].tolist() == [2**24, -(2**24)]
    assert (found[2:] % bfv.PLAIN).tolist() == [65535 * 512, 0]
    with pytest.raises(ConfigError, match="no room for 513 clients"):
        FixedPoint(bits=24).payload(LAYOUT).weighted(513)


def test_the_plain_modulus_is_a_prime_that_gives_a_value_each_its_slot():
    from Crypto.Util.number import isPrime

    assert isPrime(bfv.PLAIN)
    assert bfv.PLAIN % (2 * bfv.DEGREE) == 1
    assert 2**bfv.BITS < bfv.PLAIN // 2 < 2**25


def test_the_coordinator_has_no_key():
    """It adds with parameters alone; not even its context says more when it is written out."""
    context, key = bfv.public(), bfv.fresh()
    assert not context.is_private()
    assert not context.has_secret_key()
    written = context.serialize(save_secret_key=True)
    assert key[200:232] not in written
    one = bfv.Sum(3)
    one.add(bfv.sealed(bfv.secret(key), np.arange(3)))
    with pytest.raises(ValueError, match="secret"):
        bfv.opened(one._context, one.content(), 3)


def test_what_passes_the_seam_is_ciphertexts():
    some = {name: replace(update, vector=np.zeros_like(update.vector)) for name, update in given(3, 4000).items()}
    clients = Clients(some, Encrypted())
    clients.collect()
    sent = [body.update.vector for step, _, body in clients.said if step == "train"]
    assert len({vector.tobytes() for vector in sent}) == 3
    assert all(np.unpackbits(vector[5000:50000]).mean() == pytest.approx(0.45, abs=0.06) for vector in sent)
    assert [body.metrics.sums for step, _, body in clients.said if step == "train"] == [{"examples": 0}] * 3


def test_two_clients_decrypt_and_the_next_ones_if_they_do_not():
    some = given(6)
    clients = Clients(some, Encrypted(), lost=lambda step, name: step == "decrypt" and name in list(some)[:3])
    total, _ = of(clients.collect())
    assert total is not None
    assert [name for step, name, _ in clients.said if step == "decrypt"] == list(some)[3:5]
    nobody = Clients(some, Encrypted(), lost=lambda step, name: step == "decrypt")
    total, faults = of(nobody.collect())
    assert total is None
    assert "none of the 6 clients in the sum has decrypted it" in faults[0].message


def test_a_wrong_decryption_is_seen_by_comparing():
    some = given(6)
    odd = list(some)[1]

    def garble(task, reply):
        if task.party == odd and isinstance(reply.body, Decrypted):
            values = np.array(reply.body.values)
            values[0] ^= 1
            return Reply(reply.numbers, reply.parties, Decrypted(values))
        return reply

    total, faults = of(Clients(some, Encrypted(), garble=garble).collect())
    assert total is None
    assert "decrypted different sums; one of them is wrong" in faults[0].message


def test_too_few_updates_are_not_decrypted():
    some = given(4)
    clients = Clients(some, Encrypted(), lost=lambda step, name: name in list(some)[:2])
    total, faults = of(clients.collect())
    assert total is None
    assert "2 of 4 clients sent updates, and an encrypted sum needs 3; nothing was decrypted" in faults[0].message
    assert Counter(step for step, _, _ in clients.said) == {"train": 2}


@pytest.mark.parametrize("decrypted", [False, True])
def test_a_sum_that_was_kept_is_the_only_one_of_its_round_whoever_comes_later(decrypted):
    """A second one, with a client more, would show that client's update by the difference."""
    some, kept = given(5), {}
    late = list(some)[4]
    clients = Clients(some, Encrypted(), lost=lambda step, name: name == late or (step == "decrypt" and not decrypted))
    kept_at = lambda at: restore(kept[at]) if at in kept else None  # noqa: E731
    clients.behind = Backing(keep=lambda at, value: kept.update({at: dump(value)}), kept=kept_at)
    first, _ = of(clients.collect())
    assert (first is not None) == decrypted
    clients.lost = lambda step, name: False
    clients.silent.clear()
    clients.said.clear()
    total, _ = of(clients.collect())
    there = list(some)[:4]
    assert list(total.parties) == there
    assert total.body.update.vector.tobytes() == plain_sum([some[name] for name in there]).vector.tobytes()
    assert {step for step, _, _ in clients.said} == {"decrypt"}
    other, _ = of(clients.collect(start=np.ones(1), round=2))
    assert len(other.parties) == 5


def test_a_client_decrypts_one_sum_of_a_round_in_which_it_trained():
    some = given(4)
    clients, seen = Clients(some, Encrypted()), []
    clients.spoil = lambda task: seen.append(task) or task
    clients.collect()
    task = next(task for task in seen if isinstance(task.body, Decrypt))
    again = clients.ask(task)
    assert isinstance(again.body, Decrypted)  # an answer that was lost is given again
    for_one = next(body.update.vector for step, _, body in clients.said if step == "train")
    assert "another sum of round 1 or later was decr" in clients.ask(changed(task, sealed=for_one)).body.message
    assert "has not trained in round 2" in clients.ask(changed(task, round=2)).body.message
    clients.collect(round=2)
    clients.ask(next(task for task in seen if isinstance(task.body, Train)))  # back to round 1
    assert "another sum of round 1 or later was decr" in clients.ask(changed(task, sealed=for_one)).body.message


BAD = {
    "cut off": lambda u: Update(u.vector[:-1], u.layout, side=u.side),
    "longer": lambda u: Update(np.append(u.vector, np.uint8(0)), u.layout, side=u.side),
    "zeros": lambda u: Update(np.zeros(100, np.uint8), u.layout, side=u.side),
    "plain": lambda u: Update(np.zeros(6, np.float32), u.layout, side=u.side),
    "garbled": lambda u: Update(np.concatenate([u.vector[:20], u.vector[20:] ^ 255]), u.layout, side=u.side),
    "another sum": lambda u: Update(u.vector, next(iter(updates(300, bits=24).values())).layout, side=u.side),
    "no names": lambda u: Update(u.vector, u.layout),
    "other names": lambda u: Update(u.vector, u.layout, side={"names": np.frombuffer(b'["examples","l"]', np.uint8)}),
    "two clients": lambda u: Update(u.vector, u.layout, 2, side=u.side),
}


@pytest.mark.parametrize("bad", BAD)
def test_an_update_that_is_none_is_as_if_it_had_not_come(bad):
    some = given(5)
    odd = list(some)[3]

    def garble(task, reply):
        if task.party != odd or not isinstance(reply.body, Trained):
            return reply
        return Reply(reply.numbers, reply.parties, Trained(BAD[bad](reply.body.update), Metrics({"examples": 0})))

    total, faults = of(Clients(some, Encrypted(), garble=garble).collect())
    assert [(fault.site, fault.phase, fault.error) for fault in faults] == [(odd, "admit", "UpdateError")]
    plain = plain_sum([update for name, update in some.items() if name != odd])
    assert total.body.update.vector.tobytes() == plain.vector.tobytes()


def test_ciphertexts_that_add_up_to_no_ciphertext_are_refused():
    """Two clients who agree on what they send could else end the coordinator: SEAL adds up to nothing secret at all."""
    key, total = bfv.secret(bfv.fresh()), bfv.Sum(2)
    one, other = (bfv.sealed(key, np.array([1, 2])) for _ in range(2))
    first, second = (next(bfv._read(key, each, 2)) for each in (one, other))
    total.add(bfv._packed([(first - second).serialize()]))
    with pytest.raises(UpdateError, match="a ciphertext of an update cannot be added to the others'"):
        total.add(bfv._packed([(second - first).serialize()]))
    total.add(one)
    assert bfv.opened(key, total.content(), 2).tolist() == [1, 2]


@pytest.mark.parametrize("key", [b"", b"no key", bfv.fresh()[:-100], bytes(bfv.public().serialize())])
def test_a_key_that_is_none_is_refused(key):
    with pytest.raises(ConfigError, match="fedloom key --make"):
        bfv.secret(key)


def test_a_key_of_other_parameters_is_refused():
    import tenseal

    other = tenseal.context(
        tenseal.SCHEME_TYPE.BFV,
        poly_modulus_degree=8192,
        plain_modulus=1032193,
        encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
    )
    with pytest.raises(ConfigError, match="of other parameters than N = 4096"):
        bfv.secret(other.serialize(save_secret_key=True))


# -- refused


def test_a_sum_that_the_modulus_does_not_hold_is_refused():
    members = [Member(name, 10) for name in "abc"]
    with pytest.raises(StrategyError, match=r"add FixedPoint\(bits=24\)"):
        replace(strategy(Encrypted()), stages=(FixedPoint(),)).bind(LAYOUT, members)
    with pytest.raises(StrategyError, match="needs a cohort of 3 clients or more, got 2"):
        strategy(Encrypted()).bind(LAYOUT, members[:2])
    strategy(Encrypted()).bind(LAYOUT, members)


def test_what_must_see_single_clients_or_has_no_cohort_is_refused():
    with pytest.raises(StrategyError, match="Krum"):
        replace(krum(byzantine=1), gather=Encrypted())
    with pytest.raises(StrategyError, match="Buffered"):
        replace(fedbuff(), stages=(FixedPoint(bits=24),), gather=Encrypted())
    with pytest.raises(StrategyError, match="checks must be at least 1"):
        Encrypted(checks=0)


def test_noise_of_the_coordinator_is_refused_since_clients_see_the_sum_before_it():
    noise = GaussianNoise(clip=1.0, noise_multiplier=1.0, delta=1e-5)
    private = replace(fedloom.dp_fedavg(rate=1.0), stages=(FixedPoint(bits=24), noise), select=fedloom.Everyone())
    data = fedloom.Data(source=fedloom.SklearnSet("digits"), holdout=0.0)
    with pytest.raises(StrategyError, match="clients decrypt the sum for the coordinator"):
        fedloom.App(
            model=fedloom.BuiltIn(name="logistic"), data=data, strategy=replace(private, gather=Encrypted()), rounds=1
        )


def test_who_has_no_key_or_is_asked_something_else_refuses():
    task = Task(1, "a", Train(1, np.zeros(1), "", 1))
    with pytest.raises(ConfigError, match="needs the key that sites share"):
        Encrypted().answer(task, None, lambda: None, None)
    clients = Clients(given(3), Encrypted())
    name = next(iter(clients.updates))
    advertise = Task(1, name, Advertise("0" * 32, 1, "", tuple(clients.updates)))
    assert "Encrypted answers no Advertise" in clients.ask(advertise).body.message
    masked = Clients(updates(3))
    assert "SecAgg answers no Decrypt" in masked.ask(Task(1, name, Decrypt(1, 1, np.zeros(1, np.uint8)))).body.message


def test_a_round_closes_with_a_quorum():
    some = app(Encrypted(), schedule=Sync(quorum=3))
    *_, end = some.run()
    assert end.status == "completed"


def test_what_it_protects_against_is_said():
    from fedloom.trust import trust

    said = trust(strategy(Encrypted()))
    assert "colludes with no client" in said
    assert "Any one client, or anyone who steals one client's key, together with the coordinator's traffic" in said
    assert "secure aggregation is stronger" in said
