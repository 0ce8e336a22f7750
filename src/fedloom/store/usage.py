"""How much a site has answered: counters on its own disk, which only grow and know of no clock.

A count is on the disk before the answer that it counts may leave, so that neither a crash nor a restart gives any of
it back: an answer that was counted and then lost stays counted.
"""

from collections.abc import Mapping
from pathlib import Path

from .sqlite import Database

_TABLES = {
    "runs": "app TEXT, run TEXT, PRIMARY KEY (app, run)",
    "spent": "app TEXT, run TEXT, kind TEXT, count INTEGER NOT NULL, PRIMARY KEY (app, run, kind)",
}
_RAISE = """INSERT INTO spent VALUES (?, ?, ?, ?)
    ON CONFLICT (app, run, kind) DO UPDATE SET count = max(count, excluded.count)"""
_LOOK = "SELECT count FROM spent WHERE (app, run, kind) = (?, ?, ?)"


class Usage:
    """What a site has answered in one run of an app; every method is one transaction, written through to the disk.

    Several processes may share the file: nobody else writes between what one of them reads and what it writes.

    Args:
        path: of the site's file with counters, of all apps and runs; it is made where it is missing.
        app: digest of the site's own copy.
        run: as the coordinator names it.

    >>> from tempfile import mkdtemp
    >>> usage = Usage(Path(mkdtemp()) / "usage.db", "the app's digest", "run 1")
    >>> usage.spend("round", most=2), usage.spend("round", most=2), usage.spend("round", most=2)
    (True, True, False)
    >>> usage.close()
    """

    def __init__(self, path: Path, app: str, run: str) -> None:
        self._database = Database(path, "the counters in", _TABLES)
        self._app, self._run, self._begun = app, run, False

    def spent(self, kind: str) -> int:
        """Return how much of a kind has been counted in this run."""
        found = self._database.execute(_LOOK, [self._app, self._run, kind])
        return int(found[0][0]) if found else 0

    def spend(self, kind: str, number: int = 1, most: int | None = None) -> bool:
        """Count so many more, unless that were more than `most`; when it returns, the count survives a power cut."""
        with self._database.together():
            total = self.spent(kind) + number
            if most is not None and total > most:
                return False
            row = [self._app, self._run, kind, total]
            self._database.execute("INSERT OR REPLACE INTO spent VALUES (?, ?, ?, ?)", row)
            return True

    def recall(self, run: str, counts: Mapping[str, int]) -> None:
        """Take in what is known elsewhere of a run of this app: by kind, it was answered at least so often."""
        with self._database.together():
            self._database.execute("INSERT OR IGNORE INTO runs VALUES (?, ?)", [self._app, run])
            for kind, count in counts.items():
                self._database.execute(_RAISE, [self._app, run, kind, count])

    def begin(self, most: int | None = None) -> bool:
        """Count this run among those of its app, unless it is new and there were `most` already."""
        self._begun = self._begun or self._counted(most)  # what was counted stays so
        return self._begun

    def _counted(self, most: int | None) -> bool:
        with self._database.together():
            runs = {run for (run,) in self._database.execute("SELECT run FROM runs WHERE app = ?", [self._app])}
            if self._run in runs:
                return True
            if most is not None and len(runs) >= most:
                return False
            self._database.execute("INSERT INTO runs VALUES (?, ?)", [self._app, self._run])
            return True

    def close(self) -> None:
        """Give the connection back."""
        self._database.close()
