"""``sys/leases``: leases found, listed and counted, and who has the most of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg

from secrethub.clock import from_micros, micros
from secrethub.engines.answers import Names
from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.listing import PAGES, shown, whole_number
from secrethub.engines.mounts import Mount
from secrethub.engines.system.answers import LeaseCountAnswer, LeasesAnswer, MakersAnswer
from secrethub.errors import InvalidRequest, NotFound
from secrethub.storage import lease_lists
from secrethub.storage.lease_lists import Wanted
from secrethub.wire.canonical_path import check_path
from secrethub.wire.durations import format_rfc3339, parse_duration, parse_rfc3339

_NAMES = 10_000
_PAGE = 100
_TOP = 20
_MOST = 1000
_QUERY = ("prefix", "role", "owner", "engine", "expiring_before", "type", "after", "limit")


def lease_search_operations() -> tuple[Operation, ...]:
    """Return the operations that find leases; all but the count take ``sudo``."""
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
                query=PAGES,
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
    limit = _limit(context, _PAGE)
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
    rows = await lease_lists.makers(context.core.database, _limit(context, _TOP))
    return Answer(
        data={
            "makers": [
                {
                    "mount": _path(mounts, row["mount"]),
                    "role": row["role"],
                    "owner": row["owner"][:36],
                    "owner_name": row["owner_name"],
                    "leases": row["leases"],
                    "first_expire_time": format_rfc3339(from_micros(row["first_expires_at"])),
                }
                for row in rows
            ]
        }
    )


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
        "issue_time": format_rfc3339(from_micros(row["issued_at"])),
        "expire_time": format_rfc3339(from_micros(row["expires_at"])),
        "max_expire_time": format_rfc3339(from_micros(row["max_expires_at"])),
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
        return micros(found) if found is not None else 0
    return micros(context.now) + parse_duration(text) * 1_000_000


def _limit(context: Context, usual: int) -> int:
    limit = whole_number(context.query.get("limit"), name="limit") or usual
    if limit > _MOST:
        raise InvalidRequest(f"limit is 1 to {_MOST}")
    return limit
