"""`fedloom join` and `fedloom relay` that are stopped say so once, and can go on."""

import json
import signal
import subprocess
import time

import pytest

from fedloom.relay import ABOVE
from wired import COMMAND, HOST, authority, enrolled, surroundings

pytestmark = pytest.mark.slow

OPTIONS = {"join": (), "relay": ("--listen", f"{HOST}:0")}


def stopped(folder, command, waits, how):
    """Run a command until it has said what it waits for, and end it; return its code and its last lines."""
    there = authority(folder / "above", relay_hosts=["relay.example"])
    home = folder / "home"
    if command == "join":
        enrolled(there, home, "client-000")
    else:
        authority(home)
        enrolled(there, home / ABOVE, "client-000", "relay", hosts=["relay.example"])
    words = ("--server", f"{HOST}:1", "--as", "client-000", "--home", str(home), *OPTIONS[command])
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
