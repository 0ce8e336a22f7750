"""What a relay does between the federation above it and the one below, with nothing but threads between them."""

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import permutations
from queue import Empty, Queue
from threading import Thread
from time import monotonic, sleep

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.core.errors import WireError
from fedloom.core.layout import Layout, Leaf
from fedloom.core.metrics import Metrics
from fedloom.core.task import Evaluate, Evaluated, Fault, Member, Prepare, Ready, Task, Train, Trained
from fedloom.core.update import Update, weigh
from fedloom.runtime.net.bounds import TASKS, Answers
from fedloom.runtime.net.codec import reply_of, reply_tree
from fedloom.runtime.net.hall import Hall
from fedloom.runtime.net.kept import Kept
from fedloom.runtime.net.outbox import bodies_in
from fedloom.runtime.net.relay import UNSAID, Relay, numbered, passed
from fedloom.runtime.net.spool import Spool
from fedloom.store.dispatches import Dispatches
from fedloom.store.journal import opened_engine

PAYLOAD = Layout((Leaf("w", (3,)),))
ROOM = 8
TOTAL = PAYLOAD.weighted(ROOM)
NAMES = ("bergen", "oslo", "voss")
MOST = 1 << 20
SOON_S = 10.0  # nothing takes so long unless it never comes
NEVER_S = 0.1


def train(round=1):
    return Train(round, np.zeros(3, np.float32), TOTAL.digest, 1, (), 3)


def trained(values, weight=1.0, loss=1.0):
    delta = np.asarray(values, np.float32)
    return Trained(weigh(delta, TOTAL, weight), Metrics({"examples": 2, "loss": loss}))


def spool(path):
    return Spool(path, MOST)


@dataclass
class Between:
    """A relay; `ask` speaks as the federation above, `reply` as a party below."""

    folder: object
    above: dict = field(default_factory=lambda: passed(NAMES))
    deadline_s: float | None = None
    clock: list = field(default_factory=lambda: [0.0])

    def __enter__(self):
        self.engine = opened_engine(f"sqlite:///{self.folder / 'relay.db'}")
        self.hall = Hall("below", now=lambda: self.clock[0])
        self.hall.layouts[PAYLOAD.digest] = PAYLOAD
        for name in NAMES:
            self.hall.take_seat(name, (Member(name, 2),), lambda name=name: spool(self.folder / name))
            self.hall.seats[name].away = None
        self.relay = Relay(
            Kept(self.hall, Dispatches(self.engine)),
            self.above,
            PAYLOAD.weighted,
            spool(self.folder / "down"),
            spool(self.folder / "up"),
            self.deadline_s,
            lambda: self.clock[0],
        )
        self.upper = Hall("above", room=ROOM)
        members = tuple(Member(name, 2) for name in self.above.values())
        self.upper.take_seat("relay", members, lambda: self.relay.outgoing)
        self.offers = Queue()
        self.thread = Thread(target=self.relay.live, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.relay.stop()
        self.thread.join(SOON_S)
        assert not self.thread.is_alive()
        self.engine.dispose()

    def ask(self, body, names=NAMES, merge=True, first=1):
        tasks = [Task(number, self.above[name], body, merge) for number, name in enumerate(names, start=first)]
        self.upper.send(tasks)
        self.again([f"train/{task.number}" for task in tasks] if isinstance(body, Train) else None)

    def again(self, keys=None):
        seat = self.upper.seats["relay"]
        chosen = [seat.given[key] for key in keys] if keys else list(seat.given.values())
        shelf = self.upper._outbox.shelf
        for body in bodies_in(chosen):  # as the connection fetches them
            for at, data in shelf.pieces(body.digest, 0):
                self.relay.incoming.take(body, at, data)
        for one in chosen:
            message = {"key": one.key, "together": ["ask" + "".join(c.key for c in chosen), len(chosen)], **one.message}
            self.relay.answer(one.key, message, lambda *offer: self.offers.put(offer))

    def reply(self, name, body):
        seat = self.hall.seats[name]
        (key,) = seat.given
        sent = seat.spool.put(reply_tree(body))
        offer = {"keys": [key], "digest": sent.digest, "size": sent.size, "seconds": 1.0}
        self.hall.hear(seat, {"kind": "offer", "run": "below", **offer})
        return sent

    def offered(self):
        keys, body, _ = self.offers.get(timeout=SOON_S)
        known = {layout.digest: layout for layout in (TOTAL, PAYLOAD)}
        return keys, body, reply_of(self.relay.outgoing.get(body), known, "relay")

    def written(self, number):
        """Wait until the answer to a dispatch is in the log."""
        end = monotonic() + SOON_S
        while not self.relay.kept.log.accepted([number]):
            assert monotonic() < end
            sleep(0.005)

    def silent(self):
        with pytest.raises(Empty):
            self.offers.get(timeout=NEVER_S)

    def asked(self):
        return [name for name in NAMES if self.hall.seats[name].given]


@pytest.fixture
def between(tmp_path):
    with Between(tmp_path) as there:
        yield there


def exact(deltas):
    """Return Σδ in fractions, each rounded to the grid first: an oracle without floating-point sums."""
    step = Fraction(TOTAL.runs[0][1])
    rounded = [[step * round(Fraction(float(np.float32(value))) / step) for value in delta] for delta in deltas]
    return [float(sum(column)) for column in zip(*rounded, strict=True)]


DELTAS = {"bergen": [0.1, -0.2, 0.3], "oslo": [1e-7, 0.7, -0.9], "voss": [0.33, 0.44, 1.5]}


@pytest.mark.parametrize("order", list(permutations(NAMES)))
def test_all_answers_go_up_as_one_exact_sum_in_any_order(between, order):
    between.ask(train())
    for name in order:
        between.reply(name, trained(DELTAS[name]))
    keys, _, body = between.offered()
    assert sorted(keys) == ["train/1", "train/2", "train/3"]
    assert (body.update.count, body.update.vector.tolist()) == (3, [*exact(DELTAS.values()), 3.0])
    assert body.metrics.sums == {"examples": 6, "loss": 3.0}
    between.silent()


def test_one_answer_goes_up_as_it_is(between):
    between.ask(train(), ["oslo"])
    sent = between.reply("oslo", trained(DELTAS["oslo"]))
    assert between.offered()[1] == sent


def test_a_fault_goes_up_at_once_and_the_sum_of_the_others_when_they_are_there(between):
    between.ask(train())
    between.reply("oslo", Fault("oslo", "train", "ValueError", "no such column"))
    keys, _, body = between.offered()
    assert (keys, body.error, body.message) == (["train/2"], "ValueError", "no such column")
    between.reply("bergen", trained(DELTAS["bergen"]))
    between.silent()
    between.reply("voss", trained(DELTAS["voss"]))
    keys, _, body = between.offered()
    assert (sorted(keys), body.update.count) == (["train/1", "train/3"], 2)


def poisoned(value):
    vector = trained([0.0, 0.0, 0.0]).update.vector.copy()
    vector[1] = value
    return Trained(Update(vector, TOTAL), Metrics({"examples": 2}))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (poisoned(np.nan), "NotFinite"),
        (poisoned(1e6), "OutOfBound"),
        (poisoned(2.0**-60), "UpdateError"),
        (Trained(Update(np.zeros(5), TOTAL), Metrics({"examples": 2})), "LayoutMismatch"),
        (Trained(Update(np.ones(4), TOTAL, 2), Metrics({"examples": 2})), "UpdateError"),
    ],
)
def test_what_may_not_be_added_is_a_fault_and_spoils_nothing(between, body, error):
    between.ask(train())
    between.reply("oslo", body)
    keys, _, fault = between.offered()
    assert (keys, fault.phase, fault.error) == (["train/2"], "admit", error)
    for name in ("bergen", "voss"):
        between.reply(name, trained(DELTAS[name]))
    _, _, rest = between.offered()
    assert rest.update.vector.tolist() == [*exact([DELTAS["bergen"], DELTAS["voss"]]), 2.0]


def test_what_may_not_be_merged_goes_up_byte_by_byte(between):
    between.ask(train(), merge=False)
    for name in NAMES:
        encoded = Update(np.ones(3, np.int8), PAYLOAD, side={"weight": 0.5})
        sent = between.reply(name, Trained(encoded, Metrics({"examples": 1})))
        keys, body, _ = between.offered()
        assert (keys, body) == ([f"train/{NAMES.index(name) + 1}"], sent)


def test_evaluations_go_up_one_by_one(between):
    between.ask(Evaluate(np.zeros(3, np.float32)))
    for examples, name in enumerate(NAMES, start=1):
        between.reply(name, Evaluated(Metrics({"examples": examples})))
        keys, _, body = between.offered()
        assert (len(keys), body.metrics.examples) == (1, examples)


def test_who_comes_back_is_prepared_first(between):
    between.ask(Prepare({}))
    between.reply("oslo", Ready(3, 1))
    assert between.offered()[2] == Ready(3, 1)
    between.hall.come_in(between.hall.seats["oslo"])
    (greeted,) = between.hall.seats["oslo"].given.values()
    assert isinstance(greeted.task.body, Prepare)


def test_after_the_deadline_the_sum_of_those_who_are_there_goes_up_and_the_late_ones_follow(tmp_path):
    with Between(tmp_path, deadline_s=5.0) as between:
        between.ask(train())
        between.reply("bergen", trained(DELTAS["bergen"]))
        between.reply("voss", trained(DELTAS["voss"]))
        between.silent()
        between.clock[0] = 6.0
        keys, _, body = between.offered()
        assert (sorted(keys), body.update.count) == (["train/1", "train/3"], 2)
        between.reply("oslo", trained(DELTAS["oslo"]))
        keys, _, body = between.offered()
        assert (keys, body.update.count) == (["train/2"], 1)


def test_a_site_that_is_away_too_long_is_a_fault_above(between):
    between.hall.seats["oslo"].away = 0.0
    between.ask(train())
    between.clock[0] = between.hall.leases.away_s + 1
    keys, _, body = between.offered()
    assert (keys, body.error) == (["train/2"], "LeaseExpired")


def test_whoever_asks_again_in_the_meantime_is_answered_once(between):
    between.ask(train())
    between.reply("oslo", trained(DELTAS["oslo"]))
    between.again()
    assert between.asked() == ["bergen", "voss"]
    for name in ("bergen", "voss"):
        between.reply(name, trained(DELTAS[name]))
    assert between.offered()[2].update.count == 3
    between.silent()


def test_a_fault_that_was_lost_is_told_again_while_others_are_busy(between):
    between.ask(train())
    between.reply("oslo", Fault("oslo", "train", "ValueError", "no"))
    between.offered()
    between.again()
    assert between.asked() == list(NAMES)
    between.reply("oslo", Fault("oslo", "train", "ValueError", "no"))
    assert between.offered()[0] == ["train/2"]
    for name in ("bergen", "voss"):
        between.reply(name, trained(DELTAS[name]))
    assert sorted(between.offered()[0]) == ["train/1", "train/3"]


def test_an_offer_that_was_lost_is_made_again_without_asking_anybody(between):
    between.ask(train())
    for name in NAMES:
        between.reply(name, trained(DELTAS[name]))
    first = between.offered()
    between.again()
    assert between.asked() == []
    assert between.offered()[1] == first[1]


def test_a_relay_that_was_killed_makes_the_same_sum_from_its_log(tmp_path):
    with Between(tmp_path) as between:
        between.ask(train())
        for name in NAMES:
            between.reply(name, trained(DELTAS[name]))
        _, body, _ = between.offered()
    with Between(tmp_path) as between:
        assert sorted(between.relay.waiting) == [1, 2, 3]
        between.ask(train())
        assert between.asked() == []
        assert between.offered()[1] == body


def test_a_relay_that_was_killed_in_between_asks_only_who_has_not_answered(tmp_path):
    with Between(tmp_path) as between:
        between.ask(train())
        between.reply("voss", Fault("voss", "train", "ValueError", "no"))
        between.reply("oslo", trained(DELTAS["oslo"]))
        between.offered()
        between.written(2)
    with Between(tmp_path) as between:
        between.ask(train(), ["bergen", "oslo"])
        assert between.asked() == ["bergen"]
        between.reply("bergen", trained(DELTAS["bergen"]))
        assert between.offered()[2].update.count == 2


def test_what_is_cancelled_above_is_cancelled_below(between):
    between.ask(train())
    between.reply("oslo", trained(DELTAS["oslo"]))
    between.relay.cancel(["train/1", "train/2", "train/3"])
    assert between.asked() == []
    between.silent()


def test_only_what_was_counted_above_is_settled_below(between):
    between.ask(train())
    between.relay.settle({1, 3, 77}, {2})
    assert between.relay.kept.log.verdicts([1, 2, 3, 77]) == {1: True, 2: False, 3: True}
    assert list(between.relay.waiting) == []


def test_a_body_that_has_arrived_is_forgotten_unless_it_is_on_its_way_again(between):
    between.ask(train(), ["oslo"])
    between.reply("oslo", trained(DELTAS["oslo"]))
    _, body, _ = between.offered()
    between.again()
    between.offered()
    between.relay.received(body.digest)
    assert between.relay.outgoing.has(body)
    between.relay.received(body.digest)
    assert not between.relay.outgoing.has(body)


def test_numbers_hide_names_also_in_what_faults_say(tmp_path):
    above = numbered("north", NAMES)
    with Between(tmp_path, above=above) as between:
        between.ask(train())
        for name, said, told in (("oslo", "Oslo has no rows", UNSAID), ("voss", "no rows", "no rows")):
            between.reply(name, Fault(name, "train", "DataError", said))
            _, body, fault = between.offered()
            assert fault.message == told
            content = between.relay.outgoing.path(body.digest).read_bytes().lower()
            assert above[name].encode() in content
            assert all(each.encode() not in content for each in NAMES)


def test_a_task_for_somebody_else_is_refused(between):
    message = {"number": 1, "party": "paris", "merge": True, "room": 3, "body": {}, "arrays": {}, "together": ["a", 1]}
    with pytest.raises(WireError, match="task"):
        between.relay.answer("train/1", message, lambda *offer: None)
    good = {**message, "body": {"task": "prepare", "statistics": {}}}
    with pytest.raises(WireError, match="paris"):
        between.relay.answer("prepare/1", good, lambda *offer: None)
    with pytest.raises(WireError, match="asked with"):
        between.relay.answer("prepare/1", {**good, "together": None}, lambda *offer: None)


@pytest.mark.parametrize(
    "changes",
    [
        {"body": None},
        {"body": {"task": "prepare", "statistics": {"$array": "0"}}},
        {"arrays": None},
        {"arrays": {"0": 3}},
        {"number": 2**63},
        {"number": 0},
        {"merge": None},
        {"room": None},
    ],
)
def test_a_task_that_cannot_be_read_is_refused(between, changes):
    message = {"number": 1, "party": "oslo", "merge": True, "room": 3, "arrays": {}, "together": ["a", 1]}
    message |= {"body": {"task": "prepare", "statistics": {}}} | changes
    with pytest.raises(WireError):
        between.relay.answer("prepare/1", message, lambda *offer: None)
    assert between.asked() == []


def test_who_is_asked_together_with_nobody_is_forgotten_in_the_end(between):
    for batch in range(2 * TASKS):
        for number, party in enumerate(NAMES[:2], start=1):
            message = {"number": number, "party": party, "merge": True, "room": 3, "together": [f"{batch}", 3]}
            message |= {"body": {"task": "prepare", "statistics": {}}, "arrays": {}}
            between.relay.answer(f"prepare/{batch}/{number}", message, lambda *offer: None)
    assert sum(map(len, between.relay._coming.values())) <= TASKS * len(NAMES)
    between.ask(train())
    assert between.asked() == list(NAMES)


def test_a_relay_does_not_train_without_end_for_who_settles_nothing(between):
    between.relay.most = Answers(1)
    between.ask(train())
    with pytest.raises(WireError, match="3 dispatches wait here to be settled, and no run needs so many"):
        between.ask(train(2), first=4)
    between.relay.settle({1, 2, 3}, set())
    between.ask(train(2), first=7)


@given(st.sets(st.text("abcxyz", min_size=1, max_size=6), min_size=1, max_size=30))
def test_numbers_are_in_the_order_of_names_and_all_different(names):
    above = numbered("r", names)
    assert sorted(names) == sorted(names, key=above.__getitem__)
    assert len(set(above.values())) == len(names)


def test_ten_thousand_members_keep_their_order():
    above = numbered("r", [f"{at:05}" for at in range(10_000)])
    assert list(above.values()) == sorted(above.values())
