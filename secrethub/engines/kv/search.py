"""Secrets found by a text in their path or custom metadata: ``search/<folder>``.

Only what a list would show the caller is found, and by its metadata only what he may read of that.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Any

import msgspec

from secrethub.crypto import aead
from secrethub.crypto.aead import Place
from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.kv.answers import FoundAnswer
from secrethub.engines.kv.rights import Rights
from secrethub.engines.kv.store import custom_metadata_of, folder_of, time_text
from secrethub.engines.listing import whole_number
from secrethub.errors import DecryptionFailed, InvalidRequest
from secrethub.storage import kv
from secrethub.storage.kv_search import ascii_lower, search_page

_LIMIT = 100
_MOST = 1000
_TEXT = 256
_TURN = 100
"""Secrets that are decided on before other requests have their turn."""
_BLOCK = 64


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


def page_end(context: Context, path: str) -> str:
    """Return where a page ends for the caller, who may know nothing of the path that was looked at last."""
    if not path:
        return ""
    plain = path.encode()
    # Neither does its length tell what it is.
    padded = plain.ljust((len(plain) // _BLOCK + 1) * _BLOCK, b"\0")
    return base64.urlsafe_b64encode(aead.seal(_page_key(context), 0, padded, _page_place(context))).decode()


def page_begin(context: Context) -> str:
    """Return the path behind which the page that is asked for begins, or nothing.

    Raises:
        InvalidRequest: ``after`` is nothing that :func:`page_end` made for this store.
    """
    given = context.query.get("after", "")
    if not given:
        return ""
    try:
        sealed = base64.b64decode(given.encode(), b"-_", validate=True)
        return aead.open_sealed(_page_key(context), sealed, _page_place(context)).rstrip(b"\0").decode()
    except (binascii.Error, DecryptionFailed) as exc:
        raise InvalidRequest("after is what an earlier page gave as next") from exc


def _page_key(context: Context) -> bytes:
    # None of the data keys: whoever asks chooses what is opened.
    return context.core.keyring().derived("kv-page")


def _page_place(context: Context) -> Place:
    return Place(table="kv_secrets", column="path", row=context.mount_id, version=0)


async def search(context: Context, _body: None) -> Answer:
    """Answer paths with what the caller may know of them; ``next`` is the next page's ``after``."""
    folder, text = folder_of(context), context.query.get("q", "")
    if len(text) > _TEXT:
        raise InvalidRequest(f"q is longer than {_TEXT} characters")
    context.depends("kv", context.stored(folder))
    limit, rights, core = page_size(context), await Rights.of(context), context.core
    async with core.database.read() as connection:
        heads, following = await search_page(
            connection, core.keyring(), context.mount_id, folder, text, after=page_begin(context)
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
        data={"keys": list(found), "key_info": found, "next": page_end(context, following)},
        detail={"count": len(found)},
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
