"""The archive of the ledger: ``sys/audit/archive``, how it is configured, run, listed and verified."""

from __future__ import annotations

from typing import Any

import msgspec

from secrethub.audit.segment import Manifest, file_name
from secrethub.clock import from_micros
from secrethub.engines.answers import Nothing
from secrethub.engines.archive.archiver import run
from secrethub.engines.archive.checking import check
from secrethub.engines.archive.config import KEY, Archive, body_of, checked, configured
from secrethub.engines.archive.store import StoreFailed
from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.system.seal_answers import (
    ArchiveAnswer,
    ArchivedAnswer,
    ArchiveVerdict,
    SegmentsAnswer,
)
from secrethub.errors import InvalidRequest, NotFound
from secrethub.ids import new_uuid
from secrethub.sensitive import Sensitive
from secrethub.storage import archive as rows
from secrethub.storage.authority import AUDIT_SETTINGS
from secrethub.wire.durations import format_rfc3339, parse_duration

_PLAIN = frozenset({"type", "retention", "segment_entries", "path", "bucket", "prefix", "region", "endpoint"})
_LARGEST = 100_000
"""Entries of a segment: about 100 MB before they are compressed."""
_PAGE = 100
_MOST = 100


class ArchiveRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where old entries go.

    Attributes:
        type: ``file`` or ``s3``.
        retention: how long entries stay in the ledger.
        segment_entries: how many entries a segment has, give or take a group.
        path: a directory, for files.
        bucket: of S3.
        prefix: in front of every object's name, ending with a slash.
        region: of the bucket.
        endpoint: URL of the service; that of AWS in the region by default.
        access_key_id: who we are there.
        secret_access_key: proves it; kept sealed.
    """

    type: str
    retention: str | int
    segment_entries: int = 10_000
    path: str = ""
    bucket: str = ""
    prefix: str = ""
    region: str = ""
    endpoint: str = ""
    access_key_id: str = ""
    secret_access_key: str = ""

    def __repr__(self) -> str:
        return f"ArchiveRequest(type={self.type!r})"


class NoRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing can be chosen."""


class SegmentsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page of segments: those after a number."""

    after: int = 0


def archive_operations() -> tuple[Operation, ...]:
    """Return the operations on the archive."""
    return (
        Operation(
            name="sys.audit.archive",
            method="read",
            pattern="audit/archive",
            handler=read,
            response=ArchiveAnswer,
            capability="read",
            sudo=True,
            summary="Read where old entries of the audit ledger go.",
        ),
        Operation(
            name="sys.audit.archive.write",
            method="write",
            pattern="audit/archive",
            handler=write,
            response=Nothing,
            capability="update",
            request=ArchiveRequest,
            changes=True,
            sudo=True,
            plain=_PLAIN,
            summary="Say where old entries of the audit ledger go, and when.",
        ),
        Operation(
            name="sys.audit.archive.delete",
            method="delete",
            pattern="audit/archive",
            handler=delete,
            response=Nothing,
            capability="delete",
            changes=True,
            sudo=True,
            summary="Archive no more entries of the audit ledger.",
        ),
        Operation(
            name="sys.audit.archive.run",
            method="write",
            pattern="audit/archive/run",
            handler=run_now,
            response=ArchivedAnswer,
            capability="update",
            request=NoRequest,
            changes=True,
            strict=True,
            sudo=True,
            wraps=False,
            summary="Archive now what is old enough.",
        ),
        Operation(
            name="sys.audit.archive.segments",
            method="read",
            pattern="audit/archive/segments",
            handler=segments,
            response=SegmentsAnswer,
            capability="read",
            request=SegmentsRequest,
            sudo=True,
            plain=frozenset({"after"}),
            summary="List the segments of the audit ledger's archive.",
        ),
        Operation(
            name="sys.audit.archive.verify",
            method="write",
            pattern="audit/archive/verify",
            handler=verify,
            response=ArchiveVerdict,
            capability="update",
            request=NoRequest,
            strict=True,
            sudo=True,
            wraps=False,
            summary="Read the audit ledger's archive back and verify all of it.",
        ),
    )


async def _archive(context: Context) -> Archive:
    archive = await configured(context.core)
    if archive is None:
        raise NotFound("no archive is configured")
    return archive


async def read(context: Context, _body: None) -> Answer:
    """Answer the configuration, without its secret, and how much is archived."""
    archive = await _archive(context)
    async with context.core.database.read() as connection:
        last = await rows.newest(connection)
    state = {
        "segments": 0 if last is None else last[0].number - (not last[1]),
        "unfinished": last is not None and not last[1],
    }
    return Answer(data={**archive.shown(), "status": state})


async def write(context: Context, body: ArchiveRequest) -> Answer:
    """Configure the archive; segments that exist stay where they are."""
    core = context.core
    if body.type not in {"file", "s3"}:
        raise InvalidRequest("type is file or s3")
    others = [
        name
        for name in ("bucket", "prefix", "region", "endpoint", "access_key_id", "secret_access_key")
        if getattr(body, name)
    ]
    if body.type == "file" and others:
        raise InvalidRequest(f"an archive of files has no {others[0]}")
    if body.type == "s3" and body.path:
        raise InvalidRequest("an archive in S3 has no path; there is prefix")
    retention = parse_duration(body.retention)
    if retention < 1:
        raise InvalidRequest("retention is at least a second")
    if not 1 <= body.segment_entries <= _LARGEST:
        raise InvalidRequest(f"segment_entries is from 1 to {_LARGEST}")
    archive = Archive(
        uuid=new_uuid(),
        type=body.type,
        retention=retention,
        segment_entries=body.segment_entries,
        path=body.path,
        bucket=body.bucket,
        prefix=body.prefix,
        region=body.region,
        endpoint=body.endpoint or (f"https://s3.{body.region}.amazonaws.com" if body.type == "s3" else ""),
        access_key_id=body.access_key_id,
        secret_access_key=Sensitive(body.secret_access_key) if body.secret_access_key else None,
    )
    try:
        await checked(core, archive)
    except StoreFailed as exc:
        raise InvalidRequest(exc.reason) from exc
    async with core.authority.change(context.fence) as change:
        await change.put(AUDIT_SETTINGS, KEY, body_of(core.keyring(), archive))
    return EMPTY


async def delete(context: Context, _body: None) -> Answer:
    """Forget the configuration. The segments stay where they are, and in the list."""
    core = context.core
    if await core.authority.get(AUDIT_SETTINGS, KEY) is None:
        return EMPTY
    async with core.authority.change(context.fence) as change:
        await change.delete(AUDIT_SETTINGS, KEY)
    return EMPTY


async def run_now(context: Context, _body: NoRequest) -> Answer:
    """Archive what is old enough and answer what was done."""
    outcome = await run(context.core, await _archive(context), _MOST)
    told: dict[str, Any] = {
        "segments": list(outcome.segments),
        "entries": outcome.entries,
        "waiting": outcome.waiting,
    }
    return Answer(data=told, detail=told)


async def segments(context: Context, body: SegmentsRequest) -> Answer:
    """Answer segments in order; ``next`` is the next page's ``after``, 0 at the end."""
    key = context.core.keyring().derived("audit-sign")
    if not 0 <= body.after < 1 << 62:
        raise InvalidRequest("after is the number of a segment")
    async with context.core.database.read() as connection:
        page = await rows.segments(connection, after=body.after, limit=_PAGE)
    return Answer(
        data={
            "segments": [_shown(manifest, key, pruned=pruned) for manifest, pruned in page],
            "next": page[-1][0].number if len(page) == _PAGE else 0,
        }
    )


def _shown(manifest: Manifest, key: bytes, *, pruned: bool) -> dict[str, Any]:
    state = "unfinished"
    if pruned:
        state = "archived" if manifest.is_authentic(key) else "broken"
    return {
        "number": manifest.number,
        "state": state,
        "file": file_name(manifest) if manifest.sha256 else "",
        "since": _time(manifest.since),
        "until": _time(manifest.until),
        "entries": manifest.entries,
        "size": manifest.size,
        "sha256": manifest.sha256,
    }


def _time(at: int) -> str:
    return format_rfc3339(from_micros(at))


async def verify(context: Context, _body: NoRequest) -> Answer:
    """Answer the verdict on the whole archive."""
    verdict = await check(context.core, await _archive(context))
    if verdict.bad is not None:
        context.core.metrics.integrity_failures.labels("audit_segments").inc()
    return Answer(
        data={
            "segments": verdict.segments,
            "entries": verdict.entries,
            "ok": verdict.bad is None,
            "first_bad": None if verdict.bad is None else {"segment": verdict.bad, "reason": verdict.reason},
        },
        detail={"ok": verdict.bad is None},
    )
