"""Federations over real sockets: identities on the loopback address, and coordinators and sites as real processes."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from threading import Thread

import numpy as np
from sqlalchemy import NullPool, create_engine

from fedloom.core.errors import DataError
from fedloom.core.hidden import Identity
from fedloom.core.task import Evaluate, Evaluated, ask_all
from fedloom.data import data_folder
from fedloom.runtime.authority import Authority
from fedloom.runtime.channel import peer_at
from fedloom.runtime.credentials import Credentials
from fedloom.runtime.enrolment import finish_enrolment, prepare_enrolment
from fedloom.runtime.keys import PKI, ROOT, write_private
from fedloom.runtime.net.desk import Desk
from fedloom.runtime.net.door import Door
from fedloom.runtime.net.hall import Hall
from fedloom.runtime.net.kept import Kept
from fedloom.runtime.net.reception import Reception
from fedloom.runtime.net.site import Site
from fedloom.runtime.net.spool import Spool
from fedloom.runtime.provisioning import SETTINGS, Settings, provision
from fedloom.store.dispatches import Dispatches
from fedloom.store.journal import opened_engine
from fedloom.store.notes import Notes
from fedloom.store.runs import listed, opened

HOST = "127.0.0.1"
COMMAND = [sys.executable, "-c", "from fedloom.cli import main; main()"]
COORDINATOR = "coordinator"
LOOK_S = 0.01
APP = """\
import dataclasses
import pathlib
import sys
import time

import numpy as np

import fedloom

drawn = np.random.default_rng(1)
inputs = drawn.normal(size=(240, {features})).astype(np.float32)
targets = (inputs[:, 0] + 0.5 * inputs[:, 1] + 0.3 * drawn.normal(size=240) > 0).astype(np.int64)
trained = []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slow(fedloom.{kind}):
    def train(self, *args, **kwargs):
        trained.append(self)
        {does}
        return super().train(*args, **kwargs)


app = fedloom.App(
    model=fedloom.BuiltIn(name="logistic"),
    data=fedloom.Data(source=fedloom.Arrays(inputs, targets, 2), partition=fedloom.Iid({sites}), holdout=0.25),
    strategy=dataclasses.replace(fedloom.{recipe}(), {changes}),
    rounds={rounds},
)
"""
SCAFFOLD = "local=Slow(sgd=fedloom.sgd(0.05))"


def slow(
    folder,
    *,
    sites=3,
    rounds=30,
    features=6,
    seconds=0.004,
    kind="Scaffold",
    recipe="scaffold",
    changes=SCAFFOLD,
    does="",
):
    """Write an app whose sites take their time, with a memory at each site; return its path.

    `does` is what they do instead, in lines of Python: `trained` has as many elements as a process was asked to train.
    """
    does = does.replace("\n", "\n        ") or f"time.sleep({seconds})"
    text = APP.format(
        sites=sites, rounds=rounds, features=features, does=does, kind=kind, recipe=recipe, changes=changes
    )
    (folder / "slow.py").write_text(text)
    return folder / "slow.py"


def clients(number):
    """Return the names that `Iid` gives."""
    return tuple(f"client-{i:03d}" for i in range(number))


def authority(home, **changes):
    """Return the authority of a new federation on the loopback address."""
    provision(home, [HOST, "localhost"], **changes)
    return Authority(home)


def enrolled(there, home, name, role="site", **invited):
    """Return the credentials of a party that was invited and has enrolled, and the token that it used."""
    token = there.invite(name, role, **invited)
    write_private(home / PKI / ROOT, (there.home / PKI / ROOT).read_bytes())
    finish_enrolment(home, token, there.enrol(prepare_enrolment(home, token)))
    return Credentials(home), token


def free_port():
    """Return a port that the system chose, for a coordinator that is to come back to it."""
    with socket.create_server((HOST, 0)) as taken:
        return taken.getsockname()[1]


def surroundings():
    """Return the environment of a process in another folder: one thread, and the data sets if they are here."""
    try:
        return os.environ | {"OMP_NUM_THREADS": "1", "FEDLOOM_DATA": str(data_folder())}
    except DataError:
        return os.environ | {"OMP_NUM_THREADS": "1"}


def simulated(app, folder):
    """Run an app in one process, as `fedloom run`; return its last event."""
    words = [*COMMAND, "run", str(app), "--json", "--out", str(folder / "simulated"), "--engine", "sequential"]
    done = subprocess.run(words, cwd=folder, env=surroundings(), capture_output=True, check=True, timeout=120)
    return json.loads(done.stdout.splitlines()[-1])


@dataclass
class Federated:
    """A coordinator and its sites as processes; use it as a context, which leaves none of them behind.

    Args:
        folder: of everything.
        app: the app's file.
        names: of the sites.
        options: of `fedloom serve`, beyond those that it needs.
        through: site -> port where it calls; by default the coordinator's own.
        life_s: seconds that certificates of sites are good.
        homes: of sites that do not lie where they were made.
        commands: what is started instead of `fedloom`, by name: one that dies at an instant, say.
    """

    folder: Path
    app: Path
    names: tuple[str, ...]
    options: tuple[str, ...] = ()
    through: dict[str, int] = field(default_factory=dict)
    life_s: float | None = None
    commands: dict[str, list[str]] = field(default_factory=dict)
    homes: dict[str, Path] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        self.home = self.folder / COORDINATOR
        self.authority = authority(self.home, relay_hosts=["relay.example"])
        if self.life_s is not None:  # shorter than `provision` allows
            settings = Settings.read(self.home / PKI)
            shorter = replace(settings, life_h=self.life_s / 3600)
            write_private(self.home / PKI / SETTINGS, shorter.content())
        for name in self.names:
            home = self.folder / name
            _, self.tokens[name] = enrolled(self.authority, home, name)
            (home / "policy.toml").write_text('approval = "any"\n')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            process.kill()
            process.wait()

    def start(self, *who):
        """Start these, or all; what they say goes to files, as much of it as there is."""
        for name in who or (COORDINATOR, *self.names):
            words = self._serve() if name == COORDINATOR else self._join(name)
            with (self.folder / f"{name}.out").open("a") as out, (self.folder / f"{name}.err").open("a") as err:
                self.processes[name] = subprocess.Popen(
                    [*self.commands.get(name, COMMAND), *words],
                    cwd=self.folder,
                    stdout=out,
                    stderr=err,
                    env=surroundings(),
                )
        return self

    def _serve(self):
        listen = ("--listen", f"{HOST}:{self.port}", "--home", str(self.home), "--sites", str(len(self.names)))
        return ("serve", str(self.app), *listen, "--json", *self.options)

    def _join(self, name):
        server = f"{HOST}:{self.through.get(name, self.port)}"
        return (
            "join",
            str(self.app),
            "--server",
            server,
            "--as",
            name,
            "--home",
            str(self.homes.get(name, self.folder / name)),
        )

    def kill(self, name):
        """SIGKILL, and start it again at once with the same words; nothing happens to one that has ended well."""
        process = self.processes[name]
        if process.poll() is not None:
            return False
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.start(name)
        return True

    def said(self, name):
        """Return what a process has said so far on stderr."""
        return (self.folder / f"{name}.err").read_text()

    def until(self, true, timeout_s=60.0):
        """Wait until something is true; the deadline is a failure that shows what everybody said.

        It counts its own looks, not the clock: a machine that stands still for a while is not late.
        """
        for _ in range(int(timeout_s / LOOK_S)):
            if true():
                return
            time.sleep(LOOK_S)
        tails = [f"--- {name}\n" + self.said(name)[-1500:] for name in self.processes]
        raise AssertionError(f"not within {timeout_s} s\n" + "\n".join(tails))

    def until_said(self, name, words, timeout_s=60.0):
        """Wait until a process has said something."""
        self.until(lambda: words in self.said(name), timeout_s)

    def rounds(self):
        """Return how many rounds the coordinator has told of."""
        out = self.folder / f"{COORDINATOR}.out"
        return sum('"event": "round"' in line for line in out.read_text().splitlines()) if out.exists() else 0

    def ended(self, timeout_s=90.0):
        """Wait until all have ended well; return the coordinator's last event."""
        polled = lambda: [process.poll() for process in self.processes.values()]  # noqa: E731
        self.until(lambda: None not in polled() or any(polled()), timeout_s)
        codes = {name: process.returncode for name, process in self.processes.items()}
        assert set(codes.values()) == {0}, (codes, {name: self.said(name)[-2000:] for name in codes})
        return json.loads((self.folder / f"{COORDINATOR}.out").read_text().splitlines()[-1])

    @property
    def runs(self):
        """The folder of the coordinator's runs."""
        return self.home / "runs"

    def row(self):
        """Return the only run there."""
        (row,) = listed(self.runs)
        return row

    def events(self):
        """Return what the journal has of each round."""
        _, journal = opened(self.runs, "last")
        with closing(journal):
            return journal.rounds()

    def log(self):
        """Return the log of dispatches."""
        url = f"sqlite:///{self.runs / self.row().run / 'journal.db'}"
        return Dispatches(create_engine(url, poolclass=NullPool))  # holds nothing open

    def asked(self):
        """Return pairs of a dispatch number and the round that it was asked in."""
        with closing(sqlite3.connect(self.runs / self.row().run / "journal.db")) as journal:
            return journal.execute("SELECT number, round FROM asked").fetchall()

    def consistent(self):
        """Every counted dispatch was accepted once, the rounds add up to the log, and no site waits for anything."""
        log, highest = self.log(), 1_000_000
        accepted = [number for row in log.accepted(range(highest)) for number in row.numbers]
        assert len(accepted) == len(set(accepted))
        assert log.open() == []
        counted = {number for number, yes in log.verdicts(range(1, max(accepted) + 1)).items() if yes}
        assert counted <= set(accepted)
        events = self.events()
        assert [event["round"] for event in events] == list(range(1, len(events) + 1))
        assert sum(event["counted"] for event in events) == len(counted)
        for name in self.names:
            with closing(Notes(self.folder / name / "runs" / self.row().run / "site.db")) as notes:
                assert notes.waiting() == []
        return counted


@cache
def identities(names):
    """Return an authority on the loopback address, and the credentials of these sites, made once."""
    folder = Path(mkdtemp(prefix="identities-"))
    there = authority(folder / COORDINATOR)
    return there, {name: enrolled(there, folder / name, name)[0] for name in names}


@dataclass(eq=False)
class Settled:
    """A federation whose `settle` returns when every party has heard of it, so that a test can look."""

    inner: Kept
    start: np.ndarray

    def members(self):
        return self.inner.members()

    def now(self):
        return self.inner.now()

    def send(self, tasks, ask=None):
        return self.inner.send(tasks, ask)

    def receive(self, ask, timeout_s):
        return self.inner.receive(ask, timeout_s)

    def cancel(self, ask):
        self.inner.cancel(ask)

    def backing(self):
        return self.inner.backing()

    def settle(self, numbers):
        self.inner.settle(numbers)
        names = [member.name for member in self.members()]
        assert all(
            isinstance(reply.body, Evaluated) for reply in ask_all(self.inner, names, Evaluate(self.start), 30.0)
        )


@contextmanager
def networked(there):
    """Yield the federation of a `Small` with its parties behind sockets, each in a thread with its own connection."""
    members = list(there.federation.members())
    trusted, credentials = identities(tuple(member.name for member in members))
    layouts = {layout.digest: layout for layout in (there.terms.total, there.terms.payload)}
    with TemporaryDirectory() as name, ExitStack() as held:
        folder = Path(name)
        hall = Hall("run", layouts, room=there.terms.total.cohort, roster=members)
        engine = opened_engine(f"sqlite:///{folder / 'log.db'}")
        held.callback(engine.dispose)
        log, own = Dispatches(engine), Credentials(trusted.home)
        reception = Reception(
            hall,
            trusted.denied,
            lambda peer, who: None,
            trusted.renew,
            log.verdicts,
            lambda who: Spool(folder / "in" / who, 1 << 20, claimed=True),
            "digest",
        )
        door = Door(reception, own.server_context(), own.sign, None)
        port = door.open(HOST, 0)
        directory = {name: one.peer.key for name, one in credentials.items()}
        for name, party in there.parties.items() if there.strategy.gather.hides else ():
            party.identity = Identity(name, hall.backing().run, credentials[name].sign, directory)
        sites = [_site(there, member, credentials[member.name], port, folder, held) for member in members]
        threads = [Thread(target=site.live, daemon=True) for site in sites]
        for thread in threads:
            thread.start()
        with hall.changed:
            assert hall.changed.wait_for(
                lambda: sum(seat.settled for seat in hall.seats.values()) == len(members), 30.0
            )
        try:
            yield Settled(Kept(hall, log), there.state.vector)
        finally:
            door.close("completed", "the test is over", 20.0)
            for thread in threads:
                thread.join(20.0)
        assert not any(thread.is_alive() for thread in threads)


def _site(there, member, credentials, port, folder, held):
    home, trainer = folder / member.name, there.parties[member.name]

    def desk(run):
        notes = Notes(home.with_suffix(".db"))
        held.callback(notes.close)
        return Desk(trainer, trainer, notes, Spool(home / "in", 1 << 20), Spool(home / "out", 1 << 20), lambda n: None)

    return Site(
        member.name,
        "digest",
        (member,),
        desk,
        (HOST, port),
        credentials.client_context,
        lambda sock: peer_at(sock, "coordinator"),
        credentials.sign,
    )
