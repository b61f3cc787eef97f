"""Two versions side by side, and the way back to one: ``compare/<path>`` and ``rollback/<path>``.

Vault has neither. So whoever asks also needs what Vault's rules demand for the same end: to read, or to
update, ``data/<path>``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from secrethub.engines.engine import Answer, Context, Hidden, Operation
from secrethub.engines.kv.answers import ComparisonAnswer, VersionMetadata
from secrethub.engines.kv.cache import Found
from secrethub.engines.kv.data import WriteOptions, cas_of
from secrethub.engines.kv.rights import Rights
from secrethub.engines.kv.store import (
    cache_of,
    metadata_of,
    now_of,
    opened,
    path_of,
    write_version,
)
from secrethub.engines.listing import whole_number
from secrethub.engines.values import pieces, sorted_piece
from secrethub.errors import InvalidRequest, NotFound


class RollbackRequest(Hidden, msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``version``: whose value becomes the newest version's."""

    version: int
    options: WriteOptions | None = None


def history_operations() -> tuple[Operation, ...]:
    """Return the operations on a secret's history."""
    return (
        Operation(
            name="kv.compare",
            method="read",
            pattern="compare/{path*}",
            handler=compare,
            response=ComparisonAnswer,
            capability="read",
            subject="path",
            query=("from", "to"),
            summary="Compare two versions of a secret, by default the newest and the one before it.",
        ),
        Operation(
            name="kv.rollback",
            method="write",
            pattern="rollback/{path*}",
            handler=rollback,
            response=VersionMetadata,
            capability="update",
            request=RollbackRequest,
            changes=True,
            subject="path",
            plain=frozenset({"version", "options.cas"}),
            strict=True,
            summary="Write the value of an older version as the newest version.",
        ),
    )


async def compare(context: Context, _body: None) -> Answer:
    """Answer which fields were added, removed and changed from one version to another, with their values."""
    (await Rights.of(context)).require("read", "data", path_of(context))
    path = path_of(context)
    context.depends("kv", context.stored(path))
    after = whole_number(context.query.get("to"), name="to")
    before = whole_number(context.query.get("from"), name="from")
    new, new_metadata = await _version(context, after)
    if before is None:
        before = new_metadata["version"] - 1
        if not before:
            raise NotFound("there is no version before the first")
    old, old_metadata = await _version(context, before)
    common = old.keys() & new.keys()
    changed = {name for name in common if sorted_piece(old[name]) != sorted_piece(new[name])}
    return Answer(
        data={
            "from": old_metadata,
            "to": new_metadata,
            "added": {name: value for name, value in new.items() if name not in common},
            "removed": {name: value for name, value in old.items() if name not in common},
            "changed": {
                name: {"from": old[name], "to": value} for name, value in new.items() if name in changed
            },
            "unchanged": sorted(common - changed),
        },
        detail={"version": new_metadata["version"], "from": old_metadata["version"]},
    )


async def _version(context: Context, number: int | None) -> tuple[dict[str, msgspec.Raw], dict[str, Any]]:
    """Return a version's value and metadata.

    Raises:
        NotFound: it has no value, or none any more.
    """
    found = await cache_of(context.core).load(context, path_of(context), number)
    plain = None if found is None else opened(context.core, found)
    if found is None or found[1] is None or plain is None:
        raise NotFound("no such version")
    return pieces(plain), metadata_of(found[0], found[1].version, found[1].state)


async def rollback(context: Context, body: RollbackRequest) -> Answer:
    """Write an older version's value as the newest version; answer its metadata."""
    if not 1 <= body.version < 1 << 31:
        raise InvalidRequest("version must be a positive whole number")
    (await Rights.of(context)).require("update", "data", path_of(context))
    now = now_of(context)

    def compose(found: Found | None) -> bytes:
        plain = None if found is None else opened(context.core, found, now)
        if plain is None:
            raise NotFound("this version has no value")
        return plain

    return await write_version(
        context,
        compose,
        cas=cas_of(body.options),
        base=body.version,
        creates=False,
        detail={"from": body.version},
    )
