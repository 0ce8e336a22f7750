"""A tree of relays has the bits of a flat federation, whatever names go up, and however often one is killed."""

import random
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, replace
from hashlib import sha256
from threading import Event, Thread

import pytest

from apps import written
from fedloom.core.errors import ConfigError
from fedloom.core.weights import Given
from fedloom.join import Joining, join
from fedloom.load import load
from fedloom.relay import Relaying, relay
from fedloom.runtime.authority import Authority
from fedloom.runtime.net.leases import Leases
from fedloom.runtime.provisioning import provision
from fedloom.serve import Serving, serve
from fedloom.simulation import simulate
from fedloom.status import standing
from wired import COMMAND, COORDINATOR, Federated, free_port, slow, surroundings

pytestmark = pytest.mark.slow

QUICK = Leases(beat_s=1.0)
FEDAVG = 'data = "breast_cancer"\nclients = 4\nrounds = 4\n'
SCAFFOLD = """\
import dataclasses

import fedloom

app = fedloom.App(
    model=fedloom.BuiltIn(name="logistic"),
    data=fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Iid(4)),
    strategy=fedloom.scaffold(cohort=3, sgd=fedloom.sgd(0.05)),
    rounds=6,
)
"""
MEDIAN = SCAFFOLD.replace(
    "strategy=fedloom.scaffold(cohort=3, sgd=fedloom.sgd(0.05))",
    "strategy=dataclasses.replace(fedloom.fedavg(), aggregate=fedloom.Median())",
)
SITES = [f"client-{at:03}" for at in range(4)]


def digest(vector):
    return sha256(vector.tobytes()).hexdigest()


def flat(loaded):
    """Return the model of the same app in one process, which has no network and no relay."""
    *_, last = simulate(loaded.app).rounds(simulate(loaded.app).first())
    return last


def waiting(port):
    """Return when somebody listens there."""
    for _ in range(1200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"nobody listens on {port}")


class Tree:
    """A coordinator, relays and sites in threads of this process, each with its own folder and port."""

    def __init__(self, folder, loaded):
        self.folder, self.loaded, self.threads, self.seen = folder, loaded, [], []
        provision(folder / "top", ["localhost"], relay_hosts=["relay.example"])
        self.coordinator, self.port = serve(loaded, folder / "top", "127.0.0.1", 0, Serving(sites=4, leases=QUICK))

    def begin(self, live):
        thread = Thread(target=live, daemon=True)
        self.threads.append(thread)
        thread.start()

    def relay(self, name, above, port, sites, **changes):
        """Open a relay below the home `above`, which listens on `port`; return its home and port."""
        home = self.folder / name
        provision(home, ["localhost"], relay_hosts=["relay.example"])
        token = Authority(above).invite(name, "relay", hosts=["relay.example"])
        relaying = Relaying(
            name=name, home=home, server=("localhost", port), sites=sites, token=token, leases=QUICK, **changes
        )
        passing, own = relay(self.loaded, relaying, "127.0.0.1", 0)
        self.begin(passing.live)
        return home, own

    def site(self, name, above, port):
        home = self.folder / name
        home.mkdir()
        (home / "policy.toml").write_text('approval = "any"\n')
        token = Authority(above).invite(name)
        joining = Joining(name=name, home=home, server=("localhost", port), token=token)
        self.begin(join(self.loaded, joining, lambda event, /, **values: None).live)

    def ended(self, over=None):
        """Run to the end, and say so with `over`; return the last state and the names that the coordinator knows."""
        with self.coordinator.held:
            recording = self.coordinator.recording(lambda names: None)
            for state in recording.rounds():
                self.seen.append(state.record)
            if over is not None:
                over.set()
            self.coordinator.close(recording.state)
            names = [member.name for member in self.coordinator.hall.roster]
        for thread in self.threads:
            thread.join(150)  # a relay that was killed as it ended waits for its sites once more
            assert not thread.is_alive()
        return recording.state, names


def balanced(folder, loaded, names="pass"):
    tree = Tree(folder, loaded)
    for name, sites in (("east", SITES[:2]), ("west", SITES[2:])):
        home, port = tree.relay(name, folder / "top", tree.port, 2, names=names)
        for site in sites:
            tree.site(site, home, port)
    return tree


@pytest.mark.parametrize(
    ("text", "suffix", "sizes"), [(FEDAVG, "toml", {2}), (SCAFFOLD, "py", {1, 2}), (MEDIAN, "py", {1})]
)
def test_two_relays_of_two_sites_have_the_bits_of_a_flat_federation(tmp_path, text, suffix, sizes):
    loaded = load(written(tmp_path, text, f"app.{suffix}"))
    tree = balanced(tmp_path, loaded)
    state, names = tree.ended()
    expected = flat(loaded)
    assert digest(state.vector) == digest(expected.vector)
    assert state.metrics.view() == expected.metrics.view()
    assert names == SITES
    merged = {len(row.numbers) for row in tree.coordinator.log.accepted(range(1, 100))}
    assert merged == sizes
    assert list(tmp_path.rglob("bodies")) == []  # of updates nothing stays, here and at the relays


def test_numbers_for_names_change_no_bit_where_the_order_is_the_same(tmp_path):
    loaded = load(written(tmp_path, SCAFFOLD, "app.py"))
    state, names = balanced(tmp_path, loaded, "number").ended()
    assert digest(state.vector) == digest(flat(loaded).vector)
    assert names == ["east/0001", "east/0002", "west/0001", "west/0002"]
    files = [path for path in (tmp_path / "top" / "runs").rglob("*") if path.is_file()]
    said = b"".join(path.read_bytes() for path in files)
    assert b"east/0001" in said
    assert all(site.encode() not in said for site in SITES)


def test_a_relay_behind_a_relay_has_the_same_bits(tmp_path):
    loaded = load(written(tmp_path, SCAFFOLD, "app.py"))
    tree = Tree(tmp_path, loaded)
    outer, port = tree.relay("outer", tmp_path / "top", tree.port, 3)
    inner, inner_port = tree.relay("inner", outer, port, 2)
    tree.site(SITES[0], inner, inner_port)
    tree.site(SITES[1], inner, inner_port)
    tree.site(SITES[2], outer, port)
    tree.site(SITES[3], tmp_path / "top", tree.port)
    state, names = tree.ended()
    assert digest(state.vector) == digest(flat(loaded).vector)
    assert names == SITES


KILLS = 6


def killing(words, folder, begun, over, kills):
    """Keep a process running until it ends by itself, and kill it at seeded instants once all has begun."""
    drawn = random.Random(11)
    while True:
        with (folder / "relay.err").open("a") as err:
            process = subprocess.Popen([*COMMAND, *words], cwd=folder, stderr=err, env=surroundings())
        begun.wait(60)
        try:
            process.wait(drawn.uniform(0.8, 2.4) if len(kills) < KILLS and not over.is_set() else 60)
        except subprocess.TimeoutExpired:
            process.kill()
            kills.append(process.wait())
            continue
        finally:
            process.kill()
            process.wait()
        return


def test_kill_9_of_a_relay_at_any_instant_changes_no_bit(tmp_path):
    path = slow(tmp_path, sites=4, rounds=60, seconds=0.1)
    loaded, begun, over, kills, port = load(path), Event(), Event(), [], free_port()
    tree = Tree(tmp_path, loaded)
    home = tmp_path / "east"
    provision(home, ["localhost"])
    token = Authority(tmp_path / "top").invite("east", "relay", hosts=["relay.example"])
    there = ("--home", str(home), "--listen", f"127.0.0.1:{port}", "--sites", "2", "--as", "east", "--token", token)
    words = ("relay", str(path), "--server", f"localhost:{tree.port}", *there)
    tree.begin(lambda: killing(words, tmp_path, begun, over, kills))
    waiting(port)
    for site in SITES[:2]:
        tree.site(site, home, port)
    for site in SITES[2:]:
        tree.site(site, tmp_path / "top", tree.port)
    begun.set()
    state, names = tree.ended(over)
    assert len(kills) >= 3
    assert names == SITES
    assert (state.status, digest(state.vector)) == ("completed", digest(flat(loaded).vector))


@dataclass
class Grove(Federated):
    """A coordinator with one site of its own, and a relay with the others, as processes."""

    def __post_init__(self):
        super().__post_init__()
        self.east, self.below = self.folder / "east", free_port()
        provision(self.east, ["127.0.0.1"])
        token = Authority(self.home).invite("east", "relay", hosts=["relay.example"])
        for name in self.names[1:]:
            Authority(self.home).deny(name, "it is behind east")
            self.tokens[name] = Authority(self.east).invite(name)
            shutil.rmtree(self.folder / name / "pki")
            self.through[name] = self.below
        above, own = ("--server", f"localhost:{self.port}", "--token", token), f"127.0.0.1:{self.below}"
        self.relay = ("relay", str(self.app), *above, "--as", "east", "--listen", own, "--home", str(self.east))

    def _join(self, name):
        if name == "east":
            return self.relay
        return (*super()._join(name), *(("--token", self.tokens[name]) if name in self.through else ()))


DYING = """
import os, pathlib, sys
from fedloom.runtime.net.door import Door

close = Door.close


def die_once(self, status, reason, patience_s=0.0):
    once = pathlib.Path(__file__).with_name("died")
    if "relay" in sys.argv and not once.exists():
        once.touch()
        os.kill(os.getpid(), 9)
    close(self, status, reason, patience_s)


Door.close = die_once
"""


def test_a_relay_that_dies_before_it_has_told_its_sites_of_the_end_tells_them_when_it_is_back(tmp_path):
    app = slow(tmp_path, sites=3, rounds=4, seconds=0.05, kind="Sgd", recipe="fedavg", changes="local=Slow()")
    app.write_text(app.read_text() + DYING)
    with Grove(tmp_path, app, tuple(SITES[:3])) as there:
        there.start(COORDINATOR).until_said(COORDINATOR, "listening")
        there.start("east").until_said("east", "listening")
        there.start(*there.names).until(lambda: there.processes["east"].poll() is not None)
        assert there.processes["east"].returncode == -9
        there.until(lambda: there.processes[COORDINATOR].poll() is not None)  # it is not there any more to be asked
        there.start("east").ended()
        assert standing(there.east).status == "completed"
        assert all('"event": "ended", "status": "completed"' in there.said(name) for name in there.names)


def test_one_behind_a_relay_that_refuses_is_named_above_left_out_and_taken_in_once_it_may(tmp_path):
    app = slow(tmp_path, sites=3, rounds=100_000, seconds=0.05, kind="Sgd", recipe="fedavg", changes="local=Slow()")
    late, why = SITES[2], "nobody has approved this app at this site"
    with Grove(tmp_path, app, tuple(SITES[:3]), ("--least", "2", "--start", "15")) as there:
        (tmp_path / late / "policy.toml").write_text('approval = "required"\n')
        there.start(COORDINATOR).until_said(COORDINATOR, "listening")
        there.start("east").until_said("east", "listening")
        there.start(*there.names).until_said(COORDINATOR, f"{late} does not answer yet: {why}")
        assert f'"site": "east", "party": "{late}", "error": "PolicyRefused"' in there.said(COORDINATOR)
        assert f'"site": "{late}", "party": "{late}", "error": "PolicyRefused"' in there.said("east")
        assert "takes part as soon as it may" in there.said(late)
        there.until(lambda: there.rounds() > 1)  # without it, and the relay's other one takes part
        assert {event["counted"] for event in there.events()} == {2}
        there.until(lambda: why in str(standing(there.home).sites()))
        words = [*COMMAND, "status", "--home", str(there.home)]
        shown = " ".join(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())
        assert "1 of 2 refuse" in shown
        assert f"{late} takes no part yet: {why}" in shown
        assert shown.count(why) == 1
        subprocess.run([*COMMAND, "approve", str(app), "--home", str(tmp_path / late), "--yes"], check=True)
        there.until(lambda: any(event["counted"] == 3 for event in there.events()))
        assert all(process.poll() is None for process in there.processes.values())


def test_names_that_stay_here_and_weights_by_name_do_not_fit(tmp_path):
    loaded = load(written(tmp_path, FEDAVG, "app.toml"))
    given = replace(loaded.app.strategy, weights=Given(dict.fromkeys(SITES, 1.0)))
    named = replace(loaded, app=replace(loaded.app, strategy=given))
    relaying = Relaying(name="east", home=tmp_path, server=("localhost", 1), sites=2, names="number")
    with pytest.raises(ConfigError, match="weights are given by name"):
        relay(named, relaying, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("name", "value"), [("names", "hash"), ("sites", 0), ("deadline_s", 0.0), ("deadline_s", float("inf"))]
)
def test_settings_that_mean_nothing_are_refused(tmp_path, name, value):
    good = {"name": "east", "home": tmp_path, "server": ("localhost", 1), "sites": 2}
    with pytest.raises(ConfigError, match=str(value)):
        Relaying(**good | {name: value})
