"""The signed record over real sockets: killed on the way, checked by a third party, refused where it was changed."""

import json
import shutil

import pytest

from fedloom.commands.verify import believed
from fedloom.runtime.identity import text_of
from fedloom.runtime.witness import SEEN
from fedloom.store.checkpoint import Key
from fedloom.store.notes import FILE, kept_in
from fedloom.verify import verify
from wired import COORDINATOR, Federated, clients, slow

pytestmark = pytest.mark.slow

PLAIN = {"kind": "Sgd", "recipe": "fedavg", "changes": "local=Slow()"}


def record(there):
    return there.runs / there.row().run


def keys(there, path):
    """Write the keys that people have told a third party; return where."""
    log = there.authority.key(COORDINATOR) or coordinator_key(there)
    witnesses = {name: there.authority.key(name).hex() for name in there.names}
    name = f"fedloom/{COORDINATOR}/{there.row().run}"
    path.write_text(json.dumps({"version": 1, "log": Key(name, log).text(), "witnesses": witnesses}))
    return path


def coordinator_key(there):
    from fedloom.runtime.credentials import Credentials

    return Credentials(there.home).peer.key


def directories(there, least=1):
    """Give every site the others' keys, as people do; so many of these must have signed."""
    known = {name: text_of(there.authority.key(name)) for name in there.names}
    for name in there.names:
        (there.folder / name / "directory.json").write_text(json.dumps({"version": 1, "keys": known}))
        with (there.folder / name / "policy.toml").open("a") as file:
            file.write(f"witnesses = {least}\n")


def test_a_record_survives_kills_and_is_signed_by_all(tmp_path):
    app = slow(tmp_path, sites=2, rounds=14, seconds=0.1, **PLAIN)
    with Federated(tmp_path, app, clients(2), ("--keep-updates",)) as there:
        directories(there)
        there.start().until(lambda: there.rounds() >= 3)
        assert there.kill(COORDINATOR)
        there.until(lambda: there.rounds() >= 6)
        assert there.kill(clients(2)[0])
        there.ended()
        assert "co-signed by 2 sites" in there.said(COORDINATOR)
        folder = record(there)
        seen = [tmp_path / name / "runs" / folder.name for name in there.names]
        found = verify(folder, keys(there, tmp_path / "keys.json"), seen)
        with believed(tmp_path / clients(2)[0] / "pki" / "log.json", folder) as known:
            assert verify(folder, known, seen) == found
    assert found.holds, found.findings
    assert dict(found.witnesses) == dict.fromkeys(there.names, found.entries)
    said = {each.what: each.said for each in found.findings}
    assert said["rounds"].startswith("14 rounds")
    assert (
        said["updates"] == "28 accepted updates with the hashes that are recorded; 28 are kept here, with these hashes"
    )
    assert all(kept_in(path / FILE, SEEN)["size"] == found.entries for path in seen)


def test_a_coordinator_whose_record_was_changed_does_not_go_on_and_sites_would_see_it(tmp_path):
    app = slow(tmp_path, sites=2, rounds=200, seconds=0.05, **PLAIN)
    with Federated(tmp_path, app, clients(2)) as there:
        there.start().until(lambda: there.rounds() >= 3)
        process = there.processes[COORDINATOR]
        process.kill()
        process.wait()
        folder = record(there) / "record"
        whole = shutil.copytree(folder, tmp_path / "whole")
        lines = (folder / "entries.jsonl").read_bytes().splitlines(keepends=True)
        (folder / "entries.jsonl").write_bytes(b"".join(lines[:-1]))
        there.start(COORDINATOR)
        there.until(lambda: there.processes[COORDINATOR].poll() is not None)
        assert "its end is missing" in there.said(COORDINATOR)
        for name in ("checkpoint.txt", "history.jsonl"):  # rewritten by who has the key: only the sites know
            (folder / name).unlink()
        there.start(COORDINATOR)
        there.until(lambda: any(there.processes[name].poll() is not None for name in there.names))
        said = "".join(there.said(name) for name in there.names)
        assert "FL440" in said
        assert "it has shrunk" in said or "does not begin with" in said
        assert whole.is_dir()


def test_where_sites_differ_much_in_speed_nobody_accuses_the_coordinator(tmp_path):
    """All insist on all others, and one trains while many rounds close without it: it signs them meanwhile."""
    buffered = "local=Slow(), select=fedloom.Uniform(clients=1), schedule=fedloom.Buffered(size=2, concurrency=3)"
    does = f"time.sleep(2.0 if {clients(3)[2]!r} in sys.argv else 0.02)"
    app = slow(tmp_path, sites=3, rounds=60, does=does, kind="Sgd", recipe="fedavg", changes=buffered)
    with Federated(tmp_path, app, clients(3)) as there:
        directories(there, least=2)
        assert there.start().ended()["rounds"] == 60
        folder = record(there)
        seen = [tmp_path / name / "runs" / folder.name for name in there.names]
        found = verify(folder, keys(there, tmp_path / "keys.json"), seen)
        events = there.events()
    assert found.holds, found.findings
    assert dict(found.witnesses) == dict.fromkeys(there.names, found.entries)
    slowest = clients(3)[2]
    without = [event for event in events if slowest not in event["sites"] or slowest in event.get("measured_at", {})]
    assert len(without) > 10  # nobody waited for it to measure
    assert (sorted(events[-1]["sites"]), "measured_at" in events[-1]) == ([*clients(3)], False)
