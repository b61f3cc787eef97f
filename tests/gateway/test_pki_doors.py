"""Certificates over the wire: HTTP answers, and whom the doors on 4443 and 4665 show and admit."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2

from secrethub.node import Listener
from secrethub.pki import chain, keys
from secrethub.pki.csr import make_request
from secrethub.pki.tls import load_identity
from tests.gateway.conftest import Node, native

ENVELOPE = {
    "request_id",
    "lease_id",
    "renewable",
    "lease_duration",
    "data",
    "wrap_info",
    "warnings",
    "auth",
}


async def _root(node: Node) -> str:
    answer = await node.client.get("/v1/pki/ca_chain")
    return chain.to_pem(chain.from_pem(answer.text)[-1])


def _trusting(root: str, identity: tuple[str, bytes] | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=root)
    if identity is not None:
        load_identity(context, identity[0].encode(), identity[1])
    return context


@asynccontextmanager
async def _connected(
    where: Listener | None, context: ssl.SSLContext
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    assert where is not None
    reader, writer = await asyncio.open_connection(where.host, where.port, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _until_ca(node: Node, root: str) -> bytes:
    """Return what 4443 shows once it has its certificate of the built-in CA."""
    async with asyncio.timeout(30):
        while True:
            try:
                async with _connected(node.settings.tls, _trusting(root)) as (_, writer):
                    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                    return shown
            except ssl.SSLError:
                await asyncio.sleep(0.05)


async def _upgrade(node: Node, context: ssl.SSLContext) -> bytes:
    """Ask 4665 for a WebSocket and return the status line, empty when the connection was cut.

    With TLS 1.3 a client learns only after its own handshake that its certificate was refused.
    """
    lines = (
        "GET / HTTP/1.1",
        "Host: agents",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: secrethub.agent.v1",
    )
    async with asyncio.timeout(30), _connected(node.settings.agents, context) as (reader, writer):
        try:
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
            await writer.drain()
            return await reader.readline()
        except (ssl.SSLError, ConnectionError):
            return b""


async def _agent_token(node: Node) -> str:
    policy = native("agents/enroll", "agents/enroll/begin", capabilities=("create", "update"))
    await node.call("PUT", "sys/policies/acl/enrolling", json={"policy": policy})
    await node.call("POST", "auth/approle/role/web", json={"token_policies": ["enrolling"]})
    role_id = (await node.call("GET", "auth/approle/role/web/role-id")).json()["data"]["role_id"]
    made = await node.call("POST", "auth/approle/role/web/secret-id", json={})
    login = await node.client.post(
        "/v1/auth/approle/login",
        json={"role_id": role_id, "secret_id": made.json()["data"]["secret_id"]},
    )
    return str(login.json()["auth"]["client_token"])


async def _enrolled(node: Node, token: str, name: str) -> tuple[httpx2.Response, keys.PrivateKey]:
    key = keys.generate("ecdsa-p256")
    begun = (await node.call("POST", "agents/enroll/begin", token, json={})).json()["data"]
    body = {"csr": make_request(key, begun["nonce"]), "name": name}
    return await node.call("POST", "agents/enroll", token, json=body), key


async def test_issue_answers_as_vault_does(node: Node) -> None:
    """``pki/issue`` answers the whole envelope with key, certificate and chain."""
    answer = await node.call("POST", "pki/issue", json={"common_name": "app.example.com", "ttl": "24h"})
    assert answer.status_code == 200
    assert set(answer.json()) >= ENVELOPE
    assert set(answer.json()["data"]) >= {
        "certificate",
        "private_key",
        "ca_chain",
        "serial_number",
        "expiration",
        "issuing_ca",
    }
    for bad in ({"common_name": "*.example.com"}, {"common_name": "a", "ip_sans": "10.0.0.0/8"}, {}):
        refused = await node.call("POST", "pki/issue", json=bad)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert (await node.client.post("/v1/pki/issue", json={"common_name": "app"})).status_code == 403


async def test_certificates_of_authorities_come_as_they_are(node: Node) -> None:
    """``ca``, ``ca/pem`` and ``ca_chain`` are no JSON and need no token; nobody stores or sniffs them."""
    pem = "application/pem-certificate-chain"
    found = {}
    for path, media_type in (("ca", "application/pkix-cert"), ("ca/pem", pem), ("ca_chain", pem)):
        answer = await node.client.get(f"/v1/pki/{path}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == media_type
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert len(answer.headers["x-request-id"]) == 36
        found[path] = answer.content
        head = await node.client.head(f"/v1/pki/{path}")
        assert (head.content, head.headers["content-length"]) == (b"", str(len(answer.content)))
    above = chain.from_pem(found["ca_chain"].decode())
    assert chain.from_der(found["ca"]) == above[0]
    assert chain.from_pem(found["ca/pem"].decode()) == above[:1]
    assert chain.build_chain(above[0], above[1:]) == above
    shown = (await node.client.get("/v1/pki/cert/ca_chain")).json()
    assert set(shown) >= ENVELOPE
    assert shown["data"]["certificate"] == found["ca_chain"].decode()
    assert (await node.client.get("/v1/pki/cert/01:02")).status_code == 404


async def test_refused_enrolments_say_little(node: Node) -> None:
    """A wrong nonce is 403 without a reason; a taken name is told, for its host must know."""
    token = await _agent_token(node)
    made, _ = await _enrolled(node, token, "web-1")
    assert made.status_code == 200
    taken, _ = await _enrolled(node, token, "web-1")
    assert (taken.status_code, taken.json()["code"]) == (400, "conflict")
    guess = make_request(keys.generate("ecdsa-p256"), "guess")
    wrong = await node.call("POST", "agents/enroll", token, json={"csr": guess, "name": "web-2"})
    assert wrong.status_code == 403
    assert wrong.json()["errors"] == ["permission denied"]


async def test_4443_shows_a_gateway_and_its_root(node: Node) -> None:
    """After unseal 4443 shows a certificate that names the node, for clients that trust the root."""
    root = await _root(node)
    leaf = chain.from_der(await _until_ca(node, root))
    assert chain.gateway_name(leaf).node == "n1"
    assert chain.authority_name(chain.from_pem(root)[0]).cluster == chain.gateway_name(leaf).cluster


async def test_4665_admits_agents_and_no_certificate_of_the_pki(node: Node) -> None:
    """An enrolled agent gets its WebSocket; a certificate of pki/issue and none at all are cut off."""
    made, key = await _enrolled(node, await _agent_token(node), "web-1")
    data = made.json()["data"]
    root = data["ca_chain"][-1]
    assert node.process._agents is not None
    await node.process._agents.opened()
    agent = _trusting(root, (data["certificate"] + "".join(data["ca_chain"]), keys.private_pem(key)))
    assert b"101" in await _upgrade(node, agent)
    issued = (await node.call("POST", "pki/issue", json={"common_name": "web-1"})).json()["data"]
    bundle = "\n".join([issued["certificate"], *issued["ca_chain"]]) + "\n"
    for identity in ((bundle, issued["private_key"].encode()), None):
        assert await _upgrade(node, _trusting(root, identity)) == b""
