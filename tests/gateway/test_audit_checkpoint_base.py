"""Checkpoints of what was archived go, and archive and ledger together verify as before."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from actors.checkpointing import Checkpointing
from actors.root_key import RootKey
from actors.wiring import Pulses
from secrethub.audit.chain import Bad
from secrethub.audit.export_reader import read_public_key, verify_files
from secrethub.operations import seal_lifecycle
from secrethub.seal.slots import open_slot
from secrethub.storage.seal_store import load_cluster
from tests.gateway.archives import configure, old_entries, run
from tests.gateway.behind import ledger_is_good, sql, until
from tests.gateway.conftest import Node
from tests.gateway.kv import ok
from tests.gateway.test_ledger_tamper import settled
from tests.gateway.test_rolled_back import rolled_back


@pytest.fixture
def pulses() -> Pulses:
    """Checkpoints soon after the entries; no look that would seal the node for what was taken away."""
    return Pulses(notary=0.05, seal_state=600, key_holder=600)


async def pruned(node: Node) -> int:
    """Prune checkpoints as the notary does now and then; the node's own is replaced meanwhile."""
    database = node.process.core.database
    row = await load_cluster(database)
    assert row is not None
    slot = (await seal_lifecycle.load_slots(database))[0]
    root_key = open_slot(slot, [base64.b64decode(share) for share in node.shares[:3]])
    work = await Checkpointing.begin(database, RootKey(root_key, row.seal_epoch, row.root_version), row)
    return await work.prune()


async def test_archive_and_ledger_verify(node: Node, folder: Path, tmp_path: Path) -> None:
    """Online, offline, and by witnesses nothing is missed that was archived; tampering is named."""
    url = node.settings.database_url
    await until(lambda: settled(url))  # a checkpoint that is older than whatever is too young to be archived
    await old_entries(node, 5)
    await until(lambda: settled(url))
    await configure(node, folder)
    assert await pruned(node) == 0
    assert (await run(node))["entries"] > 0
    await until(lambda: settled(url))
    assert await pruned(node) > 0
    (row,) = await sql(url, "SELECT min(sequence) AS n FROM audit_checkpoints")
    assert row["n"] > 1
    await ok(node, "POST", "secret/data/new", {"data": {"k": "v"}})
    await until(lambda: settled(url))
    await ledger_is_good(node, state=True)
    assert not await rolled_back(node)

    export = tmp_path / "ledger.jsonl"
    export.write_bytes((await node.call("GET", "sys/audit/export")).content)
    public = read_public_key((await ok(node, "GET", "sys/audit/public-key"))["public_key"].encode())
    segments = sorted(folder.glob("*.jsonl.gz"))
    report = verify_files([*segments, export], public)
    assert report.ok, report
    assert (report.elsewhere, report.unproven < 5) == (0, True)
    lines = [json.loads(line) for line in export.read_text().splitlines()]
    base = next(line for line in lines if line["type"] == "checkpoint-base")
    base["heads"][0][2] = "00" * 32
    export.write_text("".join(json.dumps(line) + "\n" for line in lines))
    wrong = Bad("checkpoints", base["sequence"], "bad signature")
    assert verify_files([*segments, export], public).first_bad == wrong

    await sql(url, "DELETE FROM audit_checkpoint_base")
    found = (await node.call("POST", "sys/audit/verify")).json()["data"]
    assert found["first_bad"] == {"stream": "checkpoints", "number": 1, "reason": "gap"}
