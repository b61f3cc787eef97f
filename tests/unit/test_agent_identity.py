"""The agent's identity: what Core issued is checked before it is believed."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from agent import identity
from agent.identity import Identity
from agent.state import open_state
from secrethub.errors import Conflict, InvalidRequest, Misconfigured, PermissionDenied
from secrethub.ids import new_uuid
from secrethub.pki import chain, keys
from secrethub.pki.issuing import Issuer, Names, issue, make_authority, make_root
from secrethub.pki.names import agent_uri, gateway_uri
from secrethub.pki.profiles import AGENT, GATEWAY, INTERMEDIATE, TRANSPORT

NOW = datetime(2026, 3, 1, tzinfo=UTC)
AGENT_ID = new_uuid()


@pytest.fixture(scope="module")
def root() -> Issuer:
    """The root of a cluster."""
    return make_root(keys.generate("ecdsa-p256"), "c1", NOW)


@pytest.fixture(scope="module")
def transport(root: Issuer) -> Issuer:
    """Its transport authority."""
    return make_authority(root, TRANSPORT, keys.generate("ecdsa-p256"), NOW)


def leaf(issuer: Issuer, key: keys.PrivateKey, lifetime: timedelta | None = None) -> str:
    """Return an agent's certificate."""
    names = Names(common_name="agent", uris=(agent_uri("c1", AGENT_ID),))
    return chain.to_pem(issue(issuer, AGENT, key.public_key(), names, NOW, lifetime))


def certified(issuer: Issuer, key: keys.PrivateKey, lifetime: timedelta | None = None) -> Identity:
    """Return an identity as Core would issue it."""
    authorities = [chain.to_pem(authority) for authority in issuer.chain]
    root_sha256 = chain.fingerprint(issuer.chain[-1])
    return identity.certified(key, leaf(issuer, key, lifetime), authorities, root_sha256, NOW)


def gateway(issuer: Issuer) -> bytes:
    """Return the certificate of a gateway of the issuer's cluster."""
    names = Names(common_name="g", dns=("localhost",), uris=(gateway_uri(issuer.name.cluster, "n1"),))
    key = keys.generate("ecdsa-p256")
    return issue(issuer, GATEWAY, key.public_key(), names, NOW).public_bytes(Encoding.DER)


def test_names_come_from_the_certificate(transport: Issuer) -> None:
    """Agent id, cluster and the gateways' prefix are read from what Core signed."""
    held = certified(transport, keys.generate("ecdsa-p256"))
    assert (held.agent_id, held.cluster) == (AGENT_ID, "c1")
    assert held.gateway_prefix == "secrethub://c1/gateway/"


@pytest.mark.parametrize("kind", ["rsa-2048", "ecdsa-p256"])
def test_it_survives_being_stored(transport: Issuer, tmp_path: Path, kind: keys.KeyType) -> None:
    """What is loaded is what was saved, in a private file."""
    held = certified(transport, keys.generate(kind))
    with open_state(tmp_path / "state") as state:
        assert identity.load(state) is None
        identity.save(state, held)
        loaded = identity.load(state)
    assert loaded is not None
    assert loaded.to_pem() == held.to_pem()
    assert (loaded.agent_id, loaded.cluster) == (held.agent_id, held.cluster)
    assert stat.S_IMODE((tmp_path / "state" / identity.IDENTITY_FILE).stat().st_mode) == 0o600
    loaded.tls_context()


@pytest.mark.parametrize(
    ("lifetime", "due"),
    [(timedelta(days=90), timedelta(days=83)), (timedelta(days=3), timedelta(days=2))],
)
def test_when_it_is_due(transport: Issuer, lifetime: timedelta, due: timedelta) -> None:
    """Seven days before the end, or after two thirds of a short life."""
    held = certified(transport, keys.generate("ecdsa-p256"), lifetime)
    assert abs(held.due - (NOW + due)) < timedelta(minutes=1)


def test_a_certificate_for_another_key_is_refused(transport: Issuer) -> None:
    """Core cannot give the agent somebody else's certificate."""
    authorities = [chain.to_pem(authority) for authority in transport.chain]
    other = leaf(transport, keys.generate("ecdsa-p256"))
    with pytest.raises(InvalidRequest, match="another key"):
        identity.certified(
            keys.generate("ecdsa-p256"), other, authorities, chain.fingerprint(transport.chain[-1]), NOW
        )


def test_another_root_is_refused(transport: Issuer) -> None:
    """The chain must end at the root with the fingerprint that was told."""
    key = keys.generate("ecdsa-p256")
    authorities = [chain.to_pem(authority) for authority in transport.chain]
    with pytest.raises(InvalidRequest, match="pinned root"):
        identity.certified(key, leaf(transport, key), authorities, "00" * 32, NOW)


def test_the_other_intermediate_cannot_make_an_agent(root: Issuer) -> None:
    """A certificate below the PKI's authority is refused, were it to carry an agent's name."""
    impostor = make_authority(root, INTERMEDIATE, keys.generate("ecdsa-p256"), NOW)
    key = keys.generate("ecdsa-p256")
    with pytest.raises(InvalidRequest):
        certified(impostor, key)


def test_an_expired_certificate_is_refused(transport: Issuer) -> None:
    """What is not valid now is not stored."""
    key = keys.generate("ecdsa-p256")
    authorities = [chain.to_pem(authority) for authority in transport.chain]
    root_sha256 = chain.fingerprint(transport.chain[-1])
    short = leaf(transport, key, timedelta(hours=1))
    with pytest.raises(InvalidRequest):
        identity.certified(key, short, authorities, root_sha256, NOW + timedelta(hours=2))


def test_only_gateways_of_the_own_cluster_are_gateways(transport: Issuer) -> None:
    """An agent's certificate, and a gateway's of another cluster, name no gateway of ours."""
    held = certified(transport, keys.generate("ecdsa-p256"))
    assert held.check_gateway(gateway(transport)) == "n1"
    with pytest.raises(PermissionDenied):
        held.check_gateway(held.chain[0].public_bytes(Encoding.DER))
    other_root = make_root(keys.generate("ecdsa-p256"), "c2", NOW)
    other = make_authority(other_root, TRANSPORT, keys.generate("ecdsa-p256"), NOW)
    with pytest.raises(PermissionDenied, match="another cluster"):
        held.check_gateway(gateway(other))


def test_the_key_is_not_shown(transport: Issuer) -> None:
    """Neither ``repr`` nor the log can show the private key."""
    assert "key" not in repr(certified(transport, keys.generate("ecdsa-p256"))).replace("public_key", "")


def test_endpoints_must_be_encrypted(tmp_path: Path) -> None:
    """Only ``wss://`` URLs are stored, and at least one."""
    with open_state(tmp_path / "state") as state:
        for urls in ([], ["ws://a:1"], ["wss://a:1", "http://b"]):
            with pytest.raises(InvalidRequest):
                identity.save_endpoints(state, urls)
        identity.save_endpoints(state, ["wss://a:1", "wss://b:2"])
        assert identity.load_endpoints(state) == ("wss://a:1", "wss://b:2")


def test_one_agent_at_a_time_uses_a_state(tmp_path: Path) -> None:
    """A second agent with the same state directory is refused; later it may have it."""
    with open_state(tmp_path / "state"), pytest.raises(Conflict), open_state(tmp_path / "state"):
        pass
    with open_state(tmp_path / "state"):
        pass


def test_a_state_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    """The state directory is private or not used; a symlink in its place is not followed."""
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open").chmod(0o750)
    with pytest.raises(Misconfigured, match="0700"), open_state(tmp_path / "open"):
        pass
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(Misconfigured, match="symbolic link"), open_state(tmp_path / "link"):
        pass


def test_what_a_killed_agent_left_half_written_goes(tmp_path: Path) -> None:
    """At the next start nothing half written, which may hold a key, is left in the state directory."""
    with open_state(tmp_path / "state") as state:
        state.write("identity.pem", b"whole")
    (tmp_path / "state" / ".identity.pem.secrethub-00ff").write_bytes(b"half a canary")
    with open_state(tmp_path / "state"):
        assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["identity.pem", "lock"]
