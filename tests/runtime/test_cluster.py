"""Ray: the sequential engine's bits, whatever dies on the way, and nothing left of it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import fedloom
from fedloom import ConfigError, Custom, Needs, Sync
from fedloom.core.errors import MissingExtra
from fedloom.data import holds
from fedloom.engines import Engine
from fedloom.running import begin, resume
from fedloom.runtime import session
from fedloom.simulation import simulate
from test_engines import SGD, STRATEGIES, app_of, last, norm_net

# Ray leaves open files to the collector, and Python says so in threads and destructors of its own.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def ray():
    """One Ray for all tests here, on this machine: its start takes seconds."""
    session.join("")
    yield session.package()
    session.leave()


def below(parent=None):
    """Return the processes that this one, or another, has started."""
    return [p for p in psutil.Process(parent).children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]


def desks():
    return [p for p in below() if p.name().startswith("ray::Desk")]


def gone(processes, seconds=20.0):
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not alive


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r'pip install "fedloom\[ray\]"'):
        simulate(app_of(fedloom.fedavg()), engine="ray")


@pytest.mark.slow
def test_an_address_where_nobody_answers_is_refused_at_once():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(ConfigError, match=f"nobody answers at 127.0.0.1:{port} "):
        simulate(app_of(fedloom.fedavg()), engine=f"ray@127.0.0.1:{port}")
    assert time.monotonic() - began < 10


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_ray_has_the_same_bits(ray, name):
    app = app_of(STRATEGIES[name])
    one, many = last(app, "sequential"), last(app, "ray")
    assert many.vector.tobytes() == one.vector.tobytes()
    assert many.metrics.view() == one.metrics.view()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "factory"),
    [
        (replace(fedloom.fedavg(SGD), stages=(fedloom.Clip(1.0), fedloom.Quantize(8))), None),
        (fedloom.fedbn(SGD), norm_net),
    ],
    ids=["stages", "home"],
)
def test_stages_and_home_leaves_have_the_same_bits(ray, strategy, factory):
    app = app_of(strategy, *([factory] if factory else []))
    assert last(app, "ray").vector.tobytes() == last(app, "sequential").vector.tobytes()


@pytest.mark.slow
def test_parties_that_are_built_when_asked_have_the_same_bits(ray, monkeypatch):
    data = fedloom.Data(source=fedloom.SklearnSet("digits"), partition=fedloom.Iid(30))
    app = fedloom.App(
        model=fedloom.BuiltIn(name="logistic"), data=data, strategy=fedloom.scaffold(SGD, cohort=5), rounds=4
    )
    expected = last(app, "sequential")
    monkeypatch.setattr(holds, "MANY", 2)
    found = last(replace(app, evaluate_sites=10), "ray")
    assert found.vector.tobytes() == expected.vector.tobytes()


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_its_clients_run_again(ray, capfd):
    app, vectors = app_of(fedloom.fedavg(SGD), rounds=4), []
    with closing(simulate(app, engine="ray")) as there:
        for state in there.rounds(there.first()):
            vectors.append(state.vector)
            desks()[0].kill()
    assert vectors[-1].tobytes() == last(app, "sequential").vector.tobytes()
    assert capfd.readouterr().out == ""  # which programs read


def largest(app):
    """Return the client with the most training rows, and how many: nobody else has so many."""
    sizes = {name: rows.train_size for name, rows in simulate(app).held.items()}
    name = max(sizes, key=sizes.get)
    assert list(sizes.values()).count(sizes[name]) == 1
    return name, sizes[name]


def custom(function, rounds, **schedule):
    return app_of(replace(fedloom.fedavg(), local=Custom(function=function), schedule=Sync(**schedule)), rounds=rounds)


@pytest.mark.slow
def test_a_client_that_ends_its_worker_is_alone_at_fault(ray):
    name, size = largest(app_of(fedloom.fedavg()))

    def deadly(params, data, config):
        if data.size == size:
            os.kill(os.getpid(), signal.SIGKILL)
        return {name: value + 1 for name, value in params.items()}

    state = last(custom(deadly, 1, quorum=1), "ray")
    assert [(f.site, f.phase, f.error) for f in state.record.faults] == [(name, "train", "WorkerDied")]
    assert state.record.faults[0].message == "its Ray worker was lost: ActorDiedError, twice"
    assert len(state.record.counted) == 5


@pytest.mark.slow
def test_a_deadline_ends_the_work_itself(ray, tmp_path):
    name, size = largest(app_of(fedloom.fedavg()))

    def slow(params, data, config):
        if config["round"] == 1 and data.size == size:
            (tmp_path / str(os.getpid())).touch()
            time.sleep(600)
        return params

    with closing(simulate(custom(slow, 2, quorum=1, deadline_s=5.0), engine="ray")) as there:
        first, second = there.rounds(there.first())
        slept = [int(path.name) for path in tmp_path.iterdir()]
        assert slept
        assert gone([p for p in below() if p.pid in slept])
    assert name in {fault.site for fault in first.record.faults}
    assert second.record.faults == ()


@pytest.mark.slow
def test_closing_ends_the_workers_and_leaves_a_ray_that_others_use(ray):
    there = simulate(app_of(fedloom.fedavg()), engine="ray")
    workers = desks()
    assert len(workers) == 2
    there.close()
    assert gone(workers)
    assert ray.is_initialized()


@pytest.mark.slow
def test_nothing_listens_beyond_this_machine_and_nobody_is_told(ray):
    listening = {
        c.laddr.ip for p in [psutil.Process(), *below()] for c in p.net_connections() if c.status == psutil.CONN_LISTEN
    }
    assert listening
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    told = {p.environ().get("RAY_USAGE_STATS_ENABLED") for p in below() if p.name() in ("raylet", "gcs_server")}
    assert told == {"0"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("needs", "says"),
    [
        (
            Needs(clients={"client-003": Needs(cpus=500)}),
            r"client-003 needs 500 CPUs, and the Ray cluster has \d+ CPUs?",
        ),
        (Needs(gpus=64), r"client-000 needs 1 CPU, 64 GPUs, and the Ray cluster has"),
        (Needs(memory="900TB"), r"client-000 needs 1 CPU, 9e\+05 GB of memory, and the Ray cluster has"),
    ],
)
def test_a_need_that_no_machine_meets_is_refused_before_the_run(ray, needs, says):
    with pytest.raises(ConfigError, match=says):
        simulate(replace(app_of(fedloom.fedavg()), needs=needs), engine="ray")
    assert not desks()


@pytest.mark.slow
def test_workers_reserve_what_clients_need(ray):
    cpus = int(ray.cluster_resources()["CPU"])
    needs = Needs(cpus=0.5, clients={"client-001": Needs(cpus=cpus)})
    with closing(simulate(replace(app_of(fedloom.fedavg()), needs=needs), engine="ray")) as there:
        assert len(there.federation.workers) == 1
    half = replace(app_of(fedloom.fedavg()), needs=Needs(cpus=0.5))
    with closing(simulate(half, engine="ray")) as there:
        assert len(there.federation.workers) == min(6, 2 * cpus)


class Unreadable:
    """Travels, but cannot be built where it arrives."""

    def __call__(self, params, data, config):
        return params

    def __reduce__(self):
        return int, ("not a number",)


@pytest.mark.slow
def test_a_worker_that_cannot_begin_says_why(ray):
    app = app_of(replace(fedloom.fedavg(), local=Custom(function=Unreadable())))
    with pytest.raises(ConfigError, match="a worker cannot begin on the Ray cluster: ValueError: invalid literal"):
        simulate(app, engine="ray")
    assert gone(desks())


@pytest.mark.slow
def test_what_cannot_travel_says_why(ray):
    hold = socket.socket()
    with hold:
        app = app_of(replace(fedloom.fedavg(), local=Custom(function=lambda params, data, config: hold and params)))
        with pytest.raises(ConfigError, match=r"cannot be sent to a Ray cluster: .*'socket'"):
            simulate(app, engine="ray")


@pytest.mark.slow
def test_a_resumed_run_takes_ray_again(ray, tmp_path):
    app = app_of(fedloom.fedavg(SGD))
    with closing(begin(app, tmp_path, engine="ray")) as recording:
        next(recording.rounds())
    with closing(resume(app, recording.folder)) as again:
        assert again.simulation.engine == Engine("ray", 0)
        *_, state = again.rounds()
    assert state.vector.tobytes() == last(app, "sequential").vector.tobytes()


APP = """
import time
import fedloom
from beside import plus

def function(params, data, config):
    if config["round"] > {rounds}:
        time.sleep(600)
    return plus(params)

app = fedloom.App(
    model=fedloom.BuiltIn(name="logistic"),
    data=fedloom.Data(source=fedloom.SklearnSet("breast_cancer")),
    strategy=fedloom.fedavg(),
    rounds=3,
)
from dataclasses import replace
app = replace(app, strategy=replace(app.strategy, local=fedloom.Custom(function=function)))
"""
BESIDE = "def plus(params):\n    return {name: value + 1 for name, value in params.items()}\n"


@pytest.fixture
def command(tmp_path):
    """Return what starts the command line elsewhere than the app is: its code has to travel."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "beside.py").write_text(BESIDE)
    (tmp_path / "empty").mkdir()

    def start(rounds, *more):
        (tmp_path / "app" / "mine.py").write_text(APP.format(rounds=rounds))
        fedloom_ = [sys.executable, "-c", "from fedloom.cli import main; main()"]
        words = [*fedloom_, "run", "../app/mine.py", "--json", "--engine", "ray", *more]
        return subprocess.Popen(
            words, cwd=tmp_path / "empty", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return start


@pytest.mark.slow
def test_the_command_line_trains_code_of_ones_own_and_says_nothing_else(command):
    process = command(99)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert [json.loads(line).get("round") for line in out.splitlines()][:3] == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["interrupt", "kill"])
def test_an_end_from_outside_leaves_no_process_behind(command, how):
    process = command(1)
    assert json.loads(process.stdout.readline())["round"] == 1
    started = below(process.pid)
    assert {"raylet", "gcs_server"} <= {p.name() for p in started}
    logs = next(word for p in started for word in p.cmdline() if word.startswith("--log_dir="))[10:]
    session_folder = Path(logs).parents[1]
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    agents = [p for p in started if p.is_running() and p.name().endswith("Agent")]  # see for a minute if a node comes
    assert gone([p for p in started if how == signal.SIGINT or p not in agents], 30)
    if how == signal.SIGINT:
        assert process.returncode == 130, err
        assert not os.path.exists(session_folder)
    for agent in agents:
        with suppress(psutil.NoSuchProcess):
            agent.kill()
    shutil.rmtree(session_folder, ignore_errors=True)
