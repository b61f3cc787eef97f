"""Segments of the archive and an export, verified together without Core."""

from __future__ import annotations

import gzip
from pathlib import Path

from secrethub.audit.export_reader import read_public_key, verify_files
from secrethub.audit.verification import LedgerReport
from tests.gateway.archives import configure, old_entries, run
from tests.gateway.conftest import Node
from tests.gateway.kv import ok


async def test_the_archive_verifies_elsewhere(node: Node, folder: Path, tmp_path: Path) -> None:
    """Segments and an export are verified as one with the public key alone; an edit, or a gap, is found."""
    await configure(node, folder, segment_entries=20)
    await old_entries(node, 50)
    assert len((await run(node))["segments"]) >= 2
    # At once: the export waits until a checkpoint vouches for what says that entries were archived.
    export = tmp_path / "export.jsonl"
    export.write_bytes((await node.call("GET", "sys/audit/export")).content)
    key = read_public_key((await ok(node, "GET", "sys/audit/public-key"))["public_key"].encode())
    segments = sorted(folder.glob("*.jsonl.gz"))

    def verdict(*paths: Path) -> LedgerReport:
        return verify_files(paths, key)

    whole = verdict(*segments, export)
    assert whole.ok, whole
    assert whole.entries > 50
    assert verdict(export).ok
    later = verdict(*segments[1:], export)
    assert (later.ok, later.elsewhere > 0) == (True, True)
    assert not verdict(segments[0], *segments[2:], export).ok
    text = gzip.decompress(segments[1].read_bytes())
    assert b"secret/data/old" in text
    segments[1].write_bytes(gzip.compress(text.replace(b"secret/data/old", b"secret/data/0ld", 1)))
    bad = verdict(*segments, export).first_bad
    assert bad is not None
    assert bad.reason == "edited"
