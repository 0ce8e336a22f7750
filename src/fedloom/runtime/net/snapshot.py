"""How a hall stands, as plain values, and a file that says so: whoever wants to know reads it, and disturbs nobody.

The hall is locked while its values are copied, never while they are written. The file is written when something has
changed, at most once in a second, and now and then without a reason, so that its age says whether anybody writes it.
Of many sites that takes longer, and it is done less often: looking takes a twentieth of a core at most.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from logging import getLogger
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

from ...core.errors import RunError
from ...core.task import Train
from ...store.files import write_json
from ..identity import utc_now
from .hall import Hall
from .leases import Leases
from .seats import Given, Seat

log = getLogger(__name__)
FILE, VERSION = "status.json", 1
APART_S, BEAT_S = 1.0, 5.0  # between two writes: at least, and at most
REST = 20  # of many sites a look takes long: it is let be for so many times as long, at least


def snapshot(hall: Hall, wall: datetime) -> dict[str, Any]:
    """Return how a hall stands: who sits there, and who is awaited, and why.

    Args:
        hall: to look at; it is locked meanwhile.
        wall: the time of day, which the federation's clock is translated to.

    >>> snapshot(Hall("run-1"), datetime(2026, 1, 2, tzinfo=UTC))["doing"]
    'waiting for sites'
    """
    with hall.changed:
        clock = _Clock(wall, hall.now(), hall.began)
        sites = [_site(seat, clock) for seat in hall.seats.values()]
        given = [(seat, each) for seat in hall.seats.values() for each in seat.given.values()]
        awaited = [_awaited(seat, each, hall.leases, clock) for seat, each in given]
        refused = [{"name": name, "at": clock.at(at), "why": why} for name, (at, why) in hall.refused.items()]
        begun, closed, began = bool(hall.roster), hall.closed, clock.at(hall.began)
    trained = [each.task.body.round for _, each in given if isinstance(each.task.body, Train)]
    round = max(*trained, closed + 1) if trained else None  # a buffered round may have been asked in earlier ones
    return {
        "version": VERSION,
        "run": hall.run,
        "written": _text(wall),
        "began": began,
        "doing": _doing([kind_of(each) for _, each in given], round, begun),
        "waits": hall.waits,
        "round": round,
        "closed": closed,
        "awaited": sorted(awaited, key=lambda one: (one["party"], one["number"])),
        "refused": refused,
        "sites": sorted(sites, key=lambda site: str(site["name"])),
    }


def kind_of(given: Given) -> str:
    """Return what a party was asked to do: "train", "evaluate", "measure" or "prepare"."""
    return type(given.task.body).__name__.lower()


def _doing(kinds: list[str], round: int | None, begun: bool) -> str:
    if round is not None:
        return f"training, round {round}"
    for kind, said in (("evaluate", "evaluating"), ("measure", "computing statistics"), ("prepare", "preparing")):
        if kind in kinds:
            return said
    return "between rounds" if begun else "waiting for sites"


@dataclass(frozen=True)
class _Clock:
    """Translates the federation's clock, which only counts seconds, to the time of day."""

    wall: datetime
    now: float
    began: float

    def at(self, seconds: float) -> str:
        return _text(self.wall + timedelta(seconds=seconds - self.now))

    def away(self, seat: Seat) -> str | None:
        """Return since when a party is away; who has not come since this start counts as away only later."""
        if seat.away is None:
            return None
        return self.at(seat.away if seat.seen else self.began)


def _text(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _site(seat: Seat, clock: _Clock) -> dict[str, Any]:
    received, sent = seat.traffic
    return {
        "name": seat.name,
        "members": [member.name for member in seat.members],
        "examples": sum(member.examples for member in seat.members),
        "connected": seat.away is None,
        "left": seat.left,
        "refuses": {member: fault.message for member, fault in seat.refused.items()},
        "cut": seat.cut or None,
        "away_since": clock.away(seat),
        "seen": clock.at(seat.seen) if seat.seen else None,
        "bytes_in": received,
        "bytes_out": sent,
        "answered": seat.answered,
        "seconds": [round(seconds, 6) for seconds in seat.seconds],
        "failed": dict(seat.failed),
        "faults": [{"at": clock.at(at), **asdict(fault), "trace": list(fault.trace)} for at, fault in seat.faults],
    }


def _awaited(seat: Seat, given: Given, leases: Leases, clock: _Clock) -> dict[str, Any]:
    return {
        "party": given.task.party,
        "site": seat.name,
        "task": kind_of(given),
        "number": given.task.number,
        "attempt": given.attempt,
        "asked": clock.at(given.since),
        "away_since": clock.away(seat),
        "came": seat.seen > 0,
        "lease_until": clock.at(leases.lapse(given, seat)[0]),
    }


@dataclass(eq=False)
class Watch:
    """Keeps a file about a hall; in its own thread, so that nobody waits for a disk.

    Args:
        hall: to look at.
        path: of the file.
        about: what else it says, and does not change.
        apart_s: seconds between two writes, at least; beat_s: at most.
    """

    hall: Hall
    path: Path
    about: Mapping[str, Any]
    apart_s: float = APART_S
    beat_s: float = BEAT_S
    _closing: Event = field(default_factory=Event)
    _thread: Thread | None = None
    _told: bool = False
    _written: list[Any] = field(default_factory=list)

    def open(self) -> "Watch":
        """Write the file, and begin to keep it; returns itself."""
        self._write(self._snapshot())
        self._thread = Thread(target=self._live, name="status", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Write it a last time, and keep it no more."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self._write(self._snapshot())

    def _live(self) -> None:
        rest_s, waited_s = self.apart_s, 0.0
        while not self._closing.wait(rest_s):
            began, shown = monotonic(), self._snapshot()
            waited_s += rest_s
            if waited_s >= self.beat_s or _gist(shown) != self._written:
                self._write(shown)
                waited_s = 0.0
            rest_s = max(self.apart_s, REST * (monotonic() - began))

    def _snapshot(self) -> dict[str, Any]:
        return snapshot(self.hall, utc_now())

    def _write(self, shown: Mapping[str, Any]) -> None:
        """Write the file; a full disk must not end a run, so that is told once and tried again."""
        try:
            write_json(self.path, {**self.about, **shown})
        except RunError as error:
            if not self._told:
                log.error("no status", extra={"said": str(error)})
            self._told = True
            return
        self._told, self._written = False, _gist(shown)


def _gist(shown: Mapping[str, Any]) -> list[Any]:
    """Return what of a snapshot is worth writing it again for at once: not the times, and not every byte."""
    sites = [
        [site[name] for name in ("name", "connected", "left", "cut", "refuses", "answered", "failed")]
        for site in shown["sites"]
    ]
    awaited = [[one[name] for name in ("party", "task", "number", "attempt")] for one in shown["awaited"]]
    refused = [[one["name"], one["why"]] for one in shown["refused"]]
    return [shown["doing"], shown["waits"], sites, awaited, refused]
