"""Whom the listeners admit, by whole TLS handshakes in memory."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from secrethub.pki import chain, issuing, keys, names, profiles, tls
from secrethub.pki.issuing import Issuer, Names

CLUSTER = "9f0f1a6e-7a3b-4a36-9c0a-0a4de1f6d001"
AGENT = "3c0f5a52-9b3f-4f0d-8f7b-0d9a4c1b2e10"
NOW = datetime.now(UTC)

ROOT = issuing.make_root(keys.generate("ecdsa-p384"), CLUSTER, NOW)
TRANSPORT = issuing.make_authority(ROOT, profiles.TRANSPORT, keys.generate("ecdsa-p256"), NOW)
PKI = issuing.make_authority(ROOT, profiles.INTERMEDIATE, keys.generate("ecdsa-p384"), NOW)
KEY = keys.generate("ecdsa-p256")


def _leaf(
    issuer: Issuer, profile: profiles.Profile, wanted: Names, now: datetime = NOW
) -> tuple[bytes, bytes]:
    certificate = issuing.issue(issuer, profile, KEY.public_key(), wanted, now)
    return chain.to_pem(certificate, *issuer.chain).encode(), keys.private_pem(KEY)


GATEWAY_NAMES = Names(common_name="n1", dns=("localhost",), uris=(names.gateway_uri(CLUSTER, "n1"),))
AGENT_NAMES = Names(common_name=AGENT, uris=(names.agent_uri(CLUSTER, AGENT),))
GATEWAY = _leaf(TRANSPORT, profiles.GATEWAY, GATEWAY_NAMES)


def _listener() -> ssl.SSLContext:
    return tls.agent_listener_context(*GATEWAY, chain.to_pem(TRANSPORT.certificate).encode())


def _client(
    identity: tuple[bytes, bytes] | None, anchor: x509.Certificate = ROOT.certificate
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=chain.to_pem(anchor))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    if identity is not None:
        tls.load_identity(context, *identity)
    return context


def _handshake(listener: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Run a handshake and one message each way; raise what either side raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = listener.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    waiting: list[Callable[[], object]] = [theirs.do_handshake, ours.do_handshake]
    for _ in range(10):
        for step in tuple(waiting):
            try:
                step()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(step)
    assert not waiting
    ours.write(b"ready")
    assert theirs.read() == b"ready"
    return ours, theirs


def test_an_agent_is_admitted() -> None:
    """An agent's certificate is admitted over TLS 1.3, and the listener sees whom it names."""
    ours, theirs = _handshake(_listener(), _client(_leaf(TRANSPORT, profiles.AGENT, AGENT_NAMES)))
    assert ours.version() == "TLSv1.3"
    der = ours.getpeercert(binary_form=True)
    assert der is not None
    assert chain.agent_name(chain.from_der(der)) == (CLUSTER, AGENT)
    shown = theirs.getpeercert(binary_form=True)
    assert shown is not None
    assert chain.gateway_name(chain.from_der(shown)) == (CLUSTER, "n1")


def test_an_agent_may_leave_its_chain_at_home() -> None:
    """The leaf alone is enough, for its issuer is the anchor."""
    certificate = issuing.issue(TRANSPORT, profiles.AGENT, KEY.public_key(), AGENT_NAMES, NOW)
    identity = (chain.to_pem(certificate).encode(), keys.private_pem(KEY))
    _handshake(_listener(), _client(identity))


@pytest.mark.parametrize(
    "identity",
    [
        pytest.param(None, id="none"),
        pytest.param(
            _leaf(PKI, profiles.SERVICE, Names(common_name="x", dns=("x.example",))), id="pki-issue"
        ),
        pytest.param(
            _leaf(PKI, profiles.CLIENT, Names(common_name=AGENT, dns=("x.example",))), id="pki-client"
        ),
        pytest.param(GATEWAY, id="a-gateway"),
        pytest.param(
            _leaf(TRANSPORT, profiles.AGENT, AGENT_NAMES, NOW + timedelta(hours=1)), id="not-yet-valid"
        ),
        pytest.param(
            (chain.to_pem(TRANSPORT.certificate).encode(), keys.private_pem(TRANSPORT.key)), id="ca"
        ),
    ],
)
def test_nobody_else_is_admitted(identity: tuple[bytes, bytes] | None) -> None:
    """No certificate, one of the PKI mount, a gateway's, one before its time, an authority: refused."""
    with pytest.raises(ssl.SSLError):
        _handshake(_listener(), _client(identity))


def test_a_foreign_hierarchy_is_refused() -> None:
    """The same names under another root, its whole chain shown, are refused."""
    root = issuing.make_root(keys.generate("ecdsa-p384"), CLUSTER, NOW)
    twin = issuing.make_authority(root, profiles.TRANSPORT, keys.generate("ecdsa-p256"), NOW)
    with pytest.raises(ssl.SSLError):
        _handshake(_listener(), _client(_leaf(twin, profiles.AGENT, AGENT_NAMES)))


def test_older_protocols_are_refused() -> None:
    """The agents' listener speaks TLS 1.3 only."""
    client = _client(_leaf(TRANSPORT, profiles.AGENT, AGENT_NAMES))
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        _handshake(_listener(), client)


def test_a_forged_agent_below_an_issued_certificate_is_refused() -> None:
    """A certificate from the PKI mount cannot sign: what it signs is refused."""
    issued = issuing.issue(
        PKI, profiles.SERVICE, KEY.public_key(), Names(common_name="x", dns=("x.example",)), NOW
    )
    forger = Issuer(certificate=issued, above=PKI.chain, key=KEY)
    victim = keys.generate("ecdsa-p256")
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issued.subject)
        .public_key(victim.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(minutes=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(names.agent_uri(CLUSTER, AGENT))]),
            critical=True,
        )
    )
    forged = builder.sign(forger.key, keys.signing_hash(forger.key))
    identity = (chain.to_pem(forged, *forger.chain).encode(), keys.private_pem(victim))
    with pytest.raises(ssl.SSLError):
        _handshake(_listener(), _client(identity))


def test_the_pki_authority_is_no_anchor_of_gateways() -> None:
    """An agent that trusts the transport authority refuses a server below the PKI's, whatever its names."""
    identity = _leaf(PKI, profiles.SERVICE, Names(common_name="localhost", dns=("localhost",)))
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(tls.server_context(*identity), _client(None, TRANSPORT.certificate))


def test_the_https_listener_asks_for_no_certificate() -> None:
    """A client that trusts the root reaches the HTTPS listener without a certificate."""
    ours, _ = _handshake(tls.server_context(*GATEWAY), _client(None))
    assert ours.getpeercert(binary_form=True) is None


def test_a_listener_takes_a_new_identity() -> None:
    """After a new identity is loaded, new connections see it."""
    context = tls.server_context(*GATEWAY)
    other = _leaf(
        TRANSPORT,
        profiles.GATEWAY,
        Names(common_name="n2", dns=("localhost",), uris=(names.gateway_uri(CLUSTER, "n2"),)),
    )
    tls.load_identity(context, *other)
    _, theirs = _handshake(context, _client(None))
    shown = theirs.getpeercert(binary_form=True)
    assert shown is not None
    assert chain.gateway_name(chain.from_der(shown)).node == "n2"


def test_keys_do_not_touch_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading an identity leaves no file and no open descriptor."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    tls.server_context(*GATEWAY)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert list(tmp_path.iterdir()) == []
