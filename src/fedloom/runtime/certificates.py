"""The certificates of a federation (X.509, RFC 5280): root, issuing and leaf, and requests for one (RFC 2986).

The root signs issuing certificates only, and its key is kept away from the network. An issuing certificate is
constrained to the federation's hosts (name constraints, section 4.2.1.10) and to leaves (path length 0). A leaf says
who its owner is in two URIs; what its key may do on a connection follows from the role.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..core.errors import AccessDenied, ConfigError
from .identity import LARGEST, Subject, subject_of

ROOT_LIFE, ISSUING_LIFE = timedelta(days=3650), timedelta(days=730)
SKEW = timedelta(hours=1)  # certificates begin so much in the past: clocks differ
_CLIENT, _SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
_USES = {"site": (_CLIENT,), "operator": (_CLIENT,), "coordinator": (_SERVER,), "relay": (_CLIENT, _SERVER)}
_NOTHING = dict.fromkeys(
    [
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    ],
    False,
)
_NO_HOST = x509.DNSName("none.invalid")  # RFC 2606: nobody can have it; permitting it alone permits no other
_ALL_ADDRESSES = [x509.IPAddress(ip_network("0.0.0.0/0")), x509.IPAddress(ip_network("::/0"))]


@dataclass(frozen=True)
class Issuer:
    """A certificate and the key that signs in its name."""

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey


def host_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """Return hosts as alternative names, addresses as addresses; raises `ConfigError` for what is neither.

    >>> host_names(["fl.example", "10.0.0.7"])
    [<DNSName(value='fl.example')>, <IPAddress(value=10.0.0.7)>]
    """
    return [_host(host) for host in hosts]


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        pass
    labels = host.split(".")
    fits = all(label.replace("-", "").isalnum() and label.strip("-") == label for label in labels)
    if not (fits and host.isascii() and len(host) <= 253 and max(map(len, labels)) <= 63):
        raise ConfigError(
            f"{host!r} is neither a host's name nor an address; give it without port, such as fl.example."
        )
    return x509.DNSName(host.lower())


def _named(unit: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "fedloom"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),  # not CN: some read hosts there
        ]
    )


def _usage(**may: bool) -> x509.KeyUsage:
    return x509.KeyUsage(**(_NOTHING | may))


def _builder(
    name: str, key: EllipticCurvePublicKey, above: x509.Name | None, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(above or _named(name))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _authority(builder: x509.CertificateBuilder, depth: int) -> x509.CertificateBuilder:
    return builder.add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True).add_extension(
        _usage(key_cert_sign=True, crl_sign=True), critical=True
    )


def _below(builder: x509.CertificateBuilder, issuer: Issuer) -> x509.Certificate:
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    return builder.add_extension(above, critical=False).sign(issuer.key, SHA256())


def root(key: EllipticCurvePrivateKey, now: datetime) -> Issuer:
    """Return a root: it signs itself, and below it there is one more level of authorities."""
    builder = _builder("root", key.public_key(), None, now - SKEW, now + ROOT_LIFE)
    return Issuer(_authority(builder, 1).sign(key, SHA256()), key)


def issuing(key: EllipticCurvePrivateKey, above: Issuer, hosts: Sequence[str], now: datetime) -> Issuer:
    """Return an issuing authority that can vouch for these hosts and no others.

    Args:
        key: its own; above: the root.
        hosts: names (with what lies below them) and addresses, of coordinator and relays.
        now: when it begins.
    """
    names = host_names(hosts)
    dns = [name for name in names if isinstance(name, x509.DNSName)]
    addresses = [x509.IPAddress(ip_network(name.value)) for name in names if isinstance(name, x509.IPAddress)]
    constraints = x509.NameConstraints([*(dns or [_NO_HOST]), *addresses], None if addresses else _ALL_ADDRESSES)
    ends = min(now + ISSUING_LIFE, above.certificate.not_valid_after_utc)
    builder = _authority(_builder("issuing", key.public_key(), above.certificate.subject, now - SKEW, ends), 0)
    return Issuer(_below(builder.add_extension(constraints, critical=True), above), key)


def leaf(
    key: EllipticCurvePublicKey, subject: Subject, hosts: Sequence[str], issuer: Issuer, now: datetime, life: timedelta
) -> x509.Certificate:
    """Return a certificate for one party; it never outlives the issuing one.

    Args:
        key: of its connections.
        subject: who it is; hosts: where it listens, if it does.
        issuer: who vouches for it.
        now, life: when the certificate begins, and how long it is good.

    Raises:
        ConfigError: the issuing certificate has expired.
    """
    until = issuer.certificate.not_valid_after_utc
    if until <= now:
        raise ConfigError(f"the issuing certificate expired at {until:%Y-%m-%d %H:%M} UTC; renew it with --root-key.")
    names = [*(x509.UniformResourceIdentifier(uri) for uri in subject.uris()), *host_names(hosts)]
    builder = (
        _builder(f"{subject.role} {subject.name}", key, issuer.certificate.subject, now - SKEW, min(now + life, until))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_USES[subject.role]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    return _below(builder, issuer)


def request(key: EllipticCurvePrivateKey, subject: Subject) -> str:
    """Return a request for a certificate as PEM, signed by the key that it is for."""
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in subject.uris()])
    builder = x509.CertificateSigningRequestBuilder().subject_name(_named(subject.name))
    return builder.add_extension(names, critical=False).sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


def requested(text: str) -> tuple[EllipticCurvePublicKey, Subject]:
    """Return what a request asks for; raises `AccessDenied` unless its own key signed it, and that is P-256."""
    if len(text) > LARGEST:
        raise AccessDenied(f"a request of {len(text)} characters is not read; {LARGEST} are the most.")
    try:
        read = x509.load_pem_x509_csr(text.encode())
        key, signed = read.public_key(), read.is_signature_valid
        names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise AccessDenied(f"this is not a request for a certificate: {error}; let fedloom write it.") from error
    if not (signed and isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)):
        raise AccessDenied(
            "a request is signed by the P-256 key that it is for; this one is not. Let fedloom write it."
        )
    return key, subject_of(names)
