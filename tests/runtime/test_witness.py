"""A witness signs what goes on from what it has seen, and stops at anything else, each with its sentence."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import fedloom
from fedloom.core.errors import RecordError, WireError
from fedloom.core.state import Record as Round
from fedloom.core.state import State
from fedloom.core.task import Fault
from fedloom.record import Recorder
from fedloom.runtime.identity import Peer
from fedloom.runtime.witness import EVIDENCE, PATIENCE_S, SEEN, Witness
from fedloom.store import openings
from fedloom.store.checkpoint import Checkpoint, Key
from fedloom.store.dispatches import Accepted
from fedloom.store.files import digest_of
from fedloom.store.merkle import Tree, leaf_hash
from fedloom.store.notes import Notes
from fedloom.verify import verify
from posts import Clock

RUN, ORIGIN = "run-1", "fedloom/coordinator/run-1"
SITES = ("north", "south", "west")


def secret(number):
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


def public(number):
    return secret(number).public_key().public_bytes_raw()


def peer(number=1):
    return Peer("coordinator", "coordinator", public(number), 1, datetime.now(UTC))


class Coordinator:
    """A coordinator that records rounds without training any."""

    def __init__(self, folder, strategy=None, key=1):
        self.folder = folder / RUN
        self.folder.mkdir(parents=True, exist_ok=True)
        self.strategy = strategy or fedloom.fedavg()
        app = SimpleNamespace(strategy=self.strategy, rounds=9)
        layouts = SimpleNamespace(total=SimpleNamespace(digest="layout"))
        members = SimpleNamespace(members=lambda: SITES)
        self.training = SimpleNamespace(app=app, terms=layouts, federation=members, engine="network")
        self.key, self.number = key, 0
        self.accepted = {}
        self.models = [self.state(0)]
        self.open()

    def open(self):
        log = Key(ORIGIN, public(self.key)), secret(self.key).sign
        self.recorder = Recorder.opened(self.training, self.models[-1], self.folder, "app", log)
        self.recorder.rows = lambda numbers: [self.accepted[number] for number in numbers]

    def state(self, round, salt=0.0):
        vector = np.float32([round, salt])
        return State(0, None, vector, round=round)

    def close(self, updates, salt=0.0, faults=(), lags=()):
        """Close a round with these updates, by site; return their dispatch numbers."""
        numbers = {}
        for name, body in updates.items():
            self.number += 1
            self.accepted[self.number] = Accepted((self.number,), (name,), body, 9, 0.1)
            numbers[name] = self.number
        state = self.state(self.models[-1].round + 1, salt)
        record = Round(state.round, 1, tuple(updates), tuple(numbers.values()), tuple(faults), staleness=lags)
        self.models.append(state.but(record=record))
        self.recorder.close_round(self.models[-1])
        self.recorder.flush()
        return numbers

    def shows(self, name, since, commitment="data"):
        return json.loads(json.dumps(self.recorder.message({name}, since, commitment)))


def witness(folder, number=11, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    kept = {"run": RUN, "public": public(number), "sign": secret(number).sign, "commitment": f"data {number}"}
    times = {"now": lambda: 1_700_000_000.0, "clock": count(0.0, PATIENCE_S).__next__}  # signatures have had their time
    return Witness(Notes(folder / "site.db"), folder, folder / "log.json", **{**kept, **times, **changes})


def meet(there, one, name, number=11):
    """Introduce a witness, show it the record, and take its signature in."""
    said = one.introduction()
    there.recorder.introduced(name, public(number), said["data"])
    shown = there.shows(name, said["size"], said["data"])
    signed = one.hear(shown, peer())
    assert there.recorder.cosigned(name, **signed)
    return shown


@pytest.fixture
def there(tmp_path):
    return Coordinator(tmp_path / "coordinator")


def test_rounds_are_verified_and_co_signed_one_after_the_other(there, tmp_path):
    one = witness(tmp_path / "north")
    for round in range(1, 6):
        model = digest_of(there.models[-1].vector)
        number = there.number + 1
        one.answered(number, round, model, f"body {round}")
        there.close({"north": f"body {round}", "south": "x"})
        one.settled([number], [])
        shown = meet(there, one, "north")
        assert one.seen.owed == {}
        assert len(shown["entries"]) <= 2
    note = there.recorder.record.note
    assert note.signed_by(Key.witness(public(11)))
    assert (one.seen.size, one.seen.root) == (note.size, note.root.hex())
    assert there.recorder.summary() == {"entries": note.size, "root": note.root.hex(), "cosigned": 1}


def test_what_it_has_seen_outlives_it(there, tmp_path):
    meet(there, witness(tmp_path / "north"), "north")
    there.close({"south": "x"})
    again = witness(tmp_path / "north")
    assert again.introduction()["size"] == 2
    meet(there, again, "north")


def refused(one, shown, said, coordinator=None):
    """The witness stops: it signs nothing, keeps what it was shown, and does not begin again."""
    with pytest.raises(RecordError, match=said):
        one.hear(shown, coordinator or peer())
    kept = json.loads((one.folder / EVIDENCE).read_text())
    assert kept["shown"] == shown
    with pytest.raises(RecordError, match="this site stopped taking part in run-1"):
        replace(one)


def test_a_record_that_was_rewritten_is_refused(there, tmp_path):
    one, other = witness(tmp_path / "north"), Coordinator(tmp_path / "forked")
    there.close({"south": "x"})
    meet(there, one, "north")
    other.close({"south": "y"})
    other.recorder.introduced("north", public(11), "data 11")
    other.close({"south": "z"})
    refused(one, other.shows("north", one.seen.size), "does not begin with the 3 that this site has seen: it was rewr")


def test_a_record_that_has_shrunk_is_refused(there, tmp_path):
    one, fresh = witness(tmp_path / "north"), Coordinator(tmp_path / "older")
    there.close({"south": "x"})
    meet(there, one, "north")
    refused(one, fresh.shows("north", 0), "had 3 entries, and is shown with 1: it has shrunk")


def test_another_key_is_refused(there, tmp_path):
    one = witness(tmp_path / "north")
    meet(there, one, "north")
    foreign = Coordinator(tmp_path / "foreign", key=2)
    refused(one, foreign.shows("north", 0), "signs with another key than when this site first met it", peer(2))


def test_a_checkpoint_that_somebody_else_signed_is_refused(there, tmp_path):
    foreign = Coordinator(tmp_path / "foreign", key=2)
    refused(witness(tmp_path / "north"), foreign.shows("north", 0), "is not signed by the coordinator's key for th")


def test_another_update_than_the_one_that_it_sent_is_refused(there, tmp_path):
    one = witness(tmp_path / "north")
    one.answered(1, 1, digest_of(there.models[0].vector), "mine")
    there.close({"north": "another"})
    refused(one, there.shows("north", 0), "another update for this site's answer 1 than the one it sent")


def test_another_model_than_the_one_that_it_was_sent_is_refused(there, tmp_path):
    one = witness(tmp_path / "north")
    one.answered(1, 1, digest_of(np.float32([5, 5])), "mine")
    there.close({"north": "mine"})
    refused(one, there.shows("north", 0), "round 1 began with another model in the record than the one that this site")


@pytest.mark.parametrize(("asked", "streams"), [(1001, False), (1001, True), (2, False), (0, True)])
def test_another_round_than_the_one_that_its_task_named_is_refused(there, tmp_path, asked, streams):
    """Or else whoever sends a site another model need only name another round with it."""
    one = witness(tmp_path / "north", streams=streams)
    one.answered(1, asked, digest_of(np.float32([5, 5])), "mine")
    there.close({"north": "mine"})
    said = (
        f"answer 1 was asked in round {asked}, and the record counts it in round 1" if asked else "round 0 began with"
    )
    refused(one, there.shows("north", 0), said)


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("honest", [True, False])
def test_an_update_that_is_counted_later_began_with_the_model_of_its_own_round(there, tmp_path, honest, shown):
    """That round is shown with it, whether the site was there when it was the newest or not."""
    one = witness(tmp_path / "north", streams=True)
    there.close({"south": "x"})
    model = there.models[1].vector if honest else np.float32([5, 5])
    one.answered(3, 2, digest_of(model), "mine")
    there.close({"south": "x"})
    if shown:
        meet(there, one, "north")
    there.close({"north": "mine"}, lags=(1,))
    one.settled([3], [])
    there.open()
    if honest:
        meet(there, one, "north")
        assert one.seen.owed == {}
    else:
        refused(one, there.shows("north", one.seen.size), "round 2 began with another model in the record than the one")


def test_a_round_that_is_not_shown_is_no_way_to_show_a_site_another_model(there, tmp_path):
    one = witness(tmp_path / "north", streams=True)
    for _ in range(3):
        there.close({"south": "x"})
    one.answered(4, 2, digest_of(np.float32([5, 5])), "mine")
    there.close({"north": "mine"})  # and nothing is said of a lag
    refused(one, there.shows("north", 0), "round 2 began with another model in the record than the one")


def test_a_buffered_run_of_many_rounds_is_co_signed_to_its_end(there, tmp_path):
    one = witness(tmp_path / "north", streams=True)
    for round in range(1, 100):
        late = min(round - 1, round % 4 * 3)
        one.answered(there.number + 1, round - late, digest_of(there.models[round - 1 - late].vector), f"body {round}")
        there.close({"north": f"body {round}"}, lags=(late,))
        if round % 3 == 0:
            meet(there, one, "north")
            assert one.seen.owed == {}
    assert len(one.seen.began) <= 64


def test_an_answer_that_was_counted_and_is_not_there_is_missed(there, tmp_path):
    one = witness(tmp_path / "north")
    one.answered(77, 1, digest_of(there.models[0].vector), "mine")
    one.settled([77], [])
    for _ in range(2):
        there.close({"south": "x"})
        meet(there, one, "north")
    there.close({"south": "x"})
    refused(one, there.shows("north", one.seen.size), "answer 77 was counted in round 1, and 2 checkpoints later")


def test_an_answer_that_never_will_be_counted_is_not_missed(there, tmp_path):
    one = witness(tmp_path / "north")
    one.answered(77, 1, digest_of(there.models[0].vector), "mine")
    one.settled([], [77])
    for _ in range(4):
        there.close({"south": "x"})
        meet(there, one, "north")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda shown: shown["entries"][0].update(entry="{}"), "entry 2 is not in the record that was signed"),
        (lambda shown: shown["entries"][0].update(place=0), "entry 0 is not in the record"),
        (lambda shown: shown["entries"][0]["updates"][0]["slot"].update(body="b"), "an update is not among those"),
        (lambda shown: shown.update(since=9), "go on from size 9, and this site has seen 2"),
        (lambda shown: shown.update(note=shown["note"].replace("\n3\n", "\n4\n")), "that is not its own"),
    ],
)
def test_whatever_is_changed_on_the_way_is_refused(there, tmp_path, change, said):
    one = witness(tmp_path / "north")
    meet(there, one, "north")
    there.close({"north": "mine"})
    shown = there.shows("north", one.seen.size)
    change(shown)
    refused(one, shown, said)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, '{"kind": "round", "round": 1e999}', "null"])
def test_an_entry_that_cannot_be_read_is_kept_as_evidence(there, tmp_path, text):
    """It is in the record, and the coordinator has signed it."""
    one, tree = witness(tmp_path / "north", streams=True), Tree()
    tree.add(leaf_hash(text.encode()))
    note = Checkpoint(ORIGIN, 1, tree.root()).signed(Key(ORIGIN, public(1)), secret(1).sign)
    entry = {"place": 0, "entry": text, "proof": [], "updates": []}
    shown = {"note": note.text(), "since": 0, "consistency": [], "entries": [entry], "seen": "", "agrees": []}
    refused(one, shown, "what is shown of the record cannot be read")


def test_what_is_no_message_is_refused_and_nothing_signed(tmp_path):
    with pytest.raises(WireError, match="lacks 'note'"):
        witness(tmp_path / "north").hear({}, peer())


# -- gossip


def test_a_split_view_is_seen_by_whoever_sees_the_others_signatures(tmp_path):
    """Two worlds with one key: what south has signed of one is shown to north in the other."""
    mine, theirs = Coordinator(tmp_path / "one"), Coordinator(tmp_path / "two")
    north, south = witness(tmp_path / "north"), witness(tmp_path / "south", 12)
    for there, salt in ((mine, 1.0), (theirs, 2.0)):
        there.recorder.introduced("north", public(11), "data 11")
        there.recorder.introduced("south", public(12), "data 12")
        there.close({"south": "x"}, salt)
    north.hear(mine.shows("north", 0), peer())
    signed = south.hear(theirs.shows("south", 0), peer())
    assert theirs.recorder.cosigned("south", **signed)
    mine.close({"south": "x"}, 3.0)
    shown = mine.shows("north", north.seen.size)
    shown["seen"] = theirs.recorder.record.note.text()
    refused(north, shown, "others have signed another record of 4 entries than this site has seen: a split view")


def test_a_signature_under_another_view_does_not_pass_for_one_under_this(tmp_path):
    mine, theirs = Coordinator(tmp_path / "one"), Coordinator(tmp_path / "two")
    north = witness(tmp_path / "north", others=[public(12)], least=1)
    for there, salt in ((mine, 1.0), (theirs, 2.0)):
        there.recorder.introduced("south", public(12), "data 12")
        there.close({"south": "x"}, salt)
    signed = witness(tmp_path / "south", 12).hear(theirs.shows("south", 0), peer())
    north.hear(mine.shows("north", 0), peer())
    line = Checkpoint.of(f"{theirs.recorder.record.note.body()}\n{signed['line']}").signatures[0]
    mine.recorder.record.note = mine.recorder.record.note.adding(line)
    mine.recorder._notes[mine.recorder.record.note.size] = mine.recorder.record.note
    mine.close({"south": "x"}, 3.0)
    refused(north, mine.shows("north", north.seen.size), "bears a signature in the name of .* that is not its own")


def test_a_fork_behind_an_older_checkpoint_than_the_last_is_refused(there, tmp_path):
    """Both worlds begin with what north saw first; one goes on otherwise behind it."""
    one, other = witness(tmp_path / "north"), Coordinator(tmp_path / "forked")
    for each in (there, other):
        each.recorder.introduced("north", public(11), "data 11")
    first = there.shows("north", 0)
    one.hear(first, peer())
    there.close({"south": "x"})
    one.hear(there.shows("north", 2), peer())
    other.close({"south": "y"}, 1.0)
    other.close({"south": "z"}, 1.0)
    assert (one.seen.size, other.recorder.record.note.size) == (3, 4)
    refused(one, other.shows("north", 2), "is shown to go on from size 2, and this site has seen 3")


def test_what_it_has_seen_already_may_be_shown_again_and_counts_nothing(there, tmp_path):
    one = witness(tmp_path / "north", others=[public(12)], least=1)
    one.answered(77, 1, digest_of(there.models[0].vector), "mine")
    one.settled([77], [])
    meet(there, one, "north")
    kept = one.seen.owed["77"][4], one.seen.alone
    for _ in range(5):
        one.hear(there.shows("north", 0), peer())
    assert (one.seen.owed["77"][4], one.seen.alone) == kept


def insisting(there, folder, **changes):
    """A witness that insists on south, who has signed all that there is."""
    north, south = witness(folder / "north", others=[public(12)], least=1, **changes), witness(folder / "south", 12)
    meet(there, north, "north")
    meet(there, south, "south", 12)
    there.close({"south": "x"})
    meet(there, north, "north")
    meet(there, south, "south", 12)
    return north


def test_checkpoints_that_come_faster_than_signatures_are_no_reason_to_accuse(there, tmp_path):
    clock = Clock()
    north = insisting(there, tmp_path, clock=clock)

    def shows(signed):
        there.close({"south": "x"})
        shown = there.shows("north", north.seen.size)
        return shown if signed else shown | {"seen": "", "agrees": []}

    for _ in range(2):
        for now in (0.0, *[PATIENCE_S - 0.1] * 6):
            clock.now = now
            north.hear(shows(False), peer())
        north.hear(shows(True), peer())
    for now in (0.0, 1.0, 2.0):
        clock.now = now
        north.hear(shows(False), peer())
    clock.now = PATIENCE_S
    refused(north, shows(False), "0 other sites that this one knows have co-signed the record")


@pytest.mark.parametrize("stale", ["nothing", "an old one"])
def test_a_coordinator_that_shows_no_new_cosignature_of_others_is_left(there, tmp_path, stale):
    north = insisting(there, tmp_path)
    there.close({"south": "x"})
    old = there.shows("north", north.seen.size)["seen"]
    assert Checkpoint.of(old).signed_by(Key.witness(public(12)))
    north.hear(there.shows("north", north.seen.size), peer())
    for left in (True, True, False):
        there.close({"south": "x"})
        shown = there.shows("north", north.seen.size)
        shown["seen"] = "" if stale == "nothing" else old
        shown["agrees"] = [
            each.hex()
            for each in there.recorder.record.tree.consistency(Checkpoint.of(old).size, there.recorder.record.tree.size)
        ]
        if left:
            north.hear(shown, peer())
    refused(north, shown, "0 other sites that this one knows have co-signed the record")


def test_others_who_signed_a_size_that_this_site_never_saw_are_compared_too(tmp_path):
    """North sees sizes 2 and 4 of one world; south has signed 3 of another, of which north knows no root."""
    mine, theirs = Coordinator(tmp_path / "one"), Coordinator(tmp_path / "two")
    north, south = witness(tmp_path / "north", others=[public(12)], least=1), witness(tmp_path / "south", 12)
    for there, salt in ((mine, 1.0), (theirs, 2.0)):
        there.recorder.introduced("north", public(11), "data 11")
        if there is mine:
            north.hear(mine.shows("north", 0), peer())
        there.recorder.introduced("south", public(12), "data 12")
        there.close({"south": "x"}, salt)
        there.close({"south": "x"}, salt + 2)
    signed = south.hear(theirs.shows("south", 0), peer())
    assert theirs.recorder.cosigned("south", **signed)
    mine.close({"south": "x"}, 5.0)
    shown = mine.shows("north", north.seen.size)
    shown["seen"] = theirs.recorder.record.note.text()
    refused(north, shown, "a split view")


def test_a_site_that_insists_on_others_trains_no_further_while_no_record_is_shown(there, tmp_path):
    north = insisting(there, tmp_path)
    for number in (1, 2):
        north.admit(1, f"model {number}")
        north.answered(number, 1, f"model {number}", "mine")
        north.settled([], [number])
    again = replace(north, seen=north.seen)
    again.admit(1, "model 2")  # from the same model again
    with pytest.raises(RecordError, match="has shown none of it for 2 rounds; this site trains no further"):
        again.admit(1, "model 3")
    there.close({"south": "x"})
    north.hear(there.shows("north", north.seen.size), peer())
    north.admit(1, "model 3")


def test_whoever_shows_no_record_is_refused_by_a_site_that_insists(tmp_path):
    relay = replace(peer(), role="relay")
    witness(tmp_path / "south", 12).meet(relay)
    north = witness(tmp_path / "north", others=[public(12)], least=1)
    north.meet(peer())
    with pytest.raises(RecordError, match="other witnesses of the record, and relay 'coordinator' shows none"):
        north.meet(relay)


def test_a_site_that_insists_on_others_stops_where_they_do_not_sign(there, tmp_path):
    north = witness(tmp_path / "north", others=[public(12), public(11)], least=1)
    south = witness(tmp_path / "south", 12)
    for _ in range(4):  # south signs, and north is shown it a checkpoint later
        meet(there, south, "south", 12)
        there.close({"south": "x"})
        meet(there, north, "north")
    for _ in range(2):
        there.close({"south": "x"})
        meet(there, north, "north")
    there.close({"south": "x"})
    refused(north, there.shows("north", north.seen.size), "0 other sites that this one knows have co-signed the record")


def test_an_older_copy_of_its_own_folder_is_found_by_its_own_signature(there, tmp_path):
    one = witness(tmp_path / "north")
    meet(there, one, "north")
    older = one.notes.kept(SEEN)
    there.close({"south": "x"})
    meet(there, one, "north")
    there.close({"south": "x"})
    one.notes.keep(SEEN, older)
    refused(witness(tmp_path / "north"), there.shows("north", 2), "this site has signed a record of 3 entries, and")


# -- under differential privacy


def test_under_privacy_the_record_does_not_say_who_or_how_many(tmp_path):
    private = fedloom.dp_fedavg(rate=0.5, noise_multiplier=4.0, delta=1e-3)
    there, one = Coordinator(tmp_path / "coordinator", private), witness(tmp_path / "north")
    for updates in ({}, {"north": "mine"}, {"north": "a", "south": "b", "west": "c"}):
        one.settled([], []) if not updates else one.answered(
            there.number + 1,
            there.models[-1].round + 1,
            digest_of(there.models[-1].vector),
            next(iter(updates.values())),
        )
        there.close(updates, faults=[Fault("west", "policy", "PolicyRefused", "no")])
        shown = meet(there, one, "north")
        assert one.seen.owed == {}
        told = json.dumps(shown)
        assert not any(word in told for word in ("south", "west", "north"))
    rounds = [entry for entry in there.recorder.record.entries if entry.get("kind") == "round"]
    assert [(entry["slots"], entry["counts"]) for entry in rounds] == [(3, None)] * 3


def test_a_site_that_says_other_data_again_and_again_does_not_fill_the_record(there):
    for number in range(20):
        there.recorder.introduced("north", public(11), f"data {number}")
    there.recorder.introduced("south", public(12), "data of south")
    assert there.recorder.record.note.size == 1 + 8 + 1


# -- the coordinator's side after a crash


def test_a_round_that_is_run_again_to_the_same_bits_is_not_recorded_twice(there):
    there.close({"south": "x"})
    size = there.recorder.record.tree.size
    closed = there.models.pop()
    there.open()
    there.recorder.close_round(closed)
    there.recorder.flush()
    assert there.recorder.record.tree.size == size
    there.models.append(closed)
    there.close({"south": "x"})
    assert there.recorder.record.tree.size == size + 1


def test_a_state_that_the_record_does_not_have_is_not_gone_on_from(there):
    there.close({"south": "x"})
    there.models[-1] = there.models[-1].but(vector=np.float32([9, 9]))
    with pytest.raises(RecordError, match="the state to go on from, after round 1, is not the one that"):
        there.open()


def test_a_witness_that_comes_back_late_is_shown_its_own_round_from_the_disk(there, tmp_path):
    one = witness(tmp_path / "north")
    one.answered(1, 1, digest_of(there.models[0].vector), "mine")
    there.close({"north": "mine"})
    one.settled([1], [])
    for _ in range(12):
        there.close({"south": "x"})
    there.open()
    meet(there, one, "north")
    assert one.seen.owed == {}


def test_whoever_says_again_that_it_has_seen_nothing_costs_no_reading_of_all_rounds(there, monkeypatch):
    for round in range(30):
        there.close({"north" if round % 6 == 0 else "south": "x"})
    there.open()
    read = []
    monkeypatch.setattr(
        openings.json, "loads", lambda text: read.append(text) or json.JSONDecoder().decode(str(text, "ascii"))
    )
    shown = [place["place"] for place in there.recorder.message({"north"}, 0, "data")["entries"]]
    assert shown == [1, 7, 13, 19, 25, 30]
    assert len(read) <= 2 * 5


def lose(there):
    """Lose the power before the last round's state is saved: what opens its entry was not on the disk yet."""
    there.recorder.flush()
    path = there.folder / "record" / "openings.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    closed = there.models.pop()
    there.open()
    return closed


def test_a_round_whose_opening_was_lost_with_the_power_is_recorded_again_and_nobody_is_accused(there, tmp_path):
    north, south = witness(tmp_path / "north"), witness(tmp_path / "south", 12)
    meet(there, north, "north")
    meet(there, south, "south", 12)
    north.answered(1, 1, digest_of(there.models[0].vector), "mine")
    south.answered(2, 1, digest_of(there.models[0].vector), "theirs")
    there.close({"north": "mine", "south": "theirs"})
    meet(there, north, "north")  # before the power goes; south is shown it afterwards
    assert north.seen.owed == {}
    closed = lose(there)
    for one, number in ((north, 1), (south, 2)):
        one.settled([number], [])
    meet(there, south, "south", 12)
    there.recorder.close_round(closed)
    there.recorder.flush()
    there.models.append(closed)
    for _ in range(4):
        meet(there, north, "north")
        meet(there, south, "south", 12)
        there.close({"west": "x"})
    assert south.seen.owed == {}
    there.recorder.keep()
    said = {each.what: each for each in verify(there.folder).findings}
    assert said["rounds"].said.endswith("; 1 of them closed twice, as after a crash")
    assert said["updates"].holds


def test_only_the_last_round_can_be_recorded_again(there):
    there.close({"south": "x"})
    first = there.models[-1]
    there.close({"south": "x"})
    size = there.recorder.record.tree.size
    (there.folder / "record" / "openings.jsonl").unlink()
    there.models = [there.state(0)]
    there.open()
    there.recorder.close_round(first)
    there.recorder.flush()
    assert there.recorder.record.tree.size == size


def test_who_is_shown_no_record_remembers_nothing_that_must_be_in_it(tmp_path):
    north = witness(tmp_path / "north")
    north.meet(replace(peer(), role="relay"))
    for number in range(3):
        north.answered(number, 1, "model", "body")
        north.settled([number], [])
    assert north.seen.owed == {}
    north.meet(peer())
    north.answered(9, 1, "model", "body")
    assert list(north.seen.owed) == ["9"]
