"""Whoever drops out, and whenever: the hidden sum is the plain sum of those that stayed, or there is none.

The oracle knows the protocol's rule and nothing of its mathematics: who has sent a masked update is in the sum, if at
each step as many as the threshold were there.
"""

from dataclasses import replace
from itertools import combinations_with_replacement, product

import numpy as np
import pytest

from fedloom.core.errors import ConfigError
from fedloom.core.hidden import Advertised, Backing, Confirmed, Shared, Unmasked
from fedloom.core.metrics import Metrics
from fedloom.core.task import Evaluate, Fault, Reply, Task, Train, Trained
from fedloom.core.update import Update, verify, weigh
from fedloom.gather import SecAgg
from fedloom.gather.secure.graph import Rule
from fedloom.gather.secure.session import row
from fedloom.store.files import dump, restore
from hidden import STEPS, Clients, layout, of, plain_sum, updates

NEVER = len(STEPS)


def survivors(names, lost, rule):
    """Return who must be in the sum, given the step at which each falls silent; None if there must be none."""
    there = [[name for name in names if lost[name] > step] for step in range(len(STEPS))]
    needed = [rule.survivors] * 3 + [rule.shares] * 2
    return there[2] if all(len(some) >= least for some, least in zip(there, needed, strict=True)) else None


def check(count, pattern, given=None, gather=SecAgg()):
    """Gather with dropouts at these steps, in the order of the clients, and compare with the oracle."""
    given = given or updates(count)
    lost = dict(zip(given, pattern, strict=True))
    clients = Clients(given, gather, lost=lambda step, name: lost[name] <= STEPS.index(step))
    total, faults = of(clients.collect())
    expected = survivors(list(given), lost, gather.rule(count))
    if expected is None:
        assert total is None
        assert len(faults) == count
        assert "to the end; nothing was unmasked" in faults[0].message
        return
    assert list(total.parties) == expected
    assert total.numbers == tuple(list(given).index(name) + 1 for name in expected)
    plain = plain_sum([given[name] for name in expected])
    assert total.body.update.vector.tobytes() == plain.vector.tobytes()
    assert verify(total.body.update, plain.layout).count == len(expected)
    assert total.body.metrics.sums == {"examples": len(expected), "loss": 0.5 * len(expected)}


def mixed(count, seed=0):
    """Yield each way in which clients can fall silent at the steps, up to who is who, which is drawn."""
    rng = np.random.default_rng(seed)
    for pattern in combinations_with_replacement(range(NEVER + 1), count):
        yield rng.permutation(pattern).tolist()


def test_every_pattern_of_dropouts_of_three_clients():
    for pattern in product(range(NEVER + 1), repeat=3):
        check(3, pattern)


def test_every_mixture_of_dropouts_of_four_clients():
    for pattern in mixed(4):
        check(4, pattern)


@pytest.mark.slow
def test_every_pattern_of_dropouts_of_four_clients():
    given = updates(4)
    for pattern in product(range(NEVER + 1), repeat=4):
        check(4, pattern, given)


@pytest.mark.slow
@pytest.mark.parametrize("count", [5, 6])
def test_every_mixture_of_dropouts_of_more_clients(count):
    given = updates(count)
    for pattern in mixed(count):
        check(count, pattern, given)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "seed"), [(17, 0), (17, 1), (40, 2), (40, 3), (100, 4), (100, 5), (300, 6)])
def test_drawn_dropouts_of_many_clients(count, seed):
    """The same number at each step, together just as many as may fall silent, and once one more."""
    rng, given = np.random.default_rng(seed), updates(count)
    most = count - SecAgg().threshold(count)
    pattern = np.full(count, NEVER)
    pattern[:most] = np.arange(most) % NEVER
    check(count, rng.permutation(pattern).tolist(), given)
    if count < 100:
        pattern[most] = 2
        check(count, rng.permutation(pattern).tolist(), given)


def test_a_floor_of_survivors_is_kept_by_the_clients():
    """With 6 of 7 asked for, one may fall silent and not two, though two would leave the threshold of 5."""
    check(7, [NEVER] * 6 + [2], gather=SecAgg(survivors=6))
    check(7, [NEVER] * 5 + [2, 2], gather=SecAgg(survivors=6))
    check(7, [NEVER] * 5 + [2, 2])


SPARSE = SecAgg(neighbours="auto")
NEAR = SecAgg(neighbours=8)


@pytest.mark.parametrize("seed", range(6))
def test_a_sparse_graph_gives_the_same_sum_whoever_falls_silent(seed):
    """30 clients with 8 neighbours each: three may fall silent at any step, and a fourth loses the sum."""
    rng, given = np.random.default_rng(seed), updates(30)
    assert NEAR.rule(30) == Rule(8, 5, 27)
    pattern = np.full(30, NEVER)
    pattern[:3] = rng.integers(0, NEVER, 3)
    check(30, rng.permutation(pattern).tolist(), given, NEAR)
    pattern[:4] = rng.integers(0, 3, 4)
    check(30, rng.permutation(pattern).tolist(), given, NEAR)


@pytest.mark.slow
def test_a_thousand_clients_with_a_tenth_of_them_falling_silent():
    rng, given = np.random.default_rng(0), updates(1000, size=3)
    assert SPARSE.rule(1000) == Rule(52, 28, 900)
    pattern = np.full(1000, NEVER)
    pattern[:100] = np.arange(100) % NEVER
    check(1000, rng.permutation(pattern).tolist(), given, SPARSE)


def test_a_masked_update_that_comes_after_the_list_was_told_is_ignored():
    """Only its own mask still protects it, and nobody gives a share of that."""
    given = updates(6)
    slow, kept = list(given)[2], []

    def garble(task, reply):
        if isinstance(reply.body, Trained) and task.party == slow:
            kept.append(reply)
            return Reply(reply.numbers, reply.parties, Fault(slow, "train", "Deadline", "too late"))
        if isinstance(reply.body, Confirmed) and kept and task.party == next(iter(given)):
            clients.queue.appendleft(task)
            return kept.pop()
        return reply

    clients = Clients(given, garble=garble)
    total, faults = of(clients.collect())
    assert slow not in total.parties
    assert len(total.parties) == 5
    assert "was not asked of it in this step" in faults[-1].message
    plain = plain_sum([given[name] for name in total.parties])
    assert total.body.update.vector.tobytes() == plain.vector.tobytes()


def test_a_client_that_fails_is_told_of_and_the_sum_is_of_the_others():
    given = updates(6)
    odd = list(given)[3]
    clients = Clients(given, garble=lambda task, reply: reply)
    ask = clients.ask
    clients.ask = lambda task: (
        ask(Task(task.number, task.party, Train(9, np.zeros(1), "", 1)))
        if task.party == odd and isinstance(task.body, Train)
        else ask(task)
    )
    total, faults = of(clients.collect())
    assert [(fault.site, fault.phase, fault.error) for fault in faults] == [(odd, "train", "AccessDenied")]
    assert odd not in total.parties
    assert len(total.parties) == 5


def test_a_fault_after_the_sum_is_told_behind_it():
    given = updates(6)
    odd = list(given)[3]
    clients = Clients(given)

    def garble(task, reply):
        if isinstance(reply.body, Unmasked) and task.party == odd:
            return Reply(reply.numbers, reply.parties, Unmasked(("stranger",), reply.body.shares[:1]))
        return reply

    clients.garble = garble
    replies = clients.collect()
    assert isinstance(replies[0].body, Trained)
    assert odd in replies[0].parties
    assert (replies[1].body.site, replies[1].body.phase) == (odd, "unmask")


BAD = {
    "float": lambda u: Update(u.vector.astype(np.float64), u.layout, side=u.side),
    "short": lambda u: Update(u.vector[:-1], u.layout, side=u.side),
    "no array": lambda u: Update([1, 2], u.layout, side=u.side),
    "another session": lambda u: Update(u.vector, u.layout, side={**u.side, "session": np.zeros(16, np.uint8)}),
    "unmasked": lambda u: Update(u.vector, u.layout),
    "another sum": lambda u: Update(u.vector, layout(5, 300), side=u.side),
    "other metrics": lambda u: Update(u.vector, u.layout, side={**u.side, "names": _text('["examples", "l0ss"]')}),
    "too many metrics": lambda u: Update(u.vector, u.layout, side={**u.side, "names": _text('["examples"]' * 9000)}),
    "names are no list": lambda u: Update(u.vector, u.layout, side={**u.side, "names": _text('{"examples": 1}')}),
    "no names": lambda u: Update(u.vector, u.layout, side={"session": u.side["session"]}),
    "names twice": lambda u: Update(u.vector, u.layout, side={**u.side, "names": _text('["examples", "examples"]')}),
    "no examples": lambda u: Update(u.vector, u.layout, side={**u.side, "names": _text('["loss", "l0ss"]')}),
    "a name is no text": lambda u: Update(u.vector, u.layout, side={**u.side, "names": _text('["examples", 1]')}),
    "names are no text": lambda u: Update(u.vector, u.layout, side={**u.side, "names": _text("[1, 2]")}),
    "names are no JSON": lambda u: Update(u.vector, u.layout, side={**u.side, "names": _text("\xff[")}),
    "names are deep": lambda u: Update(u.vector, u.layout, side={**u.side, "names": _text("[" * 8000)}),
    "two clients": lambda u: Update(u.vector, u.layout, 2, side=u.side),
}


def _text(words):
    return np.frombuffer(words.encode("latin-1"), np.uint8)


@pytest.mark.parametrize("place", [0, 5])
@pytest.mark.parametrize("bad", sorted(set(BAD) - {"other metrics"}))
def test_a_masked_update_that_is_none_is_as_if_it_had_not_come(bad, place):
    spoiled(bad, place)


def test_metrics_are_those_of_the_first_that_came():
    spoiled("other metrics", 5)


def spoiled(bad, place):
    given = updates(6)
    odd = list(given)[place]

    def garble(task, reply):
        if task.party != odd or not isinstance(reply.body, Trained):
            return reply
        return Reply(reply.numbers, reply.parties, Trained(BAD[bad](reply.body.update), Metrics({"examples": 0})))

    total, faults = of(Clients(given, garble=garble).collect())
    assert [(fault.site, fault.phase, fault.error) for fault in faults] == [(odd, "admit", "UpdateError")]
    there = plain_sum([update for name, update in given.items() if name != odd])
    assert total.body.update.vector.tobytes() == there.vector.tobytes()


@pytest.mark.parametrize("kind", [Advertised, Shared, Confirmed, Unmasked], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("how", ["short", "float", "another kind", "nothing"])
def test_an_answer_that_is_none_is_a_fault_of_who_gave_it(kind, how):
    given = updates(6)
    odd = list(given)[1]

    def garble(task, reply):
        if task.party != odd or not isinstance(reply.body, kind):
            return reply
        values = dict(vars(reply.body))
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                values[name] = {"short": value[:-1], "float": value.astype(float)}.get(how)
        body = Metrics({"examples": 0}) if how == "another kind" else kind(**values)
        return Reply(reply.numbers, reply.parties, body)

    total, faults = of(Clients(given, garble=garble).collect())
    assert [fault.site for fault in faults] == [odd]
    late = kind in (Confirmed, Unmasked)
    assert (odd in total.parties) == late
    there = plain_sum([given[name] for name in total.parties])
    assert total.body.update.vector.tobytes() == there.vector.tobytes()


LOW = bytes(32), bytes([1]) + bytes(31), (2**255 - 20).to_bytes(32, "little")  # points of small order


@pytest.mark.parametrize("how", ["one key twice", "somebody's key", *range(len(LOW))])
def test_keys_that_the_others_would_refuse_cost_only_who_sent_them(how):
    given, seen = updates(6), []
    odd = list(given)[1]

    def garble(task, reply):
        if not isinstance(reply.body, Advertised):
            return reply
        seen.append(reply.body.keys)
        keys = reply.body.keys.copy()
        if task.party == odd:
            other = {"one key twice": keys[:32], "somebody's key": seen[0][:32]}.get(how)
            keys[32:64] = np.frombuffer(LOW[how], np.uint8) if other is None else other
        return Reply(reply.numbers, reply.parties, Advertised(keys, reply.body.signature))

    total, faults = of(Clients(given, garble=garble).collect())
    assert [(fault.site, fault.phase) for fault in faults] == [(odd, "advertise")]
    assert faults[0].message == "keys are two, nobody else's, and such that a secret can be agreed on."
    there = plain_sum([given[name] for name in given if name != odd])
    assert total.body.update.vector.tobytes() == there.vector.tobytes()


def test_a_wrong_share_spoils_the_sum_which_is_refused_and_says_who_could_have_given_it():
    given = updates(6)
    odd = next(iter(given))

    def garble(task, reply):
        if task.party == odd and isinstance(reply.body, Unmasked):
            return Reply(reply.numbers, reply.parties, Unmasked(reply.body.names, reply.body.shares[::-1]))
        return reply

    total, faults = of(Clients(given, garble=garble).collect())
    assert total is None
    assert "do not give what it advertised: one of" in faults[0].message
    assert odd in faults[0].message


def test_letters_that_cannot_be_read_cost_one_share_each():
    """A client that seals rubbish for some leaves the others' shares of it, which are enough or not."""
    given = updates(6)
    odd = list(given)[2]
    for spoiled, whole in ((1, True), (2, False)):

        def garble(task, reply, spoiled=spoiled):
            if task.party == odd and isinstance(reply.body, Shared):
                sealed = np.array(reply.body.sealed)
                sealed[:spoiled, 0] ^= 1
                return Reply(reply.numbers, reply.parties, Shared(reply.body.names, sealed))
            return reply

        total, faults = of(Clients(given, garble=garble).collect())
        assert (total is not None) == whole
        if not whole:
            assert f"4 of 6 clients gave shares of {odd}" in faults[0].message


def test_somebody_elses_reply_is_not_taken():
    given = updates(3)
    names = list(given)

    def garble(task, reply):
        if isinstance(reply.body, Advertised) and task.party == names[0]:
            return Reply((2,), (names[0],), reply.body)
        return reply

    total, faults = of(Clients(given, garble=garble).collect())
    assert total is None
    assert "was not asked of it in this step" in faults[0].message


def test_time_is_divided_among_the_steps_and_training_has_the_most():
    """With 100 s, keys have 10, shares 10, training 60, and what follows 20: nobody waits at the end of the round."""
    given, waits, now = updates(6), {}, [0.0]

    class Slow(Clients):
        def send(self, tasks, ask=None):
            self.step = type(tasks[0].body).__name__
            return super().send(tasks, ask)

        def receive(self, ask, timeout_s):
            reply = super().receive(ask, None)
            if reply is not None:
                return reply
            waits[self.step] = timeout_s
            now[0] += timeout_s
            return None

    there = Slow(given, lost=lambda step, name: name == next(iter(given)) and step == "train")
    body = Train(1, np.zeros(1), next(iter(given.values())).layout.digest, 1, (), 6)
    tasks = [Task(number, name, body) for number, name in enumerate(given, start=1)]
    total, _ = of(list(SecAgg().collect(there, tasks, lambda: 100.0 - now[0])))
    assert len(total.parties) == 5
    assert waits == {"Train": 80.0}


def test_what_can_never_be_a_hidden_sum_is_refused():
    def collected(*tasks):
        return list(SecAgg().collect(Clients(updates(3)), tasks, lambda: None))

    body = Train(1, np.zeros(1), "", 1)
    assert collected() == []
    for tasks in (
        [Task(1, "a", Evaluate(np.zeros(1)))],
        [Task(1, "a", body), Task(2, "a", body), Task(3, "b", body)],
        [Task(1, "a", body), Task(2, "b", Train(1, np.zeros(1), "", 1)), Task(3, "c", body)],
    ):
        with pytest.raises(ConfigError, match="one training, asked once of each client"):
            collected(*tasks)


def test_memory_and_bytes_are_those_of_one_vector_for_each_client():
    size, count = 50_000, 20
    total = layout(size, count)
    given = {f"c{i}": weigh(np.full(size, i / count, np.float32), total, 1.0) for i in range(count)}
    reply, _ = of(Clients(given).collect())
    plain = count * 4 * (size + 1)
    assert plain < reply.bytes_up < 1.05 * plain


# -- signatures: whoever signs badly is left out, and named


def vouched(clients):
    """Let the coordinator know whose key is whose, as certificates tell it."""
    clients.behind = Backing(run="simulation", directory=clients.registry.directory)
    return clients


@pytest.mark.parametrize("kind", [Advertised, Confirmed])
@pytest.mark.parametrize("whose", ["nobody's", "somebody else's", "an earlier one"])
def test_whoever_signs_badly_is_named_and_the_sum_is_of_the_others(kind, whose):
    given, last = updates(7), {}
    other, _, _, bad, *_ = given

    def garble(task, reply):
        if not isinstance(reply.body, kind):
            return reply
        last[reply.parties[0]] = signature = reply.body.signature
        if reply.parties != (bad,):
            return reply
        made = {"nobody's": row(bytes(64)), "somebody else's": last[other], "an earlier one": earlier.get(kind)}[whose]
        earlier[kind] = signature
        return reply if made is None else replace(reply, body=replace(reply.body, signature=made))

    earlier = {}
    clients = vouched(Clients(given, garble=garble))
    if whose == "an earlier one":
        clients.collect(round=1)
    total, faults = of(clients.collect(round=2))
    said = [fault for fault in faults if fault.error == "UpdateError"]
    assert [fault.site for fault in said] == [bad]
    assert f"not signed for this sum by the key of {bad!r}; it is left out" in said[0].message
    there = [name for name in given if name != bad or kind is Confirmed]  # who confirms badly is in the sum already
    assert list(total.parties) == there
    assert total.body.update.vector.tobytes() == plain_sum([given[name] for name in there]).vector.tobytes()
    assert clients.refused == []


def test_where_all_sign_well_nobody_is_refused():
    total, faults = of(vouched(Clients(updates(4))).collect())
    assert (len(total.parties), faults) == (4, [])


# -- a coordinator that is killed while clients unmask


class Killed(BaseException):
    """The process is no more."""


class Book:
    """What a coordinator keeps, as bytes; `dies` after so many values, before anybody can act on the last."""

    def __init__(self, dies=None):
        self.values, self.dies, self.count = {}, dies, 0

    def keep(self, number, value):
        self.values[number], self.count = dump(value), self.count + 1
        if self.count == self.dies:
            raise Killed

    def kept(self, number):
        return restore(self.values[number]) if number in self.values else None


def killed(clients, book):
    clients.behind = Backing(keep=book.keep, kept=book.kept, directory={})
    with pytest.raises(Killed):
        clients.collect()
    book.dies, clients.garble = None, lambda task, reply: reply
    done = len(clients.said)
    total, faults = of(clients.collect())
    return total, faults, [step for step, _, _ in clients.said[done:]]


@pytest.mark.parametrize(("dies", "asked"), [(1, ["unmask"] * 5), (2, [])])
def test_a_sum_that_was_kept_is_gone_on_with_and_asked_for_no_more(dies, asked):
    given = updates(5)
    total, faults, steps = killed(Clients(given), Book(dies))
    assert (faults, steps) == ([], asked)
    assert total.numbers == (1, 2, 3, 4, 5)
    assert total.body.update.vector.tobytes() == plain_sum(list(given.values())).vector.tobytes()
    assert total.body.metrics.sums == {"examples": 5, "loss": 2.5}


@pytest.mark.parametrize("answered", [1, 3, 4])
def test_killed_while_clients_unmask_they_are_asked_the_same_again(answered):
    given, seen = updates(5), []

    def garble(task, reply):
        seen.extend([reply] if isinstance(reply.body, Unmasked) else [])
        if len(seen) == answered:
            raise Killed
        return reply

    lost = lambda step, name: step == "train" and name == list(given)[4]  # noqa: E731
    total, _, steps = killed(Clients(given, lost=lost, garble=garble), Book())
    assert steps == ["unmask"] * 4
    there = list(given)[:4]
    assert list(total.parties) == there
    assert total.body.update.vector.tobytes() == plain_sum([given[name] for name in there]).vector.tobytes()


def test_without_what_was_kept_the_round_would_be_lost():
    """So that the tests above show what they should: clients unmask one sum of a round."""
    clients, book = Clients(updates(5)), Book(2)
    clients.behind = Backing(keep=book.keep)
    with pytest.raises(Killed):
        clients.collect()
    clients.behind = Backing()
    total, _ = of(clients.collect())
    assert total is None
    assert "was unmasked here, so round 1 is over" in clients.refused[0][2]


def test_a_sum_that_was_kept_for_another_model_is_not_taken():
    clients, book = Clients(updates(5)), Book()
    clients.behind = Backing(keep=book.keep, kept=book.kept)
    clients.collect(round=1)
    total, faults = of(clients.collect(start=np.ones(1), round=2))
    assert (len(total.parties), faults) == (5, [])
