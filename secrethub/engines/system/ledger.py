"""Verification of the audit ledger, and the metrics of this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from secrethub.audit.verification import LedgerReport, LedgerVerifier
from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.runtime import Core
from secrethub.storage.ledger_read import count, pages


class VerifyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing can be chosen: everything is verified."""


def ledger_operations() -> tuple[Operation, ...]:
    """Return the operations on the ledger."""
    return (
        Operation(
            name="sys.audit.verify",
            method="write",
            pattern="audit/verify",
            handler=verify,
            capability="update",
            request=VerifyRequest,
            sudo=True,
            strict=True,
            summary="Recompute the whole audit ledger and name the first bad record.",
        ),
    )


async def verify(context: Context, _body: VerifyRequest) -> Answer:
    """Answer the verdict; with progress when the caller takes a stream."""
    core = context.core
    # Streams that processes have open grow meanwhile; that makes no difference to the verdict.
    if context.streaming:
        return Answer(stream=_progress(core))
    result: Mapping[str, Any] = {}
    async for progress in _progress(core):
        result = progress
    return Answer(data=result)


async def _progress(core: Core) -> AsyncIterator[Mapping[str, Any]]:
    verifier = LedgerVerifier(core.keyring().derived("audit-sign"))
    total, done = await count(core.database), 0
    async for page in pages(core.database):
        for record in page:
            verifier.feed(record)
        done += len(page)
        yield {"verified": done, "of": max(total, done)}
        # Other requests get their turn between pages.
        await asyncio.sleep(0)
    yield _report(core, verifier.finish())


def _report(core: Core, report: LedgerReport) -> Mapping[str, Any]:
    bad = report.first_bad
    if bad is not None:
        core.metrics.integrity_failures.labels("audit_entries").inc()
    return {
        "entries": report.entries,
        "streams": report.streams,
        "checkpoints": 0,
        "ok": report.ok,
        "first_bad": None
        if bad is None
        else {"stream": bad.stream, "number": bad.number, "reason": bad.reason},
    }
