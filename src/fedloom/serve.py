"""The coordinator of a federation between institutions: the same app as `fedloom run`, its parties behind a port."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

from .core.errors import ConfigError, FedloomError, QuorumLost, StorageError, WireError
from .core.layout import MODEL
from .core.state import State
from .core.strategy import Terms
from .core.task import Member, Prepare
from .data.standardise import layout_of
from .load import Loaded
from .privacy import gate
from .record import Recorder
from .recording import Recording, row_of
from .resuming import ENDED, RUNS, TOLD_FILE, folder_of
from .runtime.authority import Authority
from .runtime.credentials import Credentials
from .runtime.identity import Peer
from .runtime.keys import federation
from .runtime.net.audience import Audience
from .runtime.net.calling import BACK_S
from .runtime.net.door import Door
from .runtime.net.entrance import entrance
from .runtime.net.hall import Hall
from .runtime.net.kept import Kept
from .runtime.net.leases import Leases, timed
from .runtime.net.snapshot import FILE, Watch
from .runtime.net.spool import Spool, most_bytes
from .starting import Start
from .store import hold
from .store.checkpoint import Key
from .store.dispatches import Dispatches, Joined
from .store.files import write_json
from .store.folders import made
from .store.journal import Journal
from .store.runs import found_again, journal, locked
from .training import Training

BODIES = "bodies"
MEASURED = "raise data.holdout, or let the coordinator measure on the official test part of the app's data: --test."
FAREWELL_S = 30.0  # for sites that are just away when a run ends, so that they learn of it
WEEK_S = 604_800.0


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How a federation is served.

    Args:
        sites: how many members the run begins with.
        least: with how many it begins once `start_s` have passed; by default `sites`.
        start_s: seconds in which it must have begun.
        capacity: how many it may grow to; joining later needs room in the sums from the beginning. By default `sites`.
        leases: how long the coordinator waits.
        keep_updates: keep the updates of closed rounds, to replay them.
        test: measure on the source's official test part as well, which the coordinator must have.
        database: URL of the journal's database; by default SQLite in the run's folder.
    """

    sites: int
    least: int | None = None
    start_s: float = WEEK_S
    capacity: int | None = None
    leases: Leases = Leases()
    keep_updates: bool = False
    test: bool = False
    database: str | None = None

    def __post_init__(self) -> None:
        if self.sites < 1:
            raise ConfigError(f"a federation begins with at least one site, got {self.sites}.")
        if self.capacity is not None and self.capacity < self.sites:
            raise ConfigError(f"a federation that begins with {self.sites} sites has no capacity of {self.capacity}.")
        if self.least is not None and not 1 <= self.least <= self.sites:
            raise ConfigError(
                f"the least that a run begins with is 1 to its {self.sites} sites, got {self.least}; change --least or "
                "--sites."
            )
        timed("Serving.start_s (--start)", self.start_s)


@dataclass(eq=False)
class Coordinator:
    """A federation that is being served.

    Args:
        loaded: the app.
        home: the coordinator's folder.
        serving: how.
        folder: of the run.
        book: its journal; log: its dispatches.
        hall: where the parties sit; door: where they come in.
        measured: members that hold rows out.
        again: the run that an earlier process has left, and its state.
        record: the signed record, from when the run has begun; kept: its federation behind the log.
    """

    loaded: Loaded
    home: Path
    serving: Serving
    folder: Path
    book: Journal
    log: Dispatches
    hall: Hall
    door: Door
    measured: list[str]
    held: ExitStack
    again: tuple[Training, State] | None = None
    record: Recorder | None = None
    kept: Kept | None = None

    def recording(self, waiting: Callable[[str], None]) -> Recording:
        """Return the run, ready to go on; waits for the first members if it is a new one.

        `waiting` is told who is there and who is awaited, and why, whenever that changes. Raises `QuorumLost` if too
        few are there in time.
        """
        again, self.again, summary = self.again, None, {}
        if again is None:
            training, first = self._begun(waiting)
            loaded = self.loaded
            row = row_of(training, self.folder.name, loaded.source, loaded.overrides, loaded.identity)
            row = replace(row, preparation=training.statistics, federation=federation(self.home))
            self.book.begin(row, first)
            saved = first
        else:
            (training, saved), row = again, self.book.row()
            if row.status in ENDED:
                saved, summary = saved.but(status=row.status, reason=row.reason), dict(row.summary)
        if not summary:
            self.record = self._recorded(training, saved)
        made = Recording(training, saved, self.folder, self.book, 0.0, summary, held=self.held, record=self.record)
        kept = self.kept
        assert kept is not None, "training has its federation"
        made.waits, kept.idle = not self.loaded.app.strategy.gather.hides, made.catch_up
        made.patient = True
        return made

    def _recorded(self, training: Training, saved: State) -> Recorder:
        """Return the recorder of the run, which the sites watch from now on."""
        credentials, authority = Credentials(self.home), Authority(self.home)
        peer = credentials.peer
        key = Key(f"fedloom/{peer.name}/{self.folder.name}", peer.key)
        record = Recorder.opened(training, saved, self.folder, self.loaded.identity, (key, credentials.sign))
        record.rows = self.log.accepted
        audience = Audience(self.hall, record, authority.key)
        record.published, self.hall.watched = audience.publish, audience.hear
        record.named = self.hall.named
        for seat in self.hall.everybody:
            seat.say("watch", run=self.hall.run)
        return record

    def closed(self, state: State) -> None:
        """Count what a closed round's schedule made a fault of; not of a run that had ended before."""
        if self.record is not None and state.record is not None:
            self.hall.close(state.round, state.record.faults)

    def close(self, state: State, broken: Exception | None = None) -> None:
        """Tell the sites how it ended, or that it has only stopped: then they call until it is taken up again.

        What has broken here, such as a disk or a database, they are told by its class alone: texts name places. Of a
        lost quorum they are not told whose fault it was.
        """
        here = broken is not None and (isinstance(broken, StorageError) or not isinstance(broken, FedloomError))
        told = f"after round {state.round}: {type(broken).__name__} at the coordinator" if here else state.reason
        if broken is None and state.status in ("running", "stopped"):
            told = f"it was stopped after round {state.round}"
        if isinstance(broken, QuorumLost):
            told = f"after round {state.round}: too few sites answered"
        if state.status in ("running", "stopped"):
            self.hall.pause(told)
            self.door.shut()
        else:
            self.door.close(state.status, told, min(FAREWELL_S, self.serving.leases.away_s))
            if self.kept is not None:
                self.kept.forget_sums()
            if not self.serving.keep_updates:
                rmtree(self.folder / BODIES, ignore_errors=True)
            write_json(self.folder / TOLD_FILE, sorted(seat.name for seat in self.hall.everybody if seat.left))

    def give_up(self, reason: str) -> None:
        """Tell the sites that a run which has not begun will not."""
        self.hall.waits = reason
        self.door.close("failed", reason, min(FAREWELL_S, self.serving.leases.away_s))

    def _begun(self, waiting: Callable[[str], None]) -> tuple[Training, State]:
        serving, hall, schema = self.serving, self.hall, self.loaded.app.data.source.schema
        least, until = serving.least or serving.sites, hall.now() + serving.start_s
        agreed = Start(hall, serving.sites, least, until, serving.leases.evaluate_s, waiting).agreed(schema)
        members, found, ready = agreed.members, agreed.found, agreed.ready
        training = self._training(members, found)
        self.log.forget()  # a beginning that was cut off
        self.log.join(
            Joined(member, self.hall.seat_of(member.name).name, body.held_out)
            for member, body in zip(members, ready, strict=True)
        )
        self._greet_others(members, Prepare(found))
        self.measured += [member.name for member, body in zip(members, ready, strict=True) if body.held_out]
        training = replace(training, test=_test(training, serving.test, found))
        if not self.measured and training.test is None:
            raise ConfigError(f"there is nothing to measure on: no site holds rows out; {MEASURED}")
        return training, training.first()

    def _greet_others(self, members: list[Member], greeting: Prepare) -> None:
        """Prepare those who are here and not among the first: they take part from the next round on."""
        hall, first = self.hall, {member.name for member in members}
        with hall.changed:
            hall.greeting = greeting
            for seat in hall.seats.values():
                seat.ready = {name: body for name, body in seat.ready.items() if name in first}
                if seat.channel is not None:
                    hall.greet(seat)

    def take_up(self) -> None:
        """Set the run up that an earlier process has left, if there is one, before anybody can come in.

        Who took part has its seat, and is asked to prepare itself when it is back. Raises `StrategyError` for a new run
        whose sums could not have as many members as may come, or as few.
        """
        state = self.book.last()
        if state is None:
            self._make_room()
            return
        joined, found = self.log.joined(state.round), dict(self.book.row().preparation)
        if self.loaded.app.strategy.gather.hides and not self.serving.keep_updates:
            rmtree(self.folder / BODIES, ignore_errors=True)  # of sums that are begun anew, or kept beside them
        self._seat(state.round)
        self.hall.closed = state.round
        self.hall.greeting = Prepare(found)
        self.measured += [one.member.name for one in joined if one.held_out]
        training = self._training([one.member for one in self.log.founders()], found)  # the terms are theirs
        self.hall.roster = [one.member for one in joined]
        self.again = replace(training, test=_test(training, self.serving.test, found)), state

    def _seat(self, round: int) -> None:
        """Keep seats for all who are in the log: who has left by then may have been asked something before."""
        rows = self.log.seats()
        for name in {one.seat for one, _ in rows}:
            mine = [(one.member, until is not None and until <= round) for one, until in rows if one.seat == name]
            everybody, still = tuple(member for member, _ in mine), tuple(member for member, gone in mine if not gone)
            seat = self.hall.take_seat(name, everybody, partial(self.door.reception.spool, name), BACK_S)
            seat.members, seat.left = still or everybody, not still

    def _training(self, members: list[Member], found: dict[str, Any]) -> Training:
        app, model = self.loaded.app, self.loaded.app.built
        terms = app.strategy.bind(model.layout, members)
        capacity = self.serving.capacity or self.serving.sites
        most = max(capacity, len(members))
        gate.meets(app.strategy, most, None)  # what is claimed must hold for as many as may come
        room = app.strategy.cohort(most)
        terms = Terms(terms.model, terms.payload, terms.payload.weighted(room), terms.cap)
        app.strategy.fits(terms.total)
        self.hall.layouts.update({layout.digest: layout for layout in (terms.total, terms.payload)})
        self.hall.room, self.hall.roster = room, list(members)
        self.kept = federation = Kept(self.hall, self.log, self.serving.keep_updates, self._between_rounds, self.folder)
        federation.streams = app.strategy.schedule.streams
        training = Training(app, model, federation, terms, found, None, self.measured, founders=len(members))
        return replace(training, busy=self.hall.busy, patience_s=self.serving.leases.evaluate_s)

    def _make_room(self) -> None:
        """Learn how many clients a sum has room for, and how columns are measured, before the members are known.

        Raises `StrategyError` for a sum that so many, or so few, cannot have, `ConfigError` where nobody can measure.
        """
        app = self.loaded.app
        if app.data.holdout == 0 and not self.serving.test:
            raise ConfigError(f"there is nothing to measure on: data.holdout is 0; {MEASURED}")
        names = app.data.source.schema.numeric if app.data.source.schema is not None else ()
        known = [layout_of(what, names) for what in ("mean", "variance") if names]
        self.hall.layouts.update({layout.digest: layout for layout in known})
        self.hall.room = app.strategy.cohort(self.serving.capacity or self.serving.sites)
        app.strategy.fits(app.strategy.payload(app.built.layout).weighted(self.hall.room))

    def _between_rounds(self, closed: int) -> None:
        """Let in who has come and is prepared, and let go who has left.

        Nobody comes or goes where an earlier process has asked in the round behind already: it is asked again.
        """
        hall, capacity = self.hall, self.serving.capacity or self.serving.sites
        settled = self.log.latest() > closed
        with hall.changed:
            known = {member.name for member in hall.roster}
            came = [
                Joined(member, seat.name, seat.ready[member.name].held_out)
                for seat in hall.seats.values()
                for member in seat.members
                if member.name not in known and member.name in seat.ready and not seat.left and not settled
            ][: capacity - len(hall.roster)]
            gone = [seat for seat in hall.seats.values() if seat.left and not settled]
            left = {member.name for seat in gone for member in seat.members} & known
        self.log.join(came, closed)
        self.log.leave(left, closed)
        joined = self.log.joined(closed)
        hall.roster = [one.member for one in joined]
        for seat in hall.everybody:
            if seat.left and not seat.given and not {m.name for m in seat.members} & {m.name for m in hall.roster}:
                seat.say("end", run=hall.run, status="left", reason="this site has left the run")
        self.measured[:] = [one.member.name for one in joined if one.held_out]


def serve(loaded: Loaded, home: Path, host: str, port: int, serving: Serving) -> tuple[Coordinator, int]:
    """Open the port of a federation; return its coordinator, and the port. A run that was begun here is gone on with.

    Args:
        loaded: the app.
        home: the coordinator's folder, made by `fedloom provision`.
        host, port: where to listen; port 0 lets the system choose.
        serving: how.

    Raises:
        ConfigError: there are no credentials, or others may read them; or the port is taken.
        RunError: another process serves from this folder.
    """
    authority, credentials = Authority(home), Credentials(home)
    credentials.check()
    with ExitStack() as held:
        made(home / RUNS, "let this user write there, or take another --home")
        held.enter_context(
            locked(home / RUNS, f"another coordinator serves from {home}; stop it, or take another home.")
        )
        if serving.database is not None:
            for row in found_again(home / RUNS, serving.database, federation(home)):
                if row.status in ENDED:  # nobody who was not told waits for it any more
                    write_json(home / RUNS / row.run / TOLD_FILE, [])
        folder = folder_of(home / RUNS, loaded)
        held.enter_context(locked(folder))
        book = journal(folder, serving.database, durable=True)
        held.callback(book.close)
        held.enter_context(hold.held(book.engine, folder.name))
        size = loaded.app.strategy.payload(loaded.app.built.layout).size
        most = most_bytes(size)
        hall = Hall(folder.name, leases=serving.leases, app=loaded.identity)
        log = Dispatches(book.engine)
        capacity = serving.capacity or serving.sites
        door = entrance(
            hall,
            authority=authority,
            credentials=credentials,
            log=log,
            seatable=lambda peer, members: _seatable(hall, authority, peer, members, capacity),
            spool=lambda name: Spool(folder / BODIES / name, most, claimed=True),
            digest=loaded.identity,
        )
        there = Coordinator(loaded, home, serving, folder, book, log, hall, door, [], ExitStack())
        there.take_up()
        listening = door.open(host, port)
        about: dict[str, Any] = {
            "name": loaded.app.name,
            "rounds": loaded.app.rounds,
            "listening": f"{host}:{listening}",
        }
        about |= {"begins_with": serving.sites, "least": serving.least or serving.sites, "capacity": capacity}
        held.callback(Watch(hall, folder / FILE, about).open().close)
        held.callback(door.shut)
        there.held = held.pop_all()
        return there, listening


def _seatable(hall: Hall, authority: Authority, peer: Peer, members: Sequence[Member], capacity: int) -> None:
    """Refuse who would not fit, and a relay that answers for somebody who has a certificate of its own here."""
    behind = {member.name for member in members} - {peer.name}
    if taken := sorted(behind & authority.admitted()) if behind else []:
        raise WireError(
            f"{peer} answers for {taken[0]!r}, who may call here itself; deny {taken[0]} here, or let it have another "
            "name behind the relay."
        )
    others = sum(len(seat.members) for seat in hall.everybody if seat.name != peer.name and not seat.left)
    if others + len(members) > capacity:
        raise WireError(
            f"there is room for {capacity} members, and {others} of them are there; serve with a larger --capacity."
        )


def _test(training: Training, wanted: bool, found: dict[str, Any]) -> Any:
    """Return the source's official test part, if the coordinator is to measure on it."""
    if not wanted:
        return None
    test = training.app.data.source.test()
    if test is None or not training.terms.payload.only(MODEL).alike(training.model.layout):
        raise ConfigError("there is no test part for the coordinator to measure on, or leaves stay home; drop --test.")
    return test.examples(found)
