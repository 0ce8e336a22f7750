"""Whatever is done to a record, a third party with the public keys finds it, and is told what it was."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import fedloom
from fedloom.cli import cli
from fedloom.core.errors import ConfigError, RunError
from fedloom.recording import RECORD_KEY
from fedloom.running import begin, resume
from fedloom.store.chain import canonical
from fedloom.store.notes import Notes
from fedloom.verify import ALONE, UNPROVED, verify

ROUNDS = 4


def app(**changes):
    data = fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Iid(3))
    return fedloom.App(**{"model": fedloom.BuiltIn(name="logistic"), "data": data, "rounds": ROUNDS} | changes)


def ran(out, **changes):
    recording = begin(app(**changes), out)
    with closing(recording):
        for _ in recording.rounds():
            pass
    return recording.folder


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    return ran(tmp_path_factory.mktemp("once"))


@pytest.fixture
def run(once, tmp_path):
    return shutil.copytree(once, tmp_path / once.name)


def lost(folder, **more):
    """Return what does not hold, by check."""
    found = verify(folder, **more)
    wrong = {each.what: each.said for each in found.findings if not each.holds}
    assert found.holds == (not wrong)
    return wrong


def entries(folder):
    return folder / "record" / "entries.jsonl"


def rewrite(folder, change):
    """Change entries, and mend the chain behind them, as somebody does who knows how it is made."""
    from hashlib import sha256

    lines, head = [], ""
    for entry in change([json.loads(line) for line in entries(folder).read_text().splitlines()]):
        lines.append(canonical({**entry, "prev": head}))
        head = sha256(lines[-1]).hexdigest()
    entries(folder).write_bytes(b"".join(line + b"\n" for line in lines))


def test_a_run_in_one_process_has_a_record_that_holds_and_says_what_it_is_worth(run):
    found = verify(run)
    assert found.holds
    assert found.limits == (ALONE, UNPROVED)
    said = {each.what: each.said for each in found.findings}
    assert said["entries"] == f"{ROUNDS + 2} entries, each bound to all before it"
    assert said["rounds"] == f"{ROUNDS} rounds, each from the model that the one before it ended with"
    assert said["privacy"] == "nothing is claimed: ε = ∞"
    assert said["model"] == "model.safetensors is the model that the run ended with (completed)"
    assert said["co-signed"] == "nobody has co-signed it"
    assert not (run / RECORD_KEY).exists()  # nobody can sign for it any more


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_byte_of_any_entry_that_is_changed_is_found(run, data):
    content = entries(run).read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[at] ^= data.draw(st.integers(1, 255))
    entries(run).write_bytes(changed)
    try:
        wrong = lost(run)
    finally:
        entries(run).write_bytes(content)
    assert wrong.keys() & {"entries", "checkpoint"}


CHANGED = "the first 6 entries are not those that were signed: one was changed or moved"
CHANGES = {
    "changed": (lambda found: [*found[:2], {**found[2], "epsilon": 0.1}, *found[3:]], CHANGED),
    "dropped": (lambda found: [*found[:2], *found[3:]], "6 entries were signed, and 5 of them are here: the end is mi"),
    "moved": (lambda found: [*found[:2], found[3], found[2], *found[4:]], CHANGED),
    "doubled": (lambda found: [*found[:3], *found[2:]], CHANGED),
    "cut off": (lambda found: found[:-2], "6 entries were signed, and 4 of them are here: the end is missing"),
    "added": (lambda found: [*found, {"kind": "round"}], "1 entry behind the 6 that were signed"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_record_that_was_rewritten_with_its_chain_is_found(run, what):
    change, said = CHANGES[what]
    rewrite(run, change)
    assert said in lost(run)["checkpoint"]


def test_an_entry_that_is_left_out_is_named(run):
    lines = entries(run).read_bytes().splitlines(keepends=True)
    entries(run).write_bytes(b"".join(lines[:2] + lines[3:]))
    assert lost(run)["entries"].startswith("entries.jsonl, line 3: this entry was not written behind the one before it")


def test_an_older_checkpoint_does_not_hide_an_end_that_is_missing(run):
    history = run / "record" / "history.jsonl"
    note = json.loads(history.read_text().splitlines()[-1])["note"]
    (run / "record" / "checkpoint.txt").write_text(note)
    assert "5 entries behind the 1 that were signed" in lost(run)["checkpoint"]


def test_another_key_is_found(once, run, tmp_path):
    other = ran(tmp_path / "other")
    keys = other / "record" / "keys.json"
    assert "is not signed by the key of fedloom/simulation/" in lost(run, keys=keys)["checkpoint"]
    shutil.copy(other / "record" / "checkpoint.txt", run / "record" / "checkpoint.txt")
    assert "is not signed by the key of" in lost(run)["checkpoint"]


def test_another_model_is_found(run):
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert lost(run) == {"model": "model.safetensors is not the model that the run ended with."}


@pytest.mark.parametrize("name", ["entries.jsonl", "history.jsonl", "openings.jsonl", "keys.json"])
def test_a_file_that_is_nested_without_end_does_not_hold(run, name):
    path = run / "record" / name
    before = b"" if name == "keys.json" or not path.exists() else path.read_bytes()
    path.write_bytes(before + b"[" * 100_000 + b"\n")
    if name == "keys.json":
        with pytest.raises(RunError, match="cannot be read"):
            verify(run)
    else:
        assert lost(run)


def test_a_split_view_is_found_in_what_a_site_has_seen(once, run, tmp_path):
    from fedloom.store.merkle import Tree, leaf_hash

    tree = Tree()
    for line in entries(run).read_bytes().splitlines():
        tree.add(leaf_hash(line))
    note = (run / "record" / "checkpoint.txt").read_text()
    seen = {"size": 6, "root": tree.root().hex(), "note": note, "roots": {"3": tree.root(3).hex()}}
    notes = Notes(path := tmp_path / "site.db")
    notes.keep("record", seen)
    assert lost(run, seen=[path]) == {}
    notes.keep("record", {**seen, "roots": {"3": "00" * 32}})
    (said,) = lost(run, seen=[path]).values()
    assert said.startswith("this site was shown another record of 3 entries: a split view")
    notes.keep("record", {**seen, "note": note[: note.index("\n\n") + 2]})
    (said,) = lost(run, seen=[path]).values()
    assert said.startswith("what this site was shown is not signed by ")
    notes.keep("record", {"size": 0, "root": "", "note": "", "roots": {}})
    assert verify(run, seen=[path]).findings[-1].said == "it was shown nothing of it"
    notes.keep("record", {**seen, "size": 9})
    (said,) = lost(run, seen=[path]).values()
    assert said == "this site has seen 9 entries, and 6 are here."


def test_rounds_that_do_not_go_on_from_one_another_are_found(run):
    """Signed as they are: by the one who wrote them."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from fedloom.store.checkpoint import Key
    from fedloom.store.record import Record

    key = Ed25519PrivateKey.generate()
    log = Key("fedloom/simulation/x", key.public_key().public_bytes_raw())
    folder = run / "signed"
    record = Record.opened(folder, log, key.sign, {"model": "a"})
    record.know({})
    base = {"kind": "round", "epsilon": 1.0, "delta": 1e-5, "cohort": "", "updates": ""}
    record.append([{**base, "round": 1, "in": "a", "out": "b"}, {**base, "round": 1, "in": "a", "out": "c"}])
    assert lost(folder) == {}
    assert "1 round, each from the model that the one before it ended with; 1 of them closed twice" in str(
        verify(folder)
    )
    record.append([{**base, "round": 2, "in": "b", "out": "d", "epsilon": 0.5}])
    wrong = lost(folder)
    assert "round 2 stands behind round 1, and does not begin with the model that ended it" in wrong["rounds"]
    assert "epsilon goes down" in wrong["privacy"]


def test_the_record_of_a_run_that_goes_on_holds_at_any_moment(tmp_path):
    recording = begin(app(rounds=120), tmp_path)
    recording.save_every_s = 0.0  # each round is written and signed as it closes
    with closing(recording), ThreadPoolExecutor(1) as thread:
        run, looked = thread.submit(lambda: [state.round for state in recording.rounds()]), []
        while not run.done():
            looked.append(verify(recording.folder))
        run.result()
    assert [found.findings for found in looked if not found.holds] == []
    assert len({found.entries for found in looked}) > 2


def test_what_a_crash_left_before_its_entry_was_written_is_no_lie(run):
    """The updates are opened first; the round is closed again, with another salt."""
    openings = run / "record" / "openings.jsonl"
    lines = openings.read_text().splitlines(keepends=True)
    orphan = {**json.loads(lines[0]), "salt": "00" * 16}
    slots = [{"numbers": [1], "body": "ab", "salt": "00", "parties": []}]
    openings.write_text("".join([json.dumps({**orphan, "slots": slots}) + "\n", *lines]))
    assert verify(run).holds


def test_a_run_that_is_resumed_goes_on_with_its_record(tmp_path):
    recording = begin(app(), tmp_path)
    rounds = recording.rounds()
    for _ in range(2):
        next(rounds)
    rounds.close()
    recording.close()
    assert lost(recording.folder) == {}
    assert "the run has not ended" in str(verify(recording.folder))
    again = resume(app(), recording.folder)
    with closing(again):
        for _ in again.rounds():
            pass
    assert lost(recording.folder) == {}
    assert f"{ROUNDS} rounds" in str(verify(recording.folder))


def test_a_run_that_failed_went_on_and_was_stopped_has_no_end_to_compare_with(tmp_path):
    recording = begin(app(), tmp_path)
    with closing(recording):
        rounds = recording.rounds()
        next(rounds)
        with pytest.raises(MemoryError):
            rounds.throw(MemoryError("full"))
    assert str(verify(recording.folder)).count("the run ended with (failed)") == 1
    again = resume(app(), recording.folder)
    with closing(again):
        rounds = again.rounds()
        next(rounds)
        rounds.close()
    assert lost(recording.folder) == {}
    assert "the run has not ended, so there is no model to compare" in str(verify(recording.folder))


def test_under_privacy_epsilon_stands_in_the_record(tmp_path):
    source = fedloom.Arrays(*_eye(), classes=2, test_part=_eye())
    data = fedloom.Data(source=source, partition=fedloom.Iid(20), holdout=0.0)
    private = fedloom.dp_fedavg(rate=0.5, noise_multiplier=2.0, delta=1e-3)
    folder = ran(tmp_path, data=data, strategy=private)
    said = {each.what: each.said for each in verify(folder).findings}
    assert said["privacy"].endswith("at δ = 0.001 after the last round, as the coordinator accounts for it")


def _eye():
    import numpy as np

    return np.eye(40, dtype=np.float32), np.arange(40) % 2


def test_a_folder_without_a_record_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no record in"):
        verify(tmp_path)


def test_the_command_prints_what_holds_and_ends_with_one_that_does_not(run):
    done = CliRunner().invoke(cli, ["verify", str(run)], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert "every check holds: 6 entries, root " in done.stdout
    assert "Events that were never written are not in it." in done.stdout
    told = json.loads(CliRunner().invoke(cli, ["verify", run.name, "--out", str(run.parent), "--json"]).stdout)
    assert (told["holds"], told["entries"], told["cosigned"]) == (True, 6, {})
    entries(run).write_bytes(entries(run).read_bytes()[:-20])
    done = CliRunner().invoke(cli, ["verify", str(run)], env={"COLUMNS": "200"})
    assert done.exit_code == 1
    assert "THE RECORD DOES NOT HOLD" in done.stdout
