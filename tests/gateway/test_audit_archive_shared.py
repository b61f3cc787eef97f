"""Two clusters that archive into one folder: neither touches, or takes for its own, what is the other's."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from secrethub.audit.export_reader import read_public_key, verify_files
from secrethub.errors import InvalidRequest
from secrethub.node import NodeSettings
from tests.gateway.archives import configure, old_entries, run
from tests.gateway.audit_sinks import with_sinks
from tests.gateway.behind import ledger_is_good
from tests.gateway.conftest import Node, node_settings, running
from tests.gateway.kv import ok


@contextlib.asynccontextmanager
async def _cluster(settings: NodeSettings) -> AsyncIterator[Node]:
    async with running(settings) as node:
        await node.initialise()
        await node.unseal()
        yield node


async def _export(node: Node, place: Path) -> tuple[Path, bytes]:
    """Return an export of a cluster, and its public key."""
    place.write_bytes((await node.call("GET", "sys/audit/export")).content)
    return place, read_public_key((await ok(node, "GET", "sys/audit/public-key"))["public_key"].encode())


async def test_one_folder(database_url: str, shared_database_url: str, folder: Path, tmp_path: Path) -> None:
    """Segments of both have the same numbers and other names; each verifies its own and misses its own."""
    urls = {"one": database_url, "two": shared_database_url}
    for name in urls:
        (tmp_path / name).mkdir()
    settings = {
        name: with_sinks(node_settings(tmp_path / name, url), folder.parent) for name, url in urls.items()
    }
    async with _cluster(settings["one"]) as one, _cluster(settings["two"]) as two:
        files: list[set[Path]] = []
        for node in (one, two, one, two):
            await configure(node, folder)
            before = {path: path.read_bytes() for path in folder.iterdir()}
            await old_entries(node, 5)
            assert len((await run(node))["segments"]) == 1
            assert {path: path.read_bytes() for path in before} == before
            files.append(set(folder.iterdir()) - before.keys())
        assert [len(made) for made in files] == [2] * 4
        numbers = [{path.name[:8] for path in made} for made in files]
        assert numbers == [{"00000001"}, {"00000001"}, {"00000002"}, {"00000002"}]
        for node in (one, two):
            assert (await ok(node, "POST", "sys/audit/archive/verify", {}))["ok"]
            await ledger_is_good(node, state=True)

        segments = [
            [path for made in mine for path in sorted(made) if path.suffix == ".gz"]
            for mine in (files[::2], files[1::2])
        ]
        for node, own, others in ((one, *segments), (two, *reversed(segments))):
            export, key = await _export(node, tmp_path / "export.jsonl")
            report = verify_files([*own, export], key)
            assert (report.ok, report.elsewhere) == (True, 0)
            with pytest.raises(InvalidRequest, match=f"^{re.escape(str(others[1]))}: it is of a different"):
                verify_files([own[0], others[1], export], key)

        # With its own segment gone, or the other's in its place, no cluster is content with the other's.
        for place, content in ((segments[0][0], None), (segments[1][0], segments[0][1].read_bytes())):
            place.unlink()
            if content is not None:
                place.write_bytes(content)
        for node in (one, two):
            verdict = await ok(node, "POST", "sys/audit/archive/verify", {})
            assert verdict["first_bad"]["segment"] == 1
