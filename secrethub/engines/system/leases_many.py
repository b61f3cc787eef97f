"""``sys/leases``: many leases: listed, counted, revoked below a prefix, and what to do with dead letters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg
import msgspec

from secrethub.engines.answers import Names, Nothing
from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.lease_ending import BATCH, end_these
from secrethub.engines.listing import shown
from secrethub.engines.mounts import Mount
from secrethub.engines.own_changes import record
from secrethub.engines.system.answers import LeaseCountAnswer, LeasesAnswer, LeasesOrderedAnswer, MakersAnswer
from secrethub.engines.system.leases import asker
from secrethub.errors import InvalidRequest, NotFound, Unavailable
from secrethub.leases.lease import instant
from secrethub.storage import lease_ends, lease_lists
from secrethub.storage.fence import hold_shared
from secrethub.storage.lease_lists import Wanted
from secrethub.storage.leases import forgotten
from secrethub.wire.canonical_path import check_path
from secrethub.wire.durations import format_rfc3339, parse_duration, parse_rfc3339

_NAMES = 10_000
_PAGE = 100
_MOST = 1000
_QUERY = ("prefix", "role", "owner", "engine", "expiring_before", "type", "after", "limit")


class RevokePrefix(msgspec.Struct, frozen=True):
    """Whether to answer only when the leases are gone at their targets."""

    sync: bool = False


class RetryLeases(msgspec.Struct, frozen=True):
    """Which dead letters: those below ``prefix``, all when it is empty."""

    prefix: str = ""


def many_lease_operations() -> tuple[Operation, ...]:
    """Return the operations on many leases; all but the count take ``sudo``."""
    return (
        Operation(
            name="lease.search",
            method="read",
            pattern="leases",
            handler=search,
            response=LeasesAnswer,
            capability="read",
            query=_QUERY,
            sudo=True,
            summary="Find leases by prefix, role, owner, engine and end, a page at a time.",
        ),
        *(
            Operation(
                name="lease.list",
                method="list",
                pattern=pattern,
                handler=list_leases,
                response=Names,
                capability="list",
                sudo=True,
                summary="List the leases below a prefix.",
            )
            for pattern in ("leases/lookup", "leases/lookup/{prefix*}")
        ),
        Operation(
            name="lease.count",
            method="read",
            pattern="leases/count",
            handler=count,
            response=LeaseCountAnswer,
            capability="read",
            query=("type", "include_child_namespaces"),
            summary="Count leases by mount.",
        ),
        Operation(
            name="lease.top",
            method="read",
            pattern="leases/top",
            handler=top,
            response=MakersAnswer,
            capability="read",
            query=("limit",),
            sudo=True,
            summary="Tell who has the most leases of which role.",
        ),
        *(
            Operation(
                name="lease.revoke-prefix",
                method="write",
                pattern=pattern,
                handler=revoke_prefix,
                response=LeasesOrderedAnswer,
                capability="update",
                request=RevokePrefix,
                changes=True,
                sudo=True,
                plain=frozenset({"sync"}),
                summary="End all leases below a prefix.",
            )
            for pattern in ("leases/revoke-prefix/{prefix*}", "revoke-prefix/{prefix*}")
        ),
        *(
            Operation(
                name="lease.revoke-force",
                method="write",
                pattern=pattern,
                handler=revoke_force,
                response=LeasesOrderedAnswer,
                capability="update",
                changes=True,
                sudo=True,
                summary="Forget all leases below a prefix, even if they cannot be ended at their targets.",
            )
            for pattern in ("leases/revoke-force/{prefix*}", "revoke-force/{prefix*}")
        ),
        Operation(
            name="lease.retry",
            method="write",
            pattern="leases/retry",
            handler=retry,
            response=LeasesOrderedAnswer,
            capability="update",
            request=RetryLeases,
            changes=True,
            sudo=True,
            strict=True,
            plain=frozenset({"prefix"}),
            summary="Try again to end leases whose end was given up.",
        ),
        Operation(
            name="lease.tidy",
            method="write",
            pattern="leases/tidy",
            handler=tidy,
            response=Nothing,
            capability="update",
            changes=True,
            sudo=True,
            summary="Make due whatever should be over and is not.",
        ),
    )


async def search(context: Context, _body: None) -> Answer:
    """Answer a page of leases in the order of their ids; ``type=irrevocable`` those given up."""
    core, query = context.core, context.query
    mounts = await _mounts(context)
    kind = query.get("engine", "")
    if query.get("type", "") not in {"", "irrevocable"}:
        raise InvalidRequest("type is irrevocable, or absent")
    wanted = Wanted(
        prefix=query.get("prefix", ""),
        role=query.get("role", ""),
        mounts=tuple(uuid for uuid, mount in mounts.items() if mount.type == kind) if kind else None,
        owner=query.get("owner", ""),
        expires_before=_before(context, query.get("expiring_before", "")),
        dead=query.get("type") == "irrevocable",
    )
    limit = _limit(query.get("limit", ""), _PAGE)
    rows = await lease_lists.page(core.database, wanted, query.get("after", ""), limit)
    told = [_told(row, mounts) for row in rows]
    following = rows[-1]["id"] if len(rows) == limit else None
    return Answer(data={"leases": told, "lease_count": len(told), "next": following})


async def list_leases(context: Context, _body: None) -> Answer:
    """Answer the names below a prefix; those that end with ``/`` have leases below them."""
    prefix = context.params.get("prefix", "")
    folder = check_path(prefix) + "/" if prefix else ""
    names = await lease_lists.names(context.core.database, folder, _NAMES)
    told = await shown(context, names)
    if not told:
        raise NotFound("there are no leases")
    cut = (f"only the first {_NAMES} are listed",) if len(names) == _NAMES else ()
    return Answer(data={"keys": told}, warnings=cut)


async def count(context: Context, _body: None) -> Answer:
    """Answer how many leases there are, in all and by mount; ``type=irrevocable`` of those given up."""
    kind = context.query.get("type", "")
    if kind not in {"", "irrevocable"}:
        raise InvalidRequest("type is irrevocable, or absent")
    mounts = await _mounts(context)
    counted = await lease_lists.counts(context.core.database, dead=kind == "irrevocable")
    by_mount = {mounts[uuid].path if uuid in mounts else uuid: number for uuid, number in counted.items()}
    total = sum(counted.values())
    return Answer(data={"lease_count": total, "counts": by_mount})


async def top(context: Context, _body: None) -> Answer:
    """Answer who has the most leases of which role."""
    mounts = await _mounts(context)
    rows = await lease_lists.makers(context.core.database, _limit(context.query.get("limit", ""), 20))
    return Answer(
        data={
            "makers": [
                {
                    "mount": _path(mounts, row["mount"]),
                    "role": row["role"],
                    "owner": row["owner"][:36],
                    "owner_name": row["owner_name"],
                    "leases": row["leases"],
                    "first_expire_time": format_rfc3339(instant(row["first_expires_at"])),
                }
                for row in rows
            ]
        }
    )


async def revoke_prefix(context: Context, body: RevokePrefix) -> Answer:
    """End all leases below a prefix, and answer how many; with ``sync`` they are gone when this returns."""
    failures: dict[str, str] = {}
    number = 0
    core, after = context.core, ""
    while identifiers := await _order(context, after):
        after, number = identifiers[-1], number + len(identifiers)
        if body.sync:
            failures |= await end_these(core, identifiers, asker(context))
    for identifier, reason in failures.items():
        raise Unavailable(
            f"{len(failures)} of {number} leases could not be ended yet, this goes on by itself: "
            f"{identifier}: {reason}"
        )
    return Answer(data={"leases": number}, detail={"leases": number})


async def revoke_force(context: Context, _body: None) -> Answer:
    """End all leases below a prefix as far as that can be done, forget the others, and answer how many."""
    core, after, number = context.core, "", 0
    left: list[str] = []
    while identifiers := await _order(context, after):
        after, number = identifiers[-1], number + len(identifiers)
        failures = await end_these(core, identifiers, asker(context))
        # As of every lease, the ledger says that its row goes before it does.
        gone = [forgotten(identifier) for identifier in failures]
        await record(core, "lease.forget", context.path, gone, actor=asker(context))
        await lease_ends.ended(core.database, list(failures))
        left += failures
    warnings = tuple(f"this may be left at its target: {identifier}" for identifier in left[:_PAGE])
    return Answer(data={"leases": number}, warnings=warnings, detail={"leases": number, "left": left[:_MOST]})


async def retry(context: Context, body: RetryLeases) -> Answer:
    """Try again to end leases whose end was given up."""
    async with context.core.database.write() as connection:
        await hold_shared(connection, context.fence)
        identifiers = await lease_ends.retry(connection, body.prefix)
    return Answer(data={"leases": len(identifiers)}, detail={"leases": identifiers[:_MOST]})


async def tidy(context: Context, _body: None) -> Answer:
    """Make due whatever should be over and is not, whoever put it off."""
    async with context.core.database.write() as connection:
        await hold_shared(connection, context.fence)
        number = await lease_ends.mend_deadlines(connection)
    return msgspec.structs.replace(EMPTY, detail={"leases": number})


async def _order(context: Context, after: str) -> list[str]:
    """Order the end of the next leases below the request's prefix, and return their ids."""
    prefix = check_path(context.params["prefix"])
    async with context.core.database.write() as connection:
        await hold_shared(connection, context.fence)
        # Whole segments only: nobody ends leases of "app2" who means "app".
        found = await lease_lists.identifiers(connection, prefix, after, BATCH)
        await lease_ends.order(connection, found)
    return found


async def _mounts(context: Context) -> Mapping[str, Mount]:
    table = context.core.mounts
    return {mount.uuid: mount for mount in (*await table.load(), *await table.leaving())}


def _path(mounts: Mapping[str, Mount], uuid: str) -> str:
    return mounts[uuid].path if uuid in mounts else ""


def _told(row: asyncpg.Record, mounts: Mapping[str, Mount]) -> Mapping[str, Any]:
    mount = mounts.get(row["mount"])
    return {
        "lease_id": row["id"],
        "state": "irrevocable" if row["dead"] else "ending" if row["revoked"] else row["state"],
        "mount": _path(mounts, row["mount"]),
        "engine": mount.type if mount is not None else "",
        "role": row["role"],
        "target": row["target"],
        "owner": row["owner"][:36],
        "owner_name": row["owner_name"],
        "issue_time": format_rfc3339(instant(row["issued_at"])),
        "expire_time": format_rfc3339(instant(row["expires_at"])),
        "max_expire_time": format_rfc3339(instant(row["max_expires_at"])),
        "renewable": row["renewable"],
        "attempts": row["attempts"],
        "error": row["error"],
    }


def _before(context: Context, text: str) -> int:
    """Return microseconds since the epoch of an instant, or of a duration from now on; 0 for nothing."""
    if not text:
        return 0
    if "T" in text:
        found = parse_rfc3339(text)
        return int(found.timestamp() * 1_000_000) if found is not None else 0
    return int((context.now.timestamp() + parse_duration(text)) * 1_000_000)


def _limit(text: str, usual: int) -> int:
    if not text:
        return usual
    limit = parse_duration(text)
    if not 1 <= limit <= _MOST:
        raise InvalidRequest(f"limit is 1 to {_MOST}")
    return limit
