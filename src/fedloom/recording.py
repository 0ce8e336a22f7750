"""A recorded run: the rounds of an app, journaled as they close, with the model written at the end."""

import json
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .app import App
from .attackers import Attackers
from .core.errors import ConfigError, DigestMismatch, FedloomError, RecordError, RunError, StorageError, UnknownRun
from .core.layout import MODEL, Vector
from .core.needs import Needs
from .core.state import State
from .core.tree import Tree
from .digest import described, digest
from .events import end_event, round_event
from .modelfile import started_from
from .runtime.traces import Traces
from .runtime.virtual import Virtual
from .simulation import Simulation, simulate
from .training import NETWORK, Training

if TYPE_CHECKING:
    from .record import Recorder
    from .store.journal import Ending, Journal, RunRow

MODEL_FILE, PREPARATION_FILE, REPORT_FILE = "model.safetensors", "preparation.json", "report.html"
TRACES_FILE, ATTACKERS_FILE = "traces.json", "attackers.json"
RECORD_KEY, RECORD_FOLDER = "record.pem", "record"
AHEAD = 1 << 22  # bytes: a smaller model is written before a thread has begun


@dataclass(eq=False)
class Recording:
    """A run with a folder.

    Args:
        simulation: what trains.
        state: to go on from.
        folder: of the run; None records nothing.
        journal: in that folder.
        save_every_s: how long a crash may throw a run back; rounds since are run again, to the same bits.
        summary: the run's last event, once it has ended.
        record: the signed record; None where nothing is recorded.
        waits: may a state wait to be saved for `catch_up`, or else for the end of the next round?
    """

    simulation: Training
    state: State
    folder: Path | None = None
    journal: "Journal | None" = None
    save_every_s: float = 2.0
    summary: dict[str, Any] = field(default_factory=dict)
    held: ExitStack = field(default_factory=ExitStack)
    record: "Recorder | None" = None
    waits: bool = False
    _events: list[dict[str, Any]] = field(default_factory=list)
    _moved: dict[str, Tree] = field(default_factory=dict)
    _saved_at: float = 0.0
    _unsaved: bool = False

    @property
    def run(self) -> str | None:
        """The run's id."""
        return self.folder.name if self.folder else None

    def rounds(self) -> Generator[State, None, None]:
        """Yield the state after each round; however it ends, what was reached is saved and the run has a status."""
        self._saved_at = time.monotonic()
        if self.summary:  # it ended before; who restarts it wants to know how
            yield self.state
            return
        if self.journal is not None:
            self.journal.reopen()
        try:
            for state in self.simulation.rounds(self.state, self._recorded):
                self._close_round(state)
                if state.status == "running":
                    yield state
            self._end(self.state)
        except StorageError as error:  # of this machine, and not of the run: it can go on
            reason = (
                f"after round {self.state.round}, since {str(error).rstrip('.')}; mend that, and go on with the run"
            )
            self.state = self.state.but(status="stopped", reason=reason)
            with suppress(StorageError):
                self._end(self.state)
            raise StorageError(f"stopped {reason}: nothing is lost.") from error
        except Exception as error:
            kind = "" if isinstance(error, FedloomError) else f"{type(error).__name__}: "
            self._end(self.state.but(status="failed", reason=f"{kind}{error}"))
            raise
        except (KeyboardInterrupt, GeneratorExit):
            if self.state.status == "running":
                self._end(self.state.but(status="stopped", reason=f"after round {self.state.round}"))
            elif not self.summary:  # interrupted while the end was written
                self._end(self.state)
            raise
        yield self.state

    def _recorded(self, state: State) -> None:
        """Take a round down in the record; between institutions it is on the disk before a site sees the model."""
        if self.record is not None:
            with self._written_ahead(state):
                self.record.close_round(state)
                if self.record.rows is not None:
                    self.record.flush()

    @contextmanager
    def _written_ahead(self, state: State) -> Iterator[None]:
        """Write a large state's arrays meanwhile, if it is to be saved: hashing leaves the disk alone."""
        if self.journal is None or not self._due(state) or state.vector.nbytes <= AHEAD:
            yield
            return
        with ThreadPoolExecutor(1) as thread:
            written = thread.submit(self.journal.write_ahead, state)
            yield
            written.result()

    def _due(self, state: State) -> bool:
        """Is it to be saved? A noised model is, before anybody sees it: what was shown is never drawn again."""
        return state.delta is not None or time.monotonic() - self._saved_at >= self.save_every_s

    def _close_round(self, state: State) -> None:
        record = state.record
        assert record is not None
        moved = self._moved | self.simulation.moved(set(record.parties))
        events = [*self._events, round_event(state)]
        # Together, so that an interrupt finds a state, events and memories of the same round.
        self.state, self._events, self._moved = state, events, moved
        if state.status == "running" and self._due(state):
            if self.waits and not self._unsaved and state.delta is None:
                self._unsaved = True
            else:
                self.save()
        if self.journal is not None and state.delta is not None:
            self.journal.sync()

    def catch_up(self) -> None:
        """Save what waits for it, while nothing else is to be done."""
        if self._unsaved:
            self.save()

    def save(self, ending: "Ending | None" = None) -> None:
        """Write what a crash must not lose, and how the run ended if it did, in one transaction."""
        if self.record is not None:
            self.record.flush()
        if self.journal is not None:
            memories = {name: memory for name, memory in self._moved.items() if memory is not None}
            self.journal.save(self.state, self._events, memories, ending)
        self._events, self._moved, self._saved_at, self._unsaved = [], {}, time.monotonic(), False

    def _end(self, state: State) -> None:
        self.state = state = self.simulation.priced(state)
        cost = self.simulation.guarantee(state.round)
        said = None if cost is None else cost.figures()
        if self.folder is None:
            self.summary = end_event(state, None, None, None, said)
            return
        from .store.journal import Ending
        from .store.runs import now

        model = str(self.folder / MODEL_FILE)
        digest = write_model(self.simulation, state, self.folder)
        if self.record is not None and state.status != "stopped":
            self.record.end(state.status, digest)
        summary = end_event(state, self.run, model, digest, said)
        self.save(Ending(state.status, state.reason, now(), summary))
        if state.status not in ("stopped", "failed"):
            (self.folder / RECORD_KEY).unlink(missing_ok=True)  # of a run in one process: nobody signs for it any more
        self.summary = summary

    def close(self) -> None:
        """Give the journal and the folder back."""
        if self.record is not None:
            self.record.close()
        self.held.close()

    def deployed(self, site: str | None = None) -> Vector:
        """Return what would be used: the shared model, or a site's personal one where leaves stay home.

        In the model's layout. Raises `ConfigError` for a site that is not there, or that is needed and not named.
        """
        training = self.simulation
        if site is not None:
            return training.personal(site, self.state.vector)
        if not training.terms.payload.only(MODEL).alike(training.model.layout):
            raise ConfigError(f"some leaves stay home, so name the site whose model to use: {training.sites}.")
        return training.shared(self.state.vector)


def write_model(simulation: Training, state: State, folder: Path) -> str:
    """Write the shared model, and what turns rows into its inputs; return the model file's SHA-256."""
    from .store.files import named, write_json, write_parts

    arrays = simulation.model.export(simulation.shared(state.vector))
    shared = {leaf.name for leaf in simulation.terms.payload.leaves if leaf.block == MODEL}
    home = {leaf.name for leaf in simulation.model.layout.leaves} - shared
    parts = named({name: array for name, array in arrays.items() if name not in home}, {"format": "pt"})
    digest = sha256()
    for part in parts:
        digest.update(part)
    write_parts(folder / MODEL_FILE, parts)
    write_json(folder / PREPARATION_FILE, {"statistics": simulation.statistics, "home": sorted(home)})
    return digest.hexdigest()


def begin(
    app: App,
    out: Path | None = None,
    *,
    source: str = "",
    overrides: Sequence[str] = (),
    start: Path | None = None,
    identity: str | None = None,
    engine: str = "sequential",
    traces: Traces | None = None,
    attackers: Attackers | None = None,
) -> Recording:
    """Set a new run up; nothing is written before everything that can be refused has been.

    Args:
        app: what to train; out: where runs live (None records nothing).
        source: the file that the app was read from; overrides: of `--set`; identity: digest of app and file.
        start: a model file to start from instead of initial values.
        engine: "auto", "sequential", "pool", "vectorized", "ray" or "ray@HOST:PORT"; see `fedloom.engines`.
        traces: how long clients take in virtual time; None measures the time that passes here.
        attackers: clients that are hostile; None has none.
    """
    with ExitStack() as held:
        simulation = simulate(app, engine=engine, traces=traces, attackers=attackers)
        held.callback(simulation.close)
        state = simulation.first()
        if start is not None:
            state = started_from(simulation, state, start)
        if out is None:
            return Recording(simulation, state, held=held.pop_all())
        folder, book = _begun(simulation, state, out, held, source, tuple(overrides), identity or app.digest)
        record = recorded(simulation, state, folder, identity or app.digest)
        return Recording(simulation, state, folder, book, held=held.pop_all(), record=record)


def _begun(
    simulation: Simulation,
    state: State,
    out: Path,
    held: ExitStack,
    source: str,
    overrides: tuple[str, ...],
    identity: str,
) -> "tuple[Path, Journal]":
    """Make the run's folder, hold it, and write the journal's first entry."""
    from .store.files import write_whole
    from .store.runs import create, journal, locked

    folder = create(out, simulation.app.name)
    simulation.memories.folder = folder
    held.enter_context(locked(folder))
    if isinstance(simulation.federation, Virtual):
        write_whole(folder / TRACES_FILE, json.dumps(asdict(simulation.federation.traces)).encode())
    if simulation.attackers is not None:
        write_whole(folder / ATTACKERS_FILE, json.dumps(simulation.attackers.tree()).encode())
    book = journal(folder)
    held.callback(book.close)
    book.begin(row_of(simulation, folder.name, source, overrides, identity), state)
    return folder, book


def row_of(
    training: Training, run: str, source: str, overrides: tuple[str, ...] = (), identity: str | None = None
) -> "RunRow":
    """Return what a journal says of a run that begins."""
    from .store.journal import RunRow
    from .store.runs import now
    from .version import __version__

    app = training.app
    return RunRow(
        run=run,
        name=app.name,
        app=source,
        digest=identity or app.digest,
        engine=str(training.engine),
        started=now(),
        version=__version__,
        overrides=overrides,
        held=digest(described(app.data.partition)),
        seed=app.seed,
        summary={},
    )


def resume(app: App, folder: Path, *, identity: str | None = None, ended: bool = False) -> Recording:
    """Set a run up to go on from its last saved state; with `ended`, also one that has nothing left to do.

    Raises `DigestMismatch` if the app has changed, `UnknownRun` if there is nothing to go on with.
    """
    from .store.runs import journal, locked

    with ExitStack() as held:
        held.enter_context(locked(folder))
        book = journal(folder)
        held.callback(book.close)
        row = book.row()
        _continuable(row, app, identity, ended)
        if row.engine == NETWORK and not ended:
            why = f"the run {row.run} is one between institutions"
            raise UnknownRun(f"{why}; `fedloom serve`, with the words that began it, goes on with it.")
        simulation = (
            _at_rest(app)
            if ended
            else simulate(app, engine=row.engine, traces=_traces(folder), attackers=_attackers(folder))
        )
        held.callback(simulation.close)
        saved = book.last()
        if saved is None:
            raise UnknownRun(f"the run {row.run} has no saved state; start it again.")
        simulation.memories.earlier, simulation.memories.folder = book.memory, folder
        record = None if ended else recorded(simulation, saved, folder, row.digest)
        return Recording(simulation, saved, folder, book, held=held.pop_all(), record=record)


def recorded(simulation: Simulation, state: State, folder: Path, digest: str) -> "Recorder | None":
    """Return the recorder of a run in one process, which signs with a key of its own; None without `cryptography`."""
    try:
        from .runtime.keys import kept_identity
    except ModuleNotFoundError:
        return None
    from .record import Recorder
    from .store.checkpoint import Key

    begun = (folder / RECORD_FOLDER).exists()
    if state.round and not begun:
        return None  # a run that was begun without a record
    if begun and not (folder / RECORD_KEY).exists():
        raise RecordError(f"{folder / RECORD_KEY}, which signs the record of this run, is missing; put it back.")
    key = kept_identity(folder / RECORD_KEY)
    name = f"fedloom/simulation/{folder.name}"
    return Recorder.opened(
        simulation, state, folder, digest, (Key(name, key.public_key().public_bytes_raw()), key.sign)
    )


def _traces(folder: Path) -> Traces | None:
    """Return the traces that the run began with; raises `RunError` if they are damaged."""
    path = folder / TRACES_FILE
    if not path.exists():
        return None
    try:
        return Traces(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{path} cannot be read: {error}; it was written when the run began.") from error


def _attackers(folder: Path) -> Attackers | None:
    """Return the attackers that the run began with; raises `RunError` if what was written is damaged."""
    path = folder / ATTACKERS_FILE
    if not path.exists():
        return None
    try:
        return Attackers.of(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, ConfigError) as error:
        raise RunError(f"{path} cannot be read: {error}; it was written when the run began.") from error


def _at_rest(app: App) -> Simulation:
    """Return what an ended run is looked at with: nobody trains, so nothing is needed of the machine."""
    return replace(simulate(replace(app, needs=Needs())), app=app)


def _continuable(row: "RunRow", app: App, identity: str | None, ended: bool) -> None:
    if not ended and row.status in ("completed", "target_reached", "converged"):
        raise UnknownRun(f"the run {row.run} has ended: {row.status}, {row.reason}. There is nothing to resume.")
    if row.digest != (identity or app.digest) or row.held != digest(described(app.data.partition)):
        raise DigestMismatch(
            f"the app {row.app or row.name} has changed since the run {row.run} began; "
            f"restore it, or start a new run with --start-from {row.run}'s model."
        )


def run(
    app: App,
    *,
    out: Path | str | None = None,
    start: Path | str | None = None,
    engine: str = "sequential",
    traces: Traces | None = None,
    attackers: Attackers | None = None,
) -> Iterator[State]:
    """Train an app: yield the state after each round. Evaluation, pictures and checkpoints are ordinary Python.

    Args:
        app: what to train.
        out: the folder where runs are recorded; None records nothing.
        start: a model file to start from.
        engine: "sequential", "pool" or "ray" (the same bits; a running cluster is "ray@HOST:PORT" or "ray@auto"),
            "vectorized" (equal to rounding), or "auto".
        traces: how long clients take in virtual time; None measures the time that passes here.
        attackers: clients that are hostile; None has none.

    The last state has a `status` other than "running". Leaving the loop early stops the run, which can be resumed.
    """
    where, first = (None if path is None else Path(path) for path in (out, start))
    recording = begin(app, where, start=first, engine=engine, traces=traces, attackers=attackers)
    try:
        yield from recording.rounds()
    finally:
        recording.close()
