import os
import stat
import threading
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.verification import DNSName, IPAddress, PolicyBuilder, Store, VerificationError
from federated import HOST, Clock, enrolled, federation, greeted, listening

from fedloom.core.errors import ConfigError, StorageError
from fedloom.runtime import certificates, provisioning
from fedloom.runtime.authority import Authority
from fedloom.runtime.certificates import Issuer, host_names
from fedloom.runtime.credentials import Credentials
from fedloom.runtime.enrolment import finish_renewal, prepare_renewal
from fedloom.runtime.identity import Subject
from fedloom.runtime.keys import PKI, ROOT, new_tls_key, tls_key, write_private
from fedloom.runtime.provisioning import ISSUING, provision, provisioned, reissue, root_key


def test_private_files_are_their_owners_and_nothing_else_is_left(tmp_path):
    before = os.umask(0)
    try:
        provision(tmp_path / "home", ["fl.example"])
        Authority(tmp_path / "home").invite("north")
        Authority(tmp_path / "home").deny("north", "")
    finally:
        os.umask(before)
    assert [path.name for path in (tmp_path / "home").iterdir()] == [PKI]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "home").rglob("*")}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {path.name for path, mode in modes.items() if path.is_file() and mode != 0o600} <= {".lock"}
    assert root_key(tmp_path / "home").is_file()


def test_a_federation_is_not_overwritten(tmp_path):
    federation(tmp_path / "home")
    before = (tmp_path / "home" / PKI / ROOT).read_bytes()
    with pytest.raises(ConfigError, match="is there already, and is not overwritten"):
        provision(tmp_path / "home", ["fl.example"])
    assert (tmp_path / "home" / PKI / ROOT).read_bytes() == before


def test_of_two_that_provision_at_once_one_does(tmp_path):
    start, told = threading.Barrier(2), []

    def begin():
        start.wait(20)
        try:
            told.append(provision(tmp_path / "home", ["fl.example"]))
        except ConfigError as error:
            told.append(error)

    threads = [threading.Thread(target=begin) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(each is None for each in told) == [False, True]
    assert [path.name for path in (tmp_path / "home").iterdir()] == [PKI]
    assert Credentials(tmp_path / "home").server_context()


def test_a_crash_leaves_nothing_that_passes_for_a_federation(tmp_path, monkeypatch):
    def full(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(provisioning, "own", full)
    with pytest.raises(KeyboardInterrupt):
        provision(tmp_path / "home", ["fl.example"])
    assert not provisioned(tmp_path / "home")
    monkeypatch.undo()
    provision(tmp_path / "home", ["fl.example"])
    assert provisioned(tmp_path / "home")


def test_what_a_killed_process_has_left_is_gone_after_the_next_one(tmp_path, monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr(provisioning.shutil, "rmtree", lambda *_, **__: None)
        killed.setattr(provisioning, "own", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            provision(tmp_path / "home", ["fl.example"])
    assert list((tmp_path / "home").rglob("key.pem"))
    provision(tmp_path / "home", ["fl.example"])
    assert list((tmp_path / "home").rglob("key.pem")) == [root_key(tmp_path / "home")]
    assert [path.name for path in (tmp_path / "home").iterdir()] == [PKI]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"hosts": []}, "needs a host"),
        ({"hosts": ["fl.example:8443"]}, "neither a host's name nor an address"),
        ({"hosts": ["https://fl.example"]}, "neither a host's name"),
        ({"hosts": ["*.example"]}, "neither a host's name"),
        ({"hosts": ["-a.example"]}, "neither a host's name"),
        ({"hosts": ["a..example"]}, "neither a host's name"),
        ({"hosts": [""]}, "neither a host's name"),
        ({"hosts": ["a" * 64]}, "neither a host's name"),
        ({"relay_hosts": ["fl.example"]}, "cannot be both"),
        ({"life_h": 0.5}, "good for 1 to 2160 hours"),
        ({"life_h": float("nan")}, "good for 1 to 2160 hours"),
        ({"name": "a b"}, "cannot be a party's name"),
    ],
)
def test_what_cannot_be_provisioned_leaves_nothing(tmp_path, changes, match):
    with pytest.raises(ConfigError, match=match):
        provision(tmp_path / "home", **{"hosts": ["fl.example"]} | changes)
    assert not (tmp_path / "home").exists()


def stolen(authority, host):
    """Return a coordinator's certificate for a host, as somebody makes it who has the issuing key."""
    issuer = authority._issuer()
    subject = Subject("coordinator", "c", bytes(32))
    leaf = certificates.leaf(new_tls_key().public_key(), subject, [host], issuer, Clock().now, timedelta(hours=1))
    root = x509.load_pem_x509_certificate((authority.home / PKI / ROOT).read_bytes())
    (name,) = host_names([host])
    wanted = IPAddress(name.value) if isinstance(name, x509.IPAddress) else DNSName(name.value)
    verifier = PolicyBuilder().store(Store([root])).build_server_verifier(wanted)
    return lambda: verifier.verify(leaf, [issuer.certificate])


@pytest.mark.parametrize(
    ("hosts", "good", "bad"),
    [
        (["fl.example"], ["fl.example"], ["example", "evil.example", "10.0.0.7", "::1"]),
        (["10.0.0.7", "::1"], ["10.0.0.7", "::1"], ["10.0.0.8", "fl.example", "::2"]),
        (["fl.example", "10.0.0.7"], ["10.0.0.7"], ["10.0.0.8", "evil.example"]),
    ],
)
def test_the_issuing_certificate_vouches_for_the_federations_hosts_only(tmp_path, hosts, good, bad):
    """As an independent verifier reads the name constraints."""
    provision(tmp_path / "home", hosts)
    authority = Authority(tmp_path / "home")
    for host in good:
        assert stolen(authority, host)()
    for host in bad:
        with pytest.raises(VerificationError, match="name constraint"):
            stolen(authority, host)()


def below(issuer, depth):
    """Return an authority below another, with a name of its own: one that is called the same would not be counted."""
    key, now = new_tls_key(), Clock().now
    builder = certificates._builder(
        "below", key.public_key(), issuer.certificate.subject, now, now + timedelta(hours=2)
    )
    return Issuer(certificates._below(certificates._authority(builder, depth), issuer), key)


def test_the_issuing_key_makes_no_other_authority(tmp_path):
    authority = federation(tmp_path / "home")
    issuer = authority._issuer()
    other, subject = below(issuer, 0), Subject("site", "x", bytes(32))
    leaf = certificates.leaf(new_tls_key().public_key(), subject, [], other, Clock().now, timedelta(hours=1))
    root = x509.load_pem_x509_certificate((authority.home / PKI / ROOT).read_bytes())
    verifier = PolicyBuilder().store(Store([root])).build_client_verifier()
    with pytest.raises(VerificationError, match="path length"):
        verifier.verify(leaf, [other.certificate, issuer.certificate])


def test_certificates_live_as_long_as_was_said_and_end_with_the_issuing_one(tmp_path):
    clock = Clock()
    authority = federation(tmp_path / "home", clock, life_h=72)
    assert timedelta(hours=71, minutes=59) < authority.renew_own().expires - clock.now <= timedelta(hours=72)
    clock.now = authority.until - timedelta(hours=1)
    assert authority.renew_own().expires == authority.until
    clock.pass_by(hours=1)
    with pytest.raises(ConfigError, match=r"the issuing certificate expired at .*--root-key"):
        authority.renew_own()


def test_the_issuing_certificate_is_replaced_with_the_root_key_and_sites_go_on(tmp_path):
    authority = federation(tmp_path / "home")
    north, away = enrolled(authority, tmp_path / "north"), tmp_path / "usb.pem"
    root_key(authority.home).rename(away)
    old = authority._issuer().certificate
    reissue(authority.home, away, hosts=["fl.example", HOST], relay_hosts=["127.0.0.2"])
    assert authority._issuer().certificate.serial_number != old.serial_number
    assert authority.hosts == ("fl.example", HOST)
    for _ in range(2):  # first with a certificate of the old one, then with one of the new
        with listening(Credentials(authority.home).server_context(), "site") as (port, seen):
            greeted(north.client_context(), port, HOST, "coordinator")
        assert seen == ["site 'north'"]
        finish_renewal(north.home, authority.renew(north.peer, prepare_renewal(north.home)))
    assert authority.invite("east", "relay", hosts=["127.0.0.2"])
    assert not root_key(authority.home).exists()


def vouched(authority, host):
    """Does what the coordinator shows hold for a host, as an independent verifier reads it?"""
    leaf, *above = x509.load_pem_x509_certificates((authority.home / PKI / "tls.pem").read_bytes())
    root = x509.load_pem_x509_certificate((authority.home / PKI / ROOT).read_bytes())
    try:
        PolicyBuilder().store(Store([root])).build_server_verifier(DNSName(host)).verify(leaf, above)
    except VerificationError:
        return False
    return True


def dying(monkeypatch, passes):
    """Let so many files take their place, and then end the process."""
    left = iter(range(passes))
    for name in ("replace", "rename"):

        def step(path, to, real=getattr(Path, name)):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return real(path, to)

        monkeypatch.setattr(Path, name, step)


STEPS = 7  # three files in a draft, the draft's name, and three files in their place


@pytest.mark.parametrize("first", ["a coordinator that runs", "one that begins"])
@pytest.mark.parametrize("passes", range(STEPS + 1))
def test_who_is_killed_while_hosts_change_leaves_the_old_ones_or_the_new_ones(tmp_path, monkeypatch, passes, first):
    provision(tmp_path, ["old.example"])
    running, key = Authority(tmp_path), root_key(tmp_path)
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt) if passes < STEPS else nullcontext():
        dying(killed, passes)
        reissue(tmp_path, key, hosts=["new.example"])
    found = running if first == "a coordinator that runs" else Authority(tmp_path)
    found.renew_own()
    (host,) = found.hosts
    assert host == ("old.example" if passes <= 3 else "new.example")
    assert vouched(found, host)
    reissue(tmp_path, key, hosts=["new.example"])
    assert vouched(found, "new.example")
    assert not {path.name for path in (tmp_path / PKI).iterdir()} & {"next", ".next"}


def test_what_was_changed_is_shown_before_the_next_renewal(tmp_path, monkeypatch):
    provision(tmp_path, ["old.example"])
    with monkeypatch.context() as killed:
        dying(killed, STEPS - 1)
        with pytest.raises(KeyboardInterrupt):
            reissue(tmp_path, root_key(tmp_path), hosts=["new.example"])
    assert vouched(Authority(tmp_path), "new.example")


def test_another_root_key_is_refused(tmp_path):
    ours, theirs = federation(tmp_path / "ours"), federation(tmp_path / "theirs")
    before = (ours.home / PKI / ISSUING).read_bytes()
    with pytest.raises(ConfigError, match="is not the key of"):
        reissue(ours.home, root_key(theirs.home))
    with pytest.raises(ConfigError, match=r"federation\.json cannot be understood"):
        reissue(tmp_path / "nowhere", root_key(ours.home))
    assert (ours.home / PKI / ISSUING).read_bytes() == before


def test_the_root_signs_with_its_key(tmp_path):
    authority = federation(tmp_path / "home")
    root = x509.load_pem_x509_certificate((authority.home / PKI / ROOT).read_bytes())
    authority._issuer().certificate.verify_directly_issued_by(root)
    assert root.public_key() == tls_key(root_key(authority.home)).public_key()
    assert isinstance(root.signature_hash_algorithm, SHA256)


def test_a_home_that_cannot_be_written_in_is_named(tmp_path, read_only):
    read_only()
    with pytest.raises(StorageError, match=r"\.lock cannot be locked: Read-only file system"):
        provision(tmp_path, ["fl.example"])
    with pytest.raises(ConfigError, match=r"cannot make the folder .*new: Read-only file system"):
        write_private(tmp_path / "new" / "key.pem", b"key")
