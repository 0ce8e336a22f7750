"""A relay: a party of one federation that holds another. Its sites are behind its own port, with its own authority."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from shutil import rmtree
from threading import Thread
from typing import Any, Literal

from .core.errors import ConfigError, WireError
from .core.task import Member
from .core.weights import Given
from .data.standardise import layout_of
from .join import Joining, enrolled, settling
from .load import Loaded
from .resuming import RUNS
from .runtime.authority import Authority
from .runtime.channel import peer_at
from .runtime.credentials import Credentials
from .runtime.enrolment import finish_renewal, prepare_renewal
from .runtime.identity import Peer
from .runtime.net.calling import BACK_S
from .runtime.net.door import Door
from .runtime.net.entrance import entrance
from .runtime.net.hall import Hall
from .runtime.net.kept import Kept
from .runtime.net.leases import Leases, timed
from .runtime.net.relay import Relay, numbered, passed
from .runtime.net.site import Ended, Site
from .runtime.net.snapshot import FILE, Watch
from .runtime.net.spool import Spool, most_bytes
from .runtime.net.telling import Told
from .serve import BODIES, FAREWELL_S
from .starting import SHOWN
from .store.dispatches import Dispatches, Joined
from .store.files import read_json, write_json
from .store.folders import made
from .store.journal import opened_engine
from .store.runs import RELAYED, create, locked

ABOVE = "above"  # the folder of what it is above, in its home


@dataclass(frozen=True, kw_only=True)
class Relaying:
    """How a relay takes part, and serves.

    Args:
        name: of the relay, as its certificate from above says.
        home: its folder, made by `fedloom provision` for its own sites.
        server: host and port of the coordinator, or of a relay above.
        sites: how many members it waits for before it calls; they stay the same for the run.
        names: "pass" tells the members' names above; "number" keeps them here.
        deadline_s: after so many seconds the sum of those who have answered goes up.
        leases: how long it waits for its sites.
        token: to enrol with above, the first time.
    """

    name: str
    home: Path
    server: tuple[str, int]
    sites: int
    names: Literal["pass", "number"] = "pass"
    deadline_s: float | None = None
    leases: Leases = Leases()
    token: str | None = None

    def __post_init__(self) -> None:
        if self.names not in ("pass", "number"):
            raise ConfigError(f'the names of a relay\'s members are "pass" or "number", got {self.names!r}.')
        if self.sites < 1:
            raise ConfigError(f"a relay answers for at least one member, got {self.sites}.")
        if self.deadline_s is not None:
            timed("Relaying.deadline_s (--deadline)", self.deadline_s)


@dataclass(eq=False)
class Passing:
    """A relay whose port is open.

    Args:
        loaded: the app; relaying: how.
        folder: of the run.
        hall: where its sites sit; door: where they come in; log: their dispatches.
        credentials: what it shows above.
        held: what is closed at the end.
    """

    loaded: Loaded
    relaying: Relaying
    folder: Path
    hall: Hall
    door: Door
    log: Dispatches
    credentials: Credentials
    held: ExitStack
    stopped: bool = False
    site: Site | None = None
    _failed: list[Exception] = field(default_factory=list)

    def live(self, told: Told = lambda event, /, **values: None) -> Ended:
        """Wait for the sites, call above, and pass on until the run has ended; tell the sites how it did.

        What is heard of the end is written down first: killed then, this process is followed by one that tells it.
        """
        with self.held:
            members, note = self._gathered(told), read_json(self.folder / RELAYED)
            if members is None:
                return Ended("stopped", "this relay has left")
            ended = Ended(note["ended"], note["reason"]) if note["ended"] else self._passed_on(members, told)
            if ended.status != "stopped":
                self.door.close(ended.status, ended.reason, min(FAREWELL_S, self.relaying.leases.away_s))
                self._note(told=True)
                for name in (BODIES, "in", "up"):
                    rmtree(self.folder / name, ignore_errors=True)
            return ended

    def _passed_on(self, members: list[Member], told: Told) -> Ended:
        self.site, relay = self._site(members, told)
        if self.stopped:
            self.site.stop()
        carrier = Thread(target=self._carry, args=(relay, self.site), name="relay", daemon=True)
        carrier.start()
        try:
            ended = self.site.live()
        finally:
            relay.stop()
            carrier.join()
        if self._failed:
            raise self._failed[0]
        return ended

    def stop(self) -> None:
        """Leave above; the sites call again."""
        with self.hall.changed:
            self.stopped = True
            self.hall.changed.notify_all()
        if self.site is not None:
            self.site.stop()

    def _gathered(self, told: Told) -> list[Member] | None:
        """Return the members by name, those of before if the run is gone on with; None if it was stopped before."""
        if not self.hall.roster:
            joined = self._awaited(told)
            self.log.join(joined)
            self.hall.roster = _roster(joined)
        return list(self.hall.roster) or None

    def _awaited(self, told: Told) -> list[Joined]:
        hall, seen = self.hall, -1
        with hall.changed:
            while not self.stopped:
                there = [seat for seat in hall.seats.values() if seat.channel]
                found = [Joined(member, seat.name, 0) for seat in there for member in seat.members]
                if len(found) != seen:
                    seen = len(found)
                    hall.waits = _here(found, self.relaying.sites)
                    told("waiting", said=hall.waits)
                if seen >= self.relaying.sites:
                    hall.waits = ""
                    return found
                hall.changed.wait()
        return []

    def _site(self, members: list[Member], told: Told) -> tuple[Site, Relay]:
        relaying, home = self.relaying, self.relaying.home / ABOVE
        names = [member.name for member in members]
        above = passed(names) if relaying.names == "pass" else numbered(relaying.name, names)
        payload = self.loaded.app.strategy.payload(self.loaded.app.built.layout)
        most = _most(self.loaded)
        incoming, outgoing = Spool(self.folder / "in", most, light=True), Spool(self.folder / "up", most)
        outgoing.keep_only(set())  # what was on its way up is asked again
        kept = Kept(self.hall, self.log)
        relay = Relay(
            kept,
            above,
            payload.weighted,
            incoming,
            outgoing,
            relaying.deadline_s,
            most=settling(self.loaded.app.strategy),
        )
        site = Site(
            relaying.name,
            self.loaded.identity,
            tuple(Member(above[member.name], member.examples) for member in members),
            lambda run: self._opened(relay, run),
            relaying.server,
            self.credentials.client_context,
            lambda sock: peer_at(sock, "coordinator", "relay"),
            self.credentials.sign,
            told,
            renewal=lambda: prepare_renewal(home) if self.credentials.due_for_renewal(datetime.now(UTC)) else None,
            renewed=lambda answer: finish_renewal(home, answer) is not None,
            over=lambda ended: self._note(ended=ended.status, reason=ended.reason),
        )
        return site, relay

    def _opened(self, relay: Relay, run: str) -> Relay:
        """Return the desk for a run above; refuses another one than that which was begun with."""
        before = read_json(self.folder / RELAYED)["above"]
        if before not in ("", run):
            self._note(ended="replaced", told=True)
            raise WireError(
                f"above, another run has begun ({run[:80]!r}, after {before!r}); start this relay again for it."
            )
        self._note(above=run)
        return relay

    def _note(self, **changes: str | bool) -> None:
        write_json(self.folder / RELAYED, read_json(self.folder / RELAYED) | changes)

    def _carry(self, relay: Relay, site: Site) -> None:
        try:
            relay.live()
        except Exception as error:  # noqa: BLE001 (whatever it is, the relay must not go on half)
            self._failed.append(error)
            site.stop()


def relay(loaded: Loaded, relaying: Relaying, host: str, port: int) -> tuple[Passing, int]:
    """Open a relay's port; return it, ready to `live`, and the port. A run that was begun here is gone on with.

    Args:
        loaded: the app, the same above and below.
        relaying: how.
        host, port: where its sites call; port 0 lets the system choose.

    Raises:
        ConfigError: weights are given by name where names stay here, the names were passed on otherwise before, or
            there are no credentials.
        RunError: another process relays from this folder.
    """
    strategy = loaded.app.strategy
    if relaying.names == "number" and isinstance(strategy.weights, Given):
        raise ConfigError("weights are given by name, and --names number hides names above; take --names pass.")
    if strategy.gather.hides:
        raise ConfigError(
            f"{type(strategy.gather).__name__} does not pass relays: the sum would be the relay's, not the one that "
            "the sites have approved; let the sites join above."
        )
    authority, own = Authority(relaying.home), Credentials(relaying.home)
    own.check()
    above = relaying.home / ABOVE
    joining = Joining(name=relaying.name, home=above, server=relaying.server, token=relaying.token, role="relay")
    joining.check()
    with ExitStack() as held:
        runs = relaying.home / RUNS
        made(runs, "let this user write there, or take another --home")
        held.enter_context(locked(runs, f"another relay runs from {relaying.home}; stop it, or take another."))
        credentials = enrolled(joining)
        folder = _folder(runs, loaded, relaying)
        held.enter_context(locked(folder))
        engine = opened_engine(f"sqlite:///{folder / 'relay.db'}", synchronous="FULL")
        held.callback(engine.dispose)
        log = Dispatches(engine)
        hall = _hall(loaded, folder, relaying.leases)
        door = entrance(
            hall,
            authority=authority,
            credentials=own,
            log=log,
            seatable=lambda peer, members: _seatable(hall, peer, members, relaying.sites),
            spool=lambda name: Spool(folder / BODIES / name, _most(loaded), claimed=True),
            digest=loaded.identity,
        )
        for seat in {one.seat for one in log.joined()}:  # before anybody can come in
            members = tuple(one.member for one in log.joined() if one.seat == seat)
            hall.take_seat(seat, members, partial(door.reception.spool, seat), BACK_S)
        hall.roster = _roster(log.joined())
        if not hall.roster:
            hall.waits = _here([], relaying.sites)
        listening = door.open(host, port)
        about = {"name": loaded.app.name, "rounds": loaded.app.rounds, "listening": f"{host}:{listening}"}
        held.callback(Watch(hall, folder / FILE, about).open().close)
        held.callback(door.shut)
        return Passing(loaded, relaying, folder, hall, door, log, credentials, held.pop_all()), listening


def _here(found: Sequence[Joined], sites: int) -> str:
    names = ", ".join(sorted(joined.member.name for joined in found)[:SHOWN]) or "nobody yet"
    return f"{len(found)} of this relay's {sites} members are here: {names}"


def _roster(joined: Sequence[Joined]) -> list[Member]:
    return sorted((one.member for one in joined), key=lambda member: member.name)


def _hall(loaded: Loaded, folder: Path, leases: Leases) -> Hall:
    payload, schema = loaded.app.strategy.payload(loaded.app.built.layout), loaded.app.data.source.schema
    names = schema.numeric if schema is not None else ()
    known = [payload, *(layout_of(what, names) for what in ("mean", "variance") if names)]
    layouts = {layout.digest: layout for layout in known}  # of sums: when it is asked for one
    return Hall(folder.name, layouts, leases)


def _most(loaded: Loaded) -> int:
    return most_bytes(loaded.app.strategy.payload(loaded.app.built.layout).size)


def _folder(runs: Path, loaded: Loaded, relaying: Relaying) -> Path:
    """Return the folder of the run to go on with, or a new one's; refuses to call members otherwise than before."""
    for path in sorted(runs.glob(f"*/{RELAYED}"), reverse=True):
        note: dict[str, Any] = read_json(path)
        if note["app"] == loaded.identity and not note["told"]:
            if note["names"] != relaying.names:
                raise ConfigError(
                    f"the run {path.parent.name} was begun with --names {note['names']}, got {relaying.names}; "
                    f"go on with that, or remove its folder."
                )
            return path.parent
    folder = create(runs, loaded.app.name)
    note = {"app": loaded.identity, "names": relaying.names, "above": "", "ended": "", "reason": "", "told": False}
    write_json(folder / RELAYED, note)
    return folder


def _seatable(hall: Hall, peer: Peer, members: tuple[Member, ...], sites: int) -> None:
    """Refuse who would not fit, and whoever comes after the members are known above."""
    if hall.roster and not {member.name for member in members} <= {member.name for member in hall.roster}:
        raise WireError(f"this relay has told its members above, and {peer} is none of them; come to the next run.")
    others = sum(len(seat.members) for seat in hall.everybody if seat.name != peer.name)
    if others + len(members) > sites:
        raise WireError(f"there is room for {sites} members behind this relay, and {others} are there.")
