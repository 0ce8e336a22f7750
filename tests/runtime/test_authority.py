import json
import os
import shutil
import signal
import sqlite3
import ssl
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store
from federated import Clock, enrolled, federation, trusts

from fedloom.core.errors import AccessDenied, ConfigError, RunError, StorageError
from fedloom.runtime.authority import Authority
from fedloom.runtime.certificates import request
from fedloom.runtime.credentials import Credentials
from fedloom.runtime.enrolment import finish_enrolment, finish_renewal, prepare_enrolment, prepare_renewal
from fedloom.runtime.identity import Subject, text_of, verify
from fedloom.runtime.joining import Request, Token
from fedloom.runtime.keys import PKI, ROOT, kept_identity, new_tls_key
from fedloom.runtime.roll import MISSES, Roll


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def authority(tmp_path, clock):
    return federation(tmp_path / "home", clock)


def certificates_in(chain):
    return x509.load_pem_x509_certificates(chain.encode())


def count(authority, table):
    with sqlite3.connect(authority.home / PKI / "roll.db") as database:
        (found,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()
    database.close()
    return found


def test_a_certificate_is_what_an_independent_verifier_accepts(tmp_path, authority, clock):
    token = authority.invite("north")
    leaf, *above = certificates_in(authority.enrol(prepare_enrolment(tmp_path / "north", token))["chain"])
    root = x509.load_pem_x509_certificate((authority.home / PKI / ROOT).read_bytes())
    verifier = PolicyBuilder().store(Store([root])).time(clock.now).build_client_verifier()
    subjects = [name.value for name in verifier.verify(leaf, above).subjects]
    key = kept_identity(tmp_path / "north" / PKI / "identity.pem").public_key().public_bytes_raw()
    assert subjects == ["fedloom:site:north", f"fedloom:key:{text_of(key)}"]
    assert leaf.not_valid_after_utc - clock.now <= timedelta(hours=24)
    uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is not installed")
def test_a_chain_is_what_the_openssl_command_accepts(tmp_path, authority):
    home = enrolled(authority, tmp_path / "north").home
    files = ["-CAfile", authority.home / PKI / ROOT, "-untrusted", home / PKI / "tls.pem", home / PKI / "tls.pem"]

    def accepted(purpose):
        line = ["openssl", "verify", "-x509_strict", "-purpose", purpose, *files]
        return subprocess.run(line, capture_output=True, check=False).returncode == 0

    assert [accepted("sslclient"), accepted("sslserver")] == [True, False]


def test_the_identity_that_is_certified_is_the_one_that_signs(tmp_path, authority):
    north, south = (enrolled(authority, tmp_path / name, name) for name in ("north", "south"))
    verify(north.peer.key, north.sign(b"model"), b"model")
    with pytest.raises(AccessDenied):
        verify(south.peer.key, north.sign(b"model"), b"model")


def test_a_token_says_whom_it_is_for_and_is_not_stored(authority):
    token = Token.of(authority.invite("north"))
    assert (token.role, token.name, len(token.secret)) == ("site", "north", 32)
    stored = b"".join(path.read_bytes() for path in (authority.home / PKI).rglob("*") if path.is_file())
    for spelling in (token.secret, token.secret.hex().encode(), text_of(token.secret).encode()):
        assert spelling not in stored


def test_a_token_serves_one_pair_of_keys(tmp_path, authority):
    token = authority.invite("north")
    mine = prepare_enrolment(tmp_path / "north", token)
    authority.enrol(mine)
    with pytest.raises(AccessDenied, match="has been used with other keys"):
        authority.enrol(prepare_enrolment(tmp_path / "thief", token))
    again = authority.enrol(prepare_enrolment(tmp_path / "north", token))  # the answer was lost
    trusts(authority, tmp_path / "north")
    assert authority.denied(finish_enrolment(tmp_path / "north", token, again)) is None


def test_a_token_expires(tmp_path, authority, clock):
    token = authority.invite("north", hours=2)
    clock.pass_by(hours=2)
    with pytest.raises(AccessDenied, match="for 'north' is no longer good: it expired at"):
        authority.enrol(prepare_enrolment(tmp_path / "north", token))
    assert count(authority, "issued") == 0


def test_a_token_is_for_one_name_and_role(tmp_path, authority):
    token = Token.of(authority.invite("north"))
    for other in (replace(token, name="south"), replace(token, role="operator")):
        with pytest.raises(AccessDenied, match="with a token for site 'north'; join under that name"):
            authority.enrol(prepare_enrolment(tmp_path / other.role / other.name, other.text()))
    assert count(authority, "issued") == 0


def test_a_new_invitation_takes_the_place_of_the_old_one(tmp_path, authority):
    old, new = authority.invite("north"), authority.invite("north")
    with pytest.raises(AccessDenied, match="a newer invitation took its place"):
        authority.enrol(prepare_enrolment(tmp_path / "north", old))
    authority.enrol(prepare_enrolment(tmp_path / "north", new))


def test_a_token_that_nobody_was_given(tmp_path, authority):
    authority.invite("north")
    made_up = Token("site", "north", os.urandom(32), bytes(32)).text()
    with pytest.raises(AccessDenied, match="nobody was invited with this token"):
        authority.enrol(prepare_enrolment(tmp_path / "north", made_up))
    assert count(authority, "issued") == 0


def test_requests_that_do_not_fit_close_a_token(tmp_path, authority):
    token = Token.of(authority.invite("north"))
    wrong = prepare_enrolment(tmp_path / "south", replace(token, name="south").text())
    for _ in range(MISSES):
        with pytest.raises(AccessDenied, match="join under that name"):
            authority.enrol(wrong)
    with pytest.raises(AccessDenied, match=f"{MISSES} requests did not fit it"):
        authority.enrol(prepare_enrolment(tmp_path / "north", token.text()))


def crafted(token, home):
    """Return requests that are wrong in one way each, by name."""
    identity, tls = kept_identity(home / "a" / "k.pem"), new_tls_key()
    other = kept_identity(home / "b" / "k.pem")
    subject = Subject("site", "north", identity.public_key().public_bytes_raw())
    good = Request.made(token.secret, identity, tls, subject)
    foreign = request(new_tls_key(), Subject("site", "north", other.public_key().public_bytes_raw()))
    der = x509.load_pem_x509_csr(good.csr.encode()).public_bytes(Encoding.DER)
    unproven = ssl.DER_cert_to_PEM_cert(der[:-1] + bytes([der[-1] ^ 1])).replace("CERTIFICATE", "CERTIFICATE REQUEST")
    theirs = other.public_key().public_bytes_raw()
    claimed = other.sign(b"fedloom enrolment 1\0" + sha256(token.secret).digest() + good.csr.encode())
    resigned = identity.sign(b"fedloom enrolment 1\0" + sha256(token.secret).digest() + unproven.encode())
    return {
        "signed by another identity": replace(good, signature=other.sign(b"x")),
        "signed for another token": replace(good, signature=Request.made(bytes(32), identity, tls, subject).signature),
        "the request of another": replace(good, csr=foreign),
        "another key than certified": replace(good, key=theirs, signature=claimed),
        "a key that is not theirs": replace(good, csr=unproven, signature=resigned),
        "no request": replace(good, csr="x"),
    }


CRAFTED = {
    "signed by another identity": "the signature is not that of the identity key",
    "signed for another token": "the signature is not that of the identity key",
    "the request of another": "names another identity key",
    "another key than certified": "names another identity key",
    "a key that is not theirs": "signed by the P-256 key that it is for; this one is not",
    "no request": "this is not a request for a certificate",
}


@pytest.mark.parametrize("what", CRAFTED)
def test_a_request_is_signed_by_both_keys(tmp_path, authority, what):
    token = Token.of(authority.invite("north"))
    with pytest.raises(AccessDenied, match=CRAFTED[what]):
        authority.enrol(crafted(token, tmp_path)[what].record())
    assert count(authority, "issued") == 0


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"csr": 7}, {"secret": "=="}, {"more": ""}, {"csr": "x" * 100_000}, {"key": None}]
)
def test_a_message_of_another_form_is_refused(tmp_path, authority, change):
    record = prepare_enrolment(tmp_path / "north", authority.invite("north"))
    with pytest.raises(AccessDenied):
        authority.enrol(record | change)


def test_of_two_that_race_for_a_token_one_is_enrolled(tmp_path, authority):
    token = authority.invite("north")
    requests = [prepare_enrolment(tmp_path / str(n), token) for n in range(4)]
    start, told = threading.Barrier(len(requests)), []

    def ask(record):
        start.wait(20)
        try:
            told.append(Authority(authority.home, authority.clock).enrol(record)["chain"])
        except AccessDenied as error:
            told.append(error)

    threads = [threading.Thread(target=ask, args=(record,)) for record in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(isinstance(each, str) for each in told) == [False, False, False, True]
    assert (count(authority, "issued"), count(authority, "enrolled")) == (1, 1)


KILLED = """
import json, os, signal, sys
from pathlib import Path
from fedloom.runtime import roll
from fedloom.runtime.authority import Authority
real = roll.Roll.admit
def admit(*args):
    if sys.argv[2] == "after":
        real(*args)
    os.kill(os.getpid(), signal.SIGKILL)
roll.Roll.admit = admit
Authority(Path(sys.argv[1])).enrol(json.loads(sys.stdin.read()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_coordinator_killed_while_it_enrols_has_forgotten_nothing(tmp_path, authority, when):
    token = authority.invite("north")
    record = prepare_enrolment(tmp_path / "north", token)
    line = [sys.executable, "-c", KILLED, str(authority.home), when]
    killed = subprocess.run(line, input=json.dumps(record), text=True, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert count(authority, "issued") == (when == "after")
    if when == "after":  # the token is used, though nobody got an answer: other keys come too late
        with pytest.raises(AccessDenied, match="used with other keys"):
            authority.enrol(prepare_enrolment(tmp_path / "thief", token))
    trusts(authority, tmp_path / "north")
    answer = authority.enrol(prepare_enrolment(tmp_path / "north", token))
    assert authority.denied(finish_enrolment(tmp_path / "north", token, answer)) is None


def test_a_party_renews_with_a_new_key_and_the_same_identity(tmp_path, authority, clock):
    north = enrolled(authority, tmp_path / "north")
    before, shown = north.peer, (north.home / PKI / "tls.pem").read_bytes()
    assert not north.due_for_renewal(clock.now + timedelta(hours=11))
    assert north.due_for_renewal(clock.now + timedelta(hours=12, minutes=1))
    clock.pass_by(seconds=30)
    after = finish_renewal(north.home, authority.renew(before, prepare_renewal(north.home)))
    assert after == north.peer
    assert (after.subject, after.expires - before.expires) == (before.subject, timedelta(seconds=30))
    assert after.serial != before.serial
    assert (north.home / PKI / "tls.pem").read_bytes().split(b"-----")[2] != shown.split(b"-----")[2]
    assert count(authority, "issued") == 2


def test_nobody_renews_for_another(tmp_path, authority):
    north, south = (enrolled(authority, tmp_path / name, name) for name in ("north", "south"))
    with pytest.raises(AccessDenied, match="site 'north' asks for a certificate of site 'south'"):
        authority.renew(north.peer, prepare_renewal(south.home))


def test_an_expired_certificate_is_not_renewed(tmp_path, authority, clock):
    north = enrolled(authority, tmp_path / "north")
    clock.pass_by(hours=24)
    with pytest.raises(AccessDenied, match="its certificate has expired"):
        authority.renew(north.peer, prepare_renewal(north.home))


def test_who_is_denied_is_not_let_in_renewed_enrolled_or_invited(tmp_path, authority):
    north, open_token = enrolled(authority, tmp_path / "north"), authority.invite("south")
    authority.deny("north", "left the study")
    authority.deny("south", "")
    assert authority.denied(north.peer) == "left the study"
    with pytest.raises(AccessDenied, match="left the study"):
        authority.renew(north.peer, prepare_renewal(north.home))
    with pytest.raises(AccessDenied, match="'south' is denied"):
        authority.enrol(prepare_enrolment(tmp_path / "south", open_token))
    with pytest.raises(ConfigError, match=r"'north' is denied: left the study\. Allow it first"):
        authority.invite("north")


def off(peer, authority):
    return "it is not on this federation's roll" in (authority.denied(peer) or "")


@pytest.mark.parametrize("by_hand", [False, True])
def test_who_is_allowed_again_enrols_with_new_keys_and_a_stolen_key_stays_shut_out(tmp_path, authority, by_hand):
    thief = enrolled(authority, tmp_path / "north")  # a copy of its folder
    if by_hand:
        (authority.home / PKI / "deny.json").write_text('{"version": 1, "denied": {"north": "stolen"}}')
    else:
        authority.deny("north", "stolen")
    authority.allow("north")
    token = authority.invite("north")
    assert off(thief.peer, authority)
    assert (authority.key("north"), authority.admitted()) == (None, set())
    with pytest.raises(AccessDenied, match="not on this federation's roll"):
        authority.renew(thief.peer, prepare_renewal(thief.home))
    with pytest.raises(AccessDenied, match=r"its old keys are not taken again; there, delete pki .* the same token"):
        authority.enrol(prepare_enrolment(thief.home, token))
    trusts(authority, tmp_path / "new")
    new = finish_enrolment(tmp_path / "new", token, authority.enrol(prepare_enrolment(tmp_path / "new", token)))
    assert authority.denied(new) is None
    assert authority.denied(thief.peer) == "it has enrolled again since, with another identity"


def test_a_denial_closes_the_tokens_of_before(tmp_path, authority):
    """One that was used answers the same keys again, and those may have been copied together."""
    used, fresh = authority.invite("north"), authority.invite("south")
    record = prepare_enrolment(tmp_path / "north", used)
    authority.enrol(record)
    for name in ("north", "south"):
        authority.deny(name, "stolen")
        authority.allow(name)
    for asked in (record, prepare_enrolment(tmp_path / "south", fresh)):
        with pytest.raises(AccessDenied, match="no longer good: its party was denied since; ask for a new one"):
            authority.enrol(asked)


def test_who_is_held_back_by_hand_is_let_in_again_by_hand(tmp_path, authority):
    north, path = enrolled(authority, tmp_path / "north"), authority.home / PKI / "deny.json"
    before = path.read_bytes()
    path.write_text('{"version": 1, "denied": {"north": "for a while"}}')
    assert authority.denied(north.peer) == "for a while"
    path.write_bytes(before)
    assert authority.denied(north.peer) is None


def test_a_roll_of_before_there_were_retired_identities_is_taken_up(tmp_path, authority):
    north = enrolled(authority, tmp_path / "north")
    with sqlite3.connect(authority.home / PKI / "roll.db") as database:
        database.execute("DROP TABLE retired")
    database.close()
    again = Authority(authority.home, authority.clock)
    again.deny("north", "left")
    again.allow("north")
    assert off(north.peer, again)


def test_the_list_of_the_denied_is_read_again(tmp_path, authority):
    north = enrolled(authority, tmp_path / "north")
    (authority.home / PKI / "deny.json").write_text('{"version": 1, "denied": {"north": "by hand"}}')
    assert authority.denied(north.peer) == "by hand"


@pytest.mark.parametrize(
    "content", [None, "", "[]", '{"version": 1}', '{"version": 2, "denied": {}}', '{"version": 1, "denied": ["x"]}']
)
def test_a_list_of_the_denied_that_cannot_be_read_lets_nobody_in(tmp_path, authority, content):
    north, path = enrolled(authority, tmp_path / "north"), authority.home / PKI / "deny.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ConfigError):
        authority.denied(north.peer)


def test_what_is_known_of_all_may_be_a_little_old(tmp_path, authority):
    """So that a coordinator with many connections looks once for all of them; a new connection is looked up anew."""
    north, south = enrolled(authority, tmp_path / "north").peer, enrolled(authority, tmp_path / "south", "south").peer
    assert [authority.denied(peer, 3600.0) for peer in (north, south)] == [None, None]
    authority.deny("north", "left the study")
    newer = enrolled(authority, tmp_path / "newer", "south").peer
    assert [authority.denied(peer, 3600.0) for peer in (north, south)] == [None, None]
    assert [authority.denied(peer) for peer in (north, newer)] == ["left the study", None]
    assert authority.denied(north, 1e-9) == "left the study"
    assert authority.denied(south, 3600.0) == "it has enrolled again since, with another identity"
    assert authority.denied(enrolled(authority, tmp_path / "east", "east").peer, 3600.0) is None  # since the last look
    authority.allow("north")
    north = enrolled(authority, tmp_path / "again").peer
    assert authority.denied(north, 3600.0) is None
    (authority.home / PKI / "deny.json").unlink()
    for _ in range(2):
        with pytest.raises(ConfigError):
            authority.denied(south, 1e-9)
    with pytest.raises(ConfigError):
        authority.denied(south, 3600.0)


def test_only_the_invited_can_be_denied(authority):
    with pytest.raises(ConfigError, match="'nroth' was never invited"):
        authority.deny("nroth", "")
    with pytest.raises(ConfigError, match="'north' is not denied; denied are none"):
        authority.allow("north")


def test_a_newer_enrolment_shuts_out_the_older_identity(tmp_path, authority):
    old = enrolled(authority, tmp_path / "old").peer
    new = enrolled(authority, tmp_path / "new").peer
    assert (authority.denied(old), authority.denied(new)) == (
        "it has enrolled again since, with another identity",
        None,
    )


def test_who_is_not_on_the_roll_is_not_let_in(tmp_path, authority):
    """Even with a good certificate: an issuing key that was copied is not enough."""
    peer = enrolled(authority, tmp_path / "north").peer
    for other in (replace(peer, name="south"), replace(peer, role="relay"), Credentials(authority.home).peer):
        assert off(other, authority)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"name": "a b"}, "cannot be a party's name"),
        ({"name": "coordinator"}, "is taken"),
        ({"role": "coordinator"}, "can be invited"),
        ({"hours": 0}, "more than 0 and at most 720 hours, got 0"),
        ({"hours": float("nan")}, "at most 720 hours"),
        ({"hosts": ["127.0.0.1"]}, "a relay, and nobody else, has hosts"),
        ({"role": "relay"}, "a relay, and nobody else, has hosts"),
        ({"role": "relay", "hosts": ["127.0.0.1"]}, "a relay, and nobody else, has hosts"),
        ({"name": "taken", "role": "operator"}, "'taken' is taken"),
    ],
)
def test_an_invitation_that_cannot_be(tmp_path, authority, wrong, match):
    enrolled(authority, tmp_path / "taken", "taken")
    with pytest.raises(ConfigError, match=match):
        authority.invite(**{"name": "north"} | wrong)


def test_an_authority_is_where_one_was_provisioned(tmp_path):
    with pytest.raises(ConfigError, match="`fedloom provision` makes"):
        Authority(tmp_path)


def test_a_roll_that_is_damaged_says_so(tmp_path):
    path = tmp_path / "roll.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(RunError, match="cannot be read or written"):
        Roll(path)


def test_a_list_of_the_denied_that_cannot_be_written_is_left_as_it_is(tmp_path, authority, read_only):
    north = enrolled(authority, tmp_path / "north").peer
    read_only()
    with pytest.raises(StorageError, match=r"pki/\.lock cannot be locked: Read-only file system"):
        authority.deny("north", "left the study")
    assert authority.denied(north) is None
