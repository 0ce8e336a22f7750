"""How fast models travel: a federation over mutual TLS beside raw sockets and gRPC streams, in one run.

    python benchmarks/network.py [--mb 1,50,400] [--sites 4] [--rounds 8] [--grpc PYTHON] [--peers PYTHON]

Four client processes on loopback take the model, add a constant, and send it back; nothing is trained. The references
move the same bytes and do nothing else: plain sockets with a thread for each client, and gRPC (asyncio, a stream of
chunks of 1 MiB each way) without TLS and with the mutual TLS of the same certificates, if `--grpc` names a Python that
has grpcio. `--peers` names a Python that has Flower: a SuperLink and four SuperNodes, without TLS, and an app that does
the same; its server is the SuperLink with the processes that it starts.

Seconds a round are medians after one round to warm up. Processor seconds are those of a round after the first: the
coordinator's own, then of all processes together. Memory is what the coordinator held at most of its own (RssAnon),
above what it held before the first round, in models.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).parent / "network_parts"
PEER_ROUNDS = 4  # each starts a process for every message, which takes seconds
FEDLOOM = [str(Path(sys.executable).with_name("fedloom"))]


@contextmanager
def started(command: Sequence[str], **options: object) -> Iterator[subprocess.Popen[str]]:
    """Yield a process that is gone afterwards."""
    process = subprocess.Popen(command, text=True, bufsize=1, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class Watched:
    """What processes use: the first one's largest RssAnon, and the processor seconds of it and of all of them."""

    def __init__(self, pid: int) -> None:
        self.pids, self.before, self.most, self.over = [pid], 0, 0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.marks: list[tuple[float, float, float]] = []

    def _watch(self) -> None:
        while not self.over.wait(0.02):
            self.most = max(self.most, self.now())

    def now(self) -> int:
        """Return the present RssAnon in bytes, with that of the processes that it has started."""
        return sum(anonymous(pid) for pid in family(self.pids[0]))

    def begin(self) -> None:
        """Look from now on."""
        self.before = self.now()
        self.thread.start()

    def round(self) -> None:
        """Note what was used up to the end of a round; the last one may find processes gone, and is left out then."""
        with suppress(OSError):
            used = [sum(map(processor_s, family(pid))) for pid in self.pids]
            self.marks.append((time.perf_counter(), used[0], sum(used)))

    def models(self, size: int) -> float:
        """Stop looking, and return the difference in models."""
        self.over.set()
        return (self.most - self.before) / size

    def processor(self) -> tuple[float, float]:
        """Return processor seconds of a round after the first: the first process's, and all of them."""
        first, last = self.marks[0], self.marks[-1]
        rounds = len(self.marks) - 1
        return (last[1] - first[1]) / rounds, (last[2] - first[2]) / rounds


def family(pid: int) -> list[int]:
    """Return a process and all that it has started, and they have."""
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return [pid]
    return [pid, *(member for child in children for member in family(child))]


def anonymous(pid: int) -> int:
    """Return a process's RssAnon in bytes; 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"RssAnon:\s+(\d+) kB", text)
    return int(found.group(1)) * 1024 if found else 0


def processor_s(pid: int) -> float:
    """Return the processor seconds that a process has used, and children of it that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """Seconds of each round, the server's memory in models, and processor seconds a round: its own, and all."""

    seconds: list[float]
    memory: float
    own_s: float
    all_s: float

    def row(self, mb: int, said: str, moved: int) -> str:
        """Return the row of the table; `moved` is how many bytes a round moves."""
        middle = statistics.median(self.seconds[1:])
        rate = moved / middle / 1e6
        return (
            f"| {mb} | {said} | {middle:.3f} | {rate:,.0f} | {self.own_s:.3f} | {self.all_s:.3f} | {self.memory:.1f} |"
        )


def fedloom(folder: Path, size: int, sites: int, rounds: int) -> Measured:
    """Return what the rounds of a federation take."""
    app, names = str(HERE / "app.py"), [f"client-{at:03}" for at in range(sites)]
    environment = {**os.environ, "VALUES": str(size // 4), "SITES": str(sites), "ROUNDS": str(rounds)}
    invited = [part for name in names for part in ("--site", name)]
    told = subprocess.run(
        [*FEDLOOM, "provision", str(folder / "home"), "--host", "localhost", *invited],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    tokens = {name: re.search(rf"(\S+:site:{name}:\S+)", told.stdout + told.stderr).group(1) for name in names}  # type: ignore[union-attr]
    with ExitStack() as stack:
        serve = [*FEDLOOM, "serve", app, "--home", str(folder / "home"), "--listen", "localhost:0"]
        coordinator = stack.enter_context(
            started(
                [*serve, "--sites", str(sites), "--json"],
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
        assert coordinator.stdout is not None
        assert coordinator.stderr is not None
        port = re.search(r"listening.*?localhost:(\d+)", coordinator.stderr.readline()).group(1)  # type: ignore[union-attr]
        threading.Thread(
            target=shutil.copyfileobj, args=(coordinator.stderr, (folder / "serve.log").open("w", 1)), daemon=True
        ).start()
        watched = Watched(coordinator.pid)
        for name in names:
            home = folder / name
            home.mkdir()
            (home / "policy.toml").write_text('approval = "any"\nsmallest_cohort = 1\n')
            join = [*FEDLOOM, "join", app, "--server", f"localhost:{port}", "--as", name, "--home", str(home)]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": (folder / f"{name}.log").open("w")}
            site = stack.enter_context(started([*join, "--token", tokens[name]], env=environment, **quiet))
            watched.pids.append(site.pid)
        watched.begin()
        for event in map(json.loads, coordinator.stdout):
            if event.get("event") == "round":
                watched.round()
        seconds = [after[0] - before[0] for before, after in pairwise(watched.marks)]  # the state is saved in them too
    return Measured(seconds, watched.models(size), *watched.processor())


def reference(kind: str, python: str, folder: Path, size: int, sites: int, rounds: int) -> Measured:
    """Return what the rounds of a reference that only moves bytes take."""
    script = str(HERE / ("sockets.py" if kind == "sockets" else "streams.py"))
    given = [str(size), str(sites), str(rounds), kind, str(folder / "home" / "pki")]
    with ExitStack() as stack:
        server = stack.enter_context(started([python, script, "server", "0", *given], stdout=subprocess.PIPE))
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        watched = Watched(server.pid)
        watched.begin()
        for at in range(sites):
            own = [str(size), str(sites), str(rounds), kind, str(folder / f"client-{at:03}" / "pki")]
            watched.pids.append(stack.enter_context(started([python, script, "client", port, *own])).pid)
        seconds = []
        for line in server.stdout:
            seconds.append(float(line))
            watched.round()
    return Measured(seconds, watched.models(size), *watched.processor())


def flower(python: str, folder: Path, size: int, sites: int, rounds: int) -> Measured:
    """Return what the rounds of a Flower deployment take: `network_parts/flower`."""
    here, (link_port, *ports) = Path(python).parent, free_ports(1 + sites)
    home, timed = folder / "flwr", folder / "flower.seconds"
    home.mkdir()
    where = f'address = "127.0.0.1:{link_port}"\ninsecure = true\n'
    (home / "config.toml").write_text(f'[superlink]\ndefault = "bench"\n\n[superlink.bench]\n{where}')
    timed.touch()
    said = {"stdout": (folder / "flower.log").open("w"), "stderr": subprocess.STDOUT}
    paths = {"PATH": f"{here}:{os.environ['PATH']}", "FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0"}
    said["env"] = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | paths
    local = ["--insecure", "--host", "127.0.0.1", "--port"]
    config = f"rounds={rounds} sites={sites} values={size // 4} seconds='{timed}'"
    with ExitStack() as stack:
        link = stack.enter_context(started([str(here / "flower-superlink"), *local, str(link_port)], **said))
        answering(link_port)
        watched = Watched(link.pid)
        for port in ports:
            node = [str(here / "flower-supernode"), *local, str(port), "--superlink", f"127.0.0.1:{link_port}"]
            watched.pids.append(stack.enter_context(started(node, **said)).pid)
        subprocess.run([str(here / "flwr"), "run", str(HERE / "flower"), "bench", "-c", config], check=True, **said)  # type: ignore[call-overload]
        watched.begin()
        seconds: list[float] = []
        while len(seconds) < rounds:
            time.sleep(0.01)
            if len(lines := timed.read_text().splitlines()) > len(seconds):
                seconds = [float(line) for line in lines]
                watched.round()
        measured = Measured(seconds, watched.models(size), *watched.processor())
        end([member for pid in watched.pids for member in family(pid)])
    return measured


def free_ports(count: int) -> list[int]:
    """Return ports that the system chooses."""
    with ExitStack() as held:
        return [held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


def answering(port: int, timeout_s: float = 120.0) -> None:
    """Wait until somebody listens there."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.2)
    raise SystemExit(f"nobody listens on port {port}.")


def end(pids: Sequence[int]) -> None:
    """End these processes, which others have started."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def references(grpc: str | None) -> list[tuple[str, str, str]]:
    """Return what is measured beside: its kind, its name, and the Python that it runs in."""
    there = [("sockets", "sockets, no TLS", sys.executable)]
    if grpc is not None:
        there += [("plain", "gRPC, no TLS", grpc), ("tls", "gRPC, mutual TLS", grpc)]
    return there


def main() -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", default="1,50,400", help="sizes of the model")
    parser.add_argument("--sites", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--grpc", help="a Python with grpcio")
    parser.add_argument("--peers", help="a Python with Flower")
    parser.add_argument("--alone", action="store_true", help="without the references")
    parser.add_argument("--folder", help="where bodies are kept; by default a temporary folder")
    asked = parser.parse_args()
    print("| MB | what | s a round | MB/s | processor s, server | and all | memory, models |\n|" + "---|" * 7)
    for mb in [int(part) for part in asked.mb.split(",")]:
        size = mb * 1_000_000 // 4 * 4
        with tempfile.TemporaryDirectory(dir=asked.folder) as name:
            rows = {"fedloom, mutual TLS": fedloom(Path(name), size, asked.sites, asked.rounds)}
            for kind, said, python in () if asked.alone else references(asked.grpc):
                rows[said] = reference(kind, python, Path(name), size, asked.sites, asked.rounds)
            if asked.peers and not asked.alone:
                rows["Flower, no TLS"] = flower(
                    asked.peers, Path(name), size, asked.sites, min(asked.rounds, PEER_ROUNDS)
                )
        for said, measured in rows.items():
            print(measured.row(mb, said, 2 * asked.sites * size), flush=True)


if __name__ == "__main__":
    began = time.time()
    main()
    print(f"\n{time.time() - began:.0f} s in all")
