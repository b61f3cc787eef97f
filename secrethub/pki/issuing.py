"""Making certificates (RFC 5280). Nothing of a request but its public key comes in here.

Every certificate has a serial number of 159 random bits, subject and authority key identifiers,
basic constraints, key usage and alternative names. What it may be is its profile's decision; the
names are checked here once more, whoever checked them before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from secrethub.errors import InvalidRequest
from secrethub.pki import names as checked
from secrethub.pki.chain import authority_name, validity
from secrethub.pki.keys import PrivateKey, PublicKey, check_strength, key_digest, signing_hash
from secrethub.pki.names import AuthorityName, IPAddress
from secrethub.pki.profiles import ROOT, Profile
from secrethub.pki.validity import Window, window

MOST_NAMES = 100
"""Alternative names in one certificate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """What a certificate is to say about its holder.

    Attributes:
        common_name: at most 64 characters; for people, nothing is decided by it.
        dns: DNS names.
        addresses: IP addresses, each of one host.
        uris: SecretHub's own URIs.
    """

    common_name: str
    dns: tuple[str, ...] = ()
    addresses: tuple[IPAddress, ...] = ()
    uris: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Issuer:
    """An authority that signs.

    Attributes:
        certificate: its own.
        above: the authorities above it, up to the root; empty for the root.
        key: its private key; hidden in ``repr``.
    """

    certificate: x509.Certificate
    above: tuple[x509.Certificate, ...] = ()
    key: PrivateKey = field(repr=False)

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """Itself and everything above it."""
        return (self.certificate, *self.above)

    @property
    def name(self) -> AuthorityName:
        """Its cluster and kind, as its own certificate says."""
        return authority_name(self.certificate)


def make_root(key: PrivateKey, cluster: str, now: datetime) -> Issuer:
    """Make a self-signed root."""
    uri = checked.authority_uri(cluster, ROOT.name)
    public = check_strength(key.public_key())
    subject = _authority_subject(cluster, ROOT.name)
    builder = _builder(ROOT, public, subject, subject, window(now, ROOT.lifetime))
    builder = builder.add_extension(_identifier(public), critical=False).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False
    )
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False
    )
    return Issuer(certificate=builder.sign(key, signing_hash(key)), key=key)


def make_authority(issuer: Issuer, profile: Profile, key: PrivateKey, now: datetime) -> Issuer:
    """Make an intermediate authority below the root.

    No name constraint keeps the PKI's authority from the cluster's URIs: verifiers that do not know
    constraints on URIs (``cryptography``'s among them) would refuse every certificate below it. What
    keeps it from them is that :func:`issue` signs URIs with the transport authority only, and that
    agents and gateways trust that authority and no other when they meet.

    Raises:
        InvalidRequest: ``issuer`` does not sign this kind.
    """
    cluster = issuer.name.cluster
    if not profile.authority or profile is ROOT:
        raise InvalidRequest(f"{profile.name} is no intermediate authority")
    builder = _signed_below(
        issuer,
        profile,
        check_strength(key.public_key()),
        _authority_subject(cluster, profile.name),
        [x509.UniformResourceIdentifier(checked.authority_uri(cluster, profile.name))],
        now,
        profile.lifetime,
    )
    certificate = builder.sign(issuer.key, signing_hash(issuer.key))
    return Issuer(certificate=certificate, above=issuer.chain, key=key)


def issue(
    issuer: Issuer,
    profile: Profile,
    public: PublicKey,
    names: Names,
    now: datetime,
    lifetime: timedelta | None = None,
) -> x509.Certificate:
    """Issue a certificate for a host, an agent or a gateway.

    Args:
        issuer: an authority of the kind that ``profile`` asks for.
        profile: what the certificate may be.
        public: the holder's key, possession proven.
        names: what the profile allows, already decided.
        now: the instant of issuing.
        lifetime: the profile's own by default.

    Raises:
        InvalidRequest: a name, the key, the lifetime or the issuer does not fit the profile.
    """
    if profile.authority:
        raise InvalidRequest("an authority is not issued as a leaf")
    asked = profile.lifetime if lifetime is None else lifetime
    if asked > profile.longest:
        raise InvalidRequest(f"a certificate of this kind lives for at most {profile.longest.days} days")
    alternatives = _alternatives(profile, names, issuer.name.cluster)
    builder = _signed_below(
        issuer, profile, check_strength(public), _subject(names.common_name), alternatives, now, asked
    )
    return builder.sign(issuer.key, signing_hash(issuer.key))


def _signed_below(
    issuer: Issuer,
    profile: Profile,
    public: PublicKey,
    subject: x509.Name,
    alternatives: Sequence[x509.GeneralName],
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    if issuer.name.kind != profile.signed_by:
        raise InvalidRequest(f"the {issuer.name.kind} authority does not sign {profile.name} certificates")
    if key_digest(public) in {key_digest(check_strength(ca.public_key())) for ca in issuer.chain}:
        raise InvalidRequest("the key belongs to an authority")
    validity_ = window(now, lifetime, validity(issuer.certificate))
    builder = _builder(profile, public, subject, issuer.certificate.subject, validity_)
    above = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = builder.add_extension(_identifier(public), critical=False).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(above), critical=False
    )
    return builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)


def _builder(
    profile: Profile, public: PublicKey, subject: x509.Name, issuer: x509.Name, validity_: Window
) -> x509.CertificateBuilder:
    encipherment = not profile.authority and isinstance(public, rsa.RSAPublicKey)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity_.not_before)
        .not_valid_after(validity_.not_after)
        .add_extension(
            x509.BasicConstraints(ca=profile.authority, path_length=profile.path_length), critical=True
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=not profile.authority,
                content_commitment=False,
                key_encipherment=encipherment,  # TLS 1.2 with RSA key transport
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=profile.authority,
                crl_sign=profile.authority,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if profile.uses:
        builder = builder.add_extension(x509.ExtendedKeyUsage(profile.uses), critical=False)
    return builder


def _alternatives(profile: Profile, names: Names, cluster: str) -> list[x509.GeneralName]:
    dns = dict.fromkeys(checked.dns_name(name) for name in names.dns)
    addresses = dict.fromkeys(checked.ip_address(str(address)) for address in names.addresses)
    uris = dict.fromkeys(names.uris)
    for kind, given in (("dns", dns), ("ip", addresses), ("uri", uris)):
        if given and kind not in profile.names:
            raise InvalidRequest(f"{profile.name} certificates carry no {kind} names")
    for uri in uris:
        read = checked.parse_agent_uri if profile.name == "agent" else checked.parse_gateway_uri
        if read(uri).cluster != cluster:
            raise InvalidRequest("the URI names another cluster")
    if "uri" in profile.names and len(uris) != 1:
        raise InvalidRequest(f"{profile.name} certificates carry exactly one URI")
    found: list[x509.GeneralName] = [x509.DNSName(name) for name in dns]
    found += [x509.IPAddress(address) for address in addresses]
    found += [x509.UniformResourceIdentifier(uri) for uri in uris]
    if not found:
        raise InvalidRequest("a certificate needs at least one name")
    if len(found) > MOST_NAMES:
        raise InvalidRequest(f"a certificate carries at most {MOST_NAMES} names")
    return found


def _subject(common_name: str) -> x509.Name:
    if not 1 <= len(common_name) <= checked.LONGEST_COMMON_NAME:
        raise InvalidRequest(f"a common name has 1 to {checked.LONGEST_COMMON_NAME} characters")
    if not common_name.isprintable():
        raise InvalidRequest("a common name has no control characters")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _authority_subject(cluster: str, kind: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SecretHub"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"SecretHub {kind} {cluster}"[:64]),
        ]
    )


def _identifier(public: PublicKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(public)
