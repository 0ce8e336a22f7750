import os
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from federated import Clock
from hypothesis import given
from hypothesis import strategies as st

from fedloom.core.errors import AccessDenied, ConfigError
from fedloom.runtime.identity import Subject, bytes_of, check_name, peer_of, subject_of, text_of, verify
from fedloom.runtime.keys import identity_key, kept_identity, kept_tls_key, private, tls_key

URI = x509.UniformResourceIdentifier
GOOD = Subject("site", "north", bytes(range(32)))
ROLE, KEY = map(URI, GOOD.uris())


def certificate(*names, encoding=Encoding.DER):
    key, now = generate_private_key(SECP256R1()), Clock().now
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now)
        .not_valid_after(now)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return builder.sign(key, SHA256()).public_bytes(encoding)


@pytest.mark.parametrize("encoding", [Encoding.DER, Encoding.PEM])
def test_a_peer_is_what_its_certificate_names(encoding):
    peer = peer_of(certificate(x509.DNSName("fl.example"), KEY, ROLE, encoding=encoding))
    assert (peer.subject, peer.serial, str(peer)) == (GOOD, 7, "site 'north'")


BAD = {
    "nothing": [],
    "no role": [KEY],
    "no key": [ROLE],
    "two roles": [ROLE, URI("fedloom:relay:north"), KEY],
    "the role twice": [ROLE, ROLE, KEY],
    "two keys": [ROLE, KEY, URI(Subject("site", "x", bytes(32)).uris()[1])],
    "an unknown role": [URI("fedloom:root:north"), KEY],
    "a longer name": [URI("fedloom:site:north:relay"), KEY],
    "a path for a name": [URI("fedloom:site:../north"), KEY],
    "a hidden name": [URI("fedloom:site:.north"), KEY],
    "an empty name": [URI("fedloom:site:"), KEY],
    "a name of 65": [URI("fedloom:site:" + "n" * 65), KEY],
    "a line behind the name": [URI("fedloom:site:north\n"), KEY],
    "capitals": [URI("FEDLOOM:site:north"), KEY],
    "a short key": [ROLE, URI("fedloom:key:" + text_of(bytes(31)))],
    "padding": [ROLE, URI("fedloom:key:" + text_of(bytes(32)) + "=")],
    "a key spelt otherwise": [ROLE, URI("fedloom:key:" + text_of(bytes(32))[:-1] + "B")],
    "another URI": [ROLE, KEY, URI("https://example.org")],
    "a mail address": [ROLE, KEY, x509.RFC822Name("a@example.org")],
}


@pytest.mark.parametrize("names", BAD.values(), ids=BAD)
def test_what_is_not_exactly_one_role_and_one_key_is_refused(names):
    with pytest.raises(AccessDenied):
        peer_of(certificate(*names))


@given(st.binary(max_size=300))
def test_bytes_that_are_no_certificate_are_refused(content):
    with pytest.raises(AccessDenied):
        peer_of(content)


def test_a_huge_certificate_is_not_even_read():
    with pytest.raises(AccessDenied, match="of 20000 bytes is not read"):
        peer_of(bytes(20_000))


@given(
    st.sampled_from(["site", "relay", "operator"]), st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
)
def test_every_name_that_is_allowed_survives_a_certificate(role, name):
    subject = Subject(role, check_name(name), bytes(32))
    assert subject_of(map(URI, subject.uris())) == subject


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "ü", "a" * 65, "a\n", "a:b"])
def test_a_name_that_no_party_may_have(name):
    with pytest.raises(ConfigError, match="cannot be a party's name"):
        check_name(name)


@given(st.binary(max_size=70))
def test_base64url_has_one_spelling(content):
    assert bytes_of(text_of(content)) == content


def test_a_signature_is_that_of_one_key_and_one_message(tmp_path):
    """The first vector of RFC 8032, 7.1, and its neighbours."""
    key = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    signature = bytes.fromhex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    verify(key, signature, b"")
    other = kept_identity(tmp_path / "pki" / "identity.pem").public_key().public_bytes_raw()
    for case in [
        (key, signature, b"x"),
        (other, signature, b""),
        (key, signature[:-1], b""),
        (key[:-1], signature, b""),
    ]:
        with pytest.raises(AccessDenied, match="not that of the identity key"):
            verify(*case)


def test_keys_are_made_once_and_for_their_owner_only(tmp_path):
    path, other = tmp_path / "pki" / "identity.pem", tmp_path / "pki" / "tls.pem"
    before = os.umask(0)
    try:
        first = kept_identity(path)
        kept_tls_key(other)
    finally:
        os.umask(before)
    assert kept_identity(path).private_bytes_raw() == first.private_bytes_raw()
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path.parent, path, other)] == [0o700, 0o600, 0o600]


def test_a_key_that_others_may_read_or_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "pki" / "identity.pem"
    kept_identity(path)
    with pytest.raises(ConfigError, match="another kind of key than P-256"):
        tls_key(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=r"may be read by others \(mode 640\).*chmod 600"):
        identity_key(path)
    with pytest.raises(ConfigError, match="No such file"):
        private(tmp_path / "nothing.pem")


def test_a_key_of_another_user_is_refused_in_a_sentence(tmp_path, monkeypatch):
    path = tmp_path / "pki" / "identity.pem"
    kept_identity(path)

    def refused(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(ConfigError, match="Permission denied; run fedloom as the user that it belongs to"):
        identity_key(path)
