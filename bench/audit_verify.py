"""Verification of the audit ledger, in records a second: rows in memory, and an export's file on disk.

Both are one process on one core, and its processor time is counted. The aim of 200,000 records a second is
for rows with their signatures checked, which is what Core does with what PostgreSQL gives it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from secrethub.audit.chain import Chain
from secrethub.audit.checkpoint import BEFORE_FIRST, Checkpoint, Signed, StreamTree, link, sign
from secrethub.audit.checkpoint_chain import CheckpointVerifier
from secrethub.audit.event import Record, Row, StreamHead
from secrethub.audit.export_file import checkpoint_line, end_line, entry_line, header_line
from secrethub.audit.export_reader import verify_files
from secrethub.audit.verification import LedgerVerifier
from secrethub.ids import new_uuid

AIM = 200_000
_PAGE = 2000
_EVERY = 500
"""Entries between two checkpoints: what a cluster writes in a second."""


def written(count: int, key: bytes, signing: Ed25519PrivateKey) -> tuple[list[Record], list[Signed]]:
    """Return a stream as a busy gateway writes it, and the checkpoints over it."""
    chain, tree = Chain(new_uuid(), key), StreamTree()
    records: list[Record] = []
    checkpoints: list[Signed] = []
    for number in range(count):
        records.append(
            chain.append(
                at=1_700_000_000_000_000 + number,
                kind="request" if number else "open",
                request_id=new_uuid(),
                actor="token:0123456789abcdef0123456789abcdef0123:approle-web",
                operation="kv.read",
                path=f"secret/data/prod/app-{number % 997}/database",
                outcome="done",
                client="10.20.30.40",
                door="tls",
                detail='{"answer":{"version":3}}' if number else "{}",
            )
        )
        if number % _EVERY == 0:
            head = StreamHead(chain.stream, chain.number, chain.head)
            tree.move([head])
            made = Checkpoint(
                cluster="bench",
                timeline=1,
                sequence=len(checkpoints) + 1,
                epoch=1,
                at=number,
                previous=link(checkpoints[-1]) if checkpoints else BEFORE_FIRST,
                streams=1,
                root=tree.root(),
                heads=(head,),
            )
            checkpoints.append(sign(signing, made))
    return records, checkpoints


def in_memory(rows: list[Row], checkpoints: list[Signed], key: bytes, public: bytes) -> float:
    """Verify rows as they come from PostgreSQL; return the seconds."""
    began = time.process_time()
    chain = CheckpointVerifier("bench", public)
    for signed in checkpoints:
        chain.feed(signed)
    verifier = LedgerVerifier(key, checkpoints=chain)
    for at in range(0, len(rows), _PAGE):
        verifier.feed_rows(rows[at : at + _PAGE])
    report = verifier.finish()
    took = time.process_time() - began
    assert report.ok
    assert report.entries == len(rows)
    return took


def on_disk(path: Path, count: int, public: bytes) -> float:
    """Verify an export without the ledger's key; return the seconds."""
    began = time.process_time()
    report = verify_files([path], public)
    took = time.process_time() - began
    assert report.ok
    assert report.entries == count
    return took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="./dev bench audit-verify", description=__doc__)
    parser.add_argument("--records", type=int, default=300_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    key, signing = os.urandom(32), Ed25519PrivateKey.generate()
    public = signing.public_key().public_bytes_raw()
    records, checkpoints = written(options.records, key, signing)
    rows: list[Row] = [
        (*msgspec.structs.astuple(record.entry), record.hash, record.signature) for record in records
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        with path.open("wb") as file:
            file.write(header_line("bench", 0))
            file.writelines(map(checkpoint_line, checkpoints))
            file.writelines(map(entry_line, records))
            file.write(end_line(len(records)))
        memory = len(rows) / min(in_memory(rows, checkpoints, key, public) for _ in range(3))
        disk = len(rows) / min(on_disk(path, len(rows), public) for _ in range(3))
    if options.json:
        result = {"rows_per_second": round(memory), "file_per_second": round(disk), "aim": AIM}
        print(json.dumps({"bench": "audit-verify", "records": len(rows), **result}))
        return
    print(f"rows with signatures   {memory:>10,.0f} records/s   aim {AIM:,}")
    print(f"export file            {disk:>10,.0f} records/s")


if __name__ == "__main__":
    main()
