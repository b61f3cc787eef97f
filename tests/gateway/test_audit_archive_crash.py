"""A process that is killed while it archives: nothing is lost, nothing is doubled, everything verifies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import httpx2
import pytest

from tests.gateway.archives import configure, nothing_is_lost, old_entries, run, segment
from tests.gateway.audit_sinks import with_sinks
from tests.gateway.behind import ledger_is_good, sql, until
from tests.gateway.conftest import Node, node_settings
from tests.gateway.kv import ok
from tests.gateway.pair import healthy
from tests.gateway.second_process import started
from tests.gateway.standstill import standing_still

_MOMENTS = {
    "uploaded": ("INSERT ON audit_entries", "NEW.kind = 'prune'"),
    "noted": ("DELETE ON audit_entries", "true"),
    "pruning": ("UPDATE ON audit_segments", "NEW.pruned"),
    "pruned": (
        "UPDATE ON locks",
        "NEW.name = 'audit-archive' AND EXISTS (SELECT FROM audit_segments WHERE pruned)",
    ),
}


@contextlib.asynccontextmanager
async def planned(url: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Let nobody get further than a plan; yield what waits until there is one."""
    holder = await asyncpg.connect(url)
    try:
        async with holder.transaction():
            # Whether every sink has the entries is looked at next.
            await holder.execute("LOCK TABLE audit_sink_positions IN ACCESS EXCLUSIVE MODE")

            async def reached() -> None:
                await until(lambda: sql(url, "SELECT FROM audit_segments"))

            yield reached
    finally:
        await holder.close()


def left_behind(folder: Path, step: str) -> None:
    """Have the folder be as it is when a process dies at a step that only it tells from another."""
    if step == "uploading":
        (folder / f".00000001-x.jsonl.gz.{'0' * 16}").write_bytes(b"the first half")
    if step == "file":
        segment(folder, 1, "manifest.json").unlink()


@pytest.mark.parametrize("step", ["planned", "uploading", "file", *_MOMENTS])
async def test_killed(node: Node, folder: Path, tmp_path: Path, step: str) -> None:
    """Wherever the process dies the ledger verifies, and the next run leaves every entry in one place."""
    url = node.settings.database_url
    await configure(node, folder)
    await old_entries(node, 40)
    key = Path(node.settings.cluster_key_file).read_text()
    settings = with_sinks(node_settings(tmp_path, url, "n2", key), folder.parent)
    moment = _MOMENTS["uploaded"] if step == "file" else _MOMENTS.get(step)
    async with started(settings, node.tree.handles) as second:
        await until(lambda: healthy(second))
        async with planned(url) if moment is None else standing_still(url, *moment) as reached:
            asking = asyncio.create_task(second.call("POST", "sys/audit/archive/run", node.root, json={}))
            await reached()
            second.kill()
            with pytest.raises(httpx2.TransportError):
                await asking
    left_behind(folder, step)
    rows = await sql(url, "SELECT pruned FROM audit_segments")
    assert [row["pruned"] for row in rows] == [step == "pruned"]
    await ledger_is_good(node, state=True)
    # As if its time had passed.
    await sql(url, "UPDATE locks SET expires_at = clock_timestamp() WHERE name = 'audit-archive'")
    done = await run(node)
    assert (1 in done["segments"]) is (step != "pruned")
    await ledger_is_good(node, state=True)
    assert (await ok(node, "POST", "sys/audit/archive/verify", {}))["ok"]
    assert await nothing_is_lost(node, folder) > 40
    assert all(row["pruned"] for row in await sql(url, "SELECT pruned FROM audit_segments"))
    assert segment(folder, 1).exists()
    assert segment(folder, 1, "manifest.json").exists()
