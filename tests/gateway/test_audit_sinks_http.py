"""HTTP sinks: what a collector gets, whom it is trusted to be, and where nobody may be led."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from secrethub.engines import outbound_http
from secrethub.engines.outbound import parse_url
from secrethub.errors import Unavailable
from tests.gateway.audit_sinks import paths, state, with_sinks
from tests.gateway.behind import entries, fill_ledger, sql, until
from tests.gateway.conftest import Node, node_settings, running
from tests.gateway.kv import ok, status

SECRET = "Bearer collector-secret-42"


@dataclass
class Collector:
    """An HTTPS collector on loopback."""

    port: int = 0
    answer: int = 200
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether it answers at all; until then a request waits."""
    most: int = 1 << 30
    """Bytes of a body that it takes."""
    refused: int = 0
    """Bodies that were too large."""
    heads: list[str] = field(default_factory=list)
    found: list[dict[str, Any]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    line for line in head.lower().splitlines() if line.startswith("content-length:")
                )
                body = await reader.readexactly(int(length.partition(":")[2]))
                self.heads.append(head)
                await self.answers.wait()
                answer = self.answer if len(body) <= self.most else 413
                self.refused += answer == 413
                extra = "location: http://127.0.0.1:1/\r\n" if answer == 302 else ""
                if answer == 200:
                    self.found += [json.loads(line) for line in body.splitlines()]
                writer.write(f"HTTP/1.1 {answer} x\r\n{extra}content-length: 0\r\n\r\n".encode())
                await writer.drain()
        writer.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who vouches for the collector."""
    return trustme.CA()


@pytest.fixture
async def collector(authority: trustme.CA) -> AsyncIterator[Collector]:
    """A running collector whose certificate is for ``localhost``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    one = Collector()
    one.answers.set()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0, ssl=context)
    one.port = server.sockets[0].getsockname()[1]
    yield one
    server.close()


@pytest.fixture
async def node(database_url: str, tmp_path: Path) -> AsyncIterator[Node]:
    """A node that may connect to loopback."""
    settings = with_sinks(
        node_settings(tmp_path, database_url), tmp_path, networks=("127.0.0.0/8", "::1/128")
    )
    async with running(settings) as one:
        await one.initialise()
        await one.unseal()
        yield one


def options(collector: Collector, authority: trustme.CA, host: str = "localhost") -> dict[str, str]:
    """Options of a sink that gives to the collector."""
    return {
        "url": f"https://{host}:{collector.port}/in",
        "authorization": SECRET,
        "ca_pem": authority.cert_pem.bytes().decode(),
    }


async def test_a_collector_gets_every_entry(node: Node, collector: Collector, authority: trustme.CA) -> None:
    """Entries arrive as JSON Lines with the header, which is shown and stored nowhere in clear."""
    body = {"type": "http", "options": options(collector, authority)}
    await ok(node, "PUT", "sys/audit/siem", body)
    for number in range(20):
        await node.call("GET", f"secret/data/x{number}")

    async def complete() -> bool:
        return len([entry for entry in collector.found if "/x" in entry["path"]]) == 20

    await until(complete)
    assert len({(e["stream"], e["number"]) for e in collector.found}) == len(collector.found)
    head = collector.heads[0]
    assert head.startswith("POST /in HTTP/1.1\r\n")
    assert f"Host: localhost:{collector.port}" in head
    assert f"Authorization: {SECRET}" in head
    shown = await ok(node, "GET", "sys/audit")
    assert shown["siem/"]["options"]["authorization"] == "***"
    url = node.settings.database_url
    for table in ("audit_entries", "audit_settings", "audit_sinks", "changes"):
        assert "collector-secret" not in str([dict(row) for row in await sql(url, f"SELECT * FROM {table}")])
    assert not paths(collector.found, "none")


async def test_what_is_not_taken_comes_again(node: Node, collector: Collector, authority: trustme.CA) -> None:
    """An answer that is no success, a redirect included, leaves the entries for later."""
    await ok(node, "PUT", "sys/audit/siem", {"type": "http", "options": options(collector, authority)})
    for answer in (500, 302, 401):
        collector.answer = answer

        async def refused(wanted: int = answer) -> bool:
            return (await state(node, "siem"))["error"] == f"localhost answered {wanted}"

        await node.call("GET", f"secret/data/during{answer}")
        await until(refused)
    collector.answer = 200

    async def complete() -> bool:
        return {f"secret/data/during{answer}" for answer in (500, 302, 401)} <= {
            entry["path"] for entry in collector.found
        }

    await until(complete)

    async def well() -> bool:
        return (await state(node, "siem"))["error"] == ""

    await until(well)


async def test_a_collector_that_stands_still(node: Node, collector: Collector, authority: trustme.CA) -> None:
    """While a collector takes what is sent and says nothing no request waits; later it has everything."""
    collector.answers.clear()
    await ok(node, "PUT", "sys/audit/siem", {"type": "http", "options": options(collector, authority)})

    async def asked() -> bool:
        return bool(collector.heads)

    await until(asked)
    for number in range(20):
        await ok(node, "POST", f"secret/data/x{number}", {"data": {"k": "v"}})
        await ok(node, "GET", f"secret/data/x{number}")
    told = await state(node, "siem")
    assert told["delivered"] == 0
    assert told["behind"] >= 60
    assert collector.found == []
    collector.answers.set()

    async def complete() -> bool:
        return len({entry["path"] for entry in collector.found if "/x" in entry["path"]}) == 20

    await until(complete)


async def test_large_entries(node: Node, collector: Collector, authority: trustme.CA) -> None:
    """However large entries are, a collector behind a proxy gets no more than that takes at once."""
    collector.most = 1 << 20
    await ok(node, "PUT", "sys/audit/collector", {"type": "http", "options": options(collector, authority)})
    for size in (200_000, 500_000, 600_000):
        await fill_ledger(node, 4, detail=json.dumps({"long": "x" * size}))

    async def all_there() -> bool:
        return sum(len(entry["detail"].get("long", "")) > 0 for entry in collector.found) == 12

    await until(all_there)
    assert not collector.refused
    assert not (await state(node, "collector"))["error"]


async def test_what_is_too_large_for_a_collector(
    node: Node, collector: Collector, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    """Entries that are too large together come in parts, of one that is so alone all but its detail."""
    collector.most = 100_000
    await ok(node, "PUT", "sys/audit/siem", {"type": "http", "options": options(collector, authority)})
    for size in (40_000, 300_000, 40_000):
        await fill_ledger(node, 4, detail=json.dumps({"long": "x" * size}))
    await node.call("GET", "secret/data/last")

    async def last() -> bool:
        return "secret/data/last" in {entry["path"] for entry in collector.found}

    await until(last)
    found = {(entry["stream"], entry["number"]): entry for entry in collector.found}
    sizes = [len(e["detail"].get("long", "")) for e in found.values() if e["path"] == "secret/data/filler"]
    assert sizes == [40_000] * 4 + [0] * 4 + [40_000] * 4
    left = [entry for entry in found.values() if "left_out" in entry["detail"]]
    assert [entry["detail"] for entry in left] == [{"left_out": "300011 bytes"}] * 4
    assert all(len(entry["hash"]) == 64 for entry in left)
    assert not (await state(node, "siem"))["error"]
    assert caplog.text.count("sent without its detail") == 1


async def test_an_entry_that_a_collector_never_takes(
    node: Node, collector: Collector, authority: trustme.CA
) -> None:
    """Which entry it is that a collector says is too large, however little is sent of it, is told."""
    collector.most = 10
    await ok(node, "PUT", "sys/audit/siem", {"type": "http", "options": options(collector, authority)})

    async def failing() -> str:
        return str((await state(node, "siem"))["error"])

    said = await until(failing)
    # A sink begins at the end of the ledger, which may be known up to just before the intent of its enabling.
    rows = await sql(
        node.settings.database_url,
        """SELECT e.stream, e.number FROM audit_entries e JOIN audit_entries intent
           ON intent.stream = e.stream AND intent.number <= e.number
           WHERE intent.operation = 'sys.audit.sinks.enable' AND intent.kind = 'intent'""",
    )
    told = [
        f"localhost answered 413 to entry {row['number']} of stream {row['stream']} alone" for row in rows
    ]
    assert said in told


async def test_an_answer_that_trickles(node: Node) -> None:
    """A service that goes on and on with its answer is one that does not answer."""

    async def trickle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(b"HTTP/1.1 200 OK\r\nx: ")
            while True:
                writer.write(b"y")
                await writer.drain()
                await asyncio.sleep(0.01)

    server = await asyncio.start_server(trickle, "127.0.0.1", 0)
    target = parse_url(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/in")
    async with server, outbound_http.client(outbound_http.trusting("")) as client, asyncio.timeout(10):
        with pytest.raises(Unavailable):
            await outbound_http.post(client, node.settings, target, {}, b"{}", within=0.3)


async def test_another_certificate(node: Node, collector: Collector, authority: trustme.CA) -> None:
    """A collector that cannot prove its name, or whom nobody vouches for, gets nothing."""
    await ok(
        node, "PUT", "sys/audit/name", {"type": "http", "options": options(collector, authority, "127.0.0.1")}
    )
    other = options(collector, authority) | {"ca_pem": trustme.CA().cert_pem.bytes().decode()}
    await ok(node, "PUT", "sys/audit/other", {"type": "http", "options": other})

    async def failing() -> bool:
        return all([(await state(node, name))["error"] for name in ("name", "other")])

    await until(failing)
    assert collector.heads == []


async def test_where_nobody_may_be_led(database_url: str, tmp_path: Path) -> None:
    """Loopback, link-local, metadata services, Core's own database, clear text and odd URLs are refused."""
    async with running(node_settings(tmp_path, database_url)) as node:
        await node.initialise()
        await node.unseal()
        for url in (
            "https://127.0.0.1/",
            "https://localhost:4443/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://169.254.169.254/latest",
            "https://[fe80::1]/",
            "https://0.0.0.0/",
            "https://[::]/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[64:ff9b::7f00:1]/",
            "https://224.0.0.1/",
            "http://192.0.2.1/",
            "https://user:secret@192.0.2.1/",
            "https://192.0.2.1/?token=secret",
            "https://192.0.2.1/#x",
            "https://192.0.2.1:99999/",
            "ftp://192.0.2.1/",
            "file:///etc/passwd",
            "https:///x",
            "https://no-such-name.invalid/",
            "https://192.0.2.1/\r\nX: y",
            "",
        ):
            body = {"type": "http", "options": {"url": url}}
            assert await status(node, "PUT", "sys/audit/x", body) == 400, url
        assert await ok(node, "GET", "sys/audit") == {}
        refused = await entries(database_url, operation="sys.audit.sinks.enable", outcome="failed")
        assert len(refused) == 23


async def test_options_that_cannot_be(node: Node, tmp_path: Path) -> None:
    """Unknown kinds and options, and those of Vault that nobody acts on, are refused."""
    place = str(tmp_path / "x")
    for kind, given in (
        ("socket", {}),
        ("file", {}),
        ("file", {"file_path": place, "log_raw": "true"}),
        ("file", {"file_path": place, "hmac_accessor": "false"}),
        ("file", {"file_path": place, "mode": "0644"}),
        ("file", {"file_path": place, "prefix": "x"}),
        ("file", {"file_path": place, "format": "jsonx"}),
        ("file", {"file_path": place, "color": "red"}),
        ("file", {"file_path": place, "max_lag": "1s"}),
        ("file", {"file_path": place, "node": "a b"}),
        ("syslog", {"facility": "NONE"}),
        ("syslog", {"tag": "a b"}),
        ("http", {"url": "https://192.0.2.1/", "authorization": "a\r\nb"}),
        ("http", {"url": "https://192.0.2.1/", "ca_pem": "none"}),
    ):
        answer = await node.call("PUT", "sys/audit/x", json={"type": kind, "options": given})
        assert answer.status_code == 400, (kind, given, answer.text)
    body = {"type": "file", "options": {"file_path": place}}
    for name in ("verify", "entries", "export", "archive", "a b", "é", "x" * 65):
        assert await status(node, "PUT", f"sys/audit/{name}", body) in {400, 405}, name
        if name != "archive":  # which ends the archive, and is no sink
            assert await status(node, "DELETE", f"sys/audit/{name}") in {400, 405}, name
    await ok(node, "PUT", "sys/audit/x", body)
    assert await status(node, "PUT", "sys/audit/X", body) == 400
