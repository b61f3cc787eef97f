"""What tests of the ledger's sinks share: a node that may reach them, and what was delivered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from secrethub.node import NodeSettings
from tests.gateway.behind import sql, until
from tests.gateway.conftest import Node
from tests.gateway.kv import ok


def with_sinks(settings: NodeSettings, folder: Path, *, networks: tuple[str, ...] = ()) -> NodeSettings:
    """Return settings whose sinks may write below ``folder`` and connect to ``networks``."""
    return msgspec.structs.replace(
        settings,
        audit_dirs=(str(folder),),
        syslog_socket=str(folder / "log"),
        outbound_networks=networks,
    )


def delivered(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file sink."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("}\n")]


def paths(entries: Sequence[dict[str, Any]], prefix: str = "secret/data/") -> list[str]:
    """Return the paths of reads among entries."""
    return [e["path"] for e in entries if e["operation"] == "kv.read" and e["path"].startswith(prefix)]


async def enable(node: Node, name: str, kind: str, **options: str) -> None:
    """Enable a sink."""
    await ok(node, "PUT", f"sys/audit/{name}", {"type": kind, "options": options})


async def state(node: Node, name: str) -> dict[str, Any]:
    """Return how a sink fares."""
    found: dict[str, Any] = (await ok(node, "GET", "sys/audit"))[f"{name}/"]["status"]
    return found


async def caught_up(node: Node, path: Path, also: str | None = None) -> list[dict[str, Any]]:
    """Return what a file sink has once it has the newest entry that there is now.

    Streams of which it has nothing may have ended before it was enabled; that is not so for the one with
    entries whose path is ``also``.
    """
    rows = await sql(node.settings.database_url, "SELECT stream, number FROM audit_streams")
    wanted = {(row["stream"], row["number"]) for row in rows}

    async def there() -> list[dict[str, Any]]:
        found = delivered(path)
        newest: dict[str, int] = {}
        for entry in found:
            newest[entry["stream"]] = entry["number"]
        first = {entry["stream"] for entry in found}
        enough = all(newest[stream] >= number for stream, number in wanted if stream in first)
        enough = enough and (also is None or any(entry["path"] == also for entry in found))
        return found if found and enough else []

    return await until(there)
