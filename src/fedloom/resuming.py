"""Which run in its home a coordinator goes on with, or that it begins a new one."""

from contextlib import closing
from pathlib import Path

from .core.errors import OtherFormat, RunError, UnknownRun
from .load import Loaded
from .store.files import read_json, write_json
from .store.journal import RunRow
from .store.runs import Unread, create, journal, listed, served_again

RUNS = "runs"
APP_FILE, TOLD_FILE = "app.json", "told.json"  # which app a run is of; who knows how it ended
ENDED = ("completed", "target_reached", "converged", "failed")


def folder_of(runs: Path, loaded: Loaded) -> Path:
    """Return the folder of the run to go on with, or a new one's.

    A run that nobody had joined yet is gone on with too, since sites know its id, and one whose end was not told.
    Raises `StorageError` where a run's journal cannot be reached now, and `OtherFormat` where this fedloom does not
    read it: it may be the one.
    """
    mine = [row for row in _listed(runs) if row.digest == loaded.identity]
    open_ = [row.run for row in mine if row.status not in ENDED or not (runs / row.run / TOLD_FILE).exists()]
    named = [path.parent for path in sorted(runs.glob(f"*/{APP_FILE}")) if read_json(path) == loaded.identity]
    unbegun = [path.name for path in named if _unbegun(path)]
    if open_ or unbegun:
        return runs / (open_ or unbegun)[-1]
    folder = create(runs, loaded.app.name)
    write_json(folder / APP_FILE, loaded.identity)
    return folder


def unfinished(home: Path, loaded: Loaded) -> str:
    """Return which run of another version of the app is unfinished in a coordinator's folder; empty if none is."""
    others = [row for row in _listed(home / RUNS) if row.name == loaded.app.name and row.digest != loaded.identity]
    open_ = [row for row in others if row.status not in ENDED]
    if not open_:
        return ""
    with closing(journal(home / RUNS / open_[-1].run)) as book:
        closed = len(book.rounds())
    return (
        f"run {open_[-1].run} of another version of this app is unfinished, after round {closed}; this begins a new "
        f"one. `{served_again(open_[-1], home)}`, with the app as it was then, goes on with it"
    )


def _listed(runs: Path) -> list[RunRow]:
    """Return the runs in a home; one of another format is passed over only where its sites know its end."""
    unread: dict[str, Unread] = {}
    rows = listed(runs, unread)
    for run, error in unread.items():
        if not isinstance(error, OtherFormat) or not (runs / run / TOLD_FILE).exists():
            raise error
    return rows


def _unbegun(folder: Path) -> bool:
    try:
        with closing(journal(folder)) as book:
            book.row()
    except UnknownRun:
        return True
    except RunError:  # it cannot be read
        return False
    return False
