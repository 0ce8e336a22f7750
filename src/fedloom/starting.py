"""Who a run begins with: whoever is there and answers. Who refuses or fails is named, waited for, and then left out."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .core.errors import QuorumLost, UpdateError
from .core.task import Fault, Measure, Member, Prepare, Ready, ReplyBody, ask_all
from .core.update import Update
from .data.schema import Schema
from .data.standardise import checked, statistics
from .runtime.net.hall import Hall
from .runtime.net.seats import Seat

SHOWN = 20  # names in a sentence


@dataclass(frozen=True)
class Agreed:
    """What the first members have agreed on: who they are, by name, their statistics, and their numbers of rows."""

    members: list[Member]
    found: dict[str, Any]
    ready: list[Ready]


class _Fewer(Exception):
    """Somebody who was asked has refused or failed: those who are left begin anew."""


@dataclass(eq=False)
class Start:
    """The beginning of a run.

    A fault of one is not the end of all: it is waited for until it calls again, or says that it may answer now. What
    the others have answered is kept meanwhile, so that nobody spends a query twice.

    Args:
        hall: where they sit.
        sites: how many the run begins with.
        least: with how many it may begin once `until` has passed.
        until: on the hall's clock.
        patience_s: for an answer, where less than that is left.
        told: is told who is there and who is awaited, and why, whenever that changes.
    """

    hall: Hall
    sites: int
    least: int
    until: float
    patience_s: float
    told: Callable[[str], None]
    _answers: dict[str, dict[str, tuple[object, ReplyBody]]] = field(default_factory=dict)  # of one connection each

    def agreed(self, schema: Schema | None) -> Agreed:
        """Return who begins, once all of them have answered; raises `QuorumLost` if too few have in time."""
        names = schema.numeric if schema is not None else ()
        while True:
            members = self.gathered()
            try:
                found = statistics(lambda body, asked=members: self._measured(asked, body, names), schema)  # type: ignore[misc]
                ready = self._all(members, Prepare(found))
            except _Fewer:
                continue
            return Agreed(members, found, [body for body in ready if isinstance(body, Ready)])

    def gathered(self) -> list[Member]:
        """Wait until enough are there of whom none has refused; return them by name."""
        hall, said = self.hall, ""
        with hall.changed:
            while True:
                there, left_s = self._there(), self.until - hall.now()
                if len(there) >= (self.sites if left_s > 0 else self.least):
                    hall.waits = ""
                    return sorted(there, key=lambda member: member.name)
                if said != (now := self._said(there)):
                    said = hall.waits = now
                    self.told(said)
                if left_s <= 0:
                    raise QuorumLost(f"the run has not begun in time, and {self.least} are needed: {said}.")
                hall.changed.wait(left_s)

    def _there(self) -> list[Member]:
        seats = [seat for seat in self.hall.seats.values() if seat.channel and not seat.left]
        return [member for seat in seats for member in seat.members if member.name not in seat.refused]

    def _said(self, there: Sequence[Member]) -> str:
        names = sorted(member.name for member in there)
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        parts = [f"{len(names)} of {self.sites} sites are here: {', '.join(names[:SHOWN]) or 'none yet'}{more}"]
        lacking = [line for seat in self.hall.seats.values() for line in _lacking(seat)]
        return "; ".join([*parts, *lacking[:SHOWN]])

    def _measured(self, members: Sequence[Member], body: Measure, columns: Sequence[str]) -> list[Update]:
        """Return what these measured; what is no measurement is a fault of whoever sent it."""
        updates = []
        for member, update in zip(members, self._all(members, body), strict=True):
            assert isinstance(update, Update), "the hall hands on no other answer"
            try:
                updates.append(checked(update, body.what, columns))
            except UpdateError as error:
                line = self._answers[_question(body)].pop(member.name)[0]
                self._refuse(member.name, line, Fault(member.name, "measure", type(error).__name__, str(error)))
                raise _Fewer from error
        return updates

    def _all(self, members: Sequence[Member], body: Measure | Prepare) -> list[ReplyBody]:
        """Return the answers of all these, asking those alone who have not given theirs on this connection."""
        known = self._answers.setdefault(_question(body), {}) if isinstance(body, Measure) else {}
        lines = {member.name: self.hall.seat_of(member.name).channel for member in members}
        names = [name for name, line in lines.items() if known.get(name, (None,))[0] is not line or line is None]
        left_s = max(self.until - self.hall.now(), self.patience_s)
        replies = dict(zip(names, ask_all(self.hall, names, body, left_s), strict=True))
        faults = {name: reply.body for name, reply in replies.items() if isinstance(reply.body, Fault)}
        known |= {name: (lines[name], reply.body) for name, reply in replies.items() if name not in faults}
        for name, fault in faults.items():
            self._refuse(name, lines[name], fault)
        if faults:
            raise _Fewer
        return [known[member.name][1] for member in members]

    def _refuse(self, name: str, line: object, fault: Fault) -> None:
        """Wait for a member, unless it has called again since it was asked."""
        with self.hall.changed:
            seat = self.hall.seat_of(name)
            if seat.channel in (line, None):
                seat.refused.setdefault(name, fault)


def _lacking(seat: Seat) -> list[str]:
    """Return sentences, without a stop, that say why a party that has called is not among those who begin."""
    if seat.left:
        return []
    if seat.channel is None:
        return [f"{seat.name} is away"]
    return [f"{name} does not answer yet: {fault.message.rstrip('.')}" for name, fault in seat.refused.items()]


def _question(body: Measure) -> str:
    return json.dumps([body.what, body.known], sort_keys=True)
