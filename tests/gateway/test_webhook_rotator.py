"""Webhooks: what a service is told of a rotation, whom it can believe, and what its answers do."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme

from secrethub.engines.rotators.webhook import signature
from tests.gateway.behind import entries
from tests.gateway.conftest import Initialised, Node, node_settings, running
from tests.gateway.kv import ok, put
from tests.gateway.rotations import configured, fields, rotated

PATH = "secrets/app/api"
KEY = "a-key-that-both-sides-know-0123456789"


@dataclass
class Service:
    """An HTTPS service on loopback that is told steps.

    Attributes:
        port: where it is.
        ca: PEM of who vouches for it.
        answers: status by step; 200 for the others. A list is used up.
        told: bodies, oldest first.
        signed: their signatures.
    """

    port: int = 0
    ca: str = ""
    answers: dict[str, list[int]] = field(default_factory=dict)
    told: list[dict[str, Any]] = field(default_factory=list)
    signed: list[bool] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
            body = await reader.readexactly(int(headers["content-length"]))
            given = headers["x-secrethub-signature"]
            at = int(given.partition(",")[0].removeprefix("t="))
            self.signed.append(hmac.compare_digest(given, signature(KEY, body, at)))
            self.told.append(json.loads(body))
            waiting = self.answers.get(self.told[-1]["step"], [])
            status = waiting.pop(0) if waiting else 200
            writer.write(f"HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
            await writer.drain()
        writer.close()

    def config(self, **options: Any) -> dict[str, Any]:
        """Return the configuration of a rotation."""
        given = {"url": f"https://localhost:{self.port}/rotate", "ca_pem": self.ca, "signing_key": KEY}
        return {"rotator": "webhook", "options": {**given, **options}, "confirm_within": 0}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A running service whose certificate is for ``localhost``."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    one = Service(ca=authority.cert_pem.bytes().decode())
    server = await asyncio.start_server(one.serve, "localhost", 0, ssl=context, family=2)
    one.port = server.sockets[0].getsockname()[1]
    yield one
    server.close()


@pytest.fixture
async def node(database_url: str, tmp_path: Path, initialised: Initialised) -> AsyncIterator[Node]:
    """A node that may connect to loopback, with a secret."""
    settings = msgspec.structs.replace(
        node_settings(tmp_path, database_url, key=initialised.cluster_key),
        outbound_networks=("127.0.0.0/8", "::1/128"),
    )
    async with running(settings) as started:
        await started.open(initialised)
        await put(started, "app/api", {"value": "first", "host": "api"})
        yield started


async def test_each_step_is_told_with_what_it_is_about(node: Node, service: Service) -> None:
    """Signed, in order, and with no more values than needed; what failed for now is told again."""
    service.answers["verify"] = [503]
    await configured(node, PATH, **service.config())
    assert (await rotated(node, PATH))["outcome"] == "done"
    value = (await fields(node, PATH))["value"]
    base = {"path": "secret/app/api", "run": 1, "field": "value"}
    assert service.told == [
        {"step": "create", **base, "value": value},
        {"step": "verify", **base, "value": value},
        {"step": "verify", **base, "value": value},
        {"step": "retire", **base, "old_value": "first"},
    ]
    assert all(service.signed)
    shown = await ok(node, "GET", f"sys/rotation/config/{PATH}")
    assert shown["options"]["signing_key"] == "<set>"
    ledger = json.dumps(await entries(node.settings.database_url), default=str)
    assert KEY not in ledger
    assert value not in ledger


async def test_a_dry_run_tells_the_service_nothing(node: Node, service: Service) -> None:
    """It says whether the service may be connected to, and neither it nor the secret hears of anything."""
    run, dry = f"sys/rotation/run/{PATH}", {"dry_run": True}
    await configured(node, PATH, **service.config())
    told = await ok(node, "POST", run, dry)
    assert (told["possible"], told["problem"], told["fields"]) == (True, "", ["value"])
    await configured(node, PATH, **service.config(url="https://no-such-host.invalid/rotate"))
    told = await ok(node, "POST", run, dry)
    assert (told["possible"], "no-such-host.invalid" in told["problem"]) == (False, True), told
    assert service.told == []
    assert (await fields(node, PATH))["value"] == "first"
    assert (await ok(node, "GET", f"sys/rotation/config/{PATH}"))["runs"] == 0


async def test_a_refusal_undoes_the_run(node: Node, service: Service) -> None:
    """4xx is final: the service is told to undo, and the secret stays as it was."""
    service.answers["create"] = [422]
    await configured(node, PATH, **service.config())
    past = await rotated(node, PATH)
    assert past["outcome"] == "undone"
    assert past["reason"] == "localhost refuses create: it answered 422"
    assert [told["step"] for told in service.told] == ["create", "undo"]
    assert service.told[1]["old_value"] == "first"
    assert (await fields(node, PATH))["value"] == "first"


async def test_redirects_and_strangers_get_nothing(node: Node, service: Service) -> None:
    """A redirect is not followed, a certificate of somebody else's is not believed."""
    service.answers["create"] = [302]
    await configured(node, PATH, **service.config())
    assert (await rotated(node, PATH))["outcome"] == "done"
    assert [told["step"] for told in service.told] == ["create", "create", "verify", "retire"]
    count = len(service.told)
    stranger = trustme.CA().cert_pem.bytes().decode()
    await configured(node, PATH, **service.config(ca_pem=stranger))
    await ok(node, "POST", f"sys/rotation/run/{PATH}")
    await asyncio.sleep(0.5)
    assert len(service.told) == count


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://localhost/rotate"},
        {"url": "https://user:pw@localhost/rotate"},
        {"url": "nothing"},
        {"ca_pem": "nothing"},
        {"signing_key": "short"},
        {"length": "3"},
    ],
)
async def test_what_cannot_be_is_refused(node: Node, service: Service, wrong: dict[str, str]) -> None:
    """A configuration that could not work, or would not be safe, is not taken."""
    answer = await node.call("POST", f"sys/rotation/config/{PATH}", json=service.config(**wrong))
    assert answer.status_code == 400, answer.text
    assert "short" not in answer.text


async def test_nobody_is_led_into_the_host(database_url: str, tmp_path: Path, service: Service) -> None:
    """Loopback is refused unless the operator's settings allow it."""
    async with running(node_settings(tmp_path, database_url)) as node:
        await node.initialise()
        await node.unseal()
        await put(node, "app/api", {"value": "first"})
        await configured(node, PATH, **service.config())
        refused = await node.call("POST", f"sys/rotation/run/{PATH}")
        assert refused.status_code == 400
        assert "loopback" in refused.json()["errors"][0]
        told = await ok(node, "POST", f"sys/rotation/run/{PATH}", {"dry_run": True})
        assert (told["possible"], "loopback" in told["problem"]) == (False, True), told
        assert service.told == []
