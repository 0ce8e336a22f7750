"""What begins and resumes a run in one process."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .app import App
from .attackers import Attackers
from .core.errors import ConfigError, DigestMismatch, RecordError, RunError, UnknownRun
from .core.needs import Needs
from .core.state import State
from .digest import described, digest
from .modelfile import started_from
from .recording import RECORD_FOLDER, RECORD_KEY, Recording, row_of
from .runtime.traces import Traces
from .runtime.virtual import Virtual
from .simulation import Simulation, simulate
from .training import NETWORK

if TYPE_CHECKING:
    from .record import Recorder
    from .store.journal import Journal, RunRow

TRACES_FILE, ATTACKERS_FILE = "traces.json", "attackers.json"


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
            raise UnknownRun(_served(row))
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


def _served(row: "RunRow") -> str:
    """Return why a run between institutions is not gone on with here, and what does."""
    why = f"the run {row.run} is one between institutions"
    if row.status == "failed":
        return f"{why}, and its sites know that it failed: {row.reason} `fedloom serve` begins a new one."
    return f"{why}; `fedloom serve`, with the words that began it, goes on with it."


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
