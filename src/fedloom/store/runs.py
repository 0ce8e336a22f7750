"""Where runs live: one folder each, DIR/RUN, with the journal, the model and the report in it."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from logging import getLogger
from pathlib import Path
from shlex import quote

from filelock import FileLock, Timeout

from ..core.errors import ConfigError, OtherFormat, RunError, StorageError, UnknownRun
from .files import write_whole
from .journal import Journal, RunRow, runs_in
from .lock import holding

log = getLogger(__name__)
JOURNAL, ELSEWHERE, LOCK = "journal.db", "journal.url", ".lock"
RELAYED = "relay.json"  # what a run of a relay is
Unread = StorageError | OtherFormat  # why a run is not listed, which is there
MOST_ID, MOST_WORD = 200, 120  # bytes of a run's id, which is a folder's name, and of the app's name in it


def now() -> str:
    """Return the time in UTC, to the millisecond, as text that sorts."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def create(out: Path, name: str) -> Path:
    """Make the folder of a new run and return it; its last part is the run's id, and ids sort by time."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    word = "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-") or "app"
    word = word.encode()[:MOST_WORD].decode(errors="ignore")
    folder = out / f"{stamp}-{word}-{os.urandom(2).hex()}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror}; choose another with --out.") from error
    return folder


def is_id(run: str) -> bool:
    """Can a run be called so? `create` calls all of them so, and sites make a folder of that name.

    >>> is_id("20260101-000000-größe-00ff"), is_id("../x"), is_id("")
    (True, False, False)
    """
    return bool(run) and all(letter.isalnum() or letter in "-_" for letter in run) and len(run.encode()) <= MOST_ID


def journal(folder: Path, database: str | None = None, *, durable: bool = False) -> Journal:
    """Open the journal in a run's folder, or begin it; or the one in a database, whose URL the folder remembers.

    With `durable`, what it saves outlives a power cut.
    """
    elsewhere = folder / ELSEWHERE
    if database is not None:
        write_whole(elsewhere, database.encode(), mode=0o600)  # it may hold a password
    if elsewhere.is_file():
        return Journal(elsewhere.read_text(), run=folder.name, durable=durable)
    return Journal(f"sqlite:///{folder / JOURNAL}", folder, durable=durable)


def has_journal(folder: Path) -> bool:
    """Is there a run in this folder?"""
    return (folder / JOURNAL).is_file() or (folder / ELSEWHERE).is_file()


def found_again(out: Path, database: str, federation: str) -> list[RunRow]:
    """Make folders for a federation's runs in a database that have none here, or only a record: the disk is gone.

    Returns these. Runs of others may lie in the same database, and runs that never began. One of another format does
    not say whose it is, so it is only logged.
    """
    found = [row for run in runs_in(database) if not has_journal(out / run) for row in _begun(database, run)]
    mine = [row for row in found if row.federation == federation]
    for row in mine:
        (out / row.run).mkdir(parents=True, exist_ok=True)
        write_whole(out / row.run / ELSEWHERE, database.encode(), mode=0o600)
    return mine


def _begun(database: str, run: str) -> list[RunRow]:
    """Return the run in a database's schema, if there is one that this fedloom can read."""
    try:
        with closing(Journal(database, run=run)) as book:
            return [book.row()]
    except StorageError:
        raise
    except OtherFormat as error:
        log.warning("left alone", extra={"run": run, "said": str(error)})
        return []
    except RunError:
        return []


def opened(out: Path, run: str) -> tuple[Path, Journal]:
    """Return folder and journal of a run; "last" is the newest. Raises `UnknownRun`, naming those that there are."""
    unread: dict[str, Unread] = {}
    known = [row.run for row in listed(out, unread)]
    if run == "last" and (known or unread):
        run = max([*known[-1:], *unread])
    if run not in known:
        if has_journal(out / run):
            journal(out / run).row()  # raises: it cannot be read or reached, or was never begun
        newest = [*unread, *known][-3:]
        there = f"the newest are {', '.join(newest)}" if newest else "there are none"
        raise UnknownRun(f"there is no run {run!r} in {out}; {there}. `fedloom runs --out DIR` lists them.")
    return out / run, journal(out / run)


def listed(out: Path, unread: dict[str, Unread] | None = None) -> list[RunRow]:
    """Return all runs in `out`, newest last; folders whose journal is damaged are left out.

    Raises `StorageError` where one cannot be reached now, such as in a database that is down, and `OtherFormat` where
    another fedloom wrote it; or `unread` takes these, by run.
    """
    rows = []
    for folder in sorted(path for path in out.glob("*") if has_journal(path)):
        try:
            rows.append(run_in(folder))
        except (StorageError, OtherFormat) as error:
            if unread is None:
                raise
            unread[folder.name] = error
        except RunError:
            continue
    return sorted(rows, key=lambda row: (row.started, row.run))


def run_in(folder: Path) -> RunRow:
    """Return the run in a folder; one that says "running" while nobody runs it was "interrupted"."""
    with closing(journal(folder)) as book:
        row = book.row()
    return replace(row, status="interrupted") if row.status == "running" and free(folder) else row


def served_again(row: RunRow, home: Path) -> str:
    """Return the command that goes on with a run of a coordinator whose folder is `home`."""
    changed = "".join(f" --set {quote(override)}" for override in row.overrides)
    return f"fedloom serve {row.app}{changed} --home {home}"


@contextmanager
def locked(folder: Path, held: str = "") -> Iterator[None]:
    """Hold a folder, so that a run is not continued twice at a time; the lock goes with the process.

    `held` is said where somebody else holds it; by default, that the run of this name goes on there.
    """
    said = held or f"the run {folder.name} is running in another process; wait for it, or stop it."
    with holding(folder / LOCK, said):
        yield


def free(folder: Path) -> bool:
    """Return whether nobody holds a run's folder: its process has ended, or it never began."""
    if not (folder / LOCK).exists():
        return True  # looking leaves nothing behind
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True
