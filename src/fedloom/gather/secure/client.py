"""A client's side of a hidden sum: five requests in order, each judged, and nothing said twice in two ways.

Bonawitz et al., CCS 2017 (eprint 2017/281), Figure 4, with the parts for an active adversary. What differs: signatures
also cover the run, the session, the cohort and the model that is trained from; sealed shares arrive with the last
request, in which they are opened, not with the third; a share for itself stays at the client.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...core.errors import UpdateError
from ...core.hidden import (
    Advertise,
    Advertised,
    Confirm,
    Confirmed,
    HiddenReply,
    Identity,
    MaskedTask,
    Share,
    Shared,
    Unmask,
    Unmasked,
)
from ...core.metrics import Metrics
from ...core.task import Reply, Train, Trained
from ...core.tree import Tree, split
from ...core.update import Update
from . import judge, masks, ring, shamir
from .graph import Rule
from .judge import near, require
from .keys import TAG, digest, fresh, public_of
from .pairs import Letters, Pairs, agreed
from .session import Session, advertisement, context, graph_of, named, row, rows, survivors

SEALED = 2 * shamir.WIDTH + TAG  # bytes of two shares for one client
Answer = HiddenReply | Reply

_BEFORE: dict[type, str] = {Share: "advertise", Train: "share", Confirm: "train", Unmask: "confirm"}
_ANSWERS: dict[str, Any] = {"advertise": Advertised, "share": Shared, "confirm": Confirmed, "unmask": Unmasked}


@dataclass(frozen=True, eq=False)
class Client:
    """One client before one request.

    Args:
        identity: who it is, and whom it believes.
        rule: cohort's size -> what a sum of it needs.
        done: the last round of which it has unmasked a sum; it takes part in no other sum of that round or before it.
        sent: the last round for which it has sent a masked update, and the digest of its training and cohort: it takes
            part in no sum of an earlier round, and of that one in none of other clients.
        session: the open one, if there is one.
    """

    identity: Identity
    rule: Callable[[int], Rule]
    done: int = 0
    sent: tuple[int, str] = (0, "")
    session: Session | None = None

    @staticmethod
    def of(prior: Tree, identity: Identity, rule: Callable[[int], Rule]) -> "Client":
        """Return the client whose memory `prior` is."""
        if prior is None:
            return Client(identity, rule)
        return Client(identity, rule, prior["done"], tuple(prior["sent"]), Session(**prior["session"]))

    def answer(self, body: MaskedTask | Train, work: Callable[[], Reply]) -> tuple[Answer, Tree]:
        """Return the answer, and the memory that must be kept before it leaves; raises where it refuses.

        The last request, asked again, is answered as it was, but for training: what is masked is sent by whoever kept
        it, and never made twice. `work` trains.
        """
        said, kept = "" if isinstance(body, Train) else _request(body), self.session
        if kept is not None and kept.request == said and kept.step in _ANSWERS:
            return _ANSWERS[kept.step](**kept.answer), self._memory(kept)
        session, answer = self._next(body, work)
        told = None if isinstance(answer, Reply) else dict(vars(answer))
        return answer, self._memory(session.but(request=said, answer=told))

    def _memory(self, session: Session) -> Tree:
        done = session.round if session.step == "unmask" else self.done
        sent = self.sent if session.step in ("advertise", "share") else (session.round, _training(session))
        return {"done": done, "sent": sent, "session": session.tree()}

    def _next(self, body: MaskedTask | Train, work: Callable[[], Reply]) -> tuple[Session, Answer]:
        match body:
            case Advertise():
                return self._advertise(body)
            case Share():
                return self._share(self._open(body), body)
            case Train():
                return self._train(self._open(body), body, work)
            case Confirm():
                return self._confirm(self._open(body), body)
            case Unmask():
                return self._unmask(self._open(body), body)

    def _open(self, body: MaskedTask | Train) -> Session:
        """Return the open session, if this request is what comes next in it."""
        kind, session = type(body).__name__, self.session
        require(session is not None, f"{kind} belongs to no hidden sum that is open here")
        assert session is not None, "required above"
        of = getattr(body, "session", session.session)
        require(of == session.session, f"{kind} belongs to another session than the one that is open here")
        before = _BEFORE[type(body)]
        require(session.step == before, f"{kind} comes after {before!r}, and {session.step!r} was answered last")
        return session

    def _terms(self, session: Session | Advertise) -> tuple[bytes, Rule]:
        """Return the digest that all of the session is bound to, and what its sum needs."""
        rule = self.rule(len(session.asked))
        return context(session, rule), rule

    def _advertise(self, body: Advertise) -> tuple[Session, Advertised]:
        me, (bound, rule) = self.identity.name, self._terms(body)
        require(body.round > self.done, f"a sum of round {self.done} was unmasked here, so round {body.round} is over")
        require(
            body.round > self.sent[0] or (body.round, _training(body)) == self.sent,
            f"a masked update for round {self.sent[0]} has left here, for a sum of other clients or from another model",
        )
        judge.among("cohort", body.asked, body.asked, me)
        judge.enough("asked are", len(body.asked), rule.survivors)
        reading, masking, seed = fresh(), fresh(), fresh()
        keys = public_of(reading) + public_of(masking) + digest("seed", seed)
        said = {"session": body.session, "round": body.round, "content": body.content, "asked": tuple(body.asked)}
        session = Session(**said, open=row(reading), mask=row(masking), seed=row(seed), keys=row(keys))  # type: ignore[arg-type]
        signature = self.identity.sign(advertisement(bound, self.identity.run, me, keys))
        return session, Advertised(row(keys), row(signature))

    def _share(self, session: Session, body: Share) -> tuple[Session, Shared]:
        (bound, rule), me = self._terms(session), self.identity.name
        judge.keys(session, body, self.identity, rule)
        session = session.but(step="share", roster=tuple(body.names), known=np.array(body.keys))
        there = {me, *graph_of(session, rule, bound).of(me)}
        session = session.but(circle=tuple(name for name in session.roster if name in there))
        judge.enough("near this client, keys have been sent by", len(session.circle), rule.shares)
        judge.introduced(session, body, self.identity, bound)
        session = agreed(session, me, bound)
        points = [session.asked.index(name) + 1 for name in session.circle]
        of_seed, of_key = (shamir.split(bytes(secret), rule.shares, points) for secret in (session.seed, session.mask))
        pairs = {name: _text(*both) for name, *both in zip(session.circle, of_seed, of_key, strict=True)}
        own, letters = pairs.pop(me), Letters(session, me, bound)
        return session.but(own=row(own)), Shared(tuple(pairs), rows([letters.to(n, pairs[n]) for n in pairs], SEALED))

    def _train(self, session: Session, body: Train, work: Callable[[], Reply]) -> tuple[Session, Reply]:
        bound, rule = self._terms(session)
        judge.among("list of peers", body.peers, session.roster, self.identity.name)
        judge.enough("shares have been sent by", len(body.peers), rule.survivors)
        judge.enough("near this client, shares have been sent by", len(near(session, body.peers)), rule.shares)
        judge.training(session, body)
        reply = work()
        if not isinstance(reply.body, Trained):
            raise UpdateError(f"a hidden sum is one of trained updates, got {type(reply.body).__name__}.")
        masked, names = _plain(reply.body)
        masks.add(masked, bytes(session.seed), 1)
        mine = Pairs(session, self.identity.name, bytes(session.mask), bound)
        for peer in near(session, body.peers):
            if peer != self.identity.name:
                masks.add(masked, *mine.mask(peer))
        side = {"session": row(bytes.fromhex(session.session)), "names": row(names)}
        sent = Trained(Update(masked, reply.body.update.layout, side=side), Metrics({"examples": 0}))
        return session.but(step="train", peers=tuple(body.peers), mask=None, seed=None), replace(reply, body=sent)

    def _confirm(self, session: Session, body: Confirm) -> tuple[Session, Confirmed]:
        bound, rule = self._terms(session)
        judge.among("list of survivors", body.alive, session.peers, self.identity.name)
        judge.enough("in the sum are", len(body.alive), rule.survivors)
        session = session.but(step="confirm", alive=tuple(body.alive))
        return session, Confirmed(row(self.identity.sign(survivors(bound, self.identity.run, session))))

    def _unmask(self, session: Session, body: Unmask) -> tuple[Session, Unmasked]:
        (bound, rule), me = self._terms(session), self.identity.name
        judge.confirmed(session, body, self.identity, bound, rule)
        judge.among("list of senders", (*body.senders, me), near(session, session.peers), me)
        judge.rows_of("sealed shares", body.sealed, len(body.senders), SEALED)
        letters = Letters(session, me, bound)
        found: dict[str, bytes | None] = {
            name: letters.read(name, bytes(text)) for name, text in zip(body.senders, body.sealed, strict=True)
        }
        found[me] = bytes(session.own)
        alive = set(session.alive)
        shares = {name: _allowed(text, name in alive) for name, text in found.items() if text is not None}
        gone = session.but(step="unmask", letters=None, own=None, known=None)
        return gone, Unmasked(tuple(shares), rows(list(shares.values()), shamir.WIDTH))


def _training(session: Session | Advertise) -> str:
    """Return a digest of what is trained, and by whom."""
    return digest("training", session.content, named(session.asked)).hex()


def _request(body: MaskedTask) -> str:
    """Return a digest of all that was asked."""
    skeleton, arrays = split(dict(vars(body)))
    texts = [part for array in arrays.values() for part in (array.dtype.str, str(array.shape), array.tobytes())]
    return digest("request", type(body).__name__, json.dumps(skeleton), *texts).hex()


def _text(*shares: int) -> bytes:
    return b"".join(share.to_bytes(shamir.WIDTH, "big") for share in shares)


def _allowed(shares: bytes, alive: bool) -> bytes:
    """Return the share of the seed of one that is in the sum, of the key of one that is not: never both."""
    return shares[: shamir.WIDTH] if alive else shares[shamir.WIDTH :]


def _plain(body: Trained) -> tuple[ring.Ring, bytes]:
    """Return update and metrics as one vector of whole numbers, and the metrics' names."""
    limbs, names = ring.told(body.metrics)
    return np.concatenate([ring.encoded(body.update), limbs]), names
