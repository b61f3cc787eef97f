"""Secrets found by a text in their path or custom metadata: ``search/<folder>``.

Only what a list would show the caller is found, and by its metadata only what he may read of that.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.kv.answers import FoundAnswer
from secrethub.engines.kv.rights import Rights
from secrethub.engines.kv.store import custom_metadata_of, folder_of, time_text
from secrethub.engines.listing import whole_number
from secrethub.errors import InvalidRequest
from secrethub.storage import kv
from secrethub.storage.kv_search import ascii_lower, search_page

_LIMIT = 100
_MOST = 1000
_TEXT = 256
_TURN = 100
"""Secrets that are decided on before other requests have their turn."""


def search_operations() -> tuple[Operation, ...]:
    """Return the operations that find secrets."""
    return tuple(
        Operation(
            name="kv.search",
            method="read",
            pattern=pattern,
            handler=search,
            response=FoundAnswer,
            capability="list",
            subject="path",
            query=("q", "limit", "after"),
            summary="Find secrets below a path by a text in their paths or custom metadata.",
        )
        for pattern in ("search/{path?}", "search")
    )


def page_size(context: Context) -> int:
    """Return how many results are asked for."""
    return min(whole_number(context.query.get("limit"), name="limit") or _LIMIT, _MOST)


async def search(context: Context, _body: None) -> Answer:
    """Answer paths with what the caller may know of them; ``next`` is the next page's ``after``."""
    folder, text = folder_of(context), context.query.get("q", "")
    if len(text) > _TEXT:
        raise InvalidRequest(f"q is longer than {_TEXT} characters")
    context.depends("kv", context.stored(folder))
    limit, rights, core = page_size(context), await Rights.of(context), context.core
    async with core.database.read() as connection:
        heads, following = await search_page(
            connection, core.keyring(), context.mount_id, folder, text, after=context.query.get("after", "")
        )
    found: dict[str, dict[str, Any]] = {}
    for count, head in enumerate(heads, start=1):
        if len(found) == limit:
            following = next(reversed(found))
            break
        told = _told(head, folder, ascii_lower(text), rights)
        if told is not None:
            found[head.path] = told
        if count % _TURN == 0:
            await asyncio.sleep(0)
    return Answer(
        data={"keys": list(found), "key_info": found, "next": following}, detail={"count": len(found)}
    )


def _told(head: kv.Head, folder: str, text: str, rights: Rights) -> dict[str, Any] | None:
    """Return what the caller is told of a secret, or None when he is told nothing."""
    if not rights.may_know_of(head.path):
        return None
    readable = rights.may("read", "metadata", head.path)
    matched = []
    if text in ascii_lower(head.path[len(folder) :]):
        matched.append("path")
    if readable and head.custom_metadata:
        labels = msgspec.json.decode(head.custom_metadata, type=dict[str, str])
        if any(text in ascii_lower(part) for label in labels.items() for part in label):
            matched.append("custom_metadata")
    if not matched:
        return None
    told: dict[str, Any] = {"matched": matched}
    if readable:
        told |= {
            "current_version": head.current_version,
            "updated_time": time_text(head.updated_at),
            "custom_metadata": custom_metadata_of(head),
        }
    return told
