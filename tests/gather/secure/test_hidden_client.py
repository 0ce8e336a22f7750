"""What a lying coordinator tries, one trap after another: the client refuses, and what it has said tells nothing."""

from dataclasses import replace

import numpy as np
import pytest

from fedloom.core.hidden import Advertise, Advertised, Confirm, Confirmed, Share, Unmask
from fedloom.core.task import Reply, Task, Train, Trained
from fedloom.core.update import weigh
from fedloom.gather import SecAgg
from fedloom.gather.secure import shamir
from fedloom.gather.secure.keys import SIZE, fresh, public_of
from fedloom.gather.secure.registry import Registry
from fedloom.gather.secure.session import KEYS, Session, advertisement, context, row
from fedloom.store.files import dump, restore
from hidden import Clients, changed, layout, of, plain_sum, updates


def run(count=6, **options):
    """Run a round with a coordinator that lies as `spoil` says; return the clients and what came of it."""
    clients = Clients(updates(count), **options)
    return clients, *of(clients.collect())


def spoiling(kind, change):
    """Return what changes tasks of one kind."""
    return lambda task: change(task) if isinstance(task.body, kind) else task


def told(clients, step):
    """Return what clients answered at a step, by name."""
    return {name: body for at, name, body in clients.said if at == step}


def refusals(clients, step):
    return [message for at, _, message in clients.refused if at == step]


def lost_for_everybody(clients, total, faults, words):
    """All clients refused with these words, there is no sum, and no share has left."""
    assert total is None
    assert len(faults) >= len(clients.updates)
    assert all(words in fault.message for fault in faults if fault.error in ("AccessDenied", "QuorumLost"))
    assert any(words in message for _, _, message in clients.refused)
    assert told(clients, "unmask") == {}


# -- the models that are trained from


def test_different_models_for_different_clients_are_not_trained_together():
    """Pasquini et al. 2022: with a model of its own for a victim, even a perfect sum tells the victim's update."""
    victim = next(iter(updates(6)))
    spoil = spoiling(Train, lambda t: changed(t, start=np.ones(1)) if t.party == victim else t)
    clients, total, _ = run(spoil=spoil)
    assert refusals(clients, "train") == [
        "the task is not the one that this client signed; refused, and nothing is revealed."
    ]
    assert victim not in total.parties


def test_a_lie_about_the_model_when_keys_are_advertised_splits_the_cohort():
    half = set(list(updates(6))[:3])
    spoil = spoiling(Advertise, lambda t: changed(t, content="0" * 64) if t.party in half else t)
    clients, total, faults = run(spoil=spoil)
    lost_for_everybody(clients, total, faults, "was not signed by it for what this client was told")
    assert told(clients, "share") == {}


@pytest.mark.parametrize("what", ["round", "layout", "cap", "cohort", "public"])
def test_nothing_that_the_training_is_told_can_be_changed_for_one_client(what):
    other = {"round": 2, "layout": "0" * 64, "cap": 2, "cohort": 7, "public": (1.0,)}[what]
    spoil = spoiling(Train, lambda t: changed(t, **{what: other}))
    clients, total, _faults = run(spoil=spoil)
    assert total is None
    assert len(refusals(clients, "train")) == 6


def told_of(clients, cohort):
    """Gather as a coordinator that says that so many are asked, to everybody and from the beginning."""
    body = Train(1, np.zeros(1), next(iter(clients.updates.values())).layout.digest, 1, (), cohort)
    tasks = [Task(number, name, body) for number, name in enumerate(clients.updates, start=1)]
    return of(list(clients.gather.collect(clients, tasks, lambda: None)))


def test_a_cohort_cannot_be_said_to_be_larger_than_the_sum():
    """What a site's policy asks of the cohort is held against the sum, not against what the coordinator says."""
    clients = Clients(updates(6))
    total, _ = told_of(clients, 7)
    assert total is None
    assert all("says that 7 clients are asked, and this sum is one of 6" in m for m in refusals(clients, "train"))
    assert len(refusals(clients, "train")) == 6
    assert told_of(Clients(updates(6)), 6)[0] is not None


def test_a_round_cannot_be_summed_twice_in_other_cohorts():
    """Whoever falls silent after its masked update is in their sum already; a second one would tell more."""
    given = updates(10)
    clients = Clients(given, lost=lambda step, name: step == "confirm" and name in list(given)[:3])
    total, _ = of(clients.collect())
    assert len(total.parties) == 10
    some = list(given)[:3]
    clients.lost, clients.silent = (lambda step, name: False), set()
    for name in some:
        task = Task(1, name, Advertise("1" * 32, 1, "0" * 64, tuple(some)))
        assert "a masked update for round 1 has left here" in again(clients, task, name).message
    task = Task(1, some[0], Advertise("1" * 32, 2, "0" * 64, tuple(some)))
    assert hasattr(again(clients, task, some[0]), "signature")


def test_a_round_cannot_be_summed_again_from_another_model():
    clients = Clients(updates(6), lost=lambda step, name: step == "confirm")
    assert of(clients.collect())[0] is None
    clients.lost, clients.silent = (lambda step, name: False), set()
    assert of(clients.collect(start=np.ones(1)))[0] is None
    assert of(clients.collect())[0] is not None


# -- keys


def swapped(task, victim, part):
    keys = np.array(task.body.keys)
    at = task.body.names.index(victim)
    keys[at, part * SIZE : (part + 1) * SIZE] = np.frombuffer(public_of(fresh()), np.uint8)
    return changed(task, keys=keys)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_coordinator_in_the_middle_that_swaps_keys_is_seen(part):
    victim = list(updates(6))[2]
    clients, total, _faults = run(spoil=spoiling(Share, lambda t: swapped(t, victim, part)))
    assert total is None
    said = refusals(clients, "share")
    assert len(said) == 6
    assert sum("has other keys than this client's own" in message for message in said) == 1
    assert sum(f"the keys of {victim!r} was not signed by it" in message for message in said) == 5


def test_keys_under_anothers_name_are_refused():
    def exchange(task):
        keys, signatures = np.array(task.body.keys), np.array(task.body.signatures)
        first, second, _ = [i for i, name in enumerate(task.body.names) if name != task.party][:3]
        keys[[first, second]], signatures[[first, second]] = keys[[second, first]], signatures[[second, first]]
        return changed(task, keys=keys, signatures=signatures)

    clients, total, faults = run(spoil=spoiling(Share, exchange))
    lost_for_everybody(clients, total, faults, "was not signed by it")


def test_one_key_for_two_clients_is_refused(monkeypatch):
    """Two clients of one mind sign the same keys, and the server looks away: a sum would hide less than it seems."""
    monkeypatch.setattr("fedloom.gather.secure.server.Sum._refuse_odd", lambda self, keys: None)
    clients = Clients(updates(6))
    one, other = list(clients.updates)[:2]

    def garble(task, reply):
        if isinstance(task.body, Advertise) and task.party == other:
            own = restore(dump(clients.priors[one]))["session"]
            clients.priors[other]["session"].update({part: own[part] for part in ("keys", "open", "mask", "seed")})
            session = Session(**clients.priors[other]["session"])
            bound = context(session, clients.gather.rule(6))
            signature = clients.registry.identity(other).sign(
                advertisement(bound, "simulation", other, bytes(own["keys"]))
            )
            return replace(reply, body=Advertised(own["keys"], row(signature)))
        return reply

    clients.garble = garble
    total, faults = of(clients.collect())
    lost_for_everybody(clients, total, faults, "the list of keys has one key twice")


def test_keys_of_somebody_nobody_vouches_for_are_refused():
    clients = Clients(updates(6))
    stranger = list(clients.updates)[3]
    everybody = clients.registry.identity

    def without(name):
        identity = everybody(name)
        return replace(identity, directory={n: identity.directory[n] for n in clients.updates if n != stranger})

    object.__setattr__(clients.registry, "identity", without)
    total, faults = of(clients.collect())
    lost_for_everybody(clients, total, faults, f"nobody vouches here for the key of {stranger!r}")


def test_signatures_of_another_run_are_refused():
    clients = Clients(updates(6))
    everybody, odd = clients.registry.identity, list(clients.updates)[1]
    object.__setattr__(
        clients.registry,
        "identity",
        lambda name: replace(everybody(name), run="another" if name == odd else "simulation"),
    )
    total, faults = of(clients.collect())
    lost_for_everybody(clients, total, faults, "was not signed by it for what this client was told")


def test_a_party_without_an_identity_refuses():
    task = Task(1, "a", Advertise("0" * 32, 1, "0" * 64, ("a", "b", "c")))
    with pytest.raises(Exception, match="needs a party's identity key"):
        SecAgg().answer(task, None, lambda: None, None)


# -- lists


LISTS = {Share: "names", Train: "peers", Confirm: "alive"}
KINDS = {Share: "list of keys", Train: "list of peers", Confirm: "list of survivors"}


def relisted(task, names):
    """Return a task with another list; keys and signatures follow it where they are known."""
    field = LISTS[type(task.body)]
    if not isinstance(task.body, Share):
        return changed(task, **{field: tuple(names)})
    known = {name: at for at, name in enumerate(task.body.names)}
    rows = [known.get(name, 0) for name in names]
    return changed(task, names=tuple(names), keys=task.body.keys[rows], signatures=task.body.signatures[rows])


@pytest.mark.parametrize("kind", LISTS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda names, me: [*names, names[0]], "names somebody twice"),
        (lambda names, me: [*names, "stranger"], "names stranger, who cannot be there"),
        (lambda names, me: [name for name in names if name != me], "leaves out"),
        (lambda names, me: [me, *[name for name in names if name != me][:3]], "needs 5; refused"),
        (lambda names, me: [], "leaves out"),
    ],
    ids=["twice", "stranger", "without me", "below the threshold", "empty"],
)
def test_a_list_that_cannot_be_is_refused(kind, change, words):
    spoil = spoiling(kind, lambda t: relisted(t, change(list(getattr(t.body, LISTS[kind])), t.party)))
    clients, total, _faults = run(spoil=spoil)
    step = kind.__name__.lower()
    assert total is None
    assert len(refusals(clients, step)) == 6
    assert all(words in message for message in refusals(clients, step))
    assert told(clients, step) == {}
    assert told(clients, "unmask") == {}


def test_a_cohort_that_cannot_be_is_refused():
    for asked, words in ((("a", "a", "b"), "twice"), (("b", "c", "d"), "leaves out 'a'"), (("a", "b"), "needs 3")):
        task = Task(1, "a", Advertise("0" * 32, 1, "0" * 64, asked))
        with pytest.raises(Exception, match=words):
            SecAgg().answer(task, None, lambda: None, Registry(["a", "b", "c", "d"]).identity("a"))


@pytest.mark.parametrize(
    ("kind", "field"), [(Share, "keys"), (Share, "signatures"), (Unmask, "signatures"), (Unmask, "sealed")]
)
@pytest.mark.parametrize("spoiled", [lambda a: a[:-1], lambda a: a[:, :-1], lambda a: a.astype(np.int64)])
def test_rows_of_another_shape_are_refused(kind, field, spoiled):
    spoil = spoiling(kind, lambda t: changed(t, **{field: spoiled(getattr(t.body, field))}))
    clients, total, _ = run(spoil=spoil)
    assert total is None
    said = refusals(clients, kind.__name__.lower())
    assert len(said) == 6
    assert all("rows of" in message and "refused, and nothing is revealed" in message for message in said)


# -- who is alive


def test_a_coordinator_that_lies_about_who_is_alive_gets_no_share():
    """Told to one half that the victim is in the sum and to the other that it is not, both halves refuse."""
    names = list(updates(9))
    victim, half = names[0], set(names[1:5])

    def lie(task):
        if task.party in half:
            return changed(task, alive=tuple(name for name in task.body.alive if name != victim))
        return task

    clients, total, _faults = run(9, spoil=spoiling(Confirm, lie))
    assert total is None
    assert told(clients, "unmask") == {}
    words = ("was not signed by it for what this client was told", f"names {victim}, who cannot be there")
    assert all(any(word in message for word in words) for message in refusals(clients, "unmask"))


@pytest.mark.parametrize("seed", range(20))
def test_no_lie_about_who_is_alive_gets_both_shares_of_anybody(seed):
    """A coordinator sends each client one of two lists, and to each the signatures that fit its list, of all it has."""
    rng = np.random.default_rng(seed)
    names = list(updates(7))
    lists = [tuple(n for n in names if n not in rng.choice(names, rng.integers(0, 3), replace=False)) for _ in range(2)]
    given = {name: next((one for one in rng.permutation(2) if name in lists[one]), 0) for name in names}
    signed = {0: {}, 1: {}}
    clients = Clients(updates(7))

    def garble(task, reply):
        if isinstance(task.body, Confirm) and isinstance(reply.body, Confirmed):
            signed[given[task.party]][task.party] = reply.body.signature
        return reply

    def spoil(task):
        if isinstance(task.body, Confirm):
            return changed(task, alive=lists[given[task.party]])
        if isinstance(task.body, Unmask):
            mine = signed[given[task.party]]
            return changed(task, signers=tuple(mine), signatures=np.array(list(mine.values())).reshape(-1, 64))
        return task

    clients.garble, clients.spoil = garble, spoil
    clients.collect()
    revealed = {name: set() for name in names}
    for giver, body in told(clients, "unmask").items():
        for of_whom in body.names:
            revealed[of_whom].add(of_whom in lists[given[giver]])
    assert all(len(kinds) <= 1 for kinds in revealed.values())
    answered = {given[name] for name in told(clients, "unmask")}
    assert len(answered) <= 1  # of two lists, at most one gets t signatures: 2t > n


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: ("stranger", *t.body.senders[1:]), "names stranger, who cannot be there"),
        (lambda t: (t.body.senders[1], *t.body.senders[1:]), "names somebody twice"),
        (lambda t: (t.party, *t.body.senders[1:]), "names somebody twice"),
    ],
    ids=["stranger", "twice", "oneself"],
)
def test_letters_of_those_who_cannot_have_written_are_not_opened(change, words):
    clients, total, _ = run(spoil=spoiling(Unmask, lambda t: changed(t, senders=change(t))))
    assert total is None
    assert len(refusals(clients, "unmask")) == 6
    assert all(f"the list of senders {words}" in message for message in refusals(clients, "unmask"))


def test_too_few_signatures_unmask_nothing():
    def fewer(task):
        return changed(task, signers=task.body.signers[:4], signatures=task.body.signatures[:4])

    clients, total, _faults = run(spoil=spoiling(Unmask, fewer))
    assert total is None
    assert told(clients, "unmask") == {}
    assert all("were confirmed by: 4 clients" in message for message in refusals(clients, "unmask"))


def test_a_signature_counted_twice_unmasks_nothing():
    def twice(task):
        rows = [0, 0, 1, 2, 3]
        signers = tuple(task.body.signers[row] for row in rows)
        return changed(task, signers=signers, signatures=task.body.signatures[rows])

    clients, total, _ = run(spoil=spoiling(Unmask, twice))
    assert total is None
    assert all("names somebody twice" in message for message in refusals(clients, "unmask"))


# -- asked twice


@pytest.fixture
def asked():
    """Return a finished round of six clients and the tasks that they were sent, by step and name."""
    clients, tasks = Clients(updates(6)), {}
    clients.spoil = lambda t: tasks.setdefault((type(t.body).__name__.lower(), t.party), t)
    clients.collect()
    return clients, tasks


def again(clients, task, name):
    """Let a client answer a task; return the reply's body, a fault if it refused."""
    return clients.ask(replace(task, party=name)).body


STEPS = ("advertise", "share", "confirm", "unmask")


@pytest.mark.parametrize("step", STEPS)
def test_the_same_request_is_answered_with_the_same_bytes(step):
    clients, seen = Clients(updates(6)), []

    def spoil(task):
        if type(task.body).__name__.lower() == step:
            seen.append((vars(clients.ask(task).body), vars(clients.ask(task).body)))
        return task

    clients.spoil = spoil
    total, _ = of(clients.collect())
    assert total is not None
    assert len(seen) == 6
    for one, other in seen:
        assert dump(dict(one)) == dump(dict(other))


def test_a_second_list_of_survivors_is_not_signed():
    clients, tasks = Clients(updates(6)), {}
    victim = next(iter(clients.updates))

    def spoil(task):
        if isinstance(task.body, Confirm) and task.party != victim:
            first = clients.ask(task)
            assert hasattr(first.body, "signature")
            fewer = changed(task, alive=tuple(name for name in task.body.alive if name != victim))
            assert "'confirm' was answered last" in clients.ask(fewer).body.message
            tasks[task.party] = first
        return task

    clients.spoil = spoil
    assert of(clients.collect())[0] is not None
    assert len(tasks) == 5


def test_shares_are_given_once(asked):
    clients, tasks = asked
    name = next(iter(clients.updates))
    task = tasks["unmask", name]
    fewer = changed(task, signers=task.body.signers[::-1], signatures=task.body.signatures[::-1])
    assert "'unmask' was answered last" in again(clients, fewer, name).message


def test_a_masked_update_is_never_made_twice_with_the_same_masks():
    """y - y' would be x - x'."""
    clients, tasks = Clients(updates(6)), []

    def spoil(task):
        if isinstance(task.body, Train):
            tasks.append(clients.ask(task))
            assert "'train' was answered last" in clients.ask(task).body.message
            return None
        return task

    clients.spoil = spoil
    clients.collect()
    assert len(tasks) == 6


def test_a_round_that_was_unmasked_is_over(asked):
    clients, tasks = asked
    for name in clients.updates:
        for step in ("advertise", "share", "train", "confirm"):
            assert again(clients, tasks[step, name], name).error == "AccessDenied"
        fresh_session = changed(tasks["advertise", name], session="1" * 32)
        assert "so round 1 is over" in again(clients, fresh_session, name).message
    clients.spoil = lambda task: task
    assert of(clients.collect(round=2))[0] is not None
    assert of(clients.collect(round=1))[0] is None


def test_a_round_that_was_not_unmasked_may_be_tried_again_with_fresh_keys():
    clients = Clients(updates(6), lost=lambda step, name: step == "confirm")
    assert of(clients.collect())[0] is None
    first = {step: told(clients, step) for step in ("advertise", "train")}
    clients.lost, clients.silent, clients.said = (lambda step, name: False), set(), []
    total, _ = of(clients.collect())
    np.testing.assert_array_equal(total.body.update.vector, plain_sum(clients.updates.values()).vector)
    for name in clients.updates:
        keys = [bytes(said[name].keys) for said in (first["advertise"], told(clients, "advertise"))]
        assert all(keys[0][at : at + SIZE] != keys[1][at : at + SIZE] for at in range(0, KEYS, SIZE))
        masked = [said[name].update.vector for said in (first["train"], told(clients, "train"))]
        assert (masked[0] != masked[1]).mean() > 0.9


def test_requests_out_of_turn_are_refused():
    clients, tasks = Clients(updates(3)), {}
    clients.spoil = lambda t: tasks.setdefault((type(t.body).__name__.lower(), t.party), t)
    clients.collect()
    name = next(iter(clients.updates))
    for before, step in zip((*STEPS[:2], "train"), ("train", "confirm", "unmask"), strict=True):
        blank = Clients(updates(3))
        assert "no hidden sum that is open here" in again(blank, tasks[step, name], name).message
        blank.registry = clients.registry
        again(blank, tasks["advertise", name], name)
        assert "comes after" in again(blank, tasks[step, name], name).message, before
    other = changed(tasks["share", name], session="f" * 32)
    fresh_one = Clients(updates(3))
    again(fresh_one, tasks["advertise", name], name)
    assert "belongs to another session" in again(fresh_one, other, name).message


# -- what leaves, and what stays


def test_an_update_of_zeros_is_masked_like_any_other():
    size = 20_000
    total = layout(size, 3)
    zero = {name: weigh(np.zeros(size, np.float32), total, 1.0) for name in ("a", "b", "c")}
    clients = Clients(zero)
    clients.collect()
    for body in told(clients, "train").values():
        bits = np.unpackbits(body.update.vector.view(np.uint8))
        assert abs(bits.mean() - 0.5) < 6 * 0.5 / np.sqrt(bits.size)
        assert body.metrics.sums == {"examples": 0}


def test_memory_goes_through_the_journal_between_all_steps():
    """A site that starts again after every answer takes part as if it had not."""
    clients = Clients(updates(6), lost=lambda step, name: step == "train" and name.endswith("-2"))

    def garble(task, reply):
        clients.priors[task.party] = restore(dump(clients.priors[task.party]))
        return reply

    clients.garble = garble
    total, _ = of(clients.collect())
    there = [clients.updates[name] for name in total.parties]
    np.testing.assert_array_equal(total.body.update.vector, plain_sum(there).vector)
    assert len(there) == 5


def test_secrets_are_forgotten_when_they_are_not_needed_any_more(asked):
    clients, _ = asked
    for prior in clients.priors.values():
        session = prior["session"]
        assert prior["done"] == 1
        assert all(session[secret] is None for secret in ("open", "mask", "seed", "letters", "own"))


def test_one_share_is_given_of_each_client():
    lost = list(updates(6))[4]
    clients = Clients(updates(6), lost=lambda step, name: step == "train" and name == lost)
    clients.collect()
    for body in told(clients, "unmask").values():
        assert sorted(body.names) == sorted(clients.updates)
        assert body.shares.shape == (6, shamir.WIDTH)
        assert len(set(body.names)) == 6


def test_what_is_asked_is_what_trains():
    """`work` is only called when everything before it held."""
    clients = Clients(updates(3))
    name = next(iter(clients.updates))
    called = []
    with pytest.raises(Exception, match="no hidden sum"):
        SecAgg().answer(
            Task(1, name, Train(1, np.zeros(1), "", 1)), None, lambda: called.append(1), clients.registry.identity(name)
        )
    assert called == []


def test_only_a_trained_update_is_masked():
    clients = Clients(updates(3))
    odd = next(iter(clients.updates))
    answer = SecAgg().answer

    def ask(task):
        if task.party == odd and isinstance(task.body, Train):
            with pytest.raises(Exception, match="got Advertised"):
                answer(
                    task,
                    clients.priors[odd],
                    lambda: Reply((1,), (odd,), Advertised(None, None)),
                    clients.registry.identity(odd),
                )
        return task

    clients.spoil = ask
    assert isinstance(of(clients.collect())[0].body, Trained)
