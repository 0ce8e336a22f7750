"""The seam: what a coordinator asks, what a party answers, and the federation between them.

Bodies are a closed union; a type that is not in it is refused. A party that fails answers with a `Fault`: failing is a
value, and the schedule decides what it means.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from .hidden import HIDDEN, Backing, HiddenReply, HiddenTask
from .layout import Vector
from .metrics import Metrics
from .update import Update


@dataclass(frozen=True, slots=True)
class Member:
    """A party as the coordinator sees it.

    Args:
        name: of the party.
        examples: how many training examples it declares.
        standing: the share, in (0, 1], of its closed dispatches that were counted; 1 where nobody keeps count.
    """

    name: str
    examples: int
    standing: float = 1.0


@dataclass(frozen=True, eq=False)
class Train:
    """Train from `start` and send back an update.

    Args:
        round: counted from 1.
        start: the shared vector, in the payload's layout.
        layout: digest of the layout of the sum that the update will enter.
        cap: public power of two that numbers of examples are divided by.
        public: what each stage's server half lets clients see, in the order of the stages.
        cohort: how many different clients are asked for the sum, as the coordinator says; 1 where it says nothing.
        peers: of a hidden sum: those whose masks this client's must cancel with.
    """

    round: int
    start: Vector
    layout: str
    cap: int
    public: tuple[Any, ...] = ()
    cohort: int = 1
    peers: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Evaluate:
    """Measure the model on the party's own held-out examples; with `resamples`, bootstrap `figure` that many times."""

    start: Vector
    figure: str = ""
    resamples: int = 0


@dataclass(frozen=True, eq=False)
class Measure:
    """Sum a statistic over the party's training rows: its columns' sums, or squared deviations.

    `what` names the statistic; `known` holds what earlier ones found, by column.
    """

    what: str
    known: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Prepare:
    """Turn rows into numbers with these statistics (by column); answered with `Ready`."""

    statistics: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ready:
    """The party's data is prepared: how many examples it trains on and how many it holds out."""

    train: int
    held_out: int


@dataclass(frozen=True, slots=True)
class Fault:
    """A party did not do what it was asked.

    Args:
        site: who.
        phase: while doing what: "train", "evaluate", "measure", "prepare", "wait", "admit", "policy", or
            a step of a hidden sum: "advertise", "share", "confirm", "unmask", "decrypt", "gather".
        error: the exception's class name.
        message: what happened, in a sentence.
        trace: function names and line numbers, without values or paths.
    """

    site: str
    phase: str
    error: str
    message: str
    trace: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A party's sums over its held-out examples, and (value, low, high) of the figure if a bootstrap was asked for."""

    metrics: Metrics
    estimate: tuple[float, float, float] | None = None


@dataclass(frozen=True, eq=False)
class Trained:
    """A party's encoded update and the sums of its training metrics."""

    update: Update
    metrics: Metrics


TaskBody = Train | Evaluate | Measure | Prepare | HiddenTask
ReplyBody = Trained | Evaluated | Update | Ready | Fault | HiddenReply
ANSWERS: dict[type, type] = {Train: Trained, Evaluate: Evaluated, Measure: Update, Prepare: Ready} | HIDDEN  # by task


@dataclass(frozen=True, eq=False)
class Task:
    """A request to one party.

    Args:
        number: dispatch number, from which the party's random streams follow; a task sent again keeps it.
        party: who is asked.
        body: what is asked.
        merge: may an engine or a relay add answers before passing them on?
        age_s: seconds since it was first sent, if it is sent again to go on with a run.
    """

    number: int
    party: str
    body: TaskBody
    merge: bool = False
    age_s: float = 0.0


@dataclass(frozen=True, eq=False)
class Reply:
    """The answer to one task, or to several that were merged: `numbers` and `parties` name them all.

    `bytes_up` is what arrived for it, where that is not the size of its update.
    """

    numbers: tuple[int, ...]
    parties: tuple[str, ...]
    body: ReplyBody
    seconds: float = 0.0
    bytes_up: int | None = None


class Party(Protocol):
    """Anything that answers: a trainer, a relay, a holder of features."""

    def answer(self, tasks: Sequence[Task]) -> Iterator[Reply]:
        """Yield a reply for each task; an exception becomes a `Fault`."""
        ...

    def settle(self, numbers: Collection[int]) -> None:
        """Learn which of its dispatches were counted in a closed round; only those move its memory."""
        ...


@dataclass(frozen=True, slots=True)
class Ask:
    """A ticket for the replies to one `send`."""

    id: int


class Federation(Protocol):
    """The parties behind one seam: in process, a pool, a network. The app cannot tell."""

    def members(self) -> Sequence[Member]:
        """Who can be asked."""
        ...

    def now(self) -> float:
        """Return seconds on the federation's clock; deadlines are measured on it."""
        ...

    def send(self, tasks: Sequence[Task], ask: Ask | None = None) -> Ask:
        """Ask; returns at once. With `ask`, the tasks join it: their replies come in one stream with those it awaits.

        An ask is open until it is cancelled, and its tasks may have different bodies. Raises `RunError` for an ask that
        is not open, and where a federation carries one set of tasks after the other.
        """
        ...

    def receive(self, ask: Ask, timeout_s: float | None) -> Reply | None:
        """Return the next reply of this ask, or None when `timeout_s` has passed without one.

        Without a timeout it waits for ever, and None says that nothing more will come.
        """
        ...

    def cancel(self, ask: Ask) -> None:
        """Drop what has not been answered."""
        ...

    def give_up(self, ask: Ask, numbers: Collection[int]) -> None:
        """Learn that these count as faults from now on, whatever comes of them."""
        ...

    def asked(self, number: int) -> str | None:
        """Return whom an earlier process asked under this number, and nobody else is asked; None if nobody was."""
        ...

    def settle(self, numbers: Collection[int]) -> None:
        """Tell the parties that these dispatches were counted in a closed round; their memory moves now."""
        ...

    def backing(self) -> Backing:
        """Return what a hidden sum has behind it: nothing, where parties end with this process."""
        ...


def ask_all(
    federation: Federation, names: Iterable[str], body: TaskBody, timeout_s: float | None = None
) -> list[Reply]:
    """Return the replies of these members to one question that does not train, in the order of `names`.

    Who does not answer in time (seconds on the federation's clock) is in the list as a `Fault`.
    """
    tasks = [Task(number, name, body) for number, name in enumerate(names, start=1)]
    ask, began = federation.send(tasks), federation.now()
    replies: dict[int, Reply] = {}
    while len(replies) < len(tasks):
        left = None if timeout_s is None else timeout_s - (federation.now() - began)
        reply = federation.receive(ask, left) if left is None or left > 0 else None
        if reply is None:
            break
        replies[reply.numbers[0]] = reply
    federation.cancel(ask)
    silent = Fault("", "wait", "Deadline", "no reply" if timeout_s is None else f"no reply in {timeout_s} s")
    missing = {t.number: Reply((t.number,), (t.party,), replace(silent, site=t.party)) for t in tasks}
    return [replies.get(task.number, missing[task.number]) for task in tasks]
