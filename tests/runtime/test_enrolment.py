import pytest
from federated import enrolled, federation, trusts

from fedloom.core.errors import AccessDenied, ConfigError
from fedloom.runtime.credentials import Credentials
from fedloom.runtime.enrolment import finish_enrolment, finish_renewal, prepare_enrolment, prepare_renewal
from fedloom.runtime.joining import Request, answer
from fedloom.runtime.keys import PENDING, PKI, TLS


@pytest.fixture
def authority(tmp_path):
    return federation(tmp_path / "home")


def test_who_begins_again_asks_with_the_same_keys(tmp_path, authority):
    token = authority.invite("north")
    first, second = (Request.of(prepare_enrolment(tmp_path / "north", token)).check() for _ in range(2))
    assert first == second


def test_no_private_key_leaves(tmp_path, authority):
    record = prepare_enrolment(tmp_path / "north", authority.invite("north"))
    told = "".join(map(str, record.values()))
    for path in (tmp_path / "north" / PKI).iterdir():
        secret = "".join(path.read_text().splitlines()[1:-1])
        assert "PRIVATE" in path.read_text()
        assert secret[-40:] not in told.replace("\n", "")
    assert "PRIVATE" not in told


def test_the_answer_to_another_is_not_kept(tmp_path, authority):
    tokens = {name: authority.invite(name) for name in ("north", "south")}
    answers = {name: authority.enrol(prepare_enrolment(tmp_path / name, token)) for name, token in tokens.items()}
    trusts(authority, tmp_path / "north")
    with pytest.raises(AccessDenied, match="came back is for site 'south' or another key; site 'north' was asked for"):
        finish_enrolment(tmp_path / "north", tokens["north"], answers["south"])
    assert not (tmp_path / "north" / PKI / TLS).exists()
    finish_enrolment(tmp_path / "north", tokens["north"], answers["north"])


def test_a_certificate_of_another_federation_is_not_kept(tmp_path, authority):
    theirs = federation(tmp_path / "theirs")
    token = theirs.invite("north")
    told = theirs.enrol(prepare_enrolment(tmp_path / "north", token))
    trusts(authority, tmp_path / "north")
    with pytest.raises(AccessDenied, match="the certificate that came back is not good"):
        finish_enrolment(tmp_path / "north", token, told)


@pytest.mark.parametrize("chain", ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_not_kept(tmp_path, authority, chain):
    token = authority.invite("north")
    prepare_enrolment(tmp_path / "north", token)
    trusts(authority, tmp_path / "north")
    with pytest.raises(AccessDenied, match="the certificate that came back is not good"):
        finish_enrolment(tmp_path / "north", token, answer(chain))


def test_without_the_root_nothing_is_kept(tmp_path, authority):
    token = authority.invite("north")
    told = authority.enrol(prepare_enrolment(tmp_path / "north", token))
    with pytest.raises(ConfigError, match=r"root\.pem is missing"):
        finish_enrolment(tmp_path / "north", token, told)


def test_a_folder_belongs_to_one_party(tmp_path, authority):
    enrolled(authority, tmp_path / "north")
    with pytest.raises(ConfigError, match="belongs to site 'north', the token to site 'south'"):
        prepare_enrolment(tmp_path / "north", authority.invite("south"))
    with pytest.raises(ConfigError, match="belongs to coordinator 'coordinator'"):
        prepare_enrolment(authority.home, authority.invite("south"))


def test_who_never_enrolled_has_nothing_to_renew(tmp_path):
    with pytest.raises(ConfigError, match="`fedloom join` a site's"):
        prepare_renewal(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_renewal_whose_answer_was_lost_is_asked_for_again(tmp_path, authority):
    north = enrolled(authority, tmp_path / "north")
    lost = authority.renew(north.peer, prepare_renewal(north.home))
    told = authority.renew(north.peer, prepare_renewal(north.home))
    finish_renewal(north.home, told)
    assert not (north.home / PKI / PENDING).exists()
    assert Credentials(north.home).client_context().cert_store_stats()["x509_ca"] == 1
    assert finish_renewal(north.home, lost) is None


def test_a_late_answer_to_an_earlier_request_is_not_taken_for_that_to_the_open_one(tmp_path, authority):
    north = enrolled(authority, tmp_path / "north")
    first, late = (authority.renew(north.peer, prepare_renewal(north.home)) for _ in range(2))
    assert finish_renewal(north.home, first) == north.peer
    shown, request = (north.home / PKI / TLS).read_bytes(), prepare_renewal(north.home)
    assert finish_renewal(north.home, late) is None
    assert (north.home / PKI / TLS).read_bytes() == shown
    assert finish_renewal(north.home, authority.renew(north.peer, request)) == north.peer


def test_an_answer_that_is_no_certificate_ends_a_renewal_that_is_open(tmp_path, authority):
    north = enrolled(authority, tmp_path / "north")
    assert finish_renewal(north.home, answer("x")) is None
    prepare_renewal(north.home)
    with pytest.raises(AccessDenied, match="the certificate that came back is not good"):
        finish_renewal(north.home, answer("x"))


def test_credentials_that_others_may_read_are_not_used(tmp_path, authority):
    north = enrolled(authority, tmp_path / "north")
    (north.home / PKI / TLS).chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        north.client_context()
