"""A federation on one machine, for trying out: a coordinator and its sites, each a process with a folder of its own.

Nothing is simulated but the distance: keys, tokens, approvals, TLS and journals are the real ones, on loopback.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from time import monotonic, sleep

from .approval import approval_of, leaving, store
from .core.errors import ConfigError, RunError
from .core.parts import Gather
from .core.rng import stream
from .data.holds import holdings
from .gather import Encrypted
from .load import Loaded
from .resuming import RUNS
from .runtime import introduction, shared
from .runtime.authority import Authority
from .runtime.enrolment import finish_enrolment, prepare_enrolment
from .runtime.keys import PKI, ROOT, write_private
from .runtime.net.snapshot import FILE
from .runtime.provisioning import provision
from .store.files import read_json

HOST, COORDINATOR, SITES, LOG, ERR = "127.0.0.1", "coordinator", "sites", "log.jsonl", "stderr.txt"
SITES_TRIED = 3  # by default
BEGIN_S, LEAVE_S, LOOK_S = 60.0, 10.0, 0.1
_FEDLOOM = (sys.executable, "-c", "from fedloom.cli import main; main()")


@dataclass(eq=False)
class Trial:
    """A federation on this machine.

    Args:
        app: what was given to load; overrides: of `--set`.
        folder: where everything lies.
        names: of the sites.
        processes: by name, the coordinator among them, from when they run.
    """

    app: str
    overrides: Sequence[str]
    folder: Path
    names: Sequence[str]
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def coordinator(self) -> Path:
        """The coordinator's folder."""
        return self.folder / COORDINATOR

    def site(self, name: str) -> Path:
        """Return a site's folder."""
        return self.folder / SITES / name

    def lost(self) -> str:
        """Return who has ended though the run goes on, in a sentence; empty if everybody is there."""
        for name, process in self.processes.items():
            if name != COORDINATOR and process.poll():
                return f"{name} ended with exit code {process.returncode}: {self.last(self.site(name))}"
        return ""

    def last(self, home: Path) -> str:
        """Return the last line that somebody said."""
        found = [
            (home / name).read_text(encoding="utf-8").splitlines() for name in (ERR, LOG) if (home / name).exists()
        ]
        return next((lines[-1] for lines in found if lines), "it said nothing")


def prepared(
    loaded: Loaded, app: str, overrides: Sequence[str], sites: int | None, folder: Path
) -> tuple[Trial, list[str]]:
    """Make folders, keys, invitations and approvals; return the trial, and the sites' tokens in order.

    For a hidden sum the sites are enrolled already, and know one another.

    Args:
        loaded: the app; app: what it was loaded from; overrides: of `--set`.
        sites: how many, the first of those that the app's partition knows; None takes `SITES_TRIED`, or all if they
            are fewer.
        folder: an empty one.

    Raises:
        ConfigError: the app's partition has fewer parts, the folder is in use, or the app is for more sites.
    """
    trial = Trial(app, overrides, folder, names_of(loaded, sites))
    if any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty; give a new folder, so that nothing in it is taken for this trial's.")
    strategy = loaded.app.strategy
    strategy.fits(strategy.payload(loaded.app.built.layout).weighted(strategy.cohort(len(trial.names))))
    provision(trial.coordinator, [HOST])
    authority, approval = Authority(trial.coordinator), approval_of(loaded, leaving(loaded.app))
    for name in trial.names:
        trial.site(name).mkdir(parents=True)
        store(trial.site(name), approval)
    tokens = [authority.invite(name) for name in trial.names]
    if strategy.gather.hides:
        _introduced(trial, authority, tokens, strategy.gather)
    return trial, tokens


def _introduced(trial: Trial, authority: Authority, tokens: Sequence[str], gather: Gather) -> None:
    """Enrol the sites, and give each the list of all keys, as people would; for encrypted sums the shared key too."""
    homes = [trial.site(name) for name in trial.names]
    for home, token in zip(homes, tokens, strict=True):
        write_private(home / PKI / ROOT, (trial.coordinator / PKI / ROOT).read_bytes())
        finish_enrolment(home, token, authority.enrol(prepare_enrolment(home, token)))
    keys = introduction.listed(trial.coordinator)
    for home in homes:
        introduction.keep(home, keys)
    if isinstance(gather, Encrypted):
        sealed = {path.stem: path for path in shared.make(homes[0], gather.fresh())}
        for home in homes[1:]:
            shared.opened(home, sealed[home.name])


def names_of(loaded: Loaded, sites: int | None) -> list[str]:
    """Return the first names of an app's own partition; raises `ConfigError` if there are not so many."""
    app = loaded.app
    held = holdings(app.data.source.read(), app.data.partition, app.data.holdout, stream(app.seed, "partition"))
    sites = min(SITES_TRIED, len(held)) if sites is None else sites
    if len(held) < sites:
        raise ConfigError(f"{app.name} divides its data over {len(held)} sites; --sites can be at most that.")
    return list(islice(held, sites))


@contextmanager
def running(trial: Trial, tokens: Sequence[str]) -> Iterator[Trial]:
    """Run a trial's processes; when the block ends, however it ends, none of them is left."""
    try:
        _begin(trial, COORDINATOR, trial.coordinator, "serve", "--listen", f"{HOST}:0", "--sites", str(len(tokens)))
        server = _listening(trial)
        for name, token in zip(trial.names, tokens, strict=True):
            words = ("--server", server, "--as", name)
            _begin(trial, name, trial.site(name), "join", *words, FEDLOOM_TOKEN=token)
        yield trial
    finally:
        ended(list(trial.processes.values()))


def _begin(trial: Trial, name: str, home: Path, command: str, *words: str, **secrets: str) -> None:
    """Start a process in a session of its own: Ctrl-C is for whoever tries, who then ends it in order."""
    changed = [word for override in trial.overrides for word in ("--set", override)]
    with (home / ERR).open("wb") as err:
        trial.processes[name] = subprocess.Popen(
            [*_FEDLOOM, command, trial.app, *changed, "--home", str(home), "--log", str(home / LOG), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=err,
            env=os.environ | secrets,
            start_new_session=True,
        )


def _listening(trial: Trial) -> str:
    """Return the coordinator's address once it listens; raises `RunError` if it does not."""
    until, process = monotonic() + BEGIN_S, trial.processes[COORDINATOR]
    while monotonic() < until and process.poll() is None:
        for path in (trial.coordinator / RUNS).glob(f"*/{FILE}"):
            return str(read_json(path)["listening"])
        sleep(LOOK_S)
    raise RunError(f"the coordinator does not listen: {trial.last(trial.coordinator)}; see {trial.coordinator}.")


def ended(processes: "Sequence[subprocess.Popen[bytes]]", patience_s: float = LEAVE_S) -> None:
    """End processes: ask them, wait a little, then kill them. None is left when this returns.

    Args:
        processes: to be ended.
        patience_s: seconds that all of them together have.
    """
    for process in processes:
        process.terminate()
    until = monotonic() + patience_s
    for process in processes:
        try:
            process.wait(max(0.0, until - monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
