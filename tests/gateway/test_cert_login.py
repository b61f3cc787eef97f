"""cert: which client certificates log in, and which never do."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import hvac
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from hvac import exceptions

from secrethub.engines.pki.authorities import load_issuer
from secrethub.ids import new_uuid
from secrethub.pki.issuing import Names, issue
from secrethub.pki.names import agent_uri
from secrethub.pki.profiles import AGENT
from tests.gateway.behind import reasons, sql
from tests.gateway.client_certificates import over_tls, showing, until_asked, until_trusted
from tests.gateway.conftest import ALONE, SHARING, Node, emptied, native
from tests.gateway.raw_http import request, wire
from tests.gateway.test_tls import root_of, until_issued
from tests.private_authority import Issued, certify

pytestmark = SHARING
CERTS = "auth/cert/certs"
FAILED = ["invalid certificate or no client certificate supplied"]
NONE = ["client certificate must be supplied"]
OID = "1.3.6.1.4.1.99999.1"


@pytest_asyncio.fixture(loop_scope="module")
async def node(shared_node: Node) -> Node:
    """A node of all tests here, each of which finds no roles, and a listener that knows of none."""
    await emptied(shared_node, "cert")
    await until_asked(shared_node, ask=False)
    return shared_node


async def write(node: Node, name: str = "web", **body: Any) -> None:
    answer = await node.call("POST", f"{CERTS}/{name}", json=body)
    assert answer.is_success, answer.text


async def login(node: Node, client: Issued | None, folder: Path, name: str = "") -> dict[str, Any]:
    reply = await over_tls(node, showing(client, folder), "auth/cert/login", {"name": name} if name else {})
    found: dict[str, Any] = json.loads(reply.body)
    return found


async def test_a_certificate_logs_in(node: Node, tmp_path: Path) -> None:
    """A client of a configured authority gets the role's token, with an intermediate authority too."""
    root = certify("Root", authority=True)
    between = certify("Intermediate", root, authority=True)
    client = certify("web-1", between, dns=("web-1.example.com",))
    await write(node, certificate=root.pem, token_policies="web", token_ttl="20m", display_name="web")
    await until_trusted(node, client, tmp_path)
    auth = (await login(node, client, tmp_path))["auth"]
    assert auth["policies"] == ["default", "web"]
    assert auth["lease_duration"] == 1200
    assert auth["metadata"]["cert_name"] == "web"
    assert auth["metadata"]["common_name"] == "web-1"
    assert auth["metadata"]["serial_number"] == str(client.certificate.serial_number)
    seen = (await node.call("GET", "auth/token/lookup-self", auth["client_token"])).json()["data"]
    assert (seen["display_name"], seen["path"]) == ("cert-web", "auth/cert/login")
    assert (await login(node, client, tmp_path, "web"))["auth"]["policies"] == ["default", "web"]
    assert (await login(node, client, tmp_path, "other"))["errors"] == FAILED


async def test_what_is_bound_to_a_role(node: Node, tmp_path: Path) -> None:
    """A policy that is bound to a role holds for its logins at once, not for others, until the role ends."""
    root = certify("Root", authority=True)
    client = certify("web-1", root)
    for name in ("web", "other"):
        await write(node, name, certificate=root.pem)
    await until_trusted(node, client, tmp_path)
    await node.call("POST", "secret/data/a", json={"data": {}})
    await node.call("PUT", "sys/policies/acl/bound", json={"policy": native("secrets/a")})

    async def entered(name: str) -> str:
        return str((await login(node, client, tmp_path, name))["auth"]["client_token"])

    async def status(token: str) -> int:
        return (await node.call("GET", "secret/data/a", token)).status_code

    web, other = await entered("web"), await entered("other")
    assert await status(web) == 403
    for path, expected in (("bound", 200), ("bound/remove", 403), ("bound", 200)):
        answer = await node.call("POST", f"sys/policies/bindings/{path}", json={"cert": "web"})
        assert answer.status_code == 204, answer.text
        assert (await status(web), await status(other)) == (expected, 403)
    # An AppRole role of the same name is somebody else.
    assert (await node.call("POST", "sys/policies/bindings/bound", json={"role": "web"})).status_code == 400
    told = await node.call("POST", "sys/policies/bound", json={"cert": "web"})
    assert told.json()["data"] == {"kind": "cert", "policies": ["bound"]}
    await node.call("DELETE", f"{CERTS}/web")
    assert await sql(node.settings.database_url, "SELECT 1 FROM bindings") == []
    await write(node, certificate=root.pem)
    await node.call("POST", "sys/policies/bindings/bound", json={"cert": "web"})
    # Logins of the former role of that name are not those of the new one.
    assert await status(web) == 403
    assert await status(await entered("web")) == 200
    await node.call("DELETE", "sys/auth/cert")
    assert await sql(node.settings.database_url, "SELECT 1 FROM bindings") == []


@ALONE
async def test_nobody_is_asked_without_a_role(own: Node, tmp_path: Path) -> None:
    """As long as there is no role any client connects; with one a foreign certificate is refused at once."""
    stranger = certify("stranger", certify("Elsewhere", authority=True))
    assert (await over_tls(own, showing(stranger, tmp_path), "sys/health")).status == 403
    await write(own, certificate=certify("Root", authority=True).pem)
    await until_asked(own)
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await over_tls(own, showing(stranger, tmp_path), "sys/health")
    assert (await login(own, None, tmp_path))["errors"] == NONE
    await own.call("DELETE", f"{CERTS}/web")
    await until_asked(own, ask=False)
    assert (await login(own, stranger, tmp_path))["errors"] == NONE


async def test_other_doors_have_no_certificates(node: Node) -> None:
    """On the plain door nobody logs in by a certificate, whatever the headers say."""
    root = certify("Root", authority=True)
    await write(node, certificate=root.pem)
    client = certify("web-1", root)
    pem = client.pem.replace("\n", "%0A")
    for headers in ({}, {"X-Client-Cert": pem}, {"X-Forwarded-Client-Cert": pem}, {"SSL-Client-Cert": pem}):
        answer = await node.call("POST", "auth/cert/login", "", json={}, headers=headers)
        assert (answer.status_code, answer.json()["errors"]) == (400, NONE)


async def test_a_certificate_that_does_not_hold(node: Node, tmp_path: Path) -> None:
    """Expired, not for clients, by a non-authority, of another role's authority: nobody of them gets in."""
    root, other = certify("Root", authority=True), certify("Other", authority=True)
    pinned = certify("pinned")
    await write(node, certificate=root.pem)
    await write(node, "other", certificate=other.pem)
    await write(node, "pinned", certificate=pinned.pem)
    good = certify("web-1", root)
    await until_trusted(node, good, tmp_path)
    assert "auth" in await login(node, good, tmp_path, "web")
    assert (await login(node, good, tmp_path, "other"))["errors"] == FAILED
    assert (await login(node, pinned, tmp_path, "pinned"))["auth"]["metadata"]["cert_name"] == "pinned"
    for bad in (
        certify("late", root, days=-1),
        certify("server", root, uses=(ExtendedKeyUsageOID.SERVER_AUTH,)),
        certify("below a leaf", certify("leaf", root)),
        certify("below a pinned one", pinned),
    ):
        try:
            answer = await login(node, bad, tmp_path)
        except (OSError, asyncio.IncompleteReadError):
            continue
        assert answer["errors"] == FAILED


async def test_authorities_of_one_name(node: Node, tmp_path: Path) -> None:
    """Who is certified by an authority that is called like a role's, and is another, is not let in by it."""
    mine, other = certify("Root", authority=True), certify("Root", authority=True)
    await write(node, "mine", certificate=mine.pem)
    await write(node, "other", certificate=other.pem)
    client, twin = certify("web-1", mine), certify("web-1", other)
    for who, name, wrong in ((client, "mine", "other"), (twin, "other", "mine")):
        await until_trusted(node, who, tmp_path)
        assert (await login(node, who, tmp_path))["auth"]["metadata"]["cert_name"] == name
        assert (await login(node, who, tmp_path, wrong))["errors"] == FAILED


@ALONE
async def test_roles_of_one_mount_let_nobody_in_at_another(own: Node, tmp_path: Path) -> None:
    """What a role trusts it trusts at its own mount, by name and without; each mount's tokens say which."""
    root = certify("Root", authority=True)
    client = certify("web-1", root)
    await write(own, certificate=root.pem)
    enabled = await own.call("POST", "sys/auth/machines", json={"type": "cert"})
    assert enabled.status_code == 204, enabled.text
    await until_trusted(own, client, tmp_path)

    async def entered(name: str = "") -> Any:
        body = {"name": name} if name else {}
        reply = await over_tls(own, showing(client, tmp_path), "auth/machines/login", body)
        return json.loads(reply.body)

    assert "auth" in await login(own, client, tmp_path)
    for name in ("", "web"):
        assert (await entered(name))["errors"] == FAILED
    role = {"certificate": root.pem, "token_policies": "there"}
    assert (await own.call("POST", "auth/machines/certs/web", json=role)).is_success
    for name in ("", "web"):
        assert (await entered(name))["auth"]["policies"] == ["default", "there"]
        assert (await login(own, client, tmp_path, name))["auth"]["policies"] == ["default"]


async def test_a_connection_that_stays_open(node: Node, tmp_path: Path) -> None:
    """What the listener trusted when a client connected lets nobody in once the role says otherwise."""
    root, next_root = certify("Root", authority=True), certify("Next", authority=True)
    client = certify("web-1", root)
    await write(node, certificate=root.pem)
    await until_trusted(node, client, tmp_path)
    async with wire(node, showing(client, tmp_path)) as connection:

        async def entered() -> int:
            await connection.send(request("/v1/auth/cert/login", method="POST", body=b"{}"))
            return (await connection.reply()).status

        assert await entered() == 200
        for change in (
            {"certificate": next_root.pem},
            {"certificate": root.pem, "allowed_common_names": "web-2"},
        ):
            await write(node, **change)
            assert await entered() == 400, change
        await write(node, allowed_common_names="web-1")
        assert await entered() == 200
        await node.call("DELETE", f"{CERTS}/web")
        assert await entered() == 400


async def test_names(node: Node, tmp_path: Path) -> None:
    """Each condition of a role holds by itself, and all of them have to."""
    root = certify("Root", authority=True)
    value = x509.UnrecognizedExtension(x509.ObjectIdentifier(OID), b"\x0c\x07tenant1")
    client = certify("web-1", root, dns=("a.example.com", "b.example.com"), unit="ops", extra=(value,))
    await write(node, certificate=root.pem)
    await until_trusted(node, client, tmp_path)
    for body, allowed in (
        ({"allowed_common_names": "web-*"}, True),
        ({"allowed_common_names": "web-2,web"}, False),
        ({"allowed_dns_sans": "b.*.com"}, True),
        ({"allowed_dns_sans": "*.example.org"}, False),
        ({"allowed_dns_sans": ""}, True),
        ({"allowed_names": "a.example.com"}, True),
        ({"allowed_names": "ops"}, False),
        ({"allowed_organizational_units": "ops"}, True),
        ({"allowed_organizational_units": "dev"}, False),
        ({"allowed_uri_sans": "*"}, False),
        ({"allowed_email_sans": "*"}, False),
        ({"required_extensions": f"{OID}:tenant*"}, True),
        ({"required_extensions": f"{OID}:tenant1,1.2.3:x"}, False),
        ({"allowed_common_names": "web-1", "allowed_dns_sans": "c.example.com"}, False),
        ({"token_bound_cidrs": "192.0.2.0/24"}, False),
    ):
        await node.call("DELETE", f"{CERTS}/web")
        await write(node, certificate=root.pem, **body)
        await until_trusted(node, client, tmp_path)
        assert ("errors" not in await login(node, client, tmp_path)) == allowed, body


@ALONE
async def test_our_own_authority(own: Node, tmp_path: Path) -> None:
    """A role that trusts pki/ lets in whom it names, and nobody whose certificate was revoked."""
    assert (await own.call("POST", f"{CERTS}/web", json={"pki": "pki/"})).status_code == 400
    await write(own, pki="pki", allowed_common_names="web-*")
    found = {}
    for name in ("web-1", "db-1"):
        made = (await own.call("POST", "pki/issue", json={"common_name": name})).json()["data"]
        key = serialization.load_pem_private_key(made["private_key"].encode(), None)
        certificate = x509.load_pem_x509_certificate(made["certificate"].encode())
        found[name] = Issued(certificate, key)  # type: ignore[arg-type]
    await until_trusted(own, found["web-1"], tmp_path)
    assert (await login(own, found["web-1"], tmp_path))["auth"]["metadata"]["common_name"] == "web-1"
    assert (await login(own, found["db-1"], tmp_path))["errors"] == FAILED
    token = (await login(own, found["web-1"], tmp_path))["auth"]["client_token"]
    context = showing(found["web-1"], tmp_path)
    assert (await over_tls(own, context, "auth/token/renew-self", token=token)).status == 200
    await sql(own.settings.database_url, "UPDATE certificates SET revoked_at = now() WHERE mount = 'pki/'")
    assert (await login(own, found["web-1"], tmp_path))["errors"] == FAILED
    assert any("has revoked" in reason for reason in await reasons(own.settings.database_url))
    # Nor does what it was let in by before live longer by it.
    assert (await over_tls(own, context, "auth/token/renew-self", token=token)).status == 400
    await sql(own.settings.database_url, "DELETE FROM certificates WHERE mount = 'pki/'")
    assert (await login(own, found["web-1"], tmp_path))["errors"] == FAILED


async def test_transport_certificates_never_log_in(node: Node, tmp_path: Path) -> None:
    """An agent's certificate does not log in where a role trusts it, nor can its authorities be trusted."""
    chain = (await node.client.get("/v1/pki/ca_chain")).text
    root = chain[chain.rindex("-----BEGIN") :]
    rows = await sql(
        node.settings.database_url,
        "SELECT key, body->>'chain' AS chain FROM certificate_authorities WHERE key IN ('transport', 'root')",
    )
    for pem in (root, *(row["chain"] for row in rows)):
        assert (await node.call("POST", f"{CERTS}/web", json={"certificate": pem})).status_code == 400
    core = node.process.core
    issuer = await load_issuer(core, "transport")
    key = ec.generate_private_key(ec.SECP256R1())
    names = Names(common_name="web", uris=(agent_uri(issuer.name.cluster, new_uuid()),))
    made = issue(issuer, AGENT, key.public_key(), names, core.clock.now(), timedelta(hours=1))
    agent = Issued(made, key)
    await write(node, certificate=agent.pem)
    await until_trusted(node, agent, tmp_path)
    assert (await login(node, agent, tmp_path))["errors"] == FAILED
    assert any("agent or a gateway" in reason for reason in await reasons(node.settings.database_url))


async def test_renewal_shows_the_certificate_again(node: Node, tmp_path: Path) -> None:
    """A token is renewed by whoever holds the key that it was got with, unless the mount says otherwise."""
    root = certify("Root", authority=True)
    client, neighbour = certify("web-1", root), certify("web-2", root)
    await write(node, certificate=root.pem)
    await until_trusted(node, client, tmp_path)
    token = (await login(node, client, tmp_path))["auth"]["client_token"]
    renew = "auth/token/renew-self"
    assert (await over_tls(node, showing(client, tmp_path), renew, token=token)).status == 200
    assert (await over_tls(node, showing(neighbour, tmp_path), renew, token=token)).status == 400
    assert (await over_tls(node, showing(None, tmp_path), renew, token=token)).status == 400
    assert (await node.call("POST", renew, token)).status_code == 400
    assert (await node.call("GET", "auth/cert/config")).json()["data"] == {"disable_binding": False}
    await node.call("POST", "auth/cert/config", json={"disable_binding": True})
    assert (await node.call("POST", renew, token)).status_code == 200


async def test_renewal_asks_the_role_again(node: Node, tmp_path: Path) -> None:
    """A token is not renewed by a certificate that its role would not let in now, or gives other policies."""
    client = certify("web-1", certify("Root", authority=True))
    role: dict[str, Any] = {"certificate": client.pem, "token_policies": "web"}
    await write(node, **role)
    await until_trusted(node, client, tmp_path)
    token = (await login(node, client, tmp_path))["auth"]["client_token"]

    async def renewed() -> int:
        context = showing(client, tmp_path)
        return (await over_tls(node, context, "auth/token/renew-self", token=token)).status

    for narrower, before in (
        ({"allowed_common_names": "web-2"}, {"allowed_common_names": []}),
        ({"token_bound_cidrs": "192.0.2.0/24"}, {"token_bound_cidrs": []}),
        ({"token_policies": "other"}, {"token_policies": "web"}),
    ):
        await write(node, **narrower)
        assert await renewed() == 400, narrower
        await write(node, **before)
        assert await renewed() == 200


async def test_what_is_refused(node: Node) -> None:
    """What cannot be, or would narrow a role and is not enforced, is refused by name."""
    pem = certify("Root", authority=True).pem
    for body in (
        {},
        {"certificate": "nonsense"},
        {"certificate": pem[:200]},
        {"certificate": pem, "ocsp_enabled": True},
        {"certificate": pem, "required_extensions": "no-oid:x"},
        {"certificate": pem, "pki": "other/"},
        {"certificate": pem, "name": "other"},
        {"certificate": pem, "token_policies": "root"},
        {"certificate": pem * 17},
    ):
        assert (await node.call("POST", f"{CERTS}/web", json=body)).status_code == 400, body
    assert (await node.call("LIST", CERTS)).status_code == 404


async def test_hvac(node: Node, tmp_path: Path) -> None:
    """The hvac client, unmodified, writes roles and logs in with a certificate."""
    root = certify("Root", authority=True)
    client = certify("web-1", root)
    chain, key = client.files(tmp_path)
    trusted = tmp_path / "root.pem"
    trusted.write_text(await root_of(node))
    await until_issued(node, trusted.read_text())
    assert node.settings.tls is not None
    url = f"https://127.0.0.1:{node.settings.tls.port}"

    def write_role() -> None:
        admin = hvac.Client(url=url, token=node.root, verify=str(trusted))
        admin.auth.cert.create_ca_certificate_role(
            "web", certificate=root.pem, allowed_common_names="web-*", token_policies=["web"], token_ttl=600
        )
        assert admin.auth.cert.list_certificate_roles()["data"]["keys"] == ["web"]
        assert admin.auth.cert.read_ca_certificate_role("web")["data"]["token_ttl"] == 600
        admin.auth.cert.configure_tls_certificate(disable_binding=False)
        admin.adapter.close()

    def log_in() -> None:
        machine = hvac.Client(url=url, verify=str(trusted))
        auth = machine.auth.cert.login(name="web", cert_pem=chain, key_pem=key)["auth"]
        assert auth["policies"] == ["default", "web"]
        assert machine.auth.token.lookup_self()["data"]["meta"]["cert_name"] == "web"
        machine.adapter.close()
        nobody = hvac.Client(url=url, verify=str(trusted))
        with pytest.raises(exceptions.InvalidRequest, match="must be supplied"):
            nobody.write_data("auth/cert/login", data={})
        nobody.adapter.close()

    def delete_role() -> None:
        admin = hvac.Client(url=url, token=node.root, verify=str(trusted))
        admin.auth.cert.delete_certificate_role("web")
        with pytest.raises(exceptions.InvalidPath):
            admin.auth.cert.read_ca_certificate_role("web")
        admin.adapter.close()

    await asyncio.to_thread(write_role)
    await until_trusted(node, client, tmp_path)
    await asyncio.to_thread(log_in)
    await asyncio.to_thread(delete_role)
