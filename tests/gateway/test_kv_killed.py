"""A gateway process killed again and again under writers: what was acknowledged is there, and opens."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2

from tests.gateway.behind import ledger_is_good, until
from tests.gateway.conftest import Node, node_settings
from tests.gateway.key_steps import got
from tests.gateway.pair import healthy
from tests.gateway.second_process import started

ROUNDS = 3
WRITERS = 6


async def test_no_write_is_lost(node: Node, tmp_path: Path) -> None:
    """Whoever wrote with check-and-set through killed processes finds every version that was acknowledged."""
    promised: dict[str, dict[int, int]] = {f"own-{number}": {} for number in range(WRITERS)}
    promised["shared"] = {}
    key = Path(node.settings.cluster_key_file).read_text()
    count = 0

    async def write(process: Any, path: str) -> None:
        nonlocal count
        while True:
            try:
                read = await process.call("GET", f"secrets/{path}", node.root)
                newest = read.json()["data"]["metadata"]["version"] if read.status_code == 200 else 0
                count += 1
                value = count
                body = {"data": {"n": value}, "options": {"cas": newest}}
                answer = await process.call("POST", f"secrets/{path}", node.root, json=body)
            except httpx2.TransportError:
                return
            if answer.status_code == 200:
                version = answer.json()["data"]["version"]
                assert version == newest + 1
                assert version not in promised[path]
                promised[path][version] = value

    kept = await node.call("POST", "secret/config", json={"max_versions": 1000})
    assert kept.status_code == 204, kept.text
    for number in range(ROUNDS):
        settings = node_settings(tmp_path, node.settings.database_url, f"k{number}", key)
        async with started(settings, node.tree.handles) as process:
            await until(lambda process=process: healthy(process))
            before = count
            writers = [asyncio.create_task(write(process, path)) for path in promised]
            writers.append(asyncio.create_task(write(process, "shared")))
            await until(lambda before=before: _beyond(lambda: count, before + 80))
            process.kill()
            await asyncio.gather(*writers)
    for path, versions in promised.items():
        assert versions
        for version, value in versions.items():
            assert await got(node, path, version) == {"n": value}
        newest = (await node.call("GET", f"secret/metadata/{path}")).json()["data"]["current_version"]
        for version in range(1, newest + 1):
            await got(node, path, version)
    await ledger_is_good(node, state=True)


async def _beyond(counted: Any, least: int) -> bool:
    return bool(counted() > least)
