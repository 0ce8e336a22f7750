"""One institution's side of a federation: its own copy of the app, its own rows, its own policy."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from hashlib import sha256
from logging import getLogger
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from . import policyfile
from .adapters.threads import one_thread
from .app import App
from .approval import approved
from .core.errors import ConfigError, DataError, RunError, StorageError, WireError
from .core.hidden import Identity
from .core.rng import stream
from .core.strategy import Strategy, Terms
from .core.task import Member
from .core.words import counted
from .data.fingerprint import fingerprint
from .data.holds import hold_out, holdings
from .data.rows import SiteRows
from .gather import Encrypted
from .load import Loaded
from .privacy.account import Account
from .privacy.guarantee import told as told_
from .privacy.ledger import EVALUATE, FILE, MEASURE, TRAIN, Ledger, Run, marks, run_of
from .privacy.standing import standings
from .runtime import shared
from .runtime.channel import peer_at
from .runtime.credentials import Credentials
from .runtime.directory import DIRECTORY, directory, identity
from .runtime.enrolment import (
    enrolment_context,
    finish_enrolment,
    finish_renewal,
    prepare_enrolment,
    prepare_renewal,
)
from .runtime.joining import Token
from .runtime.keys import PKI, TLS
from .runtime.net import enrolling
from .runtime.net.bounds import Answers
from .runtime.net.calling import pauses
from .runtime.net.desk import Desk
from .runtime.net.site import Site
from .runtime.net.spool import Spool, most_bytes
from .runtime.net.telling import Told, unreached, why
from .runtime.policy import QUERY, ROUND, Guarded, Policy
from .runtime.trainer import Trainer
from .runtime.witness import PIN, Witness
from .store.folders import made
from .store.lock import holding
from .store.notes import FILE as NOTES
from .store.notes import Notes
from .store.runs import is_id
from .store.usage import Usage

log = getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Joining:
    """How a site takes part.

    Args:
        name: of the site, as its certificate says.
        home: its folder: keys, policy, approvals, what it must not forget.
        server: host and port of the coordinator.
        data: its rows; None takes the part of the app's own source that its partition gives to this name: for trying
            out, where everything lies on one machine.
        token: to enrol with, the first time.
        role: as its certificate says: of a site, or of a relay.
    """

    name: str
    home: Path
    server: tuple[str, int]
    data: Path | None = None
    token: str | None = None
    role: str = "site"

    def check(self) -> None:
        """Refuse a folder or a token of another party, before anybody is called and anything is written."""
        own = f"{self.role} {self.name!r}"
        if (self.home / PKI / TLS).exists():
            credentials = Credentials(self.home)
            credentials.check()
            peer = credentials.peer
            if (peer.role, peer.name) != (self.role, self.name):
                raise ConfigError(f"{self.home} belongs to {peer}, not to {own}; take another --home or --as.")
        if self.token is not None:
            token = Token.of(self.token)
            if (token.role, token.name) != (self.role, self.name):
                raise ConfigError(
                    f"the token is for {token.role} {token.name!r}, not for {own}, and stays unused; "
                    f"take the token for {own}, or another --as."
                )


def _logged(event: str, /, **values: str | int) -> None:
    log.info(event, extra=values)


def enrolled(joining: Joining, told: Told = _logged) -> Credentials:
    """Return the site's credentials, after enrolling if it has none yet; raises `AccessDenied` or `ConfigError`."""
    joining.check()
    try:
        credentials = Credentials(joining.home)
        peer = credentials.peer
    except ConfigError:
        if joining.token is None:
            raise ConfigError(
                f"{joining.home} has no certificate yet; join with the --token that `fedloom provision` printed."
            ) from None
        _enrol(joining, joining.token, told)
        credentials = Credentials(joining.home)
        peer = credentials.peer
    if peer.expires <= datetime.now(UTC) and joining.token is not None:
        _enrol(joining, joining.token, told)
    return credentials


def _enrol(joining: Joining, token: str, told: Told) -> None:
    """Enrol; who cannot be reached is called again, as a site does later, and as long."""
    since = monotonic()
    for pause_s in pauses():
        try:
            return _asked(joining, token)
        except StorageError:
            raise  # of this machine's own disk: no call mends that
        except RunError as error:
            cause = error.__cause__
            if not unreached(cause) or monotonic() - since > Site.away_s:
                raise
            host, port = joining.server
            told("away", server=f"{host}:{port}", said=f"{why(cause, host)}; calling again in {pause_s:.1f} s")
        sleep(pause_s)


def _asked(joining: Joining, token: str) -> None:
    made(joining.home, "choose another --home")
    context = enrolment_context(joining.home, token, joining.server)
    request = prepare_enrolment(joining.home, token)
    finish_enrolment(joining.home, token, enrolling.enrolled(joining.name, joining.server, context, request))


def rows(app: App, joining: Joining) -> SiteRows:
    """Return the site's rows, some of them held out, as a simulation would hold them out."""
    streams = stream(app.seed, "partition")
    if joining.data is not None:
        return hold_out(app.data.source.read(joining.data), app.data.holdout, streams, joining.name)
    held = holdings(app.data.source.read(), app.data.partition, app.data.holdout, streams)
    if joining.name not in held:
        some = ", ".join(list(held)[:8])
        raise DataError(f"the app's partition has no part for {joining.name!r}; there are {some}; or give --data.")
    return held[joining.name]


def join(loaded: Loaded, joining: Joining, told: Told) -> Site:
    """Return the site, ready to `live`; nothing has been sent but a request to enrol, if that was needed.

    Raises `DataError` for rows that do not fit the app's schema, `ConfigError` for a folder that is somebody else's.
    """
    policyfile.admit(joining.home, loaded.source)
    one_thread()
    own = rows(loaded.app, joining)
    if not own.train_size:
        raise DataError(f"{joining.name} has no rows to train on.")
    credentials = enrolled(joining, told)
    if loaded.app.strategy.gather.hides:
        _known(loaded, joining.home, "")  # refused now, not in a round
    books = booked(joining, own)
    policy = policyfile.read(joining.home)
    told("ledger", said=_spent(*books, policy))
    if policy.approval == "required" and not approved(joining.home, loaded.identity):
        told("approval", said=unapproved(joining.home))
    return Site(
        joining.name,
        loaded.identity,
        (Member(joining.name, own.train_size),),
        partial(desk, loaded, joining, own, books),
        joining.server,
        credentials.client_context,
        lambda sock: peer_at(sock, "coordinator", "relay"),
        credentials.sign,
        told,
        renewal=lambda: _due(joining.home, credentials),
        renewed=lambda answer: _renewed(joining.home, answer),
    )


def unapproved(home: Path) -> str:
    """Return what a site is told that joins before anybody has approved the app.

    >>> unapproved(Path("north"))
    'nobody has approved this app here: every task is refused until `fedloom approve APP --home north` is run'
    """
    return f"nobody has approved this app here: every task is refused until `fedloom approve APP --home {home}` is run"


def desk(loaded: Loaded, joining: Joining, own: SiteRows, books: tuple[Ledger, int], run: str) -> Desk:
    """Return what a site works with in a run: a trainer behind the site's policy, and its journal."""
    app, folder = loaded.app, joining.home / "runs" / _plain(run)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # updates before they leave, and the secrets of hidden sums
    model = app.built
    known = _known(loaded, joining.home, run) if app.strategy.gather.hides else None
    # Without a bootstrap: the app's seed says which rows it draws, and their quantiles would name them.
    trainer = Trainer(joining.name, model, app.strategy, own, app.seed, identity=known)
    policy = policyfile.read(joining.home)
    notes = Notes(folder / NOTES)
    account = Account.opened(*books, ran(loaded, run, own.train_size), policy.budget, notes)
    party = Guarded(
        trainer,
        policy,
        counters(joining.home, books[0], loaded.identity, run),
        datetime.now,
        app.strategy,
        app.rounds,
        lambda: approved(joining.home, loaded.identity),
        account,
    )
    payload = app.strategy.payload(model.layout)

    @lru_cache(maxsize=4)  # a total's digest is that of all its leaves, and most rounds have room for as many
    def terms(cohort: int) -> Terms:
        found = Terms(model.layout, payload, payload.weighted(cohort), 1)
        app.strategy.fits(found.total)
        return found

    def room(cohort: int) -> None:
        trainer.terms = terms(cohort)

    most = most_bytes(model.layout.size)
    watching = witness(joining.home, run, policy.witnesses, books, notes, app.strategy.schedule.streams)
    spools = Spool(folder / "in", most, light=True), Spool(folder / "out", most)
    return Desk(trainer, party, notes, *spools, room, watching, party.refusal, settling(app.strategy))


def settling(strategy: Strategy) -> Answers:
    """Return how many answers may wait to be settled: where a step has a size, all of it may be one site's."""
    return Answers().beside(getattr(strategy.schedule, "size", 0))


def witness(home: Path, run: str, least: int, books: tuple[Ledger, int], notes: Notes, streams: bool) -> Witness:
    """Return a site as a witness of a run's record; raises `ConfigError` if it lacks the keys that it insists on."""
    credentials = Credentials(home)
    others = directory(home).values() if (home / DIRECTORY).exists() else ()
    if len(set(others) - {credentials.peer.key}) < least:
        raise ConfigError(
            f"the policy asks for {least} other witnesses, and {home / DIRECTORY} has keys of "
            f"{max(0, len(others) - 1)} other sites; add them, or ask for fewer."
        )
    ledger, data = books
    salted = sha256(f"{run}/{ledger.chain.entries[data]['digest']}".encode()).hexdigest()
    seen = home / "runs" / _plain(run)
    key, sign = credentials.peer.key, credentials.sign
    return Witness(notes, seen, home / PKI / PIN, run, key, sign, others, least, salted, streams)


def booked(joining: Joining, own: SiteRows) -> tuple[Ledger, int]:
    """Return the site's ledger, and the place of these rows in it; raises `RecordError` if it is an older copy."""
    path = ledger_file(joining.home, policyfile.read(joining.home))
    ledger = Ledger.opened(path, marks(joining.home / "runs"))
    known = fingerprint(own, ledger.key)
    return ledger, ledger.known(known.digest, known.rows, known.sketch)


def counters(home: Path, ledger: Ledger, app: str, run: str) -> Usage:
    """Return what a run has been answered: by the counters' file or by the ledger, whichever says more.

    So a file that is lost, or older, gives nothing back that the ledger knows of. Other homes may write in the ledger
    too: a run that has no folder here is theirs.
    """
    usage = Usage(home / "usage.db", app, run)
    for each, answers in ledger.answered(app).items():
        if each != run and not (home / "runs" / each).is_dir():
            continue
        queries = answers[EVALUATE] + answers[MEASURE]
        usage.recall(each, {ROUND: answers[TRAIN], QUERY: queries})
    return usage


def ran(loaded: Loaded, run: str, examples: int) -> Run:
    """Return a run as the ledger has it, of a site that trains on so many examples."""
    app = loaded.app
    return run_of(app.strategy, run=run, app=loaded.identity, name=app.name, rounds=app.rounds, examples=examples)


def ledger_file(home: Path, policy: Policy) -> Path:
    """Return where a site's ledger lies: a path that is not absolute begins at its home.

    >>> ledger_file(Path("north"), Policy(ledger="../rows.jsonl")).as_posix()
    'north/../rows.jsonl'
    """
    return home / (policy.ledger or FILE)


def _spent(ledger: Ledger, data: int, policy: Policy) -> str:
    """Say what these rows have spent before, and what is left."""
    found = standings(ledger, policy.budget)[ledger.data().index(data)]
    spent = "of several kinds" if found.total is None else f"ε = {told_(found.total.epsilon)}"
    left = "no budget is set" if policy.budget is None else f"{found.left:.4g} of {policy.budget} are left"
    rows, runs = counted(found.rows, "row"), counted(len(found.runs), "run")
    return f"data set {found.digest[:12]}, {rows}: spent over {runs} {spent}; {left}"


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Hold a site's folder: nobody else joins from it meanwhile; the lock goes with the process."""
    made(home, "choose another --home")
    with holding(home / ".lock", f"another process joins from {home}; stop it, or take another --home."):
        yield


def _known(loaded: Loaded, home: Path, run: str) -> Identity:
    """Return who this site is to the others of a hidden sum; refuses what is missing for that."""
    known = identity(home, f"{run} {loaded.identity}")
    return replace(known, secret=shared.read(home)) if isinstance(loaded.app.strategy.gather, Encrypted) else known


def _plain(run: str) -> str:
    """Return a run's id as a folder's name; raises `WireError` for one that is none."""
    if not is_id(run):
        raise WireError(f"{run[:80]!r} is not the id of a run.")
    return run


def _due(home: Path, credentials: Credentials) -> Mapping[str, Any] | None:
    return prepare_renewal(home) if credentials.due_for_renewal(datetime.now(UTC)) else None


def _renewed(home: Path, answer: Mapping[str, Any]) -> bool:
    return finish_renewal(home, answer) is not None
