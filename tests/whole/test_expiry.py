"""Certificates that expire while their owners are connected: one that is renewed is not noticed, any other ends it."""

import json
import subprocess
from datetime import UTC, datetime

import pytest

from fedloom.runtime.credentials import Credentials
from fedloom.runtime.keys import PKI
from fedloom.runtime.provisioning import ISSUING
from fedloom.status import standing
from wired import COMMAND, COORDINATOR, Federated, clients, enrolled, slow

pytestmark = pytest.mark.slow

PLAIN = {"kind": "Sgd", "recipe": "fedavg", "changes": "local=Slow()"}
LIFE_S = 12.0  # longer than processes take to begin


def endless(folder, life_s):
    app = slow(folder, sites=2, rounds=100_000, seconds=0.05, **PLAIN)
    return Federated(folder, app, clients(2), life_s=life_s)


def fresh(there):
    """Give the sites new certificates, shortly before they start."""
    for name in there.names:
        enrolled(there.authority, there.folder / name, name)
    return there


def lines(there, name, event):
    """Return what a process has logged of an event."""
    said = [json.loads(line) for line in there.said(name).splitlines() if line.startswith("{")]
    return [line for line in said if line["event"] == event]


def test_a_site_renews_on_its_connection_and_nobody_notices(tmp_path):
    with endless(tmp_path, LIFE_S) as there:
        there.start(COORDINATOR).until_said(COORDINATOR, "listening")
        first = [Credentials(tmp_path / name).peer for name in fresh(there).names]
        there.start(*there.names).until(lambda: there.rounds() > 1)
        last = max(peer.expires for peer in first)
        there.until(lambda: (datetime.now(UTC) - last).total_seconds() > 3.0)
        rounds = there.rounds()
        there.until(lambda: there.rounds() > rounds + 2)
        assert all(Credentials(tmp_path / peer.name).peer.serial != peer.serial for peer in first)
        assert all(len(lines(there, name, "connected")) == 1 for name in there.names)
        assert lines(there, COORDINATOR, "disconnected") == lines(there, COORDINATOR, "refused") == []


def shown(there):
    done = subprocess.run([*COMMAND, "status", "--home", str(there.home)], capture_output=True, text=True, check=True)
    return " ".join(done.stdout.split())


def test_a_site_that_is_not_renewed_is_cut_off_when_its_certificate_expires_and_says_why(tmp_path):
    with endless(tmp_path, LIFE_S) as there:
        there.start(COORDINATOR).until_said(COORDINATOR, "listening")
        fresh(there).start(*there.names).until(lambda: there.rounds() > 1)
        (there.home / PKI / ISSUING).chmod(0o640)  # a key that others may read is not used
        lost, why = there.names[0], f"site '{there.names[0]}' is denied: its certificate has expired."
        there.until(lambda: lines(there, COORDINATOR, "not renewed"))
        there.until(lambda: why in [line["said"] for line in lines(there, COORDINATOR, "disconnected")])
        there.until(lambda: why in [site["cut"] for site in standing(there.home).sites()])
        assert f"{lost} was cut off: {why}" in shown(there)
        there.until(lambda: there.processes[lost].poll() is not None)
        last = lines(there, lost, "error")[-1]
        assert (there.processes[lost].returncode, last["code"]) == (2, "FL500")
        assert "ask for a new token, and come back with --token" in last["said"]


def test_a_site_that_is_denied_is_cut_off_at_once_and_both_sides_say_why(tmp_path):
    with endless(tmp_path, 3600.0) as there:
        there.start().until(lambda: there.rounds() > 1)
        lost, why = there.names[0], f"site '{there.names[0]}' is denied: it left the study."
        there.authority.deny(lost, "it left the study")
        there.until(lambda: why in [line["said"] for line in lines(there, COORDINATOR, "disconnected")])
        there.until(lambda: why in [site["cut"] for site in standing(there.home).sites()])
        there.until(lambda: there.processes[lost].poll() is not None)
        assert why in lines(there, lost, "error")[-1]["said"]
