"""Verification of the audit ledger, and the key that its checkpoints are signed with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from secrethub.audit.chain import Bad
from secrethub.audit.checkpoint_base import SignedBase
from secrethub.audit.checkpoint_chain import CHECKPOINTS, CheckpointVerifier
from secrethub.audit.verification import LedgerReport, LedgerVerifier
from secrethub.audit.witness import contradicted
from secrethub.crypto import notary_key
from secrethub.crypto.digests import equal
from secrethub.engines.engine import Answer, Context, Flow, Operation
from secrethub.engines.runtime import Core
from secrethub.engines.system.answers import PublicKeyAnswer, VerifiedAnswer
from secrethub.engines.system.under_way import UnderWay
from secrethub.errors import IntegrityFailure, NotInitialised
from secrethub.storage import witness_file
from secrethub.storage.checkpoints import base, checkpoint_pages
from secrethub.storage.ledger_read import count, pruned, row_pages, snapshot
from secrethub.storage.seal_store import ClusterRow, load_cluster
from secrethub.storage.state_check import Checked, check_authority, floors
from secrethub.storage.state_kv import check_secrets
from secrethub.storage.state_leases import check_leases

_MOST_AT_ONCE = 2


class VerifyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole ledger is verified.

    Attributes:
        state: and whether the rows that it speaks of are as it says.
    """

    state: bool = False


def ledger_operations() -> tuple[Operation, ...]:
    """Return the operations on the ledger."""
    return (
        Operation(
            name="sys.audit.verify",
            method="write",
            pattern="audit/verify",
            handler=verify,
            response=VerifiedAnswer,
            capability="update",
            request=VerifyRequest,
            sudo=True,
            strict=True,
            plain=frozenset({"state"}),
            summary="Recompute the whole audit ledger and name the first bad record, or bad row with state.",
        ),
        Operation(
            name="sys.audit.public-key",
            method="read",
            pattern="audit/public-key",
            handler=public_key,
            response=PublicKeyAnswer,
            capability="read",
            summary="Give out the public key that checkpoints of the ledger are verified with.",
        ),
    )


async def public_key(context: Context, _body: None) -> Answer:
    """Answer the notary's public key, to be kept by whoever verifies the ledger elsewhere."""
    cluster, public = context.core.keys.cluster_id, (await authentic_cluster(context.core)).notary_public
    pem = Ed25519PublicKey.from_public_bytes(public).public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    return Answer(data={"cluster_id": cluster, "public_key": pem.decode("ascii")})


async def verify(context: Context, body: VerifyRequest) -> Answer:
    """Answer the verdict; with progress when the caller takes a stream."""
    # Streams that processes have open grow meanwhile; that makes no difference to the verdict.
    verifications = UnderWay(context.core, "verifications", _MOST_AT_ONCE)
    verifications.check()
    progress = verifications.counted(context.request_id, _progress(context.core, body))
    if context.streaming:
        return Answer(flow=Flow(media_type="application/x-ndjson", chunks=_lines(progress)))
    result: Mapping[str, Any] = {}
    async for one in progress:
        result = one
    return Answer(data=result)


async def _lines(progress: AsyncGenerator[Mapping[str, Any], None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(progress):
        async for one in progress:
            yield msgspec.json.encode(one) + b"\n"


async def _progress(core: Core, asked: VerifyRequest) -> AsyncGenerator[Mapping[str, Any], None]:
    keyring, known = core.keyring(), floors()
    row = await authentic_cluster(core)
    # Before the snapshot: the key-holder goes on keeping what it sees.
    kept = await asyncio.to_thread(witness_file.load, Path(core.settings.state_dir), core.keys.cluster_id)
    chain, same = CheckpointVerifier(core.keys.cluster_id, row.notary_public), None
    total, done = await count(core.database), 0
    async with snapshot(core.database) as connection:
        begins: SignedBase | None = None
        try:
            begins = await base(connection)
            if begins is not None:
                chain.begin(begins)
            async for checkpoints in checkpoint_pages(connection):
                for signed in checkpoints:
                    chain.feed(signed)
                    if kept is not None and signed.checkpoint.sequence == kept.signed.checkpoint.sequence:
                        same = signed
                # Other requests get their turn between pages.
                await asyncio.sleep(0)
        except IntegrityFailure as exc:
            chain.bad = chain.bad or Bad(CHECKPOINTS, int(exc.key), "edited")
        if kept is not None and row.timeline == kept.signed.checkpoint.timeline:
            # In a later timeline, begun by enough shares, the key-holder tells with the root key.
            chain.bad = chain.bad or contradicted(kept, chain.last, same, begins)
        verifier = LedgerVerifier(
            keyring.derived("audit-sign"), checkpoints=chain, bases=await pruned(connection)
        )
        async for rows in row_pages(connection):
            verifier.feed_rows(rows)
            if asked.state:
                known.feed(rows)
            done += len(rows)
            yield {"verified": done, "of": max(total, done)}
            await asyncio.sleep(0)
        report, checked = verifier.finish(), None
        # What a damaged ledger says of rows is worth nothing.
        if asked.state and report.ok:
            checked = Checked()
            await check_authority(connection, keyring.derived("authority"), known, checked)
            await check_secrets(connection, keyring, known.until, checked)
            await check_leases(connection, keyring, done, known.until, checked)
    yield _report(core, report, checked)


async def authentic_cluster(core: Core) -> ClusterRow:
    """Return the cluster's row, whose key of the notary is authentic.

    Raises:
        IntegrityFailure: it is not the key that the cluster was made with.
    """
    row = await load_cluster(core.database)
    if row is None:
        raise NotInitialised
    cluster = core.keys.cluster_id
    if not equal(notary_key.vouch(core.keyring(), cluster, row.notary_public), row.notary_mac):
        raise IntegrityFailure("cluster", "notary_public", "it is another one's")
    return row


def _report(core: Core, report: LedgerReport, checked: Checked | None) -> Mapping[str, Any]:
    bad = report.first_bad
    if bad is not None:
        core.metrics.integrity_failures.labels("audit_entries").inc()
    first: Mapping[str, Any] | None = None
    if bad is not None:
        first = {"stream": bad.stream, "number": bad.number, "reason": bad.reason}
    state: Mapping[str, Any] | None = None
    if checked is not None:
        for row in checked.bad:
            core.metrics.integrity_failures.labels(row.table).inc()
        state = msgspec.to_builtins(checked)
        first = first or next(iter(state["bad"]), None)
    return {
        "entries": report.entries,
        "streams": report.streams,
        "checkpoints": report.checkpoints,
        "unproven": report.unproven,
        "ok": first is None,
        "first_bad": first,
        "state": state,
    }
