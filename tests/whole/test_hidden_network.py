"""A hidden sum between real processes has the bits of the plain one, also when sites and the coordinator are killed."""

import json
import signal
import sys

import pytest

import fedloom
from fedloom.runtime import shared
from fedloom.runtime.credentials import Credentials
from fedloom.runtime.directory import DIRECTORY
from fedloom.runtime.identity import text_of
from wired import COORDINATOR, Federated, clients, simulated, slow

pytestmark = pytest.mark.slow

HIDDEN = "local=Slow(), stages=(fedloom.FixedPoint(),), gather=fedloom.SecAgg()"
PLAIN = "local=Slow(), stages=(fedloom.FixedPoint(),)"


SEALED = "local=Slow(), stages=(fedloom.FixedPoint(bits=24),), gather=fedloom.Encrypted()"


def app(folder, changes=HIDDEN, **options):
    return slow(folder, kind="Sgd", recipe="fedavg", changes=changes, sites=4, **options)


def introduced(there):
    """Let people give every site the others' keys."""
    keys = {name: text_of(Credentials(there.folder / name).peer.key) for name in there.names}
    for name in there.names:
        (there.folder / name / DIRECTORY).write_text(json.dumps({"version": 1, "keys": keys}))
    return there


def expected(folder):
    """Return the digest of the model that the plain sum leads to."""
    (folder / "plain").mkdir()
    return simulated(app(folder / "plain", PLAIN, rounds=8), folder / "plain")["sha256"]


def test_between_processes_it_has_the_bits_of_the_plain_sum(tmp_path):
    with introduced(Federated(tmp_path, app(tmp_path, rounds=8), clients(4))) as there:
        end = there.start().ended()
    assert (end["status"], end["rounds"]) == ("completed", 8)
    assert end["sha256"] == expected(tmp_path)


@pytest.mark.parametrize("who", ["client-001", COORDINATOR])
def test_who_is_killed_goes_on_to_the_same_bits(tmp_path, who):
    """Killed while sites train: shares are out, and masked updates are not."""
    made = app(tmp_path, rounds=8, seconds=0.4)
    with introduced(Federated(tmp_path, made, clients(4))) as there:
        there.start()
        there.until_said("client-001", '"key": "train/14"')  # round 4
        assert there.kill(who)
        end = there.ended()
    assert (end["status"], end["rounds"]) == ("completed", 8)
    assert end["sha256"] == expected(tmp_path)


def test_what_was_sent_for_a_sum_that_is_begun_anew_does_not_stay(tmp_path):
    with introduced(Federated(tmp_path, app(tmp_path, rounds=60, seconds=0.2), clients(4))) as there:
        there.start().until(lambda: there.rounds() >= 2)
        coordinator = there.processes[COORDINATOR]
        coordinator.kill()
        coordinator.wait()
        masked = there.runs / there.row().run / "bodies" / "client-001" / ("ab" * 32)
        masked.write_bytes(b"a masked update that had arrived")
        before = there.rounds()
        there.start(COORDINATOR).until(lambda: there.rounds() > before)
        assert not masked.exists()


@pytest.mark.parametrize("kill", ["client-001", COORDINATOR])
def test_an_encrypted_sum_has_the_bits_of_the_plain_one_whoever_is_killed(tmp_path, kill):
    made = app(tmp_path, SEALED, rounds=5, seconds=0.4)
    with introduced(Federated(tmp_path, made, clients(4))) as there:
        first, *others = (tmp_path / name for name in there.names)
        sealed = {path.stem: path for path in shared.make(first, fedloom.Encrypted().fresh())}
        for home in others:
            shared.opened(home, sealed[home.name])
        there.start()
        there.until_said("client-001", '"key": "train/14"')  # round 4
        assert there.kill(kill)
        end = there.ended()
    assert (end["status"], end["rounds"]) == ("completed", 5)
    (tmp_path / "plain").mkdir()
    plain = app(tmp_path / "plain", SEALED.replace("Encrypted", "Plain"), rounds=5)
    assert end["sha256"] == simulated(plain, tmp_path / "plain")["sha256"]


def test_a_site_without_the_shared_key_does_not_join(tmp_path):
    with introduced(Federated(tmp_path, app(tmp_path, SEALED, rounds=2), clients(4))) as there:
        there.start("client-000")
        there.until(lambda: there.processes["client-000"].poll() is not None)
        assert "encrypted sums need the key that sites share" in " ".join(there.said("client-000").split())


def test_a_site_that_was_told_no_keys_does_not_join(tmp_path):
    with Federated(tmp_path, app(tmp_path, rounds=2), clients(4)) as there:
        there.start("client-000")
        there.until(lambda: there.processes["client-000"].poll() is not None)
        assert there.processes["client-000"].returncode != 0
        assert "is missing: a hidden sum needs every site's key" in " ".join(there.said("client-000").split())


def test_a_site_that_knows_another_key_of_somebody_refuses(tmp_path):
    with introduced(Federated(tmp_path, app(tmp_path, rounds=2), clients(4))) as there:
        path = tmp_path / "client-000" / DIRECTORY
        told = json.loads(path.read_text())
        told["keys"]["client-003"] = text_of(bytes(range(32)))
        path.write_text(json.dumps(told))
        there.start()
        there.until(lambda: there.processes[COORDINATOR].poll() is not None, 60.0)
        assert there.processes[COORDINATOR].returncode != 0
        assert "AccessDenied" in there.said(COORDINATOR) + (tmp_path / f"{COORDINATOR}.out").read_text()


# -- a coordinator that dies between the sites' unmasking and its own next state

DYING = """\
import os, signal
import {module} as module

calls, inner = [], module.{what}


def dying(*args, **kwargs):
    calls.append(1)
    {before}
    found = inner(*args, **kwargs)
    {after}
    return found


module.{what} = dying
from fedloom.cli import main

main()
"""
DIE = "if len(calls) == {}: os.kill(os.getpid(), signal.SIGKILL)"
INSTANTS = {  # where, what, at which call (4 sites), before or after it
    "one site of four has unmasked": ("fedloom.gather.secure.recovery", "Recovery.take", 9, "after"),
    "all have, and nothing is added": ("fedloom.gather.secure.recovery", "Recovery.unmask", 3, "before"),
    "the sum is there, and not kept": ("fedloom.gather.secure.recovery", "Recovery.unmask", 3, "after"),
    "it is kept, and not acted on": ("fedloom.schedule.sync", "move", 3, "before"),
    "sites know that it is counted": ("fedloom.store.journal", "Journal.save", 3, "before"),
    "the next state is saved": ("fedloom.store.journal", "Journal.save", 3, "after"),
}


@pytest.mark.parametrize("instant", INSTANTS)
def test_a_coordinator_that_dies_while_a_sum_is_unmasked_goes_on_with_that_sum(tmp_path, instant):
    module, what, call, place = INSTANTS[instant]
    places = {"before": "pass", "after": "pass"} | {place: DIE.format(call)}
    with introduced(Federated(tmp_path, app(tmp_path, rounds=8), clients(4))) as there:
        there.commands[COORDINATOR] = [sys.executable, "-c", DYING.format(module=module, what=what, **places)]
        there.start().until(lambda: there.processes[COORDINATOR].poll() is not None)
        assert there.processes[COORDINATOR].returncode == -signal.SIGKILL
        assert there.rounds() <= 3
        del there.commands[COORDINATOR]
        end = there.start(COORDINATOR).ended()
    assert (end["status"], end["rounds"]) == ("completed", 8)
    assert end["sha256"] == expected(tmp_path)
    assert [(event["counted"], event["faults"]) for event in there.events()] == [(4, [])] * 8
    there.consistent()
    assert not list((there.runs / there.row().run).glob("sum-*"))
