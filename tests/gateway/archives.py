"""What tests of the ledger's archive share."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

from secrethub.audit.event import Entry, Record, StreamHead
from secrethub.audit.verification import LedgerVerifier
from tests.gateway.behind import sql
from tests.gateway.conftest import Node
from tests.gateway.kv import ok


async def configure(node: Node, folder: Path, retention: str = "1s", **more: int) -> None:
    """Archive into a folder."""
    body = {"type": "file", "path": str(folder), "retention": retention, **more}
    await ok(node, "PUT", "sys/audit/archive", body)


async def old_entries(node: Node, count: int = 30) -> None:
    """Write entries, and wait until they are older than a second."""
    for number in range(count):
        await node.call("GET", f"secret/data/old{number}")
    await asyncio.sleep(1.1)


async def run(node: Node) -> dict[str, Any]:
    """Archive now."""
    done: dict[str, Any] = await ok(node, "POST", "sys/audit/archive/run", {})
    return done


def segment(folder: Path, number: int, end: str = "jsonl.gz") -> Path:
    """Return the one file of a segment with this end."""
    (found,) = folder.glob(f"{number:08d}-*.{end}")
    return found


def lines_of(folder: Path, number: int) -> list[dict[str, Any]]:
    """Return a segment's lines."""
    text = gzip.decompress(segment(folder, number).read_bytes()).decode()
    return [json.loads(line) for line in text.splitlines()]


def record(line: dict[str, Any]) -> Record:
    """Return the record of a line."""
    fields = {name: line[name] for name in Entry.__struct_fields__}
    return Record(Entry(**fields), bytes.fromhex(line["hash"]), bytes.fromhex(line["signature"]))


async def everything(node: Node, folder: Path) -> list[Record]:
    """Return what segments and an export have together, stream by stream in order."""
    export = await node.call("GET", "sys/audit/export")
    lines = [json.loads(line) for line in export.text.splitlines()]
    for path in sorted(folder.glob("*.jsonl.gz"), reverse=True):
        lines = lines_of(folder, int(path.name[:8])) + lines
    found = [record(line) for line in lines if line["type"] == "entry"]
    return sorted(found, key=lambda one: one.entry.stream)


async def nothing_is_lost(node: Node, folder: Path) -> int:
    """Check that segments and ledger together are every entry once, from the first; return how many."""
    records = await everything(node, folder)
    places = [(one.entry.stream, one.entry.number) for one in records]
    assert len(set(places)) == len(places)
    verifier = LedgerVerifier(node.process.core.keyring().derived("audit-sign"))
    for one in records:
        verifier.feed(one)
    report = verifier.finish()
    assert report.ok, report
    bases = await sql(node.settings.database_url, "SELECT stream, number, hash FROM audit_pruned")
    assert {StreamHead(row["stream"], row["number"], row["hash"]) for row in bases} <= {
        StreamHead(one.entry.stream, one.entry.number, one.hash) for one in records
    }
    return len(records)
