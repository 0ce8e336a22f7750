"""A tree of relays has the bits of a flat federation, whatever names go up, and however often one is killed."""

import random
import socket
import subprocess
import time
from dataclasses import replace
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
from wired import COMMAND, free_port, slow, surroundings

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
            thread.join(30)
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
            process.wait(drawn.uniform(1.0, 4.0) if len(kills) < KILLS and not over.is_set() else 60)
        except subprocess.TimeoutExpired:
            process.kill()
            kills.append(process.wait())
            continue
        finally:
            process.kill()
            process.wait()
        return


def test_kill_9_of_a_relay_at_any_instant_changes_no_bit(tmp_path):
    path = slow(tmp_path, sites=4, rounds=40, seconds=0.1)
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


def test_names_that_stay_here_and_weights_by_name_do_not_fit(tmp_path):
    loaded = load(written(tmp_path, FEDAVG, "app.toml"))
    given = replace(loaded.app.strategy, weights=Given(dict.fromkeys(SITES, 1.0)))
    named = replace(loaded, app=replace(loaded.app, strategy=given))
    relaying = Relaying(name="east", home=tmp_path, server=("localhost", 1), sites=2, names="number")
    with pytest.raises(ConfigError, match="weights are given by name"):
        relay(named, relaying, "127.0.0.1", 0)


@pytest.mark.parametrize(("name", "value"), [("names", "hash"), ("sites", 0), ("deadline_s", 0.0)])
def test_settings_that_mean_nothing_are_refused(tmp_path, name, value):
    good = {"name": "east", "home": tmp_path, "server": ("localhost", 1), "sites": 2}
    with pytest.raises(ConfigError, match=str(value)):
        Relaying(**good | {name: value})
