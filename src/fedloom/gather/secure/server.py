"""The coordinator's side of a hidden sum: it carries keys, shares and lists between clients, adds, and takes masks off.

Bonawitz et al., CCS 2017 (eprint 2017/281), Figure 4. It holds one vector, whatever the size of the cohort.

Clients unmask one sum of a round. So the coordinator keeps the masked one before it asks them to, and the sum before it
is acted on: killed in between, it goes on with that sum.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from secrets import token_hex

from ...core.errors import UpdateError
from ...core.hidden import Advertise, Advertised, Backing, Confirm, Confirmed, Share, Shared, Unmask, Unmasked
from ...core.layout import Array
from ...core.task import Federation, Reply, Task, TaskBody, Train, Trained
from .asking import Asking, cohort, told
from .client import SEALED
from .graph import Graph, Rule
from .keys import SIGNATURE, SIZE, signed, usable
from .masked import Masked, is_bytes
from .recovery import Recovery
from .session import KEYS, Session, advertisement, content_of, context, graph_of, rows, survivors

Taken = Callable[[str, Reply], None]


def collect(
    rule: Callable[[int], Rule],
    federation: Federation,
    tasks: Sequence[Task],
    close: Callable[[], float | None],
    least: int = 0,
) -> Iterator[Reply]:
    """Yield one reply, the sum of all that stayed, and a fault for each that did not; without a sum, faults for all.

    Args:
        rule: cohort's size -> what a sum of it needs; federation, tasks, close, least: as of `Gather.collect`.

    Raises `ConfigError` for what can never be a hidden sum.
    """
    if not tasks:
        return
    asked, body = cohort(tasks)
    asking = Asking(federation, {task.party: task for task in tasks}, close)
    session = Session(session=token_hex(16), round=body.round, content=content_of(body), asked=asked)
    yield from told(asking, tasks, Sum(asking, body, session, rule(len(asked)), federation.backing(), least).run)


@dataclass(eq=False)
class Sum:
    """One hidden sum while it is gathered.

    Args:
        asking: who asks.
        body: the training that is asked for.
        session: the coordinator's view of it, without a secret.
        rule: what the sum needs.
        backing: what outlives this process, and whose key is whose.
        least: how many must be in the sum for it to be of use.
        graph: who masks with whom, once everybody's keys are there.
        keys: public keys and signatures by name; sealed: shares by sender and receiver; signatures: of the survivors.
        bytes_up, seconds: of all that arrived.
    """

    asking: Asking
    body: Train
    session: Session
    rule: Rule
    backing: Backing
    least: int = 0
    graph: Graph | None = None
    keys: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    sealed: dict[str, dict[str, bytes]] = field(default_factory=dict)
    signatures: dict[str, Array] = field(default_factory=dict)
    bytes_up: int = 0
    seconds: float = 0.0

    def run(self) -> Reply:
        """Return the sum as the reply of all that are in it; raises `UpdateError` if too few are left for one."""
        masked = Masked(self.session.session, self.body.layout)
        step = self._kept(masked)
        if step == "":
            self._advertise()
            self._share()
            self._train(masked)
            self._confirm()
            self._keep(masked, "confirmed")
        if step != "unmasked":
            self._unmask().unmask(masked.total)
            self._keep(masked, "unmasked")
        tasks = [self.asking.tasks[name] for name in self.session.alive]
        numbers, names = tuple(task.number for task in tasks), tuple(task.party for task in tasks)
        return Reply(numbers, names, masked.trained(), self.seconds, self.bytes_up)

    @property
    def _needed(self) -> int:
        """How many must be there at each step before the sum: with fewer nobody trains for it."""
        return max(self.rule.survivors, self.least)

    def _keep(self, masked: Masked, step: str) -> None:
        """Write down how far the sum is, from when clients may have unmasked it."""
        sealed = {name: {"of": tuple(of), "rows": rows(list(of.values()), SEALED)} for name, of in self.sealed.items()}
        value = {"step": step, "session": self.session.tree(), "masked": masked.tree(), "sealed": sealed}
        value |= {"signatures": dict(self.signatures), "spent": (self.bytes_up, self.seconds)}
        self.backing.keep(self.asking.number, value)

    def _kept(self, masked: Masked) -> str:
        """Take up a sum of this training and cohort that was kept; return the step that it had come to, or nothing."""
        value = self.backing.kept(self.asking.number)
        known = None if value is None else Session(**value["session"])
        said = self.session
        if known is None or (known.round, known.content, known.asked) != (said.round, said.content, said.asked):
            return ""
        masked.goes_on(value["masked"])
        self.session, self.graph = known, graph_of(known, self.rule, context(known, self.rule))
        self.sealed = {
            name: dict(zip(one["of"], map(bytes, one["rows"]), strict=True)) for name, one in value["sealed"].items()
        }
        self.signatures, (self.bytes_up, self.seconds) = value["signatures"], value["spent"]
        return str(value["step"])

    def _advertise(self) -> None:
        said = self.session
        body = Advertise(said.session, said.round, said.content, said.asked)

        def take(name: str, reply: Reply) -> None:
            match reply.body:
                case Advertised(keys, signature) if is_bytes(keys, (KEYS,)) and is_bytes(signature, (SIGNATURE,)):
                    bound = context(said, self.rule)
                    self._refuse_unsigned(
                        name, signature, advertisement(bound, self.backing.run, name, bytes(keys)), "keys"
                    )
                    self._refuse_odd(keys)
                    self.keys[name] = keys, signature
                case _:
                    raise UpdateError(f"keys are {KEYS} bytes, and their signature {SIGNATURE}.")

        self._step("advertise", dict.fromkeys(said.asked, body), Advertised, take)
        roster = self._enough("advertised keys", self.keys, self._needed)
        self.session = said.but(roster=roster, known=rows([bytes(self.keys[name][0]) for name in roster], KEYS))
        self.graph = graph_of(self.session, self.rule, context(said, self.rule))

    def _refuse_unsigned(self, name: str, signature: Array, message: bytes, what: str) -> None:
        """Refuse what clients would not believe, so that nobody but whoever sent it is lost."""
        key = self.backing.directory.get(name)
        if key is not None and not signed(key, bytes(signature), message):
            raise UpdateError(f"its {what} are not signed for this sum by the key of {name!r}; it is left out.")

    def _refuse_odd(self, keys: Array) -> None:
        """Refuse keys for which the other clients would refuse the sum: nobody's but whoever sent them is lost."""
        given = [bytes(keys[:SIZE]), bytes(keys[SIZE : 2 * SIZE])]
        known = {bytes(other[at : at + SIZE]) for other, _ in self.keys.values() for at in (0, SIZE)}
        if given[0] == given[1] or not known.isdisjoint(given) or not all(map(usable, given)):
            raise UpdateError("keys are two, nobody else's, and such that a secret can be agreed on.")

    def _share(self) -> None:
        said, roster = self.session, self.session.roster
        signatures, there = rows([bytes(self.keys[name][1]) for name in roster], SIGNATURE), set(roster)

        def take(name: str, reply: Reply) -> None:
            match reply.body:
                case Shared(names, sealed) if (
                    len(set(names)) == len(names)
                    and set(names) == self._near(name, there)
                    and is_bytes(sealed, (len(names), SEALED))
                ):
                    self.sealed[name] = dict(zip(names, map(bytes, sealed), strict=True))
                case _:
                    raise UpdateError(f"shares are {SEALED} bytes for each client there that it masks with.")

        body = Share(said.session, roster, said.known, signatures)
        self._step("share", dict.fromkeys(roster, body), Shared, take)
        self.session = said.but(peers=self._enough("shared their secrets", self.sealed, self._needed))

    def _train(self, masked: Masked) -> None:
        def take(name: str, reply: Reply) -> None:
            assert isinstance(reply.body, Trained), "no other is handed on"
            masked.add(name, reply.body)
            self.bytes_up += reply.body.update.size_bytes

        body = replace(self.body, peers=self.session.peers)
        self._step("train", dict.fromkeys(self.session.peers, body), Trained, take)
        self.session = self.session.but(alive=self._enough("sent masked updates", masked.alive, self._needed))

    def _confirm(self) -> None:
        message = survivors(context(self.session, self.rule), self.backing.run, self.session)

        def take(name: str, reply: Reply) -> None:
            match reply.body:
                case Confirmed(signature) if is_bytes(signature, (SIGNATURE,)):
                    self._refuse_unsigned(name, signature, message, "survivors")
                    self.signatures[name] = signature
                case _:
                    raise UpdateError(f"a signature has {SIGNATURE} bytes.")

        body = Confirm(self.session.session, self.session.alive)
        self._step("confirm", dict.fromkeys(self.session.alive, body), Confirmed, take)
        self._enough("confirmed who is in the sum", self.signatures, self.rule.shares)

    def _unmask(self) -> Recovery:
        said = self.session
        assert self.graph is not None, "made when keys were advertised"
        recovery, there = Recovery(said, context(said, self.rule), self.graph, self.rule.shares), set(said.peers)

        def body(name: str) -> Unmask:
            near = self._near(name, there)
            senders = tuple(peer for peer in said.peers if peer in near)
            signers = tuple(one for one in self.signatures if one in near or one == name)[: self.rule.shares]
            signatures = rows([bytes(self.signatures[one]) for one in signers], SIGNATURE)
            letters = rows([self.sealed[sender][name] for sender in senders], SEALED)
            return Unmask(said.session, signers, signatures, senders, letters)

        def take(name: str, reply: Reply) -> None:
            assert isinstance(reply.body, Unmasked), "no other is handed on"
            recovery.take(name, reply.body)

        self._step("unmask", {name: body(name) for name in self.signatures}, Unmasked, take)
        if lacking := recovery.lacking():
            what = f"gave shares of {', '.join(lacking[:3])}"
            raise UpdateError(self._too_few(what, recovery.fewest, self.rule.shares))
        return recovery

    def _near(self, name: str, there: set[str]) -> set[str]:
        """Return those of these clients whom a client masks with."""
        assert self.graph is not None, "made when keys were advertised"
        return there.intersection(self.graph.of(name))

    def _step(self, name: str, bodies: Mapping[str, TaskBody], kind: type, take: Taken) -> None:
        """Ask, and take in what comes; what cannot be taken is a fault."""
        for reply in self.asking.step(name, bodies, kind):
            self.seconds += reply.seconds
            self.bytes_up += _size(reply)
            try:
                take(reply.parties[0], reply)
            except UpdateError as error:
                self.asking.refuse(reply, "admit" if kind is Trained else name, str(error))

    def _enough(
        self, what: str, there: Mapping[str, object] | Sequence[str], needed: int | None = None
    ) -> tuple[str, ...]:
        """Return who is there, in the order of the cohort; raises `UpdateError` if they are too few."""
        needed = self.rule.survivors if needed is None else needed
        if len(there) < needed:
            raise UpdateError(self._too_few(what, len(there), needed))
        known = set(there)
        return tuple(name for name in self.session.asked if name in known)

    def _too_few(self, what: str, there: int, needed: int) -> str:
        asked = len(self.session.asked)
        return (
            f"{there} of {asked} clients {what}, and a hidden sum of {asked} needs {needed} to the end; "
            "nothing was unmasked."
        )


def _size(reply: Reply) -> int:
    """Return the bytes of arrays in a reply of the protocol; an update is counted when it is taken."""
    parts = () if isinstance(reply.body, Trained) else vars(reply.body).values()
    return sum(int(part.nbytes) for part in parts if hasattr(part, "nbytes"))
