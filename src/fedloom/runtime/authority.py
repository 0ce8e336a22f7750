"""The authority of a federation: it invites, enrols, renews and denies. It lives with the coordinator."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..core.errors import AccessDenied, ConfigError
from . import certificates
from .certificates import Issuer
from .identity import ROLES, Peer, Subject, check_name, peer_of, utc_now
from .joining import Request, Token, answer
from .keys import PKI, ROOT, TLS, private, read_private, tls_key, write_private
from .provisioning import DENY, ISSUING, ROLL, Settings, alone, chain_of, finish, own, versioned
from .recent import Recent
from .roll import Entry, Issued, Roll

MOST_H = 720  # that a token is good


@dataclass(frozen=True)
class Authority:
    """Says who belongs to a federation; it is the coordinator's.

    Args:
        home: the coordinator's folder, made by `provision`.
        clock: says the time.
    """

    home: Path
    clock: Callable[[], datetime] = utc_now

    def __post_init__(self) -> None:
        finish(self._pki)
        private(self._pki / ISSUING)

    @property
    def _pki(self) -> Path:
        return self.home / PKI

    @property
    def hosts(self) -> tuple[str, ...]:
        """Where the coordinator is reached."""
        return Settings.read(self._pki).hosts

    @property
    def until(self) -> datetime:
        """When the issuing certificate ends; `reissue` before."""
        return self._issuer().certificate.not_valid_after_utc

    def invite(self, name: str, role: str = "site", hours: float = 24, hosts: Sequence[str] = ()) -> str:
        """Return a join token for a party; earlier ones for that name are closed.

        Args:
            name: of the party; role: of `ROLES`, and not "coordinator".
            hours: that the token is good, above 0 and at most 720.
            hosts: where a relay listens; nobody else does.

        Raises:
            ConfigError: the name is taken, or a host is not one of this federation's relays.
        """
        self._check_invited(check_name(name), role, hours, hosts)
        root = x509.load_pem_x509_certificate((self._pki / ROOT).read_bytes()).public_bytes(Encoding.DER)
        token = Token(role, name, os.urandom(32), sha256(root).digest())
        self._roll.invite(name, role, hosts, token.secret, self.clock() + timedelta(hours=hours))
        return token.text()

    def _check_invited(self, name: str, role: str, hours: float, hosts: Sequence[str]) -> None:
        settings, there = Settings.read(self._pki), self._roll.entry(name)
        if role not in ROLES or role == "coordinator":
            raise ConfigError(f"a site, a relay or an operator can be invited, got {role!r}.")
        if name == settings.name or (there is not None and there.subject.role != role):
            raise ConfigError(f"the name {name!r} is taken; names are unique among all roles. Choose another.")
        check_hours(hours)
        if bool(hosts) != (role == "relay") or not set(hosts) <= set(settings.relay_hosts):
            raise ConfigError(
                f"a relay, and nobody else, has hosts, of those of this federation: {list(settings.relay_hosts)}; got "
                f"{role} {name!r} with {list(hosts)}. Others need a new issuing certificate: --root-key."
            )
        if (reason := self._reasons().get(name)) is not None:
            raise ConfigError(f"{name!r} is denied: {reason}. Allow it first.")

    def enrol(self, record: Mapping[str, object]) -> dict[str, str | int]:
        """Return the answer to a request that a token's owner sent; it is on the roll before this returns.

        A token serves one pair of keys. The same pair may ask again while it is good: the first answer can be lost.

        Args:
            record: of `Request`, from somebody who is not known yet.

        Raises:
            AccessDenied: the token is unknown, used, expired, closed or for somebody else, or the request is not good.
        """
        request = Request.of(record)
        invitation = self._roll.invitation(request.secret)
        self._refuse_denied(invitation.name)
        if invitation.closed or invitation.expires <= self.clock():
            why = invitation.closed or f"it expired at {invitation.expires:%Y-%m-%d %H:%M} UTC"
            raise AccessDenied(f"the token for {invitation.name!r} is no longer good: {why}; ask for a new one.")
        try:
            key, subject = request.check()
            if (subject.role, subject.name) != (invitation.role, invitation.name):
                raise AccessDenied(
                    f"{subject} asks with a token for {invitation.role} {invitation.name!r}; join under that name."
                )
        except AccessDenied:
            self._roll.missed(invitation)
            raise
        told, issued = self._issue(key, Entry(subject, invitation.hosts))
        self._roll.admit(invitation, _digest(key, subject), Entry(subject, invitation.hosts), issued)
        return told

    def renew(self, peer: Peer, record: Mapping[str, object]) -> dict[str, str | int]:
        """Return the next certificate of a party, asked for on a connection that its present one opened.

        Args:
            peer: who is on the other side, of `peer_at`.
            record: of `Request`, with an empty secret.

        Raises:
            AccessDenied: the party is denied, or asks for somebody else.
        """
        request = Request.of(record)
        key, subject = request.check()
        if subject != peer.subject or request.secret:
            raise AccessDenied(f"{peer} asks for a certificate of {subject}; a party renews its own, with its own key.")
        entry = self._roll.entry(peer.name)
        if (reason := self.denied(peer)) is not None or entry is None:
            raise AccessDenied(f"{peer} is given no other certificate: {reason}.")
        told, issued = self._issue(key, entry)
        self._roll.issued(entry, issued)
        return told

    def renew_own(self) -> Peer:
        """Give the coordinator its next certificate; `Credentials.reload` takes it up."""
        with alone(self._pki):
            content = own(self._pki, self._issuer(), Settings.read(self._pki), self.clock())
            write_private(self._pki / TLS, content)
        return peer_of(read_private(self._pki / TLS))

    def _issue(self, key: EllipticCurvePublicKey, entry: Entry) -> tuple[dict[str, str | int], Issued]:
        now, life = self.clock(), timedelta(hours=Settings.read(self._pki).life_h)
        issuer = self._issuer()
        leaf = certificates.leaf(key, entry.subject, entry.hosts, issuer, now, life)
        issued = Issued(leaf.serial_number, leaf.not_valid_before_utc, leaf.not_valid_after_utc)
        return answer(chain_of(self._pki, issuer, leaf)), issued

    def denied(self, peer: Peer, age_s: float = 0.0) -> str | None:
        """Return why a party is not let in, or None if it is. Raises if it cannot look.

        Args:
            peer: the party.
            age_s: so old may be what is known of all; where that says no, and with 0, it looks anew.
        """
        if age_s:
            reasons, entries = self._recent.get(age_s)
            if self._why(peer, reasons, entries.get(peer.name)) is None:
                return None
        return self._why(peer, self._reasons(), self._roll.entry(peer.name))

    @cached_property
    def _recent(self) -> Recent[tuple[dict[str, str], dict[str, Entry]]]:
        return Recent(lambda: (self._reasons(), {entry.subject.name: entry for entry in self._roll.entries()}))

    def _why(self, peer: Peer, reasons: Mapping[str, str], entry: Entry | None) -> str | None:
        if (reason := reasons.get(peer.name)) is not None:
            return reason
        if entry is None or entry.subject.role != peer.role:
            return "it is not on this federation's roll; who was taken off it needs a new token"
        if entry.subject.key != peer.key:
            return "it has enrolled again since, with another identity"
        return "its certificate has expired" if peer.expires <= self.clock() else None

    def key(self, name: str) -> bytes | None:
        """Return the identity key of a party on the roll; None if nobody of that name is."""
        entry = self._roll.entry(name)
        return None if entry is None else entry.subject.key

    def admitted(self) -> set[str]:
        """Return the names of those who may call: who is on the roll and not denied."""
        return {entry.subject.name for entry in self._roll.entries()} - self._reasons().keys()

    def deny(self, name: str, reason: str) -> None:
        """Let a party in no more, from now on: neither with its certificate nor with a token.

        Its identity is off the roll for good: a copy of its keys may be in other hands.

        Args:
            name: of the party; reason: a sentence that it will be told.

        Raises:
            ConfigError: nobody of that name was ever invited.
        """
        if not self._roll.knows(name):
            raise ConfigError(f"{name!r} was never invited, so there is nobody to deny; is it spelt right?")
        self._change(name, reason or "the coordinator denied it")
        self._roll.retire(name)

    def allow(self, name: str) -> None:
        """Let a party be invited again; raises `ConfigError` if it is not denied.

        With its old keys it is not let in: it enrols with a new token, and new keys.
        """
        if name not in self._reasons():
            raise ConfigError(f"{name!r} is not denied; denied are {sorted(self._reasons()) or 'none'}.")
        self._roll.retire(name)  # before: it may have been denied by hand, or not to the end
        self._change(name, None)

    def _change(self, name: str, reason: str | None) -> None:
        with alone(self._pki):
            others = {each: why for each, why in self._reasons().items() if each != name}
            denied = others if reason is None else {**others, name: reason}
            write_private(self._pki / DENY, json.dumps({"version": 1, "denied": denied}, indent=2).encode())

    def _reasons(self) -> dict[str, str]:
        denied = versioned(self._pki / DENY).get("denied")
        if not isinstance(denied, dict) or not all(isinstance(why, str) for why in denied.values()):
            raise ConfigError(f'{self._pki / DENY} has the form {{"version": 1, "denied": {{NAME: REASON}}}}; mend it.')
        return denied

    def _refuse_denied(self, name: str) -> None:
        if (reason := self._reasons().get(name)) is not None:
            raise AccessDenied(f"{name!r} is denied: {reason}.")

    def _issuer(self) -> Issuer:
        content = read_private(self._pki / ISSUING)
        return Issuer(x509.load_pem_x509_certificate(content), tls_key(self._pki / ISSUING))

    @cached_property
    def _roll(self) -> Roll:
        return Roll(private(self._pki / ROLL))


def _digest(key: EllipticCurvePublicKey, subject: Subject) -> str:
    shown = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return sha256(subject.key + shown).hexdigest()


def check_hours(hours: float) -> None:
    """Refuse hours that no token is good for."""
    if not 0 < hours <= MOST_H:
        raise ConfigError(f"a token is good for more than 0 and at most {MOST_H} hours, got {hours:g}.")
