"""``pki/issue`` and the built-in authorities, on a real database."""

from __future__ import annotations

import base64
import ipaddress
import json
from collections.abc import AsyncIterator
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from authority_core import Running, running
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from secrethub.crypto.aead import Place
from secrethub.engines.engine import Fence
from secrethub.engines.pki.authorities import load_issuer
from secrethub.engines.pki.roles import Role, put_role
from secrethub.errors import (
    Conflict,
    DecryptionFailed,
    IntegrityFailure,
    InvalidRequest,
    Misconfigured,
    NotFound,
    PermissionDenied,
    Sealed,
)
from secrethub.operations.transport_ca import (
    check_agent_certificate,
    create_authorities,
    issue_gateway_certificate,
    load_trust,
)
from secrethub.pki import chain, issuing, keys, names, profiles
from secrethub.storage.authority import CERTIFICATE_AUTHORITIES, MOUNTS
from tests.gateway.conftest import SHARING
from tests.server_certificates import check_server

pytestmark = SHARING


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(shared_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """One process for tests that change nothing which others see."""
    async with running(shared_database_url, tmp_path_factory.mktemp("shared")) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def own_hub(database_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    """One process on a fresh cluster."""
    async with running(database_url, tmp_path) as started:
        yield started


async def _sql(hub: Running, statement: str, *values: Any) -> list[Any]:
    connection = await asyncpg.connect(hub.url)
    try:
        return list(await connection.fetch(statement, *values))
    finally:
        await connection.close()


def _fence(hub: Running) -> Fence:
    return Fence(generation=hub.core.caches.generation, seal_epoch=hub.core.caches.seal_epoch, written=[])


async def test_a_certificate_is_issued(own_hub: Running) -> None:
    """The certificate fits its key, names and chain, and is found again by its serial number."""
    made = await own_hub.data(
        "write",
        "pki/issue",
        {
            "common_name": "App.example.com",
            "alt_names": "b.example.com,app.example.com",
            "ip_sans": ["10.1.2.3"],
        },
    )
    leaf = chain.from_pem(made["certificate"])[0]
    key = serialization.load_pem_private_key(made["private_key"].encode(), None)
    assert leaf.public_key() == key.public_key()
    above = [chain.from_pem(pem)[0] for pem in made["ca_chain"]]
    assert chain.build_chain(leaf, above) == (leaf, *above)
    assert made["issuing_ca"] == made["ca_chain"][0]
    assert made["private_key_type"] == "ec"
    trust = await load_trust(own_hub.core)
    assert chain.fingerprint(above[-1]) == trust.root_sha256
    check_server(leaf, above[:-1], above[-1], "app.example.com", own_hub.clock.now())
    chain.check_client(leaf, above[:-1], above[-1], own_hub.clock.now())
    assert list(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == [
        x509.DNSName("app.example.com"),
        x509.DNSName("b.example.com"),
        x509.IPAddress(ipaddress.ip_address("10.1.2.3")),
    ]
    assert made["expiration"] == int(leaf.not_valid_after_utc.timestamp())
    assert (await own_hub.data("list", "pki/certs"))["keys"] == [made["serial_number"]]
    again = await own_hub.data("read", f"pki/cert/{made['serial_number'].replace(':', '-')}")
    assert chain.from_pem(again["certificate"])[0] == leaf


async def test_private_keys_are_kept_nowhere(hub: Running) -> None:
    """No issued key and no authority's key is found in the database, sealed or in the ledger."""
    made = await hub.data("write", "pki/issue", {"common_name": "app.example.com"})
    key = serialization.load_pem_private_key(made["private_key"].encode(), None)
    secret_numbers = [key.private_numbers().private_value]  # type: ignore[union-attr]
    for name in ("root", "transport", "pki"):
        issuer = await load_issuer(hub.core, name)
        secret_numbers.append(issuer.key.private_numbers().private_value)  # type: ignore[union-attr]
    rows = await _sql(
        hub,
        """SELECT body::text AS t FROM certificate_authorities UNION ALL SELECT pem FROM certificates
           UNION ALL SELECT detail FROM audit_entries""",
    )
    dump = "\n".join(row["t"] for row in rows)
    assert "PRIVATE KEY" not in dump
    for number in secret_numbers:
        raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
        assert raw.hex() not in dump
        assert base64.b64encode(raw).decode()[4:-8] not in dump


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"common_name": ""},
        {"common_name": "*.example.com"},
        {"common_name": "10.0.0.1"},
        {"common_name": "app.example.com\n"},
        {"common_name": "a" * 65},
        {"common_name": "person@example.com"},
        {"common_name": "app", "alt_names": ["*.example.com"]},
        {"common_name": "app", "alt_names": ["secrethub://c/agent/3c0f5a52-9b3f-4f0d-8f7b-0d9a4c1b2e10"]},
        {"common_name": "app", "uri_sans": "secrethub://c/gateway/n1"},
        {"common_name": "app", "other_sans": "1.3.6.1.4.1.311.20.2.3;utf8:root"},
        {"common_name": "app", "ip_sans": "10.0.0.0/8"},
        {"common_name": "app", "ip_sans": ["0.0.0.0"]},
        {"common_name": "app", "ip_sans": ["::ffff:10.0.0.1"]},
        {"common_name": "app", "ip_sans": ["fe80::1%eth0"]},
        {"common_name": "app", "ip_sans": ["app.example.com"]},
        {"common_name": "app", "alt_names": [f"h{n}" for n in range(200)]},
        {"common_name": "app", "ttl": -1},
        {"common_name": "app", "ttl": "-1h"},
        {"common_name": "app", "ttl": "99999999999999999999h"},
        {"common_name": "app", "ttl": True},
        {"common_name": "app", "ttl": "soon"},
        {"common_name": "app", "role": "other"},
        {"common_name": "app", "role": "../default"},
        {"common_name": "app", "not_after": "2020-01-01T00:00:00Z"},
        {"common_name": "app", "not_after": "0001-01-01T00:00:00Z"},
        {"common_name": "app", "not_after": "2999-01-01T00:00:00Z"},
        {"common_name": "app", "not_after": "tomorrow"},
        {"common_name": "app", "format": "pkcs12"},
        {"common_name": "app", "format": "PEM"},
        {"common_name": "app", "private_key_format": "jwk"},
        {"common_name": "app", "exclude_cn_from_sans": True},
        {"common_name": "app", "remove_roots_from_chain": "true"},
        {"common_name": "app", "user_ids": "root"},
        {"common_name": "app", "serial_number": "7"},
        {"common_name": "app", "issuer_ref": "other"},
    ],
    ids=lambda body: json.dumps(body)[:60],
)
async def test_what_the_default_role_does_not_allow(hub: Running, body: dict[str, Any]) -> None:
    """Bad names, URIs, networks, impossible lifetimes and other roles are refused; nothing is issued."""
    before = await _sql(hub, "SELECT * FROM certificates")
    with pytest.raises(InvalidRequest):
        await hub.ask("write", "pki/issue", body)
    assert await _sql(hub, "SELECT * FROM certificates") == before


async def test_a_lifetime_above_the_roles_is_cut(hub: Running) -> None:
    """A longer lifetime than the role's becomes the role's, with a warning, as in Vault."""
    answer = await hub.ask("write", "pki/issue/default", {"common_name": "app", "ttl": "87600h"})
    assert answer.data is not None
    leaf = chain.from_pem(answer.data["certificate"])[0]
    assert leaf.not_valid_after_utc - hub.clock.now() <= timedelta(days=365)
    assert any("longer than permitted" in warning for warning in answer.warnings)
    short = await hub.data("write", "pki/issue", {"common_name": "app", "ttl": "60"})
    leaf = chain.from_pem(short["certificate"])[0]
    assert leaf.not_valid_after_utc - hub.clock.now() <= timedelta(seconds=60)


async def test_a_certificate_ends_when_it_is_told_to(hub: Running) -> None:
    """``not_after`` is the certificate's end, to the second, within what the role permits."""
    wanted = (hub.clock.now() + timedelta(days=2)).replace(microsecond=0)
    for text in (wanted.isoformat(), wanted.astimezone(timezone(timedelta(hours=5))).isoformat()):
        made = await hub.data("write", "pki/issue", {"common_name": "app", "not_after": text, "ttl": 0})
        assert chain.from_pem(made["certificate"])[0].not_valid_after_utc == wanted
        assert made["expiration"] == int(wanted.timestamp())
    with pytest.raises(InvalidRequest, match="not both"):
        await hub.ask("write", "pki/issue", {"common_name": "app", "not_after": text, "ttl": "1h"})
    beyond = (hub.clock.now() + timedelta(days=365, minutes=1)).isoformat()
    with pytest.raises(InvalidRequest, match="later than permitted"):
        await hub.ask("write", "pki/issue", {"common_name": "app", "not_after": beyond})


async def test_certificates_in_every_form(hub: Running) -> None:
    """PEM, base64 of DER, or one bundle; the key in its own form or in PKCS#8."""
    for form in ("pem", "der", "pem_bundle", ""):
        for key_form in ("der", "pkcs8", ""):
            body = {"common_name": "app", "format": form, "private_key_format": key_form}
            made = await hub.data("write", "pki/issue", body)
            if form == "der":
                leaf = chain.from_der(base64.b64decode(made["certificate"]))
                above = [chain.from_der(base64.b64decode(one)) for one in made["ca_chain"]]
                raw = base64.b64decode(made["private_key"])
                key = serialization.load_der_private_key(raw, None)
                assert (b"\x06\x07*\x86H\xce=\x02\x01" in raw[:26]) == (key_form == "pkcs8")
            else:
                leaf = chain.from_pem(made["certificate"])[0]
                above = [chain.from_pem(one)[0] for one in made["ca_chain"]]
                key = serialization.load_pem_private_key(made["private_key"].encode(), None)
                began = "-----BEGIN PRIVATE KEY" if key_form == "pkcs8" else "-----BEGIN EC PRIVATE KEY"
                assert made["private_key"].startswith(began)
            assert leaf.public_key() == key.public_key()
            assert made["issuing_ca"] == made["ca_chain"][0]
            assert chain.build_chain(leaf, above) == (leaf, *above)
            if form == "pem_bundle":
                assert made["certificate"].startswith(made["private_key"] + "\n")
                assert chain.from_pem(made["certificate"]) == (leaf, *above)


async def test_an_unknown_role_issues_nothing(hub: Running) -> None:
    """A role that does not exist is refused."""
    with pytest.raises(InvalidRequest, match="unknown role"):
        await hub.ask("write", "pki/issue/other", {"common_name": "app"})


async def test_names_of_the_listeners_are_reserved(hub: Running) -> None:
    """Nobody gets a certificate for a name by which clients reach SecretHub; loopback names are free."""
    await issue_gateway_certificate(
        hub.core, "n1", ("core.example.com", "localhost"), ("10.9.8.7", "127.0.0.1")
    )
    for body in (
        {"common_name": "CORE.example.com"},
        {"common_name": "app", "alt_names": ["core.example.com"]},
        {"common_name": "app", "ip_sans": ["10.9.8.7"]},
    ):
        with pytest.raises(InvalidRequest, match="listeners"):
            await hub.ask("write", "pki/issue", body)
    await hub.ask("write", "pki/issue", {"common_name": "localhost", "ip_sans": ["127.0.0.1", "::1"]})


async def test_no_other_mount_reaches_an_authority(own_hub: Running) -> None:
    """A PKI engine mounted elsewhere, even at an authority's name, can sign nothing."""
    mounts = ("transport/", "root/", "pki2/")
    async with own_hub.core.authority.change(_fence(own_hub)) as change:
        for path in mounts:
            body = {"type": "pki", "uuid": path, "accessor": path, "description": "", "options": {}}
            await change.put(MOUNTS, path, body)
            await put_role(change, path, "default", Role())
    await own_hub.core.ledger.look()
    for path in mounts:
        for tail in ("issue", "issue/default"):
            with pytest.raises(InvalidRequest, match="no authority"):
                await own_hub.ask("write", path + tail, {"common_name": "app"})
        with pytest.raises(InvalidRequest, match="no authority"):
            await own_hub.ask("read", f"{path}ca", token=None)


async def test_the_chain_is_public(hub: Running) -> None:
    """Anybody may read the authorities' certificates, and the root is among them."""
    trust = await load_trust(hub.core)
    found = await hub.data("read", "pki/cert/ca_chain", token=None)
    certificates = chain.from_pem(found["certificate"])
    assert chain.to_pem(certificates[-1]).encode() == trust.root_pem
    assert found["ca_chain"] == found["certificate"]
    issuing_ca = await hub.data("read", "pki/cert/ca", token=None)
    assert chain.from_pem(issuing_ca["certificate"]) == certificates[:1]
    made = await hub.data("write", "pki/issue", {"common_name": "app"})
    shown = await hub.data("read", f"pki/cert/{made['serial_number']}", token=None)
    assert shown == {
        "certificate": made["certificate"],
        "revocation_time": 0,
        "revocation_time_rfc3339": "",
    }


async def test_issuing_needs_a_grant(hub: Running) -> None:
    """Without a token, and with one whose policies are silent, nothing is issued or listed."""
    made = await hub.ask("write", "auth/token/create", {"policies": ["default"]})
    assert made.auth is not None
    for token in (None, made.auth.client_token):
        with pytest.raises(PermissionDenied):
            await hub.ask("write", "pki/issue", {"common_name": "app"}, token=token)
        with pytest.raises(PermissionDenied):
            await hub.ask("list", "pki/certs", token=token)


async def test_certificates_that_are_not_there(own_hub: Running) -> None:
    """An unknown serial number and an empty list are 404; what is no serial number is refused."""
    with pytest.raises(NotFound):
        await own_hub.ask("list", "pki/certs")
    with pytest.raises(NotFound):
        await own_hub.ask("read", "pki/cert/01:02")
    with pytest.raises(InvalidRequest):
        await own_hub.ask("read", "pki/cert/zz")
    for after in ("zz", "\0", "' OR 1=1"):
        with pytest.raises(InvalidRequest):
            await own_hub.ask("list", "pki/certs", query={"after": after})


async def test_gateway_certificates_are_not_the_pkis(hub: Running) -> None:
    """What the transport authority issued is not shown by the PKI mount."""
    chain_pem, _ = await issue_gateway_certificate(hub.core, "n1", ("core.example.com",), ())
    serial = chain.serial_text(chain.from_pem(chain_pem.decode())[0].serial_number)
    with pytest.raises(NotFound):
        await hub.ask("read", f"pki/cert/{serial}")


async def test_a_gateway_gets_its_certificate(hub: Running) -> None:
    """The listeners' certificate names the node and its hosts, leads to the root, and is in the ledger."""
    chain_pem, key_pem = await issue_gateway_certificate(
        hub.core, "n1", ("core.example.com",), ("127.0.0.1",)
    )
    leaf, *above = chain.from_pem(chain_pem.decode())
    trust = await load_trust(hub.core)
    assert chain.fingerprint(above[-1]) == trust.root_sha256
    assert chain.to_pem(above[0]).encode() == trust.transport_pem
    check_server(leaf, above[:-1], above[-1], "core.example.com", hub.clock.now())
    assert chain.gateway_name(leaf) == (trust.cluster, "n1")
    assert trust.cluster == hub.core.keys.cluster_id
    key = serialization.load_pem_private_key(key_pem, None)
    assert leaf.public_key() == key.public_key()
    written = await _sql(hub, "SELECT detail FROM audit_entries WHERE operation = 'transport.issue'")
    assert any(chain.serial_text(leaf.serial_number) in row["detail"] for row in written)


async def test_bad_names_of_a_gateway_are_a_setting(hub: Running) -> None:
    """A node whose configured names cannot stand in a certificate is told so."""
    for node, hosts, addresses in (
        ("n1", ("*.example.com",), ()),
        ("n1", (), ("0.0.0.0",)),
        ("a/b", ("core",), ()),
    ):
        with pytest.raises(Misconfigured):
            await issue_gateway_certificate(hub.core, node, hosts, addresses)


async def test_a_sealed_process_issues_nothing(own_hub: Running) -> None:
    """Without keys there is no certificate, for clients and for listeners alike."""
    own_hub.core.lock()
    with pytest.raises(Sealed):
        await issue_gateway_certificate(own_hub.core, "n1", ("core",), ())
    with pytest.raises(Sealed):
        await own_hub.ask("write", "pki/issue", {"common_name": "app"})


async def test_an_authority_put_in_by_sql_is_refused(own_hub: Running) -> None:
    """A database writer cannot exchange an authority, its key or the default role."""
    await _sql(
        own_hub, "UPDATE certificate_authorities SET body = body || '{\"kind\": \"x\"}' WHERE key = 'pki'"
    )
    await _sql(own_hub, "UPDATE pki_roles SET body = body || '{\"max_ttl\": 999999999}'")
    own_hub.core.authority.drop()
    with pytest.raises(IntegrityFailure):
        await load_issuer(own_hub.core, "pki")
    with pytest.raises(IntegrityFailure):
        await own_hub.ask("write", "pki/issue", {"common_name": "app"})


async def test_keys_of_authorities_open_only_at_their_place(hub: Running) -> None:
    """The sealed key of one authority does not open as another's."""
    row = await hub.core.authority.get(CERTIFICATE_AUTHORITIES, "transport")
    assert row is not None
    with pytest.raises(DecryptionFailed):
        hub.core.keyring().open(
            base64.b64decode(row.body["key"]),
            Place(table="certificate_authorities", column="key", row="pki", version=1),
        )


async def test_authorities_are_made_once(hub: Running) -> None:
    """A second set of authorities is refused, and the first stays."""
    before = await load_trust(hub.core)
    with pytest.raises(Conflict):
        async with hub.core.authority.change(_fence(hub)) as change:
            await create_authorities(change, hub.core.keyring(), before.cluster, hub.clock.now())
    assert await load_trust(hub.core) == before


async def test_the_rsa_option(own_hub: Running) -> None:
    """With RSA-4096 the root and the PKI authority are RSA, made while the transaction stays alive."""
    async with own_hub.core.authority.change(_fence(own_hub)) as change:
        for name in ("root", "transport", "pki"):
            await change.delete(CERTIFICATE_AUTHORITIES, name)
        cluster = own_hub.core.keys.cluster_id
        await create_authorities(change, own_hub.core.keyring(), cluster, own_hub.clock.now(), "rsa-4096")
    await own_hub.core.ledger.look()
    made = await own_hub.data("write", "pki/issue", {"common_name": "app.example.com"})
    above = [chain.from_pem(pem)[0] for pem in made["ca_chain"]]
    assert {keys.describe(keys.check_strength(ca.public_key())) for ca in above} == {"rsa-4096"}
    leaf = chain.from_pem(made["certificate"])[0]
    check_server(leaf, above[:-1], above[-1], "app.example.com", own_hub.clock.now())
    await issue_gateway_certificate(own_hub.core, "n1", ("core.example.com",), ())


async def test_only_an_agents_certificate_is_read_as_one(hub: Running) -> None:
    """Of verified certificates only an agent's, of this cluster, gives an id and a serial number."""
    issuer = await load_issuer(hub.core, "transport")
    agent_id = "3c0f5a52-9b3f-4f0d-8f7b-0d9a4c1b2e10"
    cluster = issuer.name.cluster
    wanted = issuing.Names(common_name="x", uris=(names.agent_uri(cluster, agent_id),))
    public = keys.generate("ecdsa-p256").public_key()
    made = issuing.issue(issuer, profiles.AGENT, public, wanted, hub.clock.now())
    der = made.public_bytes(serialization.Encoding.DER)
    assert check_agent_certificate(der, cluster) == (agent_id, chain.serial_text(made.serial_number))
    with pytest.raises(PermissionDenied):
        check_agent_certificate(der, "another")
    chain_pem, _ = await issue_gateway_certificate(hub.core, "n1", ("core",), ())
    for other in (chain.from_pem(chain_pem.decode())[0], issuer.certificate):
        with pytest.raises(PermissionDenied):
            check_agent_certificate(other.public_bytes(serialization.Encoding.DER))
    with pytest.raises(PermissionDenied):
        check_agent_certificate(b"nothing")
