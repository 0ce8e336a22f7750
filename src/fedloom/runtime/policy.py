"""What a site lets leave: its own rules, and a guard around its party that keeps them.

The rules are the site's, read from its own disk, and judged against its own copy of the app. A refusal is a `Fault` of
phase "policy" with a sentence that both sides can read.
"""

import logging
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, time, timedelta
from fnmatch import fnmatchcase
from functools import partial
from typing import Literal, Protocol

from ..core.budget import Budget
from ..core.errors import ConfigError, FedloomError, StorageError
from ..core.layout import WEIGHT, Layout
from ..core.strategy import Strategy
from ..core.task import (
    ANSWERS,
    Evaluate,
    Fault,
    Measure,
    Party,
    Reply,
    Task,
    TaskBody,
    Train,
    Trained,
)
from ..store.files import digest_of
from ..store.usage import Usage

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ROUND, QUERY = "round", "query"
SILENT = (
    "what it says stays at the site, because it can quote a row; ask there, or set fault_text = true in its policy."
)

_COUNTED: dict[type, str] = {Train: ROUND, Evaluate: QUERY, Measure: QUERY}
# Errors whose texts speak of digests, counts and packages alone. `LayoutMismatch` can quote the keys that a user's
# function returned, `OutOfBound` a value of the update. By name: a fault has no more.
_SPEAKING = frozenset({"CohortOverflow", "DigestMismatch", "MissingExtra"})
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|24:00)")
_PLACE = re.compile(r"[\w.-]+\.py:\d+ [\w<>]+", re.ASCII)
_LOG = logging.getLogger("fedloom.policy")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a site lets leave, as it says itself; without a word from it, these defaults.

    Args:
        approval: "required": only apps that somebody has approved here; "any": all that it joins.
        code: "any"; "none": no app with code of its own, so only settings (TOML). A program is not even run.
        smallest_cohort: of a round that it trains in, as the coordinator claims: it can lie.
        protections: stages and gathers of this library, by the class's name in any case ("clip"), that the strategy of
            the site's own copy of the app must have.
        largest_rounds: trainings that it answers in a run, without a limit if it is None.
        largest_queries: evaluations and statistics that it answers in a run.
        largest_runs: of one app; the coordinator names runs, so that the two limits above bind it only with this one.
        hours: local time in which it begins to answer, "HH:MM-HH:MM", past midnight if the end is not after the
            beginning; the end itself is outside.
        days: of `DAYS`; a night that runs past midnight belongs to the day that it began on.
        fault_text: may the texts of exceptions leave? They can quote a cell of a row.
        tensors: shell patterns of the leaves that may leave, by their name (with "block/" before it, unless that is the
            model). The summed weight is none of them.
        budget: of each data set, over all runs; without one the ledger is kept and nothing is enforced.
        witnesses: how many other sites, whose keys are in HOME/directory.json, must co-sign the coordinator's record.
        ledger: its file, where several homes hold the same rows; it begins at the home, unless it is absolute.

    >>> Policy(hours="22:00-06:00").open(datetime(2026, 1, 2, 5, 59))
    True
    """

    approval: Literal["required", "any"] = "required"
    code: Literal["any", "none"] = "any"
    smallest_cohort: int = 2
    protections: tuple[str, ...] = ()
    largest_rounds: int | None = None
    largest_queries: int | None = None
    largest_runs: int | None = None
    hours: str | None = None
    days: tuple[str, ...] = DAYS
    fault_text: bool = False
    tensors: tuple[str, ...] = ("*",)
    budget: Budget | None = None
    ledger: str | None = None
    witnesses: int = 0

    def __post_init__(self) -> None:
        if self.approval not in ("required", "any"):
            raise ConfigError(f'Policy.approval must be "required" or "any", got {self.approval!r}.')
        if self.code not in ("any", "none"):
            raise ConfigError(f'Policy.code must be "any" or "none", got {self.code!r}.')
        for name in ("smallest_cohort", "largest_rounds", "largest_queries", "largest_runs"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"Policy.{name} must be at least 1, got {getattr(self, name)}.")
        if self.witnesses < 0:
            raise ConfigError(f"Policy.witnesses must not be negative, got {self.witnesses}.")
        if self.hours is not None and (not _HOURS.fullmatch(self.hours) or self.hours[:5] == self.hours[6:]):
            raise ConfigError(f'Policy.hours must be two times such as "22:00-06:00", got {self.hours!r}.')
        unknown = [day for day in self.days if day not in DAYS]
        if unknown or not self.days:
            raise ConfigError(f"Policy.days must be some of {', '.join(DAYS)}, got {', '.join(self.days) or 'none'}.")
        if not self.tensors:
            raise ConfigError('Policy.tensors must have a pattern, such as "*" or "head.*", got none.')

    def open(self, when: datetime) -> bool:
        """May it begin to answer at this local time?"""
        if self.hours is None:
            return DAYS[when.weekday()] in self.days
        begin, end, now = (*self._span, when.time())
        if begin < end:
            return begin <= now < end and DAYS[when.weekday()] in self.days
        evening = when if now >= begin else when - timedelta(days=1)
        return (now >= begin or now < end) and DAYS[evening.weekday()] in self.days

    @property
    def _span(self) -> tuple[time, time]:
        assert self.hours is not None, "asked only where there are hours"
        end = time.max if self.hours.endswith("24:00") else time.fromisoformat(self.hours[6:])
        return time.fromisoformat(self.hours[:5]), end

    def lacking(self, strategy: Strategy) -> list[str]:
        """Return the protections that the strategy does not have.

        A class of the app's own that bears such a name does not count.
        """
        parts = [type(part) for part in (*strategy.stages, strategy.gather)]
        there = {plain(kind.__name__) for kind in parts if kind.__module__.startswith("fedloom.")}
        return [name for name in self.protections if plain(name) not in there]

    def kept(self, layout: Layout) -> list[str]:
        """Return the leaves of what travels that may not leave.

        >>> from fedloom.core.layout import Leaf
        >>> Policy(tensors=("head.*",)).kept(Layout((Leaf("body.w"), Leaf("head.w"))).weighted(5))
        ['body.w']
        """
        names = [name for name, leaf in layout.named() if leaf.block != WEIGHT]
        return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in self.tensors)]

    def objections(self, strategy: Strategy, payload: Layout) -> list[str]:
        """Return sentences that say why this site will not answer for an app; none if nothing stands against it."""
        lacking, kept = self.lacking(strategy), self.kept(payload)
        return [*([_lacks(lacking)] if lacking else []), *([_keeps(kept, self.tensors)] if kept else [])]


class Account(Protocol):
    """What a data set may still spend in a run, and what writes down what it does."""

    def objection(self, body: TaskBody) -> str:
        """Return why a task may not be answered; empty if it may."""
        ...

    def spend(self, body: TaskBody) -> str:
        """Write an answer down, on the disk when this returns; return why it may not leave, or nothing."""
        ...


@dataclass(eq=False)
class Guarded:
    """A party behind a site's policy: what is refused never reaches it, and what it answers is looked at once more.

    Every answer is counted on the disk before it leaves, a fault too: that something fails says something about rows.
    The same fault to the same question says nothing new, and is counted once in a process: so a coordinator that asks
    again and again, since a site fails, spends none of that site's budget. Tasks are answered one by one, so a relay
    belongs outside of this, its children inside.

    Args:
        party: that answers; policy: the site's.
        usage: counters of the app and the run.
        now: the site's local time.
        strategy, rounds: of the site's own copy of the app.
        approved: has somebody approved that copy here? Asked for every task, so that a revoked app ends at once.
        account: of the data set; None keeps no ledger, for who tries parts out.
    """

    party: Party
    policy: Policy
    usage: Usage
    now: Callable[[], datetime]
    strategy: Strategy
    rounds: int
    approved: Callable[[], bool]
    account: Account | None = None
    _told: set[str] = field(default_factory=set)  # faults that were counted, each with the question

    def answer(self, tasks: Sequence[Task]) -> Iterator[Reply]:
        """Yield a reply for each task, or a `Fault` of phase "policy"."""
        for task in tasks:
            why = self.refusal(task.body)
            if why:
                yield _refused(task, why)
                continue
            for reply in self.party.answer([task]):
                why = self._judged(partial(self._objection, task, reply))
                yield _refused(task, why, reply) if why else self._leaving(task, reply)

    def refusal(self, body: TaskBody) -> str:
        """Return why a task is refused at this moment; empty if it is not."""
        return self._judged(partial(self._refusal, body))

    def settle(self, numbers: Collection[int]) -> None:
        """Pass on what was counted."""
        self.party.settle(numbers)

    def _judged(self, judge: Callable[[], str]) -> str:
        """Return why not; where that cannot be found out, that is why."""
        try:
            return judge()
        except StorageError:
            raise  # not the policy's word: once it can be written down, the answer may leave
        except FedloomError as error:
            _LOG.warning("policy not checked", extra={"error": type(error).__name__, "said": str(error)})
            return "this site cannot check its policy, and answers nothing until it can; its log says what is wrong."

    def _refusal(self, body: TaskBody) -> str:
        policy = self.policy
        if type(body) not in ANSWERS:
            return f"this site's policy does not know a task of type {type(body).__name__}; update fedloom there."
        if policy.approval == "required" and not self.approved():
            return "nobody has approved this app at this site; `fedloom approve APP` does, on its machine."
        lacking = policy.lacking(self.strategy)
        if lacking:
            return _lacks(lacking)
        if not policy.open(self.now()):
            return f"this site answers {_opening(policy)}, local time; ask again then."
        if isinstance(body, Train) and not 1 <= body.round <= self.rounds:
            return (
                f"this site's copy of the app has rounds 1 to {self.rounds}, got {body.round}; a longer run is another "
                "app, to be approved there."
            )
        if isinstance(body, Train) and body.cohort < policy.smallest_cohort:
            return (
                f"this site trains in cohorts of {policy.smallest_cohort} clients or more, got {body.cohort}; ask more."
            )
        kind = _COUNTED.get(type(body))
        if kind is not None and self._left(kind) == 0:
            return self._spent(kind)
        if not self.usage.begin(policy.largest_runs):
            return f"this site takes part in {policy.largest_runs} runs of an app at most, and has; ask there for more."
        return "" if self.account is None else self.account.objection(body)

    def _objection(self, task: Task, reply: Reply) -> str:
        """Return why an answer may not leave; it is counted if it may."""
        body, expected = reply.body, ANSWERS[type(task.body)]
        if not isinstance(body, expected | Fault):
            return f"a {type(body).__name__} does not answer a task of type {type(task.body).__name__}; report this."
        kept = self.policy.kept(body.update.layout) if isinstance(body, Trained) else []
        if kept:
            return _keeps(kept, self.policy.tensors)
        fault = _told(task, body) if isinstance(body, Fault) else ""
        why = "" if fault in self._told else self._spend(task, reply)
        if fault and not why:
            self._told.add(fault)
        return why

    def _spend(self, task: Task, reply: Reply) -> str:
        kind = _COUNTED.get(type(task.body))
        if kind is not None and not self.usage.spend(kind, len(reply.numbers), self._most(kind)):
            return self._spent(kind)
        return "" if self.account is None else self.account.spend(task.body)

    def _leaving(self, task: Task, reply: Reply) -> Reply:
        if not isinstance(reply.body, Fault):
            return reply
        said = reply.body if self.policy.fault_text else redacted(task, reply.body)
        if said.message != reply.body.message:
            told = {"site": said.site, "error": reply.body.error, "said": reply.body.message}
            _LOG.warning("fault kept here", extra=told)
        return Reply(reply.numbers, reply.parties, said, reply.seconds)

    def _most(self, kind: str) -> int | None:
        return self.policy.largest_rounds if kind == ROUND else self.policy.largest_queries

    def _left(self, kind: str) -> int | None:
        most = self._most(kind)
        return None if most is None else max(0, most - self.usage.spent(kind))

    def _spent(self, kind: str) -> str:
        what = "training tasks" if kind == ROUND else "evaluations and statistics"
        return f"this site answers {self._most(kind)} {what} of a run at most, and has; end the run here."


def redacted(task: Task, said: Fault) -> Fault:
    """Return a fault without what could have come from a row: its class, where it happened, and what is fixed.

    Texts of errors that speak of digests, counts and packages alone are kept; `DataError` quotes cells, others may.

    >>> said = Fault("oslo", "train", "ValueError", "could not convert 'HIV+'", ("app.py:3 train",))
    >>> redacted(Task(1, "oslo", Measure("mean")), said).message == SILENT
    True
    """
    error = said.error if said.error.isidentifier() and said.error.isascii() else "Exception"
    trace = tuple(place if _PLACE.fullmatch(place) else "…" for place in said.trace)
    return Fault(task.party, _phase(task), error, said.message if error in _SPEAKING else SILENT, trace)


def _told(task: Task, fault: Fault) -> str:
    """Return the digest of a question, down to the model's bits, and of the fault that it was answered with."""
    return digest_of({"number": task.number, "asked": [_phase(task), vars(task.body)], "told": asdict(fault)})


def _phase(task: Task) -> str:
    return type(task.body).__name__.lower()


def _refused(task: Task, why: str, reply: Reply | None = None) -> Reply:
    fault = Fault(task.party, "policy", "PolicyRefused", why)
    return Reply((task.number,), (task.party,), fault, 0.0 if reply is None else reply.seconds)


def plain(name: str) -> str:
    """Return the name of a protection as it is compared: in any case, with or without "_" and "-".

    >>> plain("Norm-Bound") == plain("norm_bound")
    True
    """
    return name.lower().replace("_", "").replace("-", "")


def _lacks(names: Sequence[str]) -> str:
    return (
        f"this site's policy asks for {', '.join(names)}, which its copy of the app does not have; add it to the app."
    )


def _keeps(names: Sequence[str], patterns: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (
        f"this site's policy keeps {', '.join(names[:5])}{more} at home; what may leave is {', '.join(patterns)}: "
        f"share that alone."
    )


def _opening(policy: Policy) -> str:
    hours = f"from {policy.hours[:5]} to {policy.hours[6:]}" if policy.hours else "all day"
    return hours if policy.days == DAYS else f"{hours} on {', '.join(policy.days)}"
