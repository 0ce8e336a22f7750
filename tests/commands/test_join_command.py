"""`fedloom serve`, `join` and `relay` that are stopped say so once, and can go on."""

import json
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, closing

import pytest

from fedloom.relay import ABOVE
from fedloom.runtime.keys import PKI
from wired import COMMAND, HOST, authority, enrolled, surroundings

pytestmark = pytest.mark.slow

OPTIONS = {"join": (), "relay": ("--listen", f"{HOST}:0")}


def stopped(folder, command, waits, how):
    """Run and end a command of a party that has enrolled."""
    _, home = party(folder, command)
    return ended(folder, command, home, waits, how)


def party(folder, command):
    """Let a site or a relay enrol; return the folder of the coordinator above, and its own."""
    there, home = authority(folder / "above", relay_hosts=["relay.example"]), folder / "home"
    if command == "join":
        enrolled(there, home, "client-000")
    else:
        authority(home)
        enrolled(there, home / ABOVE, "client-000", "relay", hosts=["relay.example"])
    return folder / "above", home


def ended(folder, command, home, waits, how, *more):
    """Run a command until it has said what it waits for, and end it; return its code and its last lines."""
    words = ("--server", f"{HOST}:1", "--as", "client-000", "--home", str(home), *OPTIONS[command], *more)
    err = folder / "err"
    with (
        err.open("w") as to,
        subprocess.Popen([*COMMAND, command, "demo", *words], stderr=to, env=surroundings(), cwd=folder) as process,
    ):
        try:
            while process.poll() is None and f'"{waits}"' not in err.read_text():
                time.sleep(0.05)
            process.send_signal(how)
            code = process.wait(30)
        finally:
            process.kill()
    return code, [json.loads(line) for line in err.read_text().splitlines() if line.startswith("{")]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("command", "waits"), [("join", "away"), ("relay", "waiting")])
def test_who_is_stopped_ends_with_130_and_has_not_crashed(tmp_path, command, waits, how):
    code, lines = stopped(tmp_path, command, waits, how)
    assert code == 130, lines
    assert {line["level"] for line in lines} == {"info"}
    assert lines[-1]["event"] == ("stopped" if how == signal.SIGINT else "ended")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["join", "relay"])
def test_who_calls_for_the_first_time_and_is_stopped_ends_the_same_way(tmp_path, command, how):
    there = authority(tmp_path / "above", relay_hosts=["relay.example"])
    home = tmp_path / "home"
    if command == "relay":
        authority(home)
    role = {"join": ("site", []), "relay": ("relay", ["relay.example"])}[command]
    token = there.invite("client-000", role[0], hosts=role[1])
    code, lines = ended(tmp_path, command, home, "away", how, "--token", token)
    assert code == 130, lines
    assert [line["event"] for line in lines[-2:]] == ["away", "stopped"]
    assert "Connection refused; calling again in " in lines[0]["said"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_coordinator_that_waits_and_is_stopped_says_so(tmp_path, how):
    home, err = tmp_path / "coordinator", tmp_path / "err"
    authority(home)
    with ExitStack() as held:
        process = started(held, err, ("serve", "demo", "--home", home, "--listen", f"{HOST}:0"))
        until(lambda: '"waiting"' in err.read_text())
        process.send_signal(how)
        assert process.wait(30) == 130
    last = json.loads(err.read_text().splitlines()[-1])
    assert (last["event"], last["said"]) == ("stopped", "serve again to go on")


def test_who_calls_before_the_coordinator_is_there_enrols_once_it_is(tmp_path):
    home = tmp_path / "coordinator"
    token = authority(home).invite("client-000")
    with closing(socket.create_server((HOST, 0))) as free:
        port = free.getsockname()[1]
    site, err = tmp_path / "site", tmp_path / "err"
    joins = ("join", "demo", "--server", f"{HOST}:{port}", "--as", "client-000", "--home", site, "--token", token)
    serves = ("serve", "demo", "--home", home, "--listen", f"{HOST}:{port}", "--log", tmp_path / "log")
    with ExitStack() as held:
        started(held, err, joins)
        until(lambda: '"away"' in err.read_text())
        started(held, tmp_path / "out", serves)
        until(lambda: '"connected"' in err.read_text())


def started(held, err, words):
    """Start a command, which is killed at the end; return its process."""
    to = held.enter_context(err.open("w"))
    process = subprocess.Popen([*COMMAND, *map(str, words)], stderr=to, env=surroundings(), cwd=err.parent)
    held.callback(process.wait)
    held.callback(process.kill)
    return process


def until(true, timeout_s=60.0):
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_sites_are_told_that_a_coordinator_which_waits_for_others_was_stopped(tmp_path):
    home, out = tmp_path / "coordinator", tmp_path / "out"
    token = authority(home).invite("client-000")
    serves = ("serve", "demo", "--home", home, "--listen", f"{HOST}:0", "--sites", "2")
    with ExitStack() as held:
        process = started(held, out, serves)
        until(lambda: '"listening"' in out.read_text())
        (address,) = [json.loads(line)["address"] for line in out.read_text().splitlines() if '"listening"' in line]
        joins = ("join", "demo", "--server", address, "--as", "client-000", "--home", tmp_path / "site")
        started(held, tmp_path / "err", (*joins, "--token", token))
        until(lambda: '"connected"' in (tmp_path / "err").read_text())
        process.send_signal(signal.SIGTERM)
        until(lambda: '"away"' in (tmp_path / "err").read_text())
    lines = [json.loads(line) for line in (tmp_path / "err").read_text().splitlines()]
    paused, away = [line for line in lines if line["event"] in ("paused", "away")][:2]
    assert paused["said"] == "it was stopped before the run had begun; calling until the coordinator is back"
    assert away["server"] == address


@pytest.mark.parametrize(
    ("who", "key"),
    [(who, key) for who in ("serve", "join", "relay", "above") for key in ("identity.pem", "tls.pem")]
    + [(who, "issuing.pem") for who in ("serve", "relay")],
)
def test_a_key_that_others_may_read_is_refused_before_anybody_calls(tmp_path, command, who, key):
    top, home = party(tmp_path, who)
    home = top if who == "serve" else home
    exposed = (home / ABOVE if who == "above" else home) / PKI / key
    exposed.chmod(0o644)
    words = {"serve": ("--listen", f"{HOST}:0"), "join": OPTIONS["join"]}.get(who, OPTIONS["relay"])
    named = () if who == "serve" else ("--server", f"{HOST}:1", "--as", "client-000")
    told = command("relay" if who == "above" else who, "demo", "--home", home, *named, *words)
    (line,) = [json.loads(line) for line in told.err.splitlines()]
    assert (told.code, line["said"]) == (
        2,
        f"{exposed} may be read by others (mode 644); if nobody has: chmod 600 {exposed}",
    )
