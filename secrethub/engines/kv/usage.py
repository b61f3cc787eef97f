"""What the ledger says of secrets: ``readers/<path>``, who read one, and ``unused/<folder>``.

Who does what is not told to everybody who may read a secret: both need ``sudo`` at its path.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from secrethub.audit.event import Entry
from secrethub.clock import micros
from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.kv.answers import FoundAnswer, ReadersAnswer
from secrethub.engines.kv.rights import Rights
from secrethub.engines.kv.search import page_begin, page_end, page_size
from secrethub.engines.kv.store import folder_of, path_of, time_text
from secrethub.errors import InvalidRequest, PermissionDenied
from secrethub.ids import is_uuid
from secrethub.storage.archive import pruned_until
from secrethub.storage.kv_usage import END, FOREVER, Position, Stay, last_reads, reads_of
from secrethub.wire.durations import parse_duration

_READING = ("data/", "compare/")
"""What stands before a secret's path, below the mount, in requests that disclose it."""
_UNUSED = 30 * 24 * 3600
_TURN = 100


def usage_operations() -> tuple[Operation, ...]:
    """Return the operations on what the ledger says of secrets."""
    return (
        Operation(
            name="kv.readers",
            method="read",
            pattern="readers/{path*}",
            handler=readers,
            response=ReadersAnswer,
            capability="read",
            subject="path",
            sudo=True,
            query=("limit", "after"),
            summary="Tell who read a secret, when and from where.",
        ),
        *(
            Operation(
                name="kv.unused",
                method="read",
                pattern=pattern,
                handler=unused,
                response=FoundAnswer,
                capability="list",
                subject="path",
                sudo=True,
                query=("since", "limit", "after"),
                summary="List the secrets below a path that nobody has read for a time.",
            )
            for pattern in ("unused/{path?}", "unused")
        ),
    )


async def readers(context: Context, _body: None) -> Answer:
    """Answer reads of a secret, the newest first; ``next`` is the next page's ``after``."""
    path, limit, core = path_of(context), page_size(context), context.core
    if not (await Rights.of(context)).may_know_of(path):
        raise PermissionDenied(f"no policy allows list at {context.mount}metadata/{path}")
    after = _position(context.query.get("after", ""))
    stays = await _stays(context)
    async with core.database.read() as connection:
        gone = await pruned_until(connection)
        entries = await reads_of(connection, core.keyring(), stays, path, after=after, limit=limit)
    following = ""
    if len(entries) == limit:
        last = entries[-1]
        following = f"{last.at}.{last.stream}.{last.number}"
    return Answer(
        data={"reads": [_shown(entry) for entry in entries], "next": following},
        warnings=(f"reads until {time_text(gone)} are in the ledger's archive",) if gone else (),
        detail={"count": len(entries)},
    )


async def _stays(context: Context) -> list[Stay]:
    """Return where the ledger has reads of the store's secrets: at several paths if it moved."""
    found = await context.core.mounts.by_uuid(context.mount_id)
    mount = None if found is None else found[0]
    places = [(context.mount, 0 if mount is None else mount.enabled_at, FOREVER)]
    places += () if mount is None else mount.earlier
    return [Stay(path + start, since, until) for path, since, until in places for start in _READING]


def _shown(entry: Entry) -> dict[str, Any]:
    detail = msgspec.json.decode(entry.detail)
    return {
        "time": time_text(entry.at),
        "actor": entry.actor,
        "client": entry.client,
        "door": entry.door,
        "operation": entry.operation,
        "version": detail.get("answer", {}).get("version"),
        "request_id": entry.request_id,
    }


def _position(text: str) -> Position:
    if not text:
        return END
    at, _, rest = text.partition(".")
    stream, _, number = rest.rpartition(".")
    numbers = all(part.isascii() and part.isdigit() and len(part) <= 18 for part in (at, number))
    if not numbers or not is_uuid(stream):
        raise InvalidRequest("after is what an earlier page gave as next")
    return Position(int(at), stream, int(number))


async def unused(context: Context, _body: None) -> Answer:
    """Answer secrets that are older than a time and were not read for it, with their last read."""
    folder, limit, core = folder_of(context), page_size(context), context.core
    seconds = parse_duration(context.query.get("since", _UNUSED))
    before = micros(core.clock.now()) - seconds * 1_000_000
    rights, stays = await Rights.of(context), await _stays(context)
    async with core.database.read() as connection:
        gone = await pruned_until(connection)
        page, following = await last_reads(
            connection,
            core.keyring(),
            context.mount_id,
            folder,
            stays,
            after=page_begin(context),
        )
    found: dict[str, dict[str, str | None]] = {}
    for count, (head, last) in enumerate(page, start=1):
        if len(found) == limit:
            following = next(reversed(found))
            break
        if max(head.created_at, last) <= before and _may_be_told(rights, head.path):
            found[head.path] = {
                "last_read": time_text(last) if last else None,
                "created_time": time_text(head.created_at),
                "updated_time": time_text(head.updated_at),
            }
        if count % _TURN == 0:
            await asyncio.sleep(0)
    return Answer(
        data={"keys": list(found), "key_info": found, "next": page_end(context, following)},
        warnings=(f"reads until {time_text(gone)} are in the ledger's archive and do not count",)
        if before < gone
        else (),
        detail={"count": len(found)},
    )


def _may_be_told(rights: Rights, path: str) -> bool:
    return rights.may_know_of(path) and rights.may("read", "readers", path, sudo=True)
