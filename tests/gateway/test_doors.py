"""Doors: which names and origins may speak to the plain ones, and what each refuses."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from actors.tree import SEAL_STATE
from secrethub.engines.engine import Answer
from secrethub.engines.throttle import Throttle
from secrethub.errors import InvalidRequest, PermissionDenied, SecretHubError
from secrethub.ids import new_uuid
from secrethub.operations.call import Call
from secrethub.operations.perform import perform
from serve.app import Application
from serve.timing import Timing
from tests.gateway.behind import entries, ledger_is_good
from tests.gateway.conftest import SHARING, Node, node_settings, running
from tests.gateway.raw_http import GUARD, ask, request


async def through(
    node: Node,
    door: str,
    method: str,
    path: str,
    *,
    client: tuple[str, int] | None = ("127.0.0.1", 5),
    headers: tuple[tuple[bytes, bytes], ...] = ((b"host", b"localhost"),),
    body: bytes = b"",
) -> tuple[int, dict[str, Any]]:
    """Ask a door's application as its server would."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    raw, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": raw,
        "raw_path": raw.encode(),
        "query_string": query.encode(),
        "headers": [*headers, (b"content-length", str(len(body)).encode())],
        "client": client,
    }
    await Application(node.process.core, door)(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"] or b"{}")


async def remote(
    node: Node, path: str, body: Mapping[str, Any], *, address: str | None = "192.0.2.7", door: str = "tls"
) -> Answer | SecretHubError:
    """Carry out a write as if it came from ``address``."""
    call = Call(
        method="write",
        path=path,
        credential=None,
        client_address=address,
        door=door,
        request_id=new_uuid(),
        body=msgspec.json.encode(body),
    )
    try:
        return await perform(node.process.core, call)
    except SecretHubError as exc:
        return exc


@SHARING
async def test_hosts(shared_node: Node) -> None:
    """Only names of loopback are served on the plain door, so that no rebound name gets in."""
    for host in (
        "localhost",
        "LOCALHOST:1234",
        "127.0.0.1",
        "127.0.0.1:4000",
        "[::1]",
        "[::1]:4000",
        " localhost ",
    ):
        assert (await ask(shared_node, request(host=host))).status == 200, host
    for host in (
        "",
        "evil.example",
        "evil.example:4000",
        "localhost.evil.example",
        "evil.localhost",
        "localhost.",
        "localhost:x",
        "localhost:80:80",
        "localhost@evil.example",
        "evil.example@localhost",
        "evil.example#localhost",
        "localhost/evil",
        "localhost, evil.example",
        "127.0.0.1.evil.example",
        "127.1",
        "0x7f.1",
        "2130706433",
        "0.0.0.0",
        "[::]",
        "[::1",
        "[::1].evil.example",
        "[::ffff:127.0.0.1]",
        "192.0.2.1",
        "lоcalhost".encode().decode("latin-1"),
        None,
    ):
        reply = await ask(shared_node, request(host=host))
        assert reply.status == 400, host
        assert reply.json()["errors"] == ["this Host is not served here"]


@SHARING
async def test_origins(shared_node: Node) -> None:
    """A page of another origin may not speak to the plain door, not even to ask for the state."""
    for origin in ("http://localhost", "http://127.0.0.1:4000", "https://localhost:8443", "http://[::1]:1"):
        assert (await ask(shared_node, request("/v1/sys/health", f"Origin: {origin}"))).status == 200, origin
    for origin in (
        "null",
        "",
        "http://evil.example",
        "https://localhost.evil.example",
        "http://evil.example#localhost",
        "http://localhost@evil.example",
        "http://[::1",
        "localhost",
        "file://",
        "chrome-extension://abcdef",
    ):
        for method in ("GET", "POST", "OPTIONS"):
            reply = await ask(shared_node, request("/v1/sys/health", f"Origin: {origin}", method=method))
            assert reply.status == 400, origin
            assert reply.header("access-control-allow-origin") is None


async def test_operators_hosts(database_url: str, tmp_path: Path) -> None:
    """Names that the operator lists are served too, on the plain doors alone."""
    settings = msgspec.structs.replace(
        node_settings(tmp_path, database_url), allowed_hosts=("Vault.Internal", "10.0.0.5")
    )
    async with running(settings) as node:
        for host in ("vault.internal:4000", "VAULT.INTERNAL", "10.0.0.5", "localhost"):
            assert (await ask(node, request(host=host))).status == 501, host
        assert (await ask(node, request(host="other.internal"))).status == 400
        origin = "Origin: https://vault.internal"
        assert (await ask(node, request("/v1/sys/health", origin, host="vault.internal"))).status == 501


async def test_the_ingress_refuses_the_seal(sealed_node: Node) -> None:
    """Behind Ray Serve nobody initialises or unseals, whatever address shows; state is told."""
    node = sealed_node
    for method in ("POST", "PUT"):
        for path in ("/v1/sys/init", "/v1/sys/unseal"):
            for client in (("127.0.0.1", 5), None):
                status, body = await through(node, "serve", method, path, client=client, body=b"{}")
                assert (status, body["errors"]) == (403, ["permission denied"])
    assert (await through(node, "serve", "GET", "/v1/sys/seal-status"))[0] == 200
    assert (await through(node, "serve", "GET", "/v1/sys/health"))[0] == 501
    await node.initialise()
    share = json.dumps({"key": node.shares[0]}).encode()
    assert (await through(node, "serve", "PUT", "/v1/sys/unseal", body=share))[0] == 403
    assert (await node.call("GET", "sys/seal-status")).json()["progress"] == 0


@SHARING
async def test_the_ingress_checks_hosts_and_knows_no_address(shared_node: Node) -> None:
    """Behind Ray Serve Host and Origin are checked, and nobody's address is taken for the client's."""
    node = shared_node
    for headers in (
        ((b"host", b"evil.example"),),
        ((b"host", b"localhost"), (b"origin", b"http://evil.example")),
        (),
    ):
        assert (await through(node, "serve", "GET", "/v1/sys/health", headers=headers))[0] == 400
    role = {"secret_id_bound_cidrs": "127.0.0.0/8"}
    await node.call("POST", "auth/approle/role/r", json=role)
    role_id = (await node.call("GET", "auth/approle/role/r/role-id")).json()["data"]["role_id"]
    secret = (await node.call("POST", "auth/approle/role/r/secret-id")).json()["data"]["secret_id"]
    login = json.dumps({"role_id": role_id, "secret_id": secret}).encode()
    assert (await through(node, "serve", "POST", "/v1/auth/approle/login", body=login))[0] == 400
    assert (await through(node, "http", "POST", "/v1/auth/approle/login", body=login))[0] == 200


async def test_init_from_elsewhere_needs_the_one_time_token(database_url: str, tmp_path: Path) -> None:
    """From beyond loopback init needs the token of a private file, which is good once."""
    file = tmp_path / "init-token"
    settings = msgspec.structs.replace(node_settings(tmp_path, database_url), init_token_file=str(file))
    async with running(settings) as node:
        node.process.core.engine_state["seal"] = _unthrottled()
        right = {"secret_shares": 1, "secret_threshold": 1, "init_token": "only-once"}
        for address in ("192.0.2.7", "10.0.0.1", "2001:db8::1", "0.0.0.0", None):
            assert isinstance(await remote(node, "sys/init", right, address=address), PermissionDenied)
        file.touch(mode=0o600)
        for content in ("", " \n", "other", "\udcff"):
            file.write_bytes(content.encode("utf-8", "surrogateescape"))
            assert isinstance(await remote(node, "sys/init", right), PermissionDenied), content
        file.write_text("only-once\n")
        for given in ("", "only-onc", "only-once-", "ONLY-ONCE", "ünlike"):
            body = {**right, "init_token": given}
            assert isinstance(await remote(node, "sys/init", body), PermissionDenied), given
        file.chmod(0o640)
        assert isinstance(await remote(node, "sys/init", right), PermissionDenied)
        file.chmod(0o600)
        assert isinstance(await remote(node, "sys/init", right, door="serve"), PermissionDenied)
        for wrong in ({"secret_shares": 0}, {"secret_threshold": 2}, {"pgp_keys": ["x"]}, {"other": 1}):
            assert isinstance(await remote(node, "sys/init", {**right, **wrong}), InvalidRequest), wrong
        assert file.exists()
        made = await remote(node, "sys/init", right)
        assert isinstance(made, Answer)
        assert not file.exists()
        assert isinstance(await remote(node, "sys/init", right), PermissionDenied)


async def test_init_from_elsewhere_without_a_file_is_refused(sealed_node: Node) -> None:
    """Without the setting only loopback initialises."""
    sealed_node.process.core.engine_state["seal"] = _unthrottled()
    for address in ("192.0.2.7", "169.254.1.1", "fe80::1", None):
        refused = await remote(sealed_node, "sys/init", {"init_token": ""}, address=address)
        assert isinstance(refused, PermissionDenied)
    for address in ("127.0.0.1", "127.8.8.8", "::1"):
        refused = await remote(sealed_node, "sys/init", {"secret_shares": 0}, address=address)
        assert isinstance(refused, SecretHubError)
        assert refused.code == "invalid_request"


async def test_the_seal_is_throttled(sealed_node: Node) -> None:
    """Strangers cannot fill the ledger or keep SealState busy with shares; loopback still gets through."""
    node = sealed_node
    await node.initialise()
    wrong = {"key": "00" * 33}
    codes = [
        getattr(await remote(node, "sys/unseal", wrong, address="192.0.2.7"), "code", None) for _ in range(90)
    ]
    assert codes[0] == "wrong_share"
    assert codes[-1] == "too_many_requests"
    await node.unseal()


async def test_what_was_throttled_while_sealed_is_summed_up(database_url: str, tmp_path: Path) -> None:
    """Attempts on the seal that were not written down one by one are in the ledger as a number, later."""
    async with running(node_settings(tmp_path, database_url), timing=Timing(summary=0.1)) as node:
        await node.initialise()
        refused = 0
        for _ in range(80):
            answer = await remote(node, "sys/unseal", {"key": "00" * 33}, address="192.0.2.7")
            refused += getattr(answer, "code", "") == "too_many_requests"
        assert refused > 0
        await node.unseal()
        connection = await asyncpg.connect(node.settings.database_url)
        try:
            async with asyncio.timeout(GUARD):
                while True:
                    found = await connection.fetch(
                        "SELECT detail FROM audit_entries WHERE operation = 'request.throttled'"
                    )
                    if sum(json.loads(row["detail"])["count"] for row in found) == refused:
                        break
                    await asyncio.sleep(0.05)
        finally:
            await connection.close()


class Overheard:
    """An actor, and how often something was asked of it."""

    def __init__(self, actor: object) -> None:
        self._actor = actor
        self.calls: Counter[str] = Counter()

    def __getattr__(self, method: str) -> Any:
        self.calls[method] += 1
        return getattr(self._actor, method)


async def test_asking_for_the_state_does_not_occupy_the_seal(sealed_node: Node) -> None:
    """However many ask at once, SealState is asked a few times, and each answer is as new as its question."""
    node = sealed_node
    await node.initialise()
    handles = node.tree.handles
    seal = Overheard(await handles.find(SEAL_STATE))
    await handles.enter(SEAL_STATE, seal)
    for progress, share in enumerate(node.shares[:2], start=1):
        assert (await node.call("PUT", "sys/unseal", json={"key": share})).json()["progress"] == progress
        before = seal.calls["status"]
        paths = ["sys/seal-status", "sys/init"] * 40
        answers = await asyncio.gather(*(node.call("GET", path, "") for path in paths))
        assert {answer.json().get("progress", progress) for answer in answers} == {progress}
        assert 0 < seal.calls["status"] - before <= 20


@SHARING
async def test_forwarded_addresses_are_not_believed(shared_node: Node) -> None:
    """The client's address in the ledger is the socket's peer, whatever headers say."""
    node = shared_node
    headers = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9", "X-Real-IP": "203.0.113.9"}
    answer = await node.call("GET", "auth/token/lookup-self", headers=headers)
    connection = await asyncpg.connect(node.settings.database_url)
    try:
        client = await connection.fetchval(
            "SELECT client FROM audit_entries WHERE request_id = $1", answer.headers["x-request-id"]
        )
    finally:
        await connection.close()
    assert client == "127.0.0.1"


@SHARING
async def test_forwarded_hosts_and_methods_are_not_believed(shared_node: Node) -> None:
    """No header changes the host, the scheme, the path or the method of a request."""
    node = shared_node
    token = f"X-Vault-Token: {node.root}"
    for header in ("X-Forwarded-Host: localhost", "X-Host: localhost", "Forwarded: host=localhost"):
        assert (await ask(node, request("/v1/sys/health", header, host="evil.example"))).status == 400
    for header in (
        "X-HTTP-Method-Override: DELETE",
        "X-Original-URL: /v1/sys/seal",
        "X-Rewrite-URL: /v1/sys/seal",
    ):
        assert (await ask(node, request("/v1/auth/token/lookup-self", token, header))).status == 200
    assert (await node.call("GET", "auth/token/lookup-self")).status_code == 200


@SHARING
@pytest.mark.parametrize("door", ["http", "serve", "tls"])
async def test_no_websockets(shared_node: Node, door: str) -> None:
    """A WebSocket is closed at once: agents have a door of their own."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await Application(shared_node.process.core, door)({"type": "websocket"}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


def _unthrottled() -> Throttle:
    return Throttle(rate=1e6, burst=1e6, address_rate=1e6, address_burst=1e6)


async def test_who_speaks_to_the_seal_is_written_down(sealed_node: Node) -> None:
    """Every init, share, reset and refusal is in the ledger, with its request and where it came from."""
    node, url = sealed_node, sealed_node.settings.database_url
    node.process.core.engine_state["seal"] = _unthrottled()

    async def told(operation: str, outcome: str, body: Any, path: str = "sys/unseal") -> dict[str, Any]:
        await node.call("PUT", path, json=body)
        found = await entries(url, operation=operation, outcome=outcome)
        assert found, (operation, outcome)
        return found[-1]

    first = [await told("sys.init", "refused", {"secret_shares": "many"}, "sys/init")]
    await node.initialise()
    assert [e["path"] for e in await entries(url, operation="sys.init", outcome="done")] == ["sys/init"]
    first += [
        await told("sys.init", "refused", {}, "sys/init"),
        await told("sys.unseal", "refused", {"key": "00"}),
        await told("sys.unseal", "refused", {}),
        await told("sys.unseal", "refused", {"key": "11" * 33}),
        await told("sys.unseal", "progress", {"key": node.shares[0]}),
        await told("sys.unseal-reset", "done", {"reset": True}),
    ]
    await through(node, "serve", "PUT", "/v1/sys/unseal", body=b"{}")
    assert (await entries(url, operation="sys.unseal", outcome="refused", door="serve"))[-1]["client"] == ""
    await node.unseal()
    first += [
        await told("sys.unseal-reset", "refused", {"reset": True}),
        await told("sys.unseal", "ignored", {"key": node.shares[0]}),
    ]
    for entry in first:
        assert (entry["client"], entry["door"], entry["actor"]) == ("127.0.0.1", "http", "anonymous")
        assert entry["request_id"]
        assert entry["path"] in {"sys/init", "sys/unseal"}
    assert len({entry["request_id"] for entry in first}) == len(first)
    await node.call("PUT", "sys/seal")
    assert (await entries(url, operation="sys.seal", outcome="done"))[-1]["actor"].startswith("token:")
    await node.unseal()
    await ledger_is_good(node)
