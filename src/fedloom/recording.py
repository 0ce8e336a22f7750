"""A recorded run: the rounds of an app, journaled as they close, with the model written at the end."""

import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .core.errors import ConfigError, FedloomError, QuorumLost, StorageError
from .core.layout import MODEL, Vector
from .core.state import State
from .core.tree import Tree
from .digest import described, digest
from .events import end_event, round_event
from .training import Training

if TYPE_CHECKING:
    from .record import Recorder
    from .store.journal import Ending, Journal, RunRow

MODEL_FILE, PREPARATION_FILE, REPORT_FILE = "model.safetensors", "preparation.json", "report.html"
RECORD_KEY, RECORD_FOLDER = "record.pem", "record"
AHEAD = 1 << 22  # bytes: a smaller model is written before a thread has begun
MOST = 128  # rounds that wait to be saved: what a fast run keeps in memory does not grow with its speed


@dataclass(eq=False)
class Recording:
    """A run with a folder.

    Args:
        simulation: what trains.
        state: to go on from.
        folder: of the run; None records nothing.
        journal: in that folder.
        save_every_s: how long a crash may throw a run back, and no more than 128 rounds; they are run again, to the
            same bits.
        summary: the run's last event, once it has ended.
        record: the signed record; None where nothing is recorded.
        waits: may a state wait to be saved for `catch_up`, or else for the end of the next round?
        broken: what it has failed or stopped for.
        patient: may those who are missing come back? Then a lost quorum stops the run, where it would fail it.
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
    patient: bool = False
    broken: Exception | None = None
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
        except Exception as error:
            self.broken = error
            if isinstance(error, StorageError) or (self.patient and isinstance(error, QuorumLost) and not error.final):
                raise self._stopped(error) from error
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

    def _stopped(self, error: FedloomError) -> FedloomError:
        """Stop for what is no matter of the run, such as this machine's disk or absent sites: it can go on later."""
        why = str(error).rstrip(".")
        how = "serve`, with the words that began it," if self.patient else f"resume {self.run}`"
        reason = f"after round {self.state.round}, since {why}; nothing is lost, and `fedloom {how} goes on"
        self.state = self.state.but(status="stopped", reason=reason)
        with suppress(StorageError):
            self._end(self.state)
        return type(error)(f"stopped {reason}.")

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
        late = time.monotonic() - self._saved_at >= self.save_every_s or len(self._events) >= MOST
        return state.delta is not None or late

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
            self.record.keep()
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
