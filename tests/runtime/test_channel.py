"""Real TLS sockets on the loopback address: who is let in, and who is not."""

import socket
import ssl
from hashlib import sha256

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from federated import HOST, TIMEOUT_S, Clock, enrolled, federation, greeted, listening, trusts

from fedloom.core.errors import AccessDenied, ConfigError, RunError
from fedloom.runtime.channel import fetched_root, trusting
from fedloom.runtime.credentials import Credentials
from fedloom.runtime.enrolment import enrolment_context, finish_enrolment, prepare_enrolment
from fedloom.runtime.keys import PKI, ROOT, TLS


def server(authority):
    return Credentials(authority.home).server_context()


@pytest.mark.parametrize("host", [HOST, "localhost"])
def test_a_site_and_its_coordinator_know_each_other(tmp_path, host):
    authority = federation(tmp_path / "home")
    site = enrolled(authority, tmp_path / "north")
    with listening(server(authority), "site") as (port, seen):
        said, peer = greeted(site.client_context(), port, host, "coordinator")
    assert (said, seen, str(peer)) == (b"welcome", ["site 'north'"], "coordinator 'coordinator'")
    assert authority.denied(site.peer) is None


def test_who_shows_no_certificate_connects_and_is_nobody(tmp_path):
    authority = federation(tmp_path / "home")
    with listening(server(authority)) as (port, seen):
        assert greeted(trusting(authority.home / PKI / ROOT), port)[0] == b"welcome"
    assert seen == ["TLSv1.3"]
    with listening(server(authority), "site") as (port, seen), pytest.raises(ssl.SSLError):
        greeted(trusting(authority.home / PKI / ROOT), port)
    assert isinstance(seen[0], AccessDenied)
    assert "showed no certificate" in str(seen[0])


def refused(context, port, match):
    """With TLS 1.3 a client may see the refusal only when it reads."""
    with pytest.raises((ssl.SSLError, ConnectionError), match=match):
        greeted(context, port)


def test_an_expired_certificate_is_refused(tmp_path):
    clock = Clock()
    clock.pass_by(days=-2)
    authority = federation(tmp_path / "home", clock)
    token = authority.invite("north")
    answer = authority.enrol(prepare_enrolment(tmp_path / "north", token))
    trusts(authority, tmp_path / "north")
    with pytest.raises(AccessDenied, match="is this machine's clock right"):
        finish_enrolment(tmp_path / "north", token, answer)
    key = (tmp_path / "north" / PKI / "pending.pem").read_text()
    (tmp_path / "north" / PKI / TLS).touch(mode=0o600)
    (tmp_path / "north" / PKI / TLS).write_text(key + answer["chain"])
    clock.pass_by(days=2)
    authority.renew_own()
    with listening(server(authority), "site") as (port, seen):
        late, context = Credentials(tmp_path / "north"), trusting(tmp_path / "north" / PKI / ROOT)
        late.reload(context)
        refused(context, port, "expired")
    with pytest.raises(AccessDenied, match=r"the certificate of site 'north' expired at .* come back with --token"):
        late.client_context()
    assert "certificate has expired" in str(seen[0])


def test_a_certificate_of_another_federation_is_refused_by_both_sides(tmp_path):
    ours, theirs = federation(tmp_path / "ours"), federation(tmp_path / "theirs")
    stranger = enrolled(theirs, tmp_path / "stranger")
    with listening(server(ours), "site") as (port, seen):
        refused(stranger.client_context(), port, "certificate verify failed")
    with listening(server(ours), "site") as (port, seen):
        careless = stranger.client_context()
        careless.load_verify_locations(ours.home / PKI / ROOT)
        refused(careless, port, "unknown ca")
    assert "certificate verify failed" in str(seen[0])


def test_a_site_cannot_pass_for_the_coordinator(tmp_path):
    """Neither by TLS (its certificate is for clients, and names no host), nor by its role."""
    authority = federation(tmp_path / "home")
    north, south = enrolled(authority, tmp_path / "north"), enrolled(authority, tmp_path / "south", "south")
    with listening(north.server_context()) as (port, _):
        refused(south.client_context(), port, "unsuitable certificate purpose|unsupported certificate purpose")
    trusting_too_much = south.client_context()
    trusting_too_much.check_hostname = False
    with listening(north.server_context()) as (port, _):
        refused(trusting_too_much, port, "purpose")


def test_a_relay_is_served_and_serves_but_is_not_the_coordinator(tmp_path):
    authority = federation(tmp_path / "home", relay_hosts=["127.0.0.2"])
    relay = enrolled(authority, tmp_path / "east", "east", "relay", hosts=["127.0.0.2"])
    site = enrolled(authority, tmp_path / "north")
    with listening(server(authority), "site", "relay") as (port, seen):
        greeted(relay.client_context(), port, HOST, "coordinator")
    assert seen == ["relay 'east'"]
    with listening(relay.server_context(), "site") as (port, seen):
        assert str(greeted(site.client_context(), port, "127.0.0.2", "coordinator", "relay")[1]) == "relay 'east'"
    with listening(relay.server_context()) as (port, seen), pytest.raises(AccessDenied, match="where coordinator is"):
        greeted(site.client_context(), port, "127.0.0.2", "coordinator")
    with listening(relay.server_context()) as (port, seen):
        refused(site.client_context(), port, "IP address mismatch")


def test_the_coordinators_certificate_opens_no_connection(tmp_path):
    authority = federation(tmp_path / "home")
    with listening(server(authority), "site", "coordinator") as (port, _):
        refused(Credentials(authority.home).client_context(), port, "unsupported certificate|bad certificate")


def test_the_host_is_compared(tmp_path):
    authority = federation(tmp_path / "home")
    site = enrolled(authority, tmp_path / "north")
    wrong = pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch")
    with listening(server(authority)) as (port, _), wrong:
        greeted(site.client_context(), port, "example.org")


@pytest.mark.parametrize("old", ["client", "server"])
def test_tls_1_2_is_refused(tmp_path, old):
    authority = federation(tmp_path / "home")
    contexts = {"server": server(authority), "client": enrolled(authority, tmp_path / "north").client_context()}
    contexts[old].minimum_version = contexts[old].maximum_version = ssl.TLSVersion.TLSv1_2
    with listening(contexts["server"]) as (port, seen):
        refused(contexts["client"], port, "protocol version|unsupported protocol")
    assert isinstance(seen[0], ssl.SSLError)


def test_a_session_is_not_resumed(tmp_path):
    """A resumed session would bring back a certificate that nobody looked at again."""
    authority = federation(tmp_path / "home")
    context = enrolled(authority, tmp_path / "north").client_context()
    with (
        listening(server(authority), "site") as (port, _),
        socket.create_connection((HOST, port), timeout=TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as connection,
    ):
        assert connection.recv(16) == b"welcome"
        assert connection.session is None or not connection.session.has_ticket


def test_a_connection_that_verified_nothing_has_no_peer(tmp_path):
    authority = federation(tmp_path / "home")
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    with listening(server(authority)) as (port, _), pytest.raises(AccessDenied, match="could be verified"):
        greeted(blind, port, HOST, "coordinator")


def test_a_running_server_takes_up_its_next_certificate(tmp_path):
    authority = federation(tmp_path / "home")
    site, context = enrolled(authority, tmp_path / "north"), server(authority)
    serials = []
    for _ in range(2):
        with listening(context, "site") as (port, _):
            serials.append(greeted(site.client_context(), port, HOST, "coordinator")[1].serial)
        authority.renew_own()
        Credentials(authority.home).reload(context)
    assert len(set(serials)) == 2


def test_enrolment_over_the_wire_trusts_the_root_of_the_token_only(tmp_path):
    ours, theirs = federation(tmp_path / "ours"), federation(tmp_path / "theirs")
    token, home = ours.invite("north"), tmp_path / "north"
    with listening(server(theirs)) as (port, _), pytest.raises(AccessDenied, match="shows another root"):
        enrolment_context(home, token, (HOST, port))
    assert not (home / PKI / ROOT).exists()
    with listening(server(ours)) as (port, _):
        context = enrolment_context(home, token, (HOST, port))
    assert (home / PKI / ROOT).read_bytes() == (ours.home / PKI / ROOT).read_bytes()
    with listening(server(theirs)) as (port, _):  # the root was fetched; somebody else answers now
        refused(context, port, "certificate verify failed")
    with listening(server(ours)) as (port, _):
        assert greeted(context, port, HOST, "coordinator")[0] == b"welcome"
    with pytest.raises(ConfigError, match="root of another federation"):
        enrolment_context(home, theirs.invite("north"), (HOST, 9))


def test_somebody_who_replays_the_root_is_not_believed(tmp_path):
    """The root is public: a server of another federation can show it, and gains nothing."""
    ours, theirs = federation(tmp_path / "ours"), federation(tmp_path / "theirs")
    mixed = (theirs.home / PKI / TLS).read_bytes() + (ours.home / PKI / ROOT).read_bytes()
    (theirs.home / PKI / TLS).write_bytes(mixed)
    with listening(server(theirs)) as (port, _):
        context = enrolment_context(tmp_path / "north", ours.invite("north"), (HOST, port))
    with listening(server(theirs)) as (port, _):
        refused(context, port, "certificate verify failed")


def test_a_fetched_root_is_the_one_with_the_fingerprint(tmp_path):
    authority = federation(tmp_path / "home")
    root = x509.load_pem_x509_certificate((authority.home / PKI / ROOT).read_bytes())
    with listening(server(authority)) as (port, _):
        fetched = fetched_root((HOST, port), sha256(root.public_bytes(Encoding.DER)).digest(), TIMEOUT_S)
    assert x509.load_pem_x509_certificate(fetched) == root


def test_a_server_that_says_nothing_is_given_up():
    with socket.create_server((HOST, 0)) as silent:
        where = silent.getsockname()
        with pytest.raises(RunError, match=r"does not show its certificates: .*timed out"):
            fetched_root(where, bytes(32), 0.2)
    with pytest.raises(RunError, match=r"does not show its certificates: .*refused"):
        fetched_root(where, bytes(32), 0.2)


def test_a_folder_without_a_root_has_no_context(tmp_path):
    with pytest.raises(ConfigError, match="cannot be used as the root"):
        trusting(tmp_path / "root.pem")
