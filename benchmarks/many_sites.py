"""One coordinator and many sites: memory, processor time, seconds a round, and whether anybody starves.

    python benchmarks/many_sites.py [--idle 500] [--active 200] [--rounds 12]

The coordinator is `fedloom serve` in its own process. The sites are doubles: threads that speak the real protocol with
real certificates over real connections, and answer with an update that was made beforehand, so that the two cores are
the coordinator's as far as possible. Of all of them `active` are drawn each round.
"""

import argparse
import json
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from blake3 import blake3

from fedloom.core.metrics import Metrics
from fedloom.core.task import Evaluated, Ready, Trained
from fedloom.core.update import weigh
from fedloom.load import load
from fedloom.runtime.authority import Authority
from fedloom.runtime.channel import peer_at
from fedloom.runtime.credentials import Credentials
from fedloom.runtime.enrolment import finish_enrolment, prepare_enrolment
from fedloom.runtime.identity import verify
from fedloom.runtime.keys import PKI, ROOT, write_private
from fedloom.runtime.net.codec import reply_tree
from fedloom.runtime.net.line import Line, LineLost
from fedloom.runtime.net.reception import PROTOCOL
from fedloom.runtime.net.talk import Channel, Chunk
from fedloom.runtime.provisioning import provision
from fedloom.store.files import dump

APP = """\
import dataclasses
import numpy as np
import fedloom

source = fedloom.Arrays(np.random.default_rng(0).normal(size=({rows}, 100)), np.arange({rows}) % 2, classes=2)
app = fedloom.App(
    model=fedloom.BuiltIn(name="logistic"),
    data=fedloom.Data(source=source, partition=fedloom.Iid({sites}), holdout=0.25),
    strategy=dataclasses.replace(fedloom.fedavg(cohort={active}), weights=fedloom.Equal()),
    rounds={rounds},
    evaluate_every={rounds},
    evaluate_sites=10,
)
"""


DOOR = threading.Semaphore(16)


@dataclass
class Double:
    """A site that has nothing to do but to answer."""

    name: str
    home: Path
    waits: list[float] = field(default_factory=list)
    ended: bool = False

    def live(self, port: int, loaded: object) -> None:
        """Call, and answer until the coordinator says that it is over."""
        while not self.ended:
            with suppress(LineLost, OSError):
                self._call(port, loaded)
            time.sleep(random.uniform(0.2, 1.0))

    def _call(self, port: int, loaded: object) -> None:
        """Call; only few at a time, since the door has places for 32 strangers from one address."""
        credentials = Credentials(self.home)
        DOOR.acquire()
        entering = ExitStack()
        entering.callback(DOOR.release)
        with (
            entering,
            socket.create_connection(("localhost", port), 60) as raw,
            closing(credentials.client_context().wrap_socket(raw, server_hostname="localhost")) as sock,
        ):
            key = peer_at(sock, "coordinator").key
            channel = Channel(Line(sock), credentials.sign, lambda s, m: verify(key, s, m), False).open()
            mine = {"app": loaded.identity, "members": [[self.name, 6]], "process": self.name}  # type: ignore[attr-defined]
            channel.send("hello", protocol=PROTOCOL, **mine)
            self._answer(channel, loaded, entering)

    def _answer(self, channel: Channel, loaded: object, entering: ExitStack) -> None:
        run, begun = "", {}
        while not self.ended:
            said = channel.receive(5.0)
            if said is None:
                channel.send("beat")
            elif isinstance(said, Chunk):
                continue
            elif said["kind"] == "welcome":
                run = said["run"]
                entering.close()
                channel.send("pending", run=run, numbers=[])
            elif said["kind"] == "task":
                content = answer(said, loaded)
                digest = blake3(content).hexdigest()
                if said["body"]["task"] == "train":
                    begun[said["key"]] = time.perf_counter()
                channel.send("offer", run=run, keys=[said["key"]], digest=digest, size=len(content), seconds=0.0)
                channel.send_chunk(digest, 0, content)
            elif said["kind"] == "receipt":
                self.waits += [time.perf_counter() - begun.pop(key) for key in said["keys"] if key in begun]
            elif said["kind"] == "end":
                channel.send("bye", leaving=True)
                self.ended = True


MADE: dict[object, bytes] = {}


def answer(task: dict[str, object], loaded: object) -> bytes:
    """Return an encoded answer, made once for each kind."""
    kind, room = task["body"]["task"], task["room"]  # type: ignore[index]
    if (kind, room) not in MADE:
        app = loaded.app  # type: ignore[attr-defined]
        total = app.strategy.payload(app.built.layout).weighted(room)
        bodies = {
            "train": lambda: Trained(
                weigh(np.full(total.size - 1, 0.001, np.float32), total, 1.0), Metrics({"examples": 6, "loss": 1.0})
            ),
            "evaluate": lambda: Evaluated(Metrics({"examples": 2, "loss": 1.0})),
            "prepare": lambda: Ready(6, 2),
        }
        MADE[kind, room] = dump(reply_tree(bodies[kind]()))
    return MADE[kind, room]


def main() -> None:
    """Run the federation and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idle", type=int, default=500)
    parser.add_argument("--active", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=12)
    asked = parser.parse_args()
    sites = asked.idle + asked.active
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = APP.format(rows=8 * sites, sites=sites, active=asked.active, rounds=asked.rounds)
        (folder / "app.py").write_text(text)
        began = time.perf_counter()
        doubles = enrolled(folder, sites)
        print(f"{sites} certificates in {time.perf_counter() - began:.1f} s", flush=True)
        served(folder, doubles, asked.rounds)


def enrolled(folder: Path, sites: int) -> list[Double]:
    """Return sites that have enrolled with a new authority."""
    provision(folder / "home", ["localhost"])
    there, made = Authority(folder / "home"), []
    for at in range(sites):
        double = Double(f"client-{at:03}", folder / f"site-{at}")
        token = there.invite(double.name)
        write_private(double.home / PKI / ROOT, (there.home / PKI / ROOT).read_bytes())
        finish_enrolment(double.home, token, there.enrol(prepare_enrolment(double.home, token)))
        made.append(double)
    return made


def served(folder: Path, doubles: list[Double], rounds: int) -> None:
    """Serve them, and print the table."""
    command = [str(Path(sys.executable).with_name("fedloom")), "serve", str(folder / "app.py"), "--json"]
    command += ["--home", str(folder / "home"), "--listen", "localhost:0", "--sites", str(len(doubles))]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1)
    try:
        port = listening(folder / "log")
        began, loaded = time.perf_counter(), load(str(folder / "app.py"))
        threading.stack_size(256 << 10)
        threads = [threading.Thread(target=one.live, args=(port, loaded), daemon=True) for one in doubles]
        for thread in threads:
            thread.start()
        watched, memory, seconds, cpu = psutil.Process(process.pid), 0.0, [], []
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "round":
                if not seconds:
                    print(f"first round closed {time.perf_counter() - began:.1f} s after the first call", flush=True)
                memory = max(memory, watched.memory_info().rss / 1e6)
                cpu.append(sum(watched.cpu_times()[:2]))
                seconds.append(event["seconds"])
            else:
                print(f"{event['status']}: {event['reason']}")
        for thread in threads:
            thread.join(30)
    finally:
        process.kill()
        process.wait()
    waits = [statistics.median(one.waits) for one in doubles if one.waits]
    worst = max(max(one.waits) for one in doubles if one.waits)
    print("| sites | active | s a round | coordinator's CPU s a round | RSS MB | median wait s | longest wait s |")
    print("|---|---|---|---|---|---|---|")
    each = (cpu[-1] - cpu[0]) / (len(cpu) - 1)
    figures = (statistics.median(seconds[1:]), each, memory, statistics.median(waits), worst)
    active = sum(len(one.waits) for one in doubles) / len(doubles)
    print(f"| {len(doubles)} | {active:.1f} answers each | " + " | ".join(f"{figure:.3g}" for figure in figures) + " |")


def listening(log: Path) -> int:
    """Return the port, once it is open."""
    for _ in range(600):
        found = re.search(r"listening.*?localhost:(\d+)", log.read_text())
        if found:
            return int(found.group(1))
        time.sleep(0.1)
    raise SystemExit(log.read_text())


if __name__ == "__main__":
    main()
