"""A process that is killed while it archives: nothing is lost, nothing is doubled, everything verifies."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from tests.gateway import archive_crash
from tests.gateway.archives import configure, nothing_is_lost, old_entries, run, segment
from tests.gateway.audit_sinks import with_sinks
from tests.gateway.behind import ledger_is_good, sql, until
from tests.gateway.conftest import Node, node_settings, running
from tests.gateway.kv import ok
from tests.gateway.pair import healthy
from tests.gateway.second_process import started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the archive is."""
    made = tmp_path / "allowed" / "archive"
    made.mkdir(parents=True, mode=0o700)
    return made


@pytest.fixture
async def node(database_url: str, tmp_path: Path, folder: Path) -> AsyncIterator[Node]:
    """A node that may write there."""
    async with running(with_sinks(node_settings(tmp_path, database_url), folder.parent)) as one:
        await one.initialise()
        await one.unseal()
        yield one


@pytest.mark.parametrize("step", ["planned", "uploading", "file", "uploaded", "noted", "pruning", "pruned"])
async def test_killed(node: Node, folder: Path, tmp_path: Path, step: str) -> None:
    """Wherever the process dies the ledger verifies, and the next run leaves every entry in one place."""
    url = node.settings.database_url
    await configure(node, folder)
    await old_entries(node, 40)
    key = Path(node.settings.cluster_key_file).read_text()
    settings = with_sinks(node_settings(tmp_path, url, "n2", key), folder.parent)
    async with started(settings, node.tree.handles, archive_crash.run, step) as second:
        await until(lambda: healthy(second))
        with pytest.raises(httpx2.TransportError):
            await second.call("POST", "sys/audit/archive/run", node.root, json={})
        second.child.join(20)
        assert second.child.exitcode == -signal.SIGKILL
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
