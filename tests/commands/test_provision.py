import os
import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from fedloom.commands.provision import command
from fedloom.core.errors import ConfigError
from fedloom.runtime.authority import Authority
from fedloom.runtime.enrolment import prepare_enrolment
from fedloom.runtime.joining import Token

cli = typer.Typer()
cli.command()(command)


def run(*words):
    told = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    assert told.exit_code == 0, told.output
    return told


def tokens(told):
    return dict(re.findall(r"^(\S+) +(fedloom1:\S+)$", told.stdout, re.MULTILINE))


def test_tokens_are_printed_whole_and_serve(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    told = run(tmp_path / "home", "--host", "fl.example", "--site", "north", "--site", "south", "--hours", 2)
    found = tokens(told)
    assert list(found) == ["north", "south"]
    assert "good for 2 hours" in told.stdout
    assert Authority(tmp_path / "home").enrol(prepare_enrolment(tmp_path / "north", found["north"]))["version"] == 1
    assert f"{tmp_path / 'home' / 'pki' / 'root' / 'key.pem'} is the root key: move it" in told.stderr
    assert "fedloom join APP --server fl.example:PORT --as NAME" in told.stderr
    assert "fedloom approve APP --home DIR" in told.stderr
    assert "fedloom relay" not in told.stderr


def test_a_relay_is_told_to_relay_and_not_to_join(tmp_path):
    told = run(tmp_path / "home", "--host", "fl.example", "--relay", "east=relay.example").stderr
    assert "fedloom relay APP --server fl.example:PORT --as NAME --listen 0.0.0.0:PORT --home DIR --token TOKEN" in told
    assert "fedloom join" not in told


def test_more_sites_are_invited_later(tmp_path):
    home = tmp_path / "home"
    first = run(home, "--host", "fl.example", "--site", "north")
    root = (home / "pki" / "root.pem").read_bytes()
    second = run(home, "--site", "east")
    assert (home / "pki" / "root.pem").read_bytes() == root
    assert Token.of(tokens(first)["north"]).root == Token.of(tokens(second)["east"]).root
    assert list(tokens(second)) == ["east"]
    assert "is the authority for fl.example; its issuing certificate is good until 20" in run(home).stderr


def test_a_site_is_denied_and_invited_again_and_each_time_the_next_step_is_said(tmp_path):
    home = tmp_path / "home"
    run(home, "--host", "fl.example", "--site", "north")
    told = run(home, "--deny", "north=left = for good").stderr
    assert "north is let in no more: neither with its certificate nor with a token. If it is to come back:" in told
    assert f"fedloom provision {home} --allow north --site north" in told
    with pytest.raises(ConfigError, match="denied: left = for good"):
        run(home, "--site", "north")
    told = run(home, "--allow", "north", "--site", "north")
    assert (
        "To come back, north deletes pki in its folder (a relay: above/pki), and joins with the token below"
        in told.stderr
    )
    assert tokens(told)
    run(home, "--deny", "north")
    told = run(home, "--allow", "north").stderr
    assert "north is denied no more, and its old keys and tokens stay shut out." in told
    assert f"joins with a token of: fedloom provision {home} --site north (a relay: --relay north=HOST)" in told


def test_a_relay_is_invited_and_later_another_with_the_root_key(tmp_path):
    home = tmp_path / "home"
    told = run(home, "--host", "fl.example", "--relay", "east=east.example")
    assert Token.of(tokens(told)["east"]).role == "relay"
    with pytest.raises(ConfigError, match="need a new issuing certificate: --root-key"):
        run(home, "--relay", "west=west.example")
    told = run(home, "--relay", "west=west.example", "--root-key", home / "pki" / "root" / "key.pem")
    assert "The issuing certificate is new" in told.stderr
    assert Token.of(tokens(told)["west"]).name == "west"
    assert tokens(run(home, "--relay", "east=east.example"))


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--host", "other.example"], "to change hosts, give --root-key"),
        (["--life", "48"], "--life was said when"),
        (["--relay", "east"], "--relay is NAME=HOST"),
        (["--site", "a b"], "cannot be a party's name"),
        (["--deny", "nroth"], "was never invited"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path, words, match):
    run(tmp_path / "home", "--host", "fl.example")
    with pytest.raises(ConfigError, match=match):
        run(tmp_path / "home", *words)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--site", "aach", "--site", "cöln"], "'cöln' cannot be a party's name"),
        (["--relay", "öst=relay.example"], "'öst' cannot be a party's name"),
        (["--site", "north", "--hours", "0"], "good for more than 0 and at most 720 hours, got 0"),
        (["--site", "north", "--hours", "nan"], "good for more than 0 and at most 720 hours, got nan"),
    ],
)
def test_whom_nobody_can_invite_is_refused_before_keys_are_made(tmp_path, words, match):
    with pytest.raises(ConfigError, match=match):
        run(tmp_path / "home", "--host", "fl.example", *words)
    assert os.listdir(tmp_path) == []


def test_a_new_federation_needs_a_host(tmp_path):
    with pytest.raises(ConfigError, match="give --host"):
        run(tmp_path / "home", "--site", "north")
    assert os.listdir(tmp_path) == []


def test_without_the_library_the_command_names_the_extra(tmp_path):
    code = (
        "import sys; from pathlib import Path; sys.modules['cryptography'] = None\n"
        "from fedloom.commands.provision import command\n"
        "from fedloom.core.errors import MissingExtra\n"
        f"try: command(Path({str(tmp_path / 'home')!r}), ['fl.example'])\n"
        "except MissingExtra as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "pip install 'fedloom[network]'" in done.stdout
    assert os.listdir(tmp_path) == []
