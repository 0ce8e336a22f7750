"""A federation's keys and certificates, made once: in HOME/pki of the coordinator.

Files: root.pem (public), root/key.pem (to be moved away), issuing.pem, tls.pem, identity.pem, roll.db, deny.json and
federation.json. Those with keys are readable by their owner only, and so is the folder. Files that fit one another are
replaced together: the new ones lie whole in a folder of their own before the first takes its place.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ..core.errors import ConfigError
from ..store.files import synced, writing
from ..store.folders import made
from ..store.lock import holding
from . import certificates
from .certificates import Issuer
from .identity import Subject, check_name, utc_now
from .keys import IDENTITY, PKI, ROOT, TLS, identity_key, kept_identity, new_tls_key, pem, tls_key, write_private

ISSUING, ROOT_KEY, ROLL = "issuing.pem", "root/key.pem", "roll.db"
DENY, SETTINGS = "deny.json", "federation.json"
LOCK, PATIENCE_S = ".lock", 30.0
_NEXT = "next"  # a folder of files that are about to take the place of those of the same name
_HOURS = (1, 24 * 90)  # how long a certificate may live


@dataclass(frozen=True)
class Settings:
    """What was said when the federation was provisioned.

    Args:
        name: of the coordinator; hosts: where it is reached.
        relay_hosts: where relays may be reached.
        life_h: hours that a certificate is good.
    """

    name: str
    hosts: tuple[str, ...]
    relay_hosts: tuple[str, ...]
    life_h: float

    def content(self) -> bytes:
        """Return what their file holds."""
        return json.dumps({"version": 1, **asdict(self)}, indent=2).encode()

    @staticmethod
    def read(pki: Path) -> "Settings":
        """Return those of a folder; raises `ConfigError` if it is no authority's."""
        told = versioned(pki / SETTINGS)
        return Settings(told["name"], tuple(told["hosts"]), tuple(told["relay_hosts"]), told["life_h"])


def versioned(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of version 1; raises `ConfigError` for anything else."""
    try:
        told = json.loads(path.read_bytes())
        if told["version"] == 1:
            return dict(told)
        raise ValueError(f"its version is {told['version']!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} cannot be understood: {error}; mend it, or restore it from a copy.") from error


def provisioned(home: Path) -> bool:
    """Return whether there is a federation's authority in a folder."""
    return (home / PKI / ISSUING).exists()


def root_key(home: Path) -> Path:
    """Return where `provision` leaves the root key."""
    return home / PKI / ROOT_KEY


def provision(
    home: Path,
    hosts: Sequence[str],
    *,
    relay_hosts: Sequence[str] = (),
    name: str = "coordinator",
    life_h: float = 24,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Make a federation's keys and certificates in HOME/pki, whole or not at all.

    The root key is in HOME/pki/root/key.pem: move it to a place without a network. It is needed again only when the
    issuing certificate ends, after two years, or when hosts change.

    Args:
        home: the coordinator's folder.
        hosts: names and addresses at which the coordinator is reached, at least one.
        relay_hosts: those of relays.
        name: the coordinator's.
        life_h: hours that a certificate is good, 1 to 2160; a party that is away for longer needs a new invitation.
        clock: says the time.

    Raises:
        ConfigError: there is a federation already, a host is none, or the folder cannot be made.
    """
    settings = _checked(Settings(check_name(name), tuple(hosts), tuple(relay_hosts), life_h))
    made(home, "take another folder", 0o700)
    if (home / PKI).exists():
        raise ConfigError(f"{home / PKI} is there already, and is not overwritten; take another folder.")
    with holding(home / LOCK, f"another process provisions {home}; wait for it.", PATIENCE_S):
        try:
            _make(home, settings, clock)
        except OSError as error:
            raise ConfigError(f"{home / PKI} cannot be made: {error.strerror}; take another folder.") from error
        finally:
            with suppress(OSError):
                (home / LOCK).unlink()


def _make(home: Path, settings: Settings, clock: Callable[[], datetime]) -> None:
    for left in home.glob(f".{PKI}-*"):  # of a process that was killed, with a root key in it
        shutil.rmtree(left)
    draft = Path(tempfile.mkdtemp(prefix=f".{PKI}-", dir=home))  # readable by its owner only
    try:
        _write_all(draft, settings, clock)
        draft.rename(home / PKI)
        synced(home)
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # nothing, when it was renamed


def _checked(settings: Settings) -> Settings:
    certificates.host_names((*settings.hosts, *settings.relay_hosts))
    if not settings.hosts:
        raise ConfigError("a coordinator needs a host under which sites reach it; give --host, such as fl.example.")
    if both := set(settings.hosts) & set(settings.relay_hosts):
        raise ConfigError(
            f"{sorted(both)} cannot be both the coordinator's and a relay's; give the relay its own host."
        )
    if not _HOURS[0] <= settings.life_h <= _HOURS[1]:
        raise ConfigError(f"a certificate is good for {_HOURS[0]} to {_HOURS[1]} hours, got {settings.life_h:g}.")
    return settings


def _write_all(pki: Path, settings: Settings, clock: Callable[[], datetime]) -> None:
    root = certificates.root(new_tls_key(), clock())
    write_private(pki / ROOT_KEY, pem(root.key))
    write_private(pki / ROOT, _pem(root.certificate))
    write_private(pki / DENY, json.dumps({"version": 1, "denied": {}}, indent=2).encode())
    write_private(pki / ROLL, b"")  # before the database: it keeps the mode
    kept_identity(pki / IDENTITY)
    for name, content in _issued(pki, root, settings, clock()).items():
        write_private(pki / name, content)


def _issued(pki: Path, root: Issuer, settings: Settings, now: datetime) -> dict[str, bytes]:
    """Return the files that change with the issuing certificate; they fit one another, and no others."""
    issuer = certificates.issuing(new_tls_key(), root, (*settings.hosts, *settings.relay_hosts), now)
    issuing = pem(issuer.key) + _pem(issuer.certificate)
    return {ISSUING: issuing, SETTINGS: settings.content(), TLS: own(pki, issuer, settings, now)}


def own(pki: Path, issuer: Issuer, settings: Settings, now: datetime) -> bytes:
    """Return a new certificate of the coordinator and those above it, behind its new key."""
    key = new_tls_key()
    public = identity_key(pki / IDENTITY).public_key().public_bytes_raw()
    subject = Subject("coordinator", settings.name, public)
    life = timedelta(hours=settings.life_h)
    leaf = certificates.leaf(key.public_key(), subject, settings.hosts, issuer, now, life)
    return pem(key) + chain_of(pki, issuer, leaf).encode()


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def chain_of(pki: Path, issuer: Issuer, leaf: x509.Certificate) -> str:
    """Return leaf, issuing and root: the root too, so that who has only its fingerprint can be shown it."""
    return (_pem(leaf) + _pem(issuer.certificate) + (pki / ROOT).read_bytes()).decode()


def reissue(
    home: Path,
    key: Path,
    *,
    hosts: Sequence[str] = (),
    relay_hosts: Sequence[str] = (),
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Replace the issuing certificate: before it ends, or when hosts change. Sites need nothing: they trust the root.

    Args:
        home: the coordinator's folder.
        key: where the root key lies now; it is read, and not kept.
        hosts: the coordinator's from now on; those of before if none are given.
        relay_hosts: of relays, beside those of before.
        clock: says the time.

    Raises:
        ConfigError: it is not this federation's root key.
    """
    Settings.read(home / PKI)  # refused if it is no authority's
    with alone(home / PKI):
        _reissue(home / PKI, key, hosts, relay_hosts, clock())


def _reissue(pki: Path, key: Path, hosts: Sequence[str], relay_hosts: Sequence[str], when: datetime) -> None:
    before = Settings.read(pki)
    relays = (*before.relay_hosts, *(host for host in relay_hosts if host not in before.relay_hosts))
    now = replace(before, hosts=tuple(hosts) or before.hosts, relay_hosts=relays)
    root = Issuer(x509.load_pem_x509_certificate((pki / ROOT).read_bytes()), tls_key(key))
    if root.certificate.public_key() != root.key.public_key():
        raise ConfigError(f"{key} is not the key of {pki / ROOT}; bring the one that was made with it.")
    _replace(pki, _issued(pki, root, _checked(now), when))


def _replace(pki: Path, files: Mapping[str, bytes]) -> None:
    """Write files in the place of those that are there: all or none, also if this process is killed."""
    draft = pki / f".{_NEXT}"
    shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed before it meant it
    for name, content in files.items():
        write_private(draft / name, content)
    with writing(pki / _NEXT):
        draft.rename(pki / _NEXT)  # from here on they are what holds
        synced(pki)
    _take_over(pki)


def finish(pki: Path) -> None:
    """Finish what a process has begun that was killed while it replaced files, if one was."""
    if (pki / _NEXT).is_dir():
        with alone(pki):
            pass


def _take_over(pki: Path) -> None:
    if not (pki / _NEXT).is_dir():
        return
    with writing(pki / _NEXT):
        for path in sorted((pki / _NEXT).glob("*")):
            path.replace(pki / path.name)
        synced(pki)
        (pki / _NEXT).rmdir()


@contextmanager
def alone(pki: Path) -> Iterator[None]:
    """Let no other process change these files meanwhile; what one that was killed has begun is finished first."""
    with holding(pki / LOCK, f"another process changes {pki}, and does not end; try again.", PATIENCE_S):
        _take_over(pki)
        yield
