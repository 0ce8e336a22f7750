"""The coordinator's log: who takes part, who was asked what, which updates were accepted, and what was closed."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Float,
    MetaData,
    String,
    Table,
    between,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.engine import Connection, Engine, Row
from sqlalchemy.exc import IntegrityError

from ..core.errors import RunError
from ..core.task import Member
from .journal import WHOLE, formed, transaction

_META = MetaData()
_MEMBERS = Table(
    "members",
    _META,
    Column("name", String, primary_key=True),
    Column("seat", String, nullable=False),
    Column("examples", WHOLE, nullable=False),
    Column("held_out", WHOLE, nullable=False),
    Column("since", WHOLE, nullable=False),  # takes part in the rounds behind this one
    Column("until", WHOLE, nullable=True),  # and not in those behind this one
)
_ASKED = Table(
    "asked",
    _META,
    Column("number", WHOLE, primary_key=True),
    Column("party", String, nullable=False),
    Column("round", WHOLE, nullable=False),
    Column("counted", WHOLE, nullable=True),  # 1 or 0 once its round is closed
)
_ACCEPTED = Table(
    "accepted",
    _META,
    Column("place", WHOLE, primary_key=True, autoincrement=True),
    Column("number", WHOLE, nullable=False, unique=True),  # the first of those it answers
    Column("numbers", JSON, nullable=False),
    Column("parties", JSON, nullable=False),
    Column("digest", String, nullable=False),
    Column("size", WHOLE, nullable=False),
    Column("seconds", Float, nullable=False),
)
_FAILED = Table(
    "failed",
    _META,
    Column("number", WHOLE, primary_key=True, autoincrement=False),
    Column("place", WHOLE, nullable=False),  # among those of accepted updates
    Column("phase", String, nullable=False),
    Column("error", String, nullable=False),
    Column("message", String, nullable=False),
)

_ASK, _ACCEPT, _FAIL = (
    insert(_ASKED),
    insert(_ACCEPTED),
    insert(_FAILED),
)  # statements that are said each round are built once
_KNOWN = select(_ASKED.c.number).where(between(_ASKED.c.number, bindparam("low"), bindparam("high")))
_AGAIN = update(_ACCEPTED).where(_ACCEPTED.c.number == bindparam("of"))
_OF = select(_ACCEPTED).where(between(_ACCEPTED.c.number, bindparam("low"), bindparam("high")))
_FAILED_OF = select(_FAILED).where(between(_FAILED.c.number, bindparam("low"), bindparam("high")))
_CLOSE = update(_ASKED).where(_ASKED.c.number == bindparam("of")).values(counted=bindparam("verdict"))


@dataclass(frozen=True)
class Accepted:
    """An update that was accepted: which dispatches it answers, for whom, its body, and seconds."""

    numbers: tuple[int, ...]
    parties: tuple[str, ...]
    digest: str
    size: int
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A fault that was received: to which dispatch, and what it said."""

    number: int
    phase: str
    error: str
    message: str

    @property
    def numbers(self) -> tuple[int, ...]:
        """The dispatch, as an update has it."""
        return (self.number,)


Answer = Accepted | Failed


@dataclass(frozen=True)
class Joined:
    """A member of the run, the party that answers for it, and how many rows it holds out."""

    member: Member
    seat: str
    held_out: int


class Dispatches:
    """Reads and writes the log; every method is one transaction, which outlives the process when it returns.

    Verdicts and members outlive a power cut too, and with them all that was written before: they are what parties are
    told. What a power cut may take beyond is asked again, under the same numbers.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._members: Sequence[Row[Any]] | None = None  # what the tables hold, so that a round need not read them
        self._open: dict[int, str] = {}  # asked by this process and not closed: number -> party
        self._totals: dict[str, tuple[int, int]] | None = None  # party -> (counted, closed), over all rounds
        self._latest: tuple[int, int] | None = None  # the highest number, and its round
        self._recent: list[Accepted] = []  # new updates since the last closing
        self._behind: list[Accepted] = []  # new updates between the last closing and the one before
        self._place: int | None = None  # the last that an answer has
        formed(engine, _META)

    def join(self, joined: Iterable[Joined], after: int = 0) -> None:
        """Write down who takes part in the rounds behind `after`."""
        rows = [
            {"name": j.member.name, "seat": j.seat, "examples": j.member.examples, "held_out": j.held_out}
            for j in joined
        ]
        if not rows:
            return
        self._members = None
        with transaction(self._engine, durable=True) as connection:
            for row in rows:
                connection.execute(delete(_MEMBERS).where(_MEMBERS.c.name == row["name"]))
                connection.execute(insert(_MEMBERS), {**row, "since": after, "until": None})

    def joined(self, after: int = 0) -> list[Joined]:
        """Return who takes part in the round behind `after`, by name, with the standing that followed from `after`.

        A round that is run again has the members that it had: who came or left when it was closed is not among them.
        """
        standings = self.standings(after)
        if self._members is None:
            with transaction(self._engine) as connection:
                self._members = connection.execute(select(_MEMBERS).order_by(_MEMBERS.c.name)).all()
        return [
            Joined(Member(row.name, row.examples, standings.get(row.name, 1.0)), row.seat, row.held_out)
            for row in self._members
            if row.since <= after and (row.until is None or row.until > after)
        ]

    def founders(self) -> list[Joined]:
        """Return who was there when the run began, by name, whether they still are or not."""
        with transaction(self._engine) as connection:
            rows = connection.execute(select(_MEMBERS).where(_MEMBERS.c.since == 0).order_by(_MEMBERS.c.name)).all()
        return [Joined(Member(row.name, row.examples), row.seat, row.held_out) for row in rows]

    def seats(self) -> list[tuple[Joined, int | None]]:
        """Return everybody who takes part, ever did or is about to; and the round behind which they do no more."""
        with transaction(self._engine) as connection:
            rows = connection.execute(select(_MEMBERS).order_by(_MEMBERS.c.name)).all()
        return [(Joined(Member(row.name, row.examples), row.seat, row.held_out), row.until) for row in rows]

    def forget(self) -> None:
        """Forget all members, before the first round."""
        self._members = None
        with transaction(self._engine) as connection:
            connection.execute(delete(_MEMBERS))

    def leave(self, names: Collection[str], after: int = 0) -> None:
        """Write down who takes no part in the rounds behind `after`."""
        if not names:
            return
        self._members = None
        with transaction(self._engine, durable=True) as connection:
            for name in names:
                connection.execute(update(_MEMBERS).where(_MEMBERS.c.name == name).values(until=after))

    def latest(self) -> int:
        """Return the last round that somebody was asked in; 0 before the first."""
        return self._last_asked()[1]

    def asked(self, number: int) -> str | None:
        """Return who was asked under this number; None if nobody was."""
        if number > self._last_asked()[0]:
            return None
        with transaction(self._engine) as connection:
            return connection.execute(select(_ASKED.c.party).where(_ASKED.c.number == number)).scalar()

    def _last_asked(self) -> tuple[int, int]:
        if self._latest is None:
            last = select(_ASKED.c.number, _ASKED.c.round).order_by(_ASKED.c.number.desc()).limit(1)
            with transaction(self._engine) as connection:
                found = connection.execute(last).first()
            self._latest = (0, 0) if found is None else (found.number, found.round)
        return self._latest

    def ask(self, parties: Mapping[int, str], round: int) -> set[int]:
        """Write down who is asked under which number; return those that are there already, which stay as they are.

        Numbers that are new lie behind all before them.
        """
        beyond = self._latest is not None and min(parties) > self._latest[0]  # so none of them can be there
        with transaction(self._engine) as connection:
            there = {"low": min(parties), "high": max(parties)}
            known = set() if beyond else set(connection.execute(_KNOWN, there).scalars())
            new = {number: party for number, party in parties.items() if number not in known}
            if new:
                rows = [{"number": number, "party": party, "round": round} for number, party in new.items()]
                connection.execute(_ASK, rows)
        self._open |= new
        if self._latest is not None and new:
            self._latest = max(self._latest, (max(new), round))
        return known & set(parties)

    def accept(self, answers: Sequence[Answer]) -> None:
        """Write answers down, behind those before them; each fault is one once.

        An update that came again stays in its place, with its new body.
        """
        if answers:
            self._behind = []
            self._write(answers, [])

    def accepted(self, numbers: Collection[int]) -> list[Accepted]:
        """Return the accepted answers to these dispatches, in the order of acceptance."""
        wanted = set(numbers)
        if wanted <= {number for row in self._behind for number in row.numbers}:
            return [row for row in self._behind if set(row.numbers) <= wanted]
        there = {"low": min(numbers, default=0), "high": max(numbers, default=-1)}
        with transaction(self._engine) as connection:
            rows = connection.execute(_OF.order_by(_ACCEPTED.c.place), there).all()
        return [
            Accepted(tuple(row.numbers), tuple(row.parties), row.digest, row.size, row.seconds)
            for row in rows
            if set(row.numbers) <= wanted
        ]

    def answers(self, numbers: Collection[int]) -> list[Answer]:
        """Return what was received for these dispatches, faults too where they are written down, in that order."""
        there = {"low": min(numbers, default=0), "high": max(numbers, default=-1)}
        with transaction(self._engine) as connection:
            rows = [*connection.execute(_OF, there), *connection.execute(_FAILED_OF, there)]
        found = {row.number: _answer(row) for row in sorted(rows, key=lambda row: row.place)}
        return [answer for answer in found.values() if set(answer.numbers) <= set(numbers)]

    def close(self, counted: Collection[int], void: Collection[int], answers: Sequence[Answer] = ()) -> None:
        """Write down which dispatches were counted and which never will be, and with them answers, as `accept` does."""
        rows = [{"of": number, "verdict": value} for numbers, value in ((counted, 1), (void, 0)) for number in numbers]
        if not rows and not answers:
            return
        self._write(answers, rows)
        self._behind, self._recent = self._recent, []
        for row in rows:
            self._add_up(self._open.pop(row["of"], None), row["verdict"])

    def _write(self, answers: Sequence[Answer], verdicts: Sequence[Mapping[str, Any]]) -> None:
        """Write both in one transaction; that an update came again is seen by what the database refuses, being rare."""
        accepted = [answer for answer in answers if isinstance(answer, Accepted)]
        for add in (_new, _again):
            try:
                with transaction(self._engine, durable=bool(verdicts)) as connection:
                    placed = list(enumerate(answers, self._next_place(connection)))
                    if rows := [_row(each, place) for place, each in placed if isinstance(each, Accepted)]:
                        add(connection, rows)
                    if rows := [{**vars(each), "place": place} for place, each in placed if isinstance(each, Failed)]:
                        connection.execute(_FAIL, rows)
                    if verdicts:
                        connection.execute(_CLOSE, verdicts)
                self._place = max((place for place, _ in placed), default=self._place)
                self._recent = [*self._recent, *accepted] if add is _new else []  # in another place: read again
                return
            except RunError as error:
                if add is _again or not isinstance(error.__cause__, IntegrityError):
                    raise

    def _next_place(self, connection: Connection) -> int:
        """Return the place behind all others."""
        if self._place is None:
            last = [connection.execute(select(func.max(table.c.place))).scalar() for table in (_ACCEPTED, _FAILED)]
            self._place = max(place or 0 for place in last)
        return self._place + 1

    def verdicts(self, numbers: Collection[int], parties: Collection[str] | None = None) -> dict[int, bool]:
        """Return whether they were counted, of those that are closed; with `parties`, of what these were asked."""
        found: dict[int, bool] = {}
        left = sorted(numbers)
        with transaction(self._engine) as connection:
            while left:
                some, left = left[:500], left[500:]
                where = _ASKED.c.number.in_(some) & _ASKED.c.counted.is_not(None)
                rows = connection.execute(select(_ASKED.c.number, _ASKED.c.party, _ASKED.c.counted).where(where))
                found |= {row.number: bool(row.counted) for row in rows if parties is None or row.party in parties}
        return found

    def standings(self, upto: int) -> dict[str, float]:
        """Return (counted + 1)/(closed + 1) by party over the rounds up to that one: what `Member.standing` is."""
        if upto < self.latest():
            totals = self._closed(upto)
        else:
            totals = self._totals = self._closed(upto) if self._totals is None else self._totals
        return {party: (counted + 1) / (closed + 1) for party, (counted, closed) in totals.items()}

    def _closed(self, upto: int) -> dict[str, tuple[int, int]]:
        there = _ASKED.c.counted.is_not(None) & (_ASKED.c.round <= upto)
        closed = select(_ASKED.c.party, func.sum(_ASKED.c.counted), func.count()).where(there)
        with transaction(self._engine) as connection:
            rows = connection.execute(closed.group_by(_ASKED.c.party)).all()
        return {party: (int(counted), total) for party, counted, total in rows}

    def _add_up(self, party: str | None, counted: int) -> None:
        """Go on with the totals; what another process asked, or has closed before, is read again."""
        if party is None:
            self._totals = None
        if self._totals is not None and party is not None:
            before, closed = self._totals.get(party, (0, 0))
            self._totals[party] = (before + counted, closed + 1)

    def open(self) -> list[int]:
        """Return the dispatches that are neither counted nor void."""
        with transaction(self._engine) as connection:
            return list(connection.execute(select(_ASKED.c.number).where(_ASKED.c.counted.is_(None))).scalars())


def _new(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    connection.execute(_ACCEPT, rows)


def _again(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        body = {column: value for column, value in row.items() if column != "place"}
        if not connection.execute(_AGAIN, {**body, "of": row["number"]}).rowcount:
            connection.execute(_ACCEPT, row)


def _row(accepted: Accepted, place: int) -> dict[str, Any]:
    lists = {"numbers": list(accepted.numbers), "parties": list(accepted.parties)}
    return {**vars(accepted), **lists, "number": accepted.numbers[0], "place": place}


def _answer(row: Row[Any]) -> Answer:
    if "digest" in row._fields:
        return Accepted(tuple(row.numbers), tuple(row.parties), row.digest, row.size, row.seconds)
    return Failed(row.number, row.phase, row.error, row.message)
