"""How a federation stands, at any moment: from the coordinator's folder, or a relay's, whether it runs or not."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .core.errors import RunError, StorageError, UnknownRun
from .resuming import RUNS
from .runtime.net.snapshot import BEAT_S, FILE
from .store.files import read_json
from .store.journal import RunRow
from .store.runs import RELAYED, free, has_journal, journal

LATE_S = 4 * BEAT_S  # a file that is older, while somebody holds the folder, is told to be


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a run stands.

    Args:
        run: its id; name: of the app; folder: of the run.
        serving: is there a coordinator that holds the folder?
        status: "waiting" before the run has begun, "running", "interrupted", or how it ended; reason: a sentence.
        seen: what the coordinator wrote last; empty if it never wrote.
        written: when that was, in UTC; None if it never wrote.
        rounds: events of the closed rounds.
        total: how many rounds there are at most; None where that is not known.
        above: of a relay: the run that it passes on, empty before it has heard of one; None of a coordinator.
        unread: why the journal cannot be read now; then all that is known is what the coordinator wrote last.
    """

    run: str
    name: str
    folder: Path
    serving: bool
    status: str
    reason: str
    seen: Mapping[str, Any]
    written: datetime | None
    rounds: tuple[Mapping[str, Any], ...]
    total: int | None
    above: str | None = None
    unread: str = ""

    @property
    def who(self) -> str:
        """Whose folder it is."""
        return "coordinator" if self.above is None else "relay"

    @property
    def closed(self) -> int:
        """Number of the last closed round; of what a coordinator says and the journal has, whichever is newer."""
        saved = int(self.rounds[-1]["round"]) if self.rounds else 0
        return max(saved, int(self.seen.get("closed", 0))) if self.serving or self.unread else saved

    @property
    def round(self) -> int | None:
        """Number of the open round; None where nobody trains."""
        seen = self.seen.get("round") if self.serving and not self._over else None
        return None if seen is None else max(int(seen), self.closed + 1)

    @property
    def _over(self) -> bool:
        return self.total is not None and self.closed >= self.total

    @property
    def doing(self) -> str:
        """What the coordinator is at; where there is none, that there is none."""
        if self.serving and self.seen.get("round") is not None:
            return "ending" if self.round is None else f"training, round {self.round}"
        if self.serving:
            return str(self.seen.get("doing", "beginning"))
        return "ended" if self.ended else f"the {self.who} is not running"

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of this run."""
        return self.status in ("completed", "target_reached", "converged", "failed", "gone", "replaced", "left")

    def age_s(self, now: datetime) -> float | None:
        """Return the seconds since the coordinator wrote."""
        return None if self.written is None else max(0.0, (now - self.written).total_seconds())

    def late(self, now: datetime) -> bool:
        """Whether there is a coordinator that has not written for longer than it should."""
        age_s = self.age_s(now)
        return self.serving and age_s is not None and age_s > LATE_S

    def sites(self) -> list[dict[str, Any]]:
        """Return the sites, each with the last figures of its members, and none of it connected if nobody serves."""
        return [self._site(site) for site in self.seen.get("sites", [])]

    def _site(self, site: Mapping[str, Any]) -> dict[str, Any]:
        figures = {member: measured for member in site["members"] if (measured := self._figures(member))}
        return {**site, "connected": self.serving and site["connected"], "metrics": figures}

    def _figures(self, member: str) -> dict[str, Any]:
        for event in reversed(self.rounds):
            if found := (event.get("sites") or {}).get(member):
                return {"round": event["round"], **found}
        return {}

    def awaited(self) -> list[dict[str, Any]]:
        """Return who is awaited now; nobody, where nobody waits."""
        return list(self.seen.get("awaited", [])) if self.serving else []

    def refused(self) -> list[dict[str, Any]]:
        """Return who has called in vain and not come since, while somebody serves."""
        return list(self.seen.get("refused", [])) if self.serving else []

    def figures(self, now: datetime) -> dict[str, Any]:
        """Return all of it as one object for programs; `docs/network.md` says what is in it."""
        last = self.rounds[-1] if self.rounds else {}
        return {
            "event": "status",
            "run": self.run,
            "name": self.name,
            "status": self.status,
            "reason": self.reason,
            "serving": self.serving,
            "doing": self.doing,
            "round": self.round,
            "closed": self.closed,
            "rounds": self.total,
            "unread": self.unread,
            "began": self.seen.get("began"),
            "written": self.seen.get("written"),
            "age_s": self.age_s(now),
            **({} if self.above is None else {"above": self.above}),
            "listening": self.seen.get("listening") if self.serving else None,
            "metrics": _last_metrics(self.rounds),
            "faults": list(last.get("faults") or ()),
            "awaited": self.awaited(),
            "refused": self.refused(),
            "sites": self.sites(),
        }


def _last_metrics(rounds: tuple[Mapping[str, Any], ...]) -> dict[str, Any]:
    return next((dict(event["metrics"]) for event in reversed(rounds) if event.get("metrics")), {})


def standing(home: Path, run: str | None = None) -> Standing:
    """Return how a run stands: if none is named, the one that is being served, or else the newest.

    Args:
        home: the folder of a coordinator or a relay.
        run: id of a run; "last" is the newest.

    Raises:
        UnknownRun: there is none, or not that one.
    """
    folder = _folder(home / RUNS, run)
    # First whether it is held: who has let go of it in between has written its last word before that.
    serving, (row, rounds, unread) = not free(folder), _journal(folder)
    seen, relayed = _seen(folder), read_json(folder / RELAYED) if (folder / RELAYED).is_file() else None
    waits = str(seen.get("waits") or "")
    status, reason = _status(row, serving, waits, unread) if relayed is None else _relaying(relayed, serving, waits)
    return Standing(
        run=folder.name,
        name=row.name if row is not None else str(seen.get("name", "")),
        folder=folder,
        serving=serving,
        status=status,
        reason=reason,
        seen=seen,
        written=_time(seen.get("written")),
        rounds=rounds,
        total=seen.get("rounds"),
        above=None if relayed is None else str(relayed["above"]),
        unread=unread,
    )


def _folder(runs: Path, run: str | None) -> Path:
    known = sorted(path.name for path in runs.glob("*") if (path / FILE).is_file() or has_journal(path))
    if run is None and (served := [name for name in known if not free(runs / name)]):
        return runs / served[-1]
    if run in (None, "last") and known:
        return runs / known[-1]
    if run in known:
        return runs / str(run)
    there = f"the newest are {', '.join(known[-3:])}" if known else "nothing was ever served from it"
    raise UnknownRun(
        f"there is no run{f' {run!r}' if run else ''} in {runs}; {there}. --home is the folder of "
        "`fedloom serve`, or of `fedloom relay`."
    )


def _journal(folder: Path) -> tuple[RunRow | None, tuple[Mapping[str, Any], ...], str]:
    """Return the run's row, None before it has begun; its closed rounds; and why they cannot be read now."""
    if not has_journal(folder):
        return None, (), ""
    try:
        with closing(journal(folder)) as book:
            return book.row(), tuple(book.rounds()), ""
    except UnknownRun:
        return None, (), ""
    except StorageError as error:
        return None, (), str(error)


def _seen(folder: Path) -> Mapping[str, Any]:
    """Return what the coordinator wrote last; it is written whole, so what cannot be read is somebody else's."""
    if not (folder / FILE).is_file():
        return {}
    found = read_json(folder / FILE)
    if not isinstance(found, dict) or not isinstance(found.get("sites"), list):
        raise RunError(f"{folder / FILE} was not written by a coordinator; delete it.")
    return found


def _status(row: RunRow | None, serving: bool, waits: str, unread: str) -> tuple[str, str]:
    if unread:
        return ("waiting" if waits else "running", waits) if serving else ("unknown", "")
    if row is None:
        never = "its coordinator ended before the run began"
        return ("waiting", waits) if serving else ("gone", f"{never}{': ' if waits else ''}{waits}")
    if row.status == "running" and not serving:
        return "interrupted", "its coordinator ended without a word; serve it again and it goes on"
    return row.status, row.reason


def _relaying(note: Mapping[str, Any], serving: bool, waits: str) -> tuple[str, str]:
    if note["ended"]:
        return str(note["ended"]), "as the run above ended"
    if not serving:
        return "interrupted", "its relay does not run; start it again and it goes on"
    return ("running", "") if note["above"] else ("waiting", waits or "for the coordinator above")


def _time(text: Any) -> datetime | None:
    return None if text is None else datetime.fromisoformat(str(text)).astimezone(UTC)
