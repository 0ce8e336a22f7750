"""A federation of processes on this machine: it trains what a simulation trains, and leaves no process behind."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from hashlib import sha256
from urllib.request import urlopen

import psutil
import pytest

from apps import TOML, written
from fedloom.core.errors import ConfigError
from fedloom.load import load
from fedloom.runtime import shared
from fedloom.runtime.directory import directory
from fedloom.runtime.keys import PKI
from fedloom.status import standing
from fedloom.trial import COORDINATOR, HOST, Trial, _begin, _listening, ended, names_of, prepared, running

FEDLOOM = (sys.executable, "-c", "from fedloom.cli import main; main()")
LONG = TOML.replace("rounds = 2", "rounds = 100000")


def hidden(gather):
    """Return an app whose sum is hidden, or the same with a plain one."""
    stages = 'stages = [{ name = "fixed_point", bits = 24 }]'
    return f'{TOML}[strategy]\nname = "fedavg"\ngather = "{gather}"\n{stages}\n'


def until(true, what, timeout_s=60.0):
    """Wait until something is true; the deadline is a failure."""
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


@contextmanager
def tried(folder, app):
    """Start `fedloom try` as a person would; whatever the test finds, nothing of it is left afterwards."""
    with subprocess.Popen(
        [*FEDLOOM, "try", app, "--sites", "3", "--home", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                    each.kill()


def ends(process):
    """Return a process's exit code and what it said."""
    out, err = process.communicate(timeout=90)
    return process.returncode, out, err


def all_of(process):
    """Return the processes of a trial, once all of them are there: a coordinator and three sites."""
    until(lambda: len(psutil.Process(process.pid).children(recursive=True)) == 4, "a coordinator and three sites")
    return psutil.Process(process.pid).children(recursive=True)


def test_names_are_those_of_the_apps_partition(tmp_path):
    loaded = load(written(tmp_path))
    assert names_of(loaded, 2) == ["client-000", "client-001"]
    with pytest.raises(ConfigError, match="divides its data over 3 sites"):
        names_of(loaded, 4)


def test_without_a_number_an_app_of_fewer_sites_than_the_default_is_tried_with_all_of_them(tmp_path):
    for clients, names in ((2, ["client-000", "client-001"]), (5, ["client-000", "client-001", "client-002"])):
        assert names_of(load(written(tmp_path, LONG), [f"clients={clients}"]), None) == names


def test_everything_is_prepared_as_it_is_between_institutions(tmp_path):
    app, folder = written(tmp_path), tmp_path / "trial"
    folder.mkdir()
    trial, tokens = prepared(load(app), app, (), 2, folder)
    assert [token.split(":")[2] for token in tokens] == ["client-000", "client-001"]
    assert (trial.coordinator / PKI / "issuing.pem").is_file()
    for name in trial.names:
        assert [path.suffix for path in (trial.site(name) / "approvals").iterdir()] == [".json"]
        assert not (trial.site(name) / PKI).exists()  # it enrols by itself


@pytest.mark.parametrize("gather", ["secagg", "encrypted"])
def test_for_a_hidden_sum_the_sites_know_one_another(tmp_path, gather):
    app, folder = written(tmp_path, hidden(gather)), tmp_path / "trial"
    folder.mkdir()
    trial, _ = prepared(load(app), app, (), 3, folder)
    homes = [trial.site(name) for name in trial.names]
    assert [set(directory(home)) for home in homes] == [set(trial.names)] * 3
    assert {(home / shared.KEY).exists() for home in homes} == {gather == "encrypted"}
    assert gather == "secagg" or len({shared.read(home) for home in homes}) == 1


def test_too_few_sites_for_a_hidden_sum_are_refused(tmp_path):
    app, folder = written(tmp_path, hidden("secagg")), tmp_path / "trial"
    folder.mkdir()
    with pytest.raises(ConfigError, match="SecAgg needs a cohort of 3 clients or more, got 2"):
        prepared(load(app), app, (), 2, folder)
    assert not list(folder.iterdir())


def test_a_folder_in_use_is_refused(tmp_path):
    app = written(tmp_path)
    with pytest.raises(ConfigError, match="is not empty"):
        prepared(load(app), app, (), 2, tmp_path)


def test_processes_that_do_not_listen_are_killed():
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    assert process.stdout.read(4) == b"deaf"
    ended([process], 0.05)
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("gather", ["secagg", "encrypted"])
def test_it_tries_a_hidden_sum(tmp_path, gather):
    with tried(tmp_path / "trial", written(tmp_path, hidden(gather))) as process:
        code, out, err = ends(process)
    assert (code, "completed" in out) == (0, True), err
    model = standing(tmp_path / "trial" / COORDINATOR).folder / "model.safetensors"
    plain = str(written(tmp_path, hidden("plain"), "plain.toml"))
    alone = subprocess.run(
        [*FEDLOOM, "run", plain, "--json", "--out", str(tmp_path / "runs")], capture_output=True, text=True, check=True
    )
    assert json.loads(alone.stdout.splitlines()[-1])["sha256"] == sha256(model.read_bytes()).hexdigest()


@pytest.mark.slow
def test_it_trains_what_a_simulation_trains_and_says_where_things_lie(tmp_path):
    app = written(tmp_path)
    with tried(tmp_path / "trial", app) as process:
        code, out, err = ends(process)
    assert (code, "completed" in out) == (0, True), err
    seen = standing(tmp_path / "trial" / COORDINATOR)
    model = str(seen.folder / "model.safetensors")
    assert model in out
    assert [site["name"] for site in seen.sites()] == ["client-000", "client-001", "client-002"]
    assert all(site["metrics"][site["name"]]["round"] == 2 for site in seen.sites())
    alone = subprocess.run(
        [*FEDLOOM, "run", app, "--json", "--out", str(tmp_path / "runs")], capture_output=True, text=True, check=True
    )
    with open(model, "rb") as federated, open(json.loads(alone.stdout.splitlines()[-1])["model"], "rb") as simulated:
        assert federated.read() == simulated.read()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_everybody(tmp_path, how):
    home = tmp_path / "trial" / COORDINATOR
    with tried(tmp_path / "trial", written(tmp_path, LONG)) as process:
        children = all_of(process)
        until(lambda: list(home.glob("runs/*/status.json")) and standing(home).closed, "a closed round")
        process.send_signal(how)
        code, _, err = ends(process)
    assert (code, "nothing runs any more" in err) == (130, True), err
    assert not [child for child in children if child.is_running()]
    assert standing(home).status == "stopped"


@pytest.mark.slow
def test_a_site_that_is_lost_ends_it_with_a_reason(tmp_path):
    with tried(tmp_path / "trial", written(tmp_path, LONG)) as process:
        children = all_of(process)
        (site,) = [child for child in children if "client-001" in child.cmdline()]
        site.kill()
        code, _, err = ends(process)
    assert (code, "client-001 ended with exit code -9" in err) == (1, True), err
    assert not [child for child in children if child.is_running()]


@pytest.mark.slow
def test_a_coordinator_tells_its_figures_and_does_not_mind_who_says_nothing(tmp_path):
    app, folder = written(tmp_path, LONG), tmp_path / "trial"
    folder.mkdir()
    trial, tokens = prepared(load(app), app, (), 2, folder)
    with closing(socket.create_server((HOST, 0))) as free:
        metrics = f"{HOST}:{free.getsockname()[1]}"
    try:
        _begin(trial, COORDINATOR, trial.coordinator, "serve", "--listen", f"{HOST}:0", "--metrics", metrics)
        host, port = _listening(trial).split(":")
        anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        socket.create_connection((host, int(port))).close()
        with socket.create_connection((host, int(port))) as raw, anybody.wrap_socket(raw):
            pass
        for name, token in zip(trial.names, tokens, strict=True):
            _begin(
                trial, name, trial.site(name), "join", "--server", f"{host}:{port}", "--as", name, FEDLOOM_TOKEN=token
            )
        until(lambda: standing(trial.coordinator).closed >= 2, "two closed rounds")
        with urlopen(f"http://{metrics}/metrics", timeout=10) as answer:
            told = answer.read().decode()
    finally:
        ended(list(trial.processes.values()))
    lines = [json.loads(line) for line in (trial.coordinator / "log.jsonl").read_text().splitlines()]
    assert [line for line in lines if line["level"] not in ("info", "debug")] == []
    assert {"connected", "round closed"} <= {line["event"] for line in lines}
    assert "fedloom_sites_connected 2.0" in told
    assert 'fedloom_figure{figure="loss"}' in told
    assert trial.processes[COORDINATOR].returncode == 130  # SIGTERM is taken for Ctrl-C, and the run can go on
    assert not any(token in (trial.site(name) / "log.jsonl").read_text() for name in trial.names for token in tokens)


@pytest.mark.slow
def test_who_never_began_to_listen_is_told_with_its_last_words(tmp_path):
    app, folder = written(tmp_path), tmp_path / "trial"
    (folder / COORDINATOR).mkdir(parents=True)
    trial = Trial(app, (), folder, ())
    with pytest.raises(Exception, match="the coordinator does not listen: error FL"), running(trial, ("", "")):
        pass
    assert trial.processes[COORDINATOR].returncode == 2
