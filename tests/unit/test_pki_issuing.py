"""Issued certificates: what stands in them, and what cannot be had."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from secrethub.errors import InvalidRequest, PermissionDenied
from secrethub.pki import chain, issuing, keys, names, profiles, validity
from secrethub.pki.issuing import Issuer, Names
from tests.server_certificates import check_server

CLUSTER = "9f0f1a6e-7a3b-4a36-9c0a-0a4de1f6d001"
AGENT = "3c0f5a52-9b3f-4f0d-8f7b-0d9a4c1b2e10"
NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)

ROOT = issuing.make_root(keys.generate("ecdsa-p384"), CLUSTER, NOW)
TRANSPORT = issuing.make_authority(ROOT, profiles.TRANSPORT, keys.generate("ecdsa-p256"), NOW)
PKI = issuing.make_authority(ROOT, profiles.INTERMEDIATE, keys.generate("ecdsa-p384"), NOW)
KEY = keys.generate("ecdsa-p256").public_key()


def _agent(now: datetime = NOW, **changed: object) -> x509.Certificate:
    wanted = {
        "issuer": TRANSPORT,
        "profile": profiles.AGENT,
        "public": KEY,
        "names": Names(common_name=AGENT, uris=(names.agent_uri(CLUSTER, AGENT),)),
        "now": now,
    }
    return issuing.issue(**{**wanted, **changed})  # type: ignore[arg-type]


def _service(now: datetime = NOW, **changed: object) -> x509.Certificate:
    wanted = {
        "issuer": PKI,
        "profile": profiles.SERVICE,
        "public": KEY,
        "names": Names(
            common_name="app", dns=("App.example.com",), addresses=(ipaddress.ip_address("10.0.0.1"),)
        ),
        "now": now,
    }
    return issuing.issue(**{**wanted, **changed})  # type: ignore[arg-type]


def _gateway() -> x509.Certificate:
    return issuing.issue(
        TRANSPORT,
        profiles.GATEWAY,
        KEY,
        Names(common_name="n1", dns=("core.example.com",), uris=(names.gateway_uri(CLUSTER, "n1"),)),
        NOW,
    )


@pytest.mark.parametrize(
    "certificate", [_agent(), _service(), _gateway()], ids=["agent", "service", "gateway"]
)
def test_every_leaf_is_a_leaf(certificate: x509.Certificate) -> None:
    """A leaf is no authority, says so critically, and has both key identifiers and its own key's."""
    get = certificate.extensions.get_extension_for_class
    constraints = get(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    usage = get(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert get(x509.SubjectKeyIdentifier).value == x509.SubjectKeyIdentifier.from_public_key(KEY)
    issuer = TRANSPORT if "transport" in certificate.issuer.rfc4514_string() else PKI
    above = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert get(x509.AuthorityKeyIdentifier).value.key_identifier == above.key_identifier


def test_a_serial_number_is_random() -> None:
    """Serial numbers are positive, of at most 159 bits, and do not repeat."""
    serials = {_agent().serial_number for _ in range(50)}
    assert len(serials) == 50
    assert all(0 < serial < 1 << 159 for serial in serials)
    assert max(serials).bit_length() > 140


def test_the_beginning_is_backdated_and_the_end_exact() -> None:
    """A certificate begins 30 to 60 seconds ago and ends its lifetime from now, in whole seconds."""
    later = NOW + timedelta(days=1)
    certificate = _agent(later, lifetime=timedelta(hours=1))
    window = chain.validity(certificate)
    assert timedelta(seconds=30) <= later - window.not_before <= timedelta(seconds=60)
    assert window.not_after == (later + timedelta(hours=1)).replace(microsecond=0)


def test_uses_follow_the_profile() -> None:
    """An agent's certificate is a client's, a gateway's a server's, a service's both."""

    def uses(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
        return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)

    assert uses(_agent()) == {ExtendedKeyUsageOID.CLIENT_AUTH}
    assert uses(_gateway()) == {ExtendedKeyUsageOID.SERVER_AUTH}
    assert uses(_service()) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_names_of_a_service() -> None:
    """DNS names stand in lower case, addresses as addresses."""
    found = _service().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(found) == [
        x509.DNSName("app.example.com"),
        x509.IPAddress(ipaddress.ip_address("10.0.0.1")),
    ]


def test_an_agent_is_read_back_from_its_certificate() -> None:
    """The verified certificate names the cluster and the agent, and nobody else's names it does."""
    assert chain.agent_name(_agent()) == (CLUSTER, AGENT)
    assert chain.gateway_name(_gateway()) == (CLUSTER, "n1")
    for other in (_service(), _gateway(), PKI.certificate, ROOT.certificate):
        with pytest.raises(InvalidRequest):
            chain.agent_name(other)
    for other in (_service(), _agent(), PKI.certificate, ROOT.certificate):
        with pytest.raises(InvalidRequest):
            chain.gateway_name(other)


def test_authorities_have_bounded_depth() -> None:
    """The root has room for one authority below it, an intermediate for none."""
    for issuer, length in ((ROOT, 1), (TRANSPORT, 0), (PKI, 0)):
        value = issuer.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        assert (value.ca, value.path_length) == (True, length)
        assert issuer.name.cluster == CLUSTER


@pytest.mark.parametrize("profile", [profiles.AGENT, profiles.GATEWAY], ids=lambda p: p.name)
@pytest.mark.parametrize("issuer", [ROOT, PKI], ids=["root", "pki"])
def test_only_the_transport_authority_signs_transport(issuer: Issuer, profile: profiles.Profile) -> None:
    """The PKI's issuer and the root cannot make an agent or a gateway."""
    uri = (names.agent_uri if profile.name == "agent" else names.gateway_uri)(CLUSTER, AGENT)
    with pytest.raises(InvalidRequest, match="does not sign"):
        issuing.issue(issuer, profile, KEY, Names(common_name="x", uris=(uri,)), NOW)


@pytest.mark.parametrize(
    "profile", [profiles.SERVICE, profiles.SERVER, profiles.CLIENT], ids=lambda p: p.name
)
def test_the_transport_authority_signs_nothing_else(profile: profiles.Profile) -> None:
    """No ordinary certificate comes from the transport authority or from the root."""
    for issuer in (TRANSPORT, ROOT):
        with pytest.raises(InvalidRequest, match="does not sign"):
            issuing.issue(issuer, profile, KEY, Names(common_name="x", dns=("x.example",)), NOW)


@pytest.mark.parametrize(
    "wanted",
    [
        Names(common_name="x", uris=(names.agent_uri(CLUSTER, AGENT),)),
        Names(common_name="x", dns=("x.example",), uris=(names.gateway_uri(CLUSTER, "n1"),)),
        Names(common_name="x", dns=("x.example",), uris=("spiffe://x/y",)),
        Names(common_name="x"),
        Names(common_name="", dns=("x.example",)),
        Names(common_name="x" * 65, dns=("x.example",)),
        Names(common_name="x\ny", dns=("x.example",)),
        Names(common_name="x", dns=("*.example",)),
        Names(common_name="x", dns=("10.0.0.1",)),
        Names(common_name="x", addresses=(ipaddress.ip_network("10.0.0.0/8"),)),  # type: ignore[arg-type]
        Names(common_name="x", addresses=(ipaddress.ip_address("fe80::1%eth0"),)),
        Names(common_name="x", dns=tuple(f"h{n}.example" for n in range(101))),
    ],
)
def test_a_service_cannot_have_other_names(wanted: Names) -> None:
    """URIs, wildcards, networks, zones, too many and missing names are refused at the last door too."""
    with pytest.raises(InvalidRequest):
        _service(names=wanted)


@pytest.mark.parametrize(
    "wanted",
    [
        Names(common_name="x"),
        Names(common_name="x", uris=(names.gateway_uri(CLUSTER, "n1"),)),
        Names(common_name="x", uris=(names.agent_uri("another-cluster", AGENT),)),
        Names(common_name="x", uris=(names.agent_uri(CLUSTER, AGENT), names.agent_uri(CLUSTER, CLUSTER))),
        Names(common_name="x", dns=("x.example",), uris=(names.agent_uri(CLUSTER, AGENT),)),
        Names(
            common_name="x",
            addresses=(ipaddress.ip_address("10.0.0.1"),),
            uris=(names.agent_uri(CLUSTER, AGENT),),
        ),
    ],
)
def test_an_agent_has_its_uri_and_no_other_name(wanted: Names) -> None:
    """An agent's certificate carries exactly one URI, of this cluster, and no host name."""
    with pytest.raises(InvalidRequest):
        _agent(names=wanted)


@pytest.mark.parametrize(
    "lifetime", [timedelta(0), timedelta(seconds=-1), timedelta(days=366), timedelta(days=3_000_000)]
)
def test_lifetimes_have_bounds(lifetime: timedelta) -> None:
    """Nothing lives for no time, longer than its profile allows or beyond the calendar."""
    with pytest.raises(InvalidRequest):
        _service(lifetime=lifetime)


def test_the_calendar_has_an_end() -> None:
    """A lifetime beyond the year 9999 is refused, not wrapped."""
    with pytest.raises(InvalidRequest, match="calendar"):
        validity.window(NOW, timedelta(days=3_000_000))


def test_nothing_outlives_its_issuer() -> None:
    """Near the end of the authority a certificate that would outlive it is refused, as is one after it."""
    end = chain.validity(PKI.certificate).not_after
    with pytest.raises(InvalidRequest, match="outlive"):
        _service(end - timedelta(days=1))
    assert chain.validity(_service(end - timedelta(days=1), lifetime=timedelta(hours=24))).not_after == end
    for instant in (end, end + timedelta(days=1), NOW - timedelta(days=1)):
        with pytest.raises(InvalidRequest, match="not valid at this time"):
            _service(instant, lifetime=timedelta(seconds=1))


def test_the_key_of_an_authority_is_not_certified_again() -> None:
    """A leaf never shares its key with an authority above it."""
    with pytest.raises(InvalidRequest, match="belongs to an authority"):
        _agent(public=TRANSPORT.key.public_key())


def test_a_weak_key_is_refused_at_the_last_door() -> None:
    """The strength of the key is checked when signing, too."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    with pytest.raises(InvalidRequest, match="bits"):
        _agent(public=rsa.generate_private_key(65537, 1024).public_key())


def test_authorities_are_not_issued_as_leaves() -> None:
    """The door for leaves makes no authority, and the door for authorities no leaf and no root."""
    with pytest.raises(InvalidRequest):
        issuing.issue(ROOT, profiles.INTERMEDIATE, KEY, Names(common_name="x"), NOW)
    for profile in (profiles.SERVICE, profiles.ROOT):
        with pytest.raises(InvalidRequest):
            issuing.make_authority(ROOT, profile, keys.generate("ecdsa-p256"), NOW)
    with pytest.raises(InvalidRequest, match="does not sign"):
        issuing.make_authority(PKI, profiles.TRANSPORT, keys.generate("ecdsa-p256"), NOW)


def test_private_keys_do_not_show() -> None:
    """An issuer that is logged shows no key."""
    assert "key=" not in repr(ROOT)


@pytest.mark.parametrize(
    ("days", "due"), [(90, 83), (365, 358), (21, 14), (9, 6), (3, 2)], ids=lambda value: str(value)
)
def test_renewal_comes_in_time(days: int, due: int) -> None:
    """Renewal is due seven days before the end, or at two thirds of a short life."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    window = validity.Window(start, start + timedelta(days=days))
    assert validity.renewal_due(window) == start + timedelta(days=due)


def test_chains_verify() -> None:
    """Each leaf verifies against the root, and an agent also against the transport authority alone."""
    chain.check_client(_agent(), [TRANSPORT.certificate], ROOT.certificate, NOW)
    chain.check_client(_agent(), [], TRANSPORT.certificate, NOW)
    check_server(_gateway(), [TRANSPORT.certificate], ROOT.certificate, "core.example.com", NOW)
    check_server(_service(), [PKI.certificate], ROOT.certificate, "app.example.com", NOW)


@pytest.mark.parametrize(
    ("certificate", "between", "anchor", "now"),
    [
        (_service(), [PKI.certificate, ROOT.certificate], TRANSPORT.certificate, NOW),
        (_agent(), [TRANSPORT.certificate], PKI.certificate, NOW),
        (_agent(), [], ROOT.certificate, NOW),
        (_agent(), [TRANSPORT.certificate], ROOT.certificate, NOW + timedelta(days=91)),
        (_agent(), [TRANSPORT.certificate], ROOT.certificate, NOW - timedelta(days=1)),
        (_gateway(), [TRANSPORT.certificate], ROOT.certificate, NOW),
    ],
    ids=["other-authority", "wrong-anchor", "no-intermediate", "expired", "not-yet", "a-server-as-client"],
)
def test_other_chains_do_not_verify(
    certificate: x509.Certificate, between: list[x509.Certificate], anchor: x509.Certificate, now: datetime
) -> None:
    """Another authority, a gap, another time or another use: refused."""
    with pytest.raises(PermissionDenied):
        chain.check_client(certificate, between, anchor, now)


def test_a_chain_is_put_in_order() -> None:
    """Leaf, intermediate and root come in order, whatever else lies beside them."""
    pile = [ROOT.certificate, PKI.certificate, TRANSPORT.certificate]
    agent = _agent()
    assert chain.build_chain(agent, pile) == (agent, TRANSPORT.certificate, ROOT.certificate)
    with pytest.raises(InvalidRequest):
        chain.build_chain(agent, [PKI.certificate, ROOT.certificate])


def test_a_namesake_is_no_issuer() -> None:
    """An authority with the right name and another key does not complete a chain."""
    twin = issuing.make_root(keys.generate("ecdsa-p384"), CLUSTER, NOW)
    impostor = issuing.make_authority(twin, profiles.TRANSPORT, keys.generate("ecdsa-p256"), NOW)
    with pytest.raises(InvalidRequest):
        chain.build_chain(_agent(), [impostor.certificate, twin.certificate])


def test_pem_and_serial_numbers_read_back() -> None:
    """PEM bundles and serial numbers survive their text forms."""
    agent = _agent()
    pem = chain.to_pem(agent, *TRANSPORT.chain)
    assert chain.from_pem(pem) == (agent, TRANSPORT.certificate, ROOT.certificate)
    text = chain.serial_text(agent.serial_number)
    assert chain.parse_serial(text) == text
    assert chain.parse_serial(text.replace(":", "-").upper()) == text
    assert chain.parse_serial(text.replace(":", "")) == text
    for bad in ("", "zz", "1", "01:", ":01", "01::02", "01:02\n", "01/02", "0" * 42, "٠١"):
        with pytest.raises(InvalidRequest):
            chain.parse_serial(bad)
    for bad in ("", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(InvalidRequest):
            chain.from_pem(bad)
    with pytest.raises(InvalidRequest):
        chain.from_der(b"\x30\x00")


def test_the_rsa_option_makes_a_whole_hierarchy() -> None:
    """With RSA-4096 the root signs the same intermediates and the chains verify."""
    root = issuing.make_root(keys.generate("rsa-4096"), CLUSTER, NOW)
    between = issuing.make_authority(root, profiles.TRANSPORT, keys.generate("ecdsa-p256"), NOW)
    chain.check_client(_agent(issuer=between), [between.certificate], root.certificate, NOW)
    rsa_leaf = _service(
        issuer=issuing.make_authority(root, profiles.INTERMEDIATE, keys.generate("rsa-2048"), NOW),
        public=keys.generate("rsa-2048").public_key(),
    )
    assert rsa_leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_encipherment


def test_any_bytes_are_no_certificate() -> None:
    """A certificate with any byte changed is read as such or refused, never an unexpected error."""
    der = _agent().public_bytes(serialization.Encoding.DER)
    for position in range(len(der)):
        changed = bytearray(der)
        changed[position] ^= 1 + position % 255
        try:
            chain.agent_name(chain.from_der(bytes(changed)))
        except InvalidRequest:
            continue
