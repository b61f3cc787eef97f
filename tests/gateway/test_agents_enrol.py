"""How a host becomes an agent, and what it cannot become, on a real database."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from authority_core import AGENT_URL, Running
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import AttributeOID, NameOID
from enrolled_hosts import (
    Host,
    certificate_of,
    host_of,
    own_host,
    own_hub,
    read,
    shared_host,
    shared_hub,
    sql,
)

from secrethub.errors import (
    InvalidRequest,
    NotFound,
    PermissionDenied,
    TooManyRequests,
)
from secrethub.ids import is_uuid
from secrethub.operations.transport_ca import load_trust
from secrethub.pki import chain, keys
from secrethub.pki.csr import make_request
from secrethub.storage.enrollments import MOST_PER_TOKEN
from tests.gateway.conftest import SHARING

__all__ = ["own_host", "own_hub", "shared_host", "shared_hub"]  # fixtures
pytestmark = SHARING


@pytest.fixture
def hub(shared_hub: Running) -> Running:
    """A process of all tests here, each of which has names of its own."""
    return shared_hub


@pytest.fixture
def host(shared_host: Host) -> Host:
    """A host of the role ``web`` with a name of its own, logged in."""
    return shared_host


async def test_a_host_becomes_an_agent(hub: Running, host: Host) -> None:
    """An enrolled agent has a UUID, a certificate for its key below the root, and its role's rights."""
    made = await host.enroll(version="0.1.0", labels={"site": "berlin"})
    assert is_uuid(made["agent_id"])
    trust = await load_trust(hub.core)
    assert made["root_sha256"] == trust.root_sha256
    assert made["agent_urls"] == [AGENT_URL]
    assert made["gateway_uri"] == f"secrethub://{trust.cluster}/gateway/"
    leaf = chain.from_pem(made["certificate"])[0]
    above = [chain.from_pem(pem)[0] for pem in made["ca_chain"]]
    assert leaf.public_key() == host.key.public_key()
    assert chain.build_chain(leaf, above) == (leaf, *above)
    assert chain.fingerprint(above[-1]) == trust.root_sha256
    assert chain.agent_name(leaf) == (trust.cluster, made["agent_id"])
    assert await read(hub, certificate_of(made)) == "canary-1"
    shown = await hub.data("read", f"agents/{made['agent_id']}")
    assert (shown["name"], shown["role"], shown["status"]) == (host.name, "web", "active")
    assert (shown["version"], shown["labels"]) == ("0.1.0", {"site": "berlin"})
    assert shown["certificate_serial"] == certificate_of(made).serial


@pytest.mark.parametrize("key_type", ["rsa-2048", "ecdsa-p256"])
async def test_both_kinds_of_keys_enrol(hub: Running, key_type: keys.KeyType) -> None:
    """Agents enrol with RSA-2048 and with ECDSA P-256."""
    host = await host_of(hub, "web", key=keys.generate(key_type), name=key_type)
    made = await host.enroll()
    assert (await hub.data("read", f"agents/{made['agent_id']}"))["key_type"] == key_type


async def test_agents_are_listed(own_hub: Running, own_host: Host) -> None:
    """Agents are listed by GET and by LIST; an empty list is 404."""
    for method in ("list", "read"):
        with pytest.raises(NotFound):
            await own_hub.ask(method, "agents")  # type: ignore[arg-type]
    made = [await own_host.enroll(name=f"web-{n}") for n in range(3)]
    ids = sorted(answer["agent_id"] for answer in made)
    for method in ("list", "read"):
        found = await own_hub.data(method, "agents")  # type: ignore[arg-type]
        assert found["keys"] == ids
        assert {info["name"] for info in found["key_info"].values()} == {"web-0", "web-1", "web-2"}
    later = await own_hub.data("list", "agents", query={"after": ids[0]})
    assert later["keys"] == ids[1:]
    for after in ("web-1", "\0"):
        with pytest.raises(InvalidRequest):
            await own_hub.ask("list", "agents", query={"after": after})


async def test_what_the_request_asks_for_is_ignored(hub: Running, host: Host) -> None:
    """Subject, alternative names, networks and the wish to be an authority do not reach the certificate."""
    trust = await load_trust(hub.core)
    victim = (await host.enroll(name="victim"))["agent_id"]
    smuggled = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, victim)]))
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.UniformResourceIdentifier(f"secrethub://{trust.cluster}/agent/{victim}"),
                    x509.UniformResourceIdentifier(f"secrethub://{trust.cluster}/gateway/n1"),
                    x509.DNSName("core.example.com"),
                    x509.IPAddress(ipaddress.ip_network("0.0.0.0/0")),
                ]
            ),
            critical=True,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=3), critical=True)
        .add_attribute(AttributeOID.CHALLENGE_PASSWORD, (await host.begin()).encode())
        .sign(host.key, hashes.SHA256())
    )
    made = await host.enroll(csr=smuggled.public_bytes(serialization.Encoding.PEM).decode())
    leaf = chain.from_pem(made["certificate"])[0]
    assert made["agent_id"] != victim
    assert list(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == [
        x509.UniformResourceIdentifier(f"secrethub://{trust.cluster}/agent/{made['agent_id']}")
    ]
    assert leaf.subject.rfc4514_string() == f"CN={made['agent_id']}"
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


async def test_a_nonce_is_good_once(hub: Running, host: Host) -> None:
    """The same request a second time is refused, also for another name."""
    csr = make_request(host.key, await host.begin())
    await host.enroll(csr=csr)
    for name in (host.name, f"{host.name}-2"):
        with pytest.raises(PermissionDenied):
            await host.enroll(csr=csr, name=name)


async def test_a_nonce_used_twice_at_once_is_used_once(hub: Running, host: Host) -> None:
    """Of many enrolments with one nonce at the same moment, one succeeds."""
    csr = make_request(host.key, await host.begin())
    results = await asyncio.gather(
        *(host.enroll(csr=csr, name=f"{host.name}-{n}") for n in range(5)), return_exceptions=True
    )
    assert sum(isinstance(result, Mapping) for result in results) == 1
    assert sum(isinstance(result, PermissionDenied) for result in results) == 4


async def test_a_nonce_belongs_to_its_token(hub: Running, host: Host) -> None:
    """Another token, even of the same role, cannot use a nonce; its owner still can."""
    other = await host_of(hub, "db")
    csr = make_request(host.key, await host.begin())
    with pytest.raises(PermissionDenied):
        await other.enroll(csr=csr)
    await host.enroll(csr=csr)


async def test_a_nonce_lapses(own_hub: Running, own_host: Host) -> None:
    """After five minutes a nonce is worth nothing."""
    csr = make_request(own_host.key, await own_host.begin())
    own_hub.clock.ahead += timedelta(minutes=5, seconds=1)
    with pytest.raises(PermissionDenied):
        await own_host.enroll(csr=csr)


@pytest.mark.parametrize("nonce", [None, "", "guess", "A" * 32, "n\u0000x"])
async def test_no_nonce_no_certificate(hub: Running, nonce: str | None) -> None:
    """A request without the nonce, or with one of its own, is refused."""
    host = await host_of(hub, "web")
    await host.begin()
    with pytest.raises(PermissionDenied):
        await host.enroll(csr=make_request(host.key, nonce))


async def test_a_refused_enrolment_may_be_tried_again(hub: Running, host: Host) -> None:
    """A bad name does not use up the nonce: nothing happened."""
    csr = make_request(host.key, await host.begin())
    with pytest.raises(InvalidRequest):
        await host.enroll(csr=csr, name="web 1")
    await host.enroll(csr=csr)


async def test_only_the_digest_of_a_nonce_is_stored(hub: Running, host: Host) -> None:
    """Nonces are found neither in the database nor in the ledger."""
    nonce = await host.begin()
    await host.enroll(csr=make_request(host.key, nonce))
    await host.begin()
    stored = await sql(
        hub,
        "SELECT nonce_digest::text || token AS t FROM enrollments UNION ALL SELECT detail FROM audit_entries",
    )
    assert stored
    assert not any(nonce in row["t"] or nonce.encode().hex() in row["t"] for row in stored)


async def test_a_token_cannot_fill_the_table(own_hub: Running, own_host: Host) -> None:
    """The number of nonces that one token has open is bounded; lapsed ones are swept away."""
    (token,) = await sql(own_hub, "SELECT key FROM tokens WHERE body->>'display_name' = 'approle-web'")
    await sql(
        own_hub,
        """INSERT INTO enrollments SELECT decode(md5(n::text), 'hex'), $1, now() + interval '4 minutes'
           FROM generate_series(1, $2::int) AS n""",
        token["key"],
        MOST_PER_TOKEN,
    )
    with pytest.raises(TooManyRequests):
        await own_host.begin()
    own_hub.clock.ahead += timedelta(minutes=5)
    await own_host.begin()
    assert (await sql(own_hub, "SELECT count(*) AS n FROM enrollments"))[0]["n"] == 1


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "a b",
        "web-1\n",
        "web\x1b[2J",
        "wéb",
        "{{agent}}",
        "*",
        "a" * 129,
        "secrethub://x",
    ],
)
async def test_names_cannot_carry_anything_else(hub: Running, name: str) -> None:
    """A name is letters, digits, '_', '.' and '-': nothing that a path, log or template would read."""
    before = await sql(hub, "SELECT * FROM agents")
    host = await host_of(hub, "web")
    with pytest.raises(InvalidRequest):
        await host.enroll(name=name)
    assert await sql(hub, "SELECT * FROM agents") == before


@pytest.mark.parametrize(
    "more",
    [
        {"version": "1\n2"},
        {"version": "1" * 65},
        {"labels": {"a b": "c"}},
        {"labels": {"a": "c\n"}},
        {"labels": {"a": "c" * 257}},
        {"labels": {f"k{n}": "v" for n in range(33)}},
        {"labels": {"a": 1}},
        {"labels": ["a"]},
        {"agent_id": "3c0f5a52-9b3f-4f0d-8f7b-0d9a4c1b2e10"},
        {"role": "admin"},
        {"ttl": "876000h"},
        {"csr": "x" * 20_000},
    ],
)
async def test_the_body_is_strict(hub: Running, more: dict[str, Any]) -> None:
    """Unknown keys, such as an id, a role or a lifetime of one's own, and bad values are refused."""
    host = await host_of(hub, "web")
    with pytest.raises(InvalidRequest):
        await host.enroll(**more)
    with pytest.raises(InvalidRequest):
        await hub.ask("write", "agents/enroll/begin", {"nonce": "mine"}, token=host.token)


async def test_only_approle_logins_enrol(hub: Running, host: Host) -> None:
    """Root, a token with made-up metadata, an agent and nobody: none of them enrols."""
    meta = {"role": "web", "role_name": "web"}
    made_up = await hub.ask("write", "auth/token/create", {"policies": ["enrolling"], "meta": meta})
    assert made_up.auth is not None
    agent = certificate_of(await host.enroll())
    for token in (hub.root, made_up.auth.client_token):
        with pytest.raises(PermissionDenied, match="AppRole"):
            await Host(hub=hub, token=token).begin()
        with pytest.raises(PermissionDenied, match="AppRole"):
            await Host(hub=hub, token=token).enroll(csr=make_request(host.key, "x"))
    with pytest.raises(PermissionDenied, match="only a token enrols"):
        await hub.ask("write", "agents/enroll/begin", {}, agent=agent)
    with pytest.raises(PermissionDenied):
        await hub.ask("write", "agents/enroll/begin", {}, token=None)


async def test_metadata_of_a_secret_id_changes_no_role(hub: Running) -> None:
    """Whoever makes a SecretID cannot enrol into another role by its metadata."""
    role_id, _ = await hub.role("web", "enrolling")
    await hub.role("admin", "enrolling")
    forged = await hub.data(
        "write", "auth/approle/role/web/secret-id", {"metadata": '{"role": "admin", "role_name": "admin"}'}
    )
    host = Host(hub=hub, token=await hub.login(role_id, forged["secret_id"]), name="forged")
    made = await host.enroll()
    assert (await hub.data("read", f"agents/{made['agent_id']}"))["role"] == "web"


async def test_enrolling_needs_a_live_token_and_role(hub: Running) -> None:
    """A revoked token and a token of a deleted role do not enrol, with a nonce from before either."""
    host = await host_of(hub, "ended", name="ended-1")
    csr = make_request(host.key, await host.begin())
    await hub.ask("delete", "auth/approle/role/ended")
    with pytest.raises(PermissionDenied):
        await host.enroll(csr=csr)
    other = await host_of(hub, "db")
    csr = make_request(other.key, await other.begin())
    await hub.ask("write", "auth/token/revoke-self", token=other.token)
    with pytest.raises(PermissionDenied):
        await other.enroll(csr=csr)


async def test_the_ledger_tells_who_enrolled(hub: Running, host: Host) -> None:
    """Enrolments and refusals are in the ledger with name, role and reason, without the request."""
    query = """SELECT outcome, reason, detail FROM audit_entries
               WHERE operation = 'agents.enroll' AND kind = 'outcome' ORDER BY at"""
    before = len(await sql(hub, query))
    made = await host.enroll()
    with pytest.raises(PermissionDenied):
        await host.enroll(csr=make_request(host.key, "guess"))
    entries = (await sql(hub, query))[before:]
    assert [row["outcome"] for row in entries] == ["done", "denied"]
    assert made["agent_id"] in entries[0]["detail"]
    assert "nonce" in entries[1]["reason"]
    every = await sql(hub, "SELECT detail FROM audit_entries")
    assert not any(re.search("BEGIN CERTIFICATE", row["detail"]) for row in every)
