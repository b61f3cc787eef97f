"""Key/value secrets, version 1: one value a path, which is any JSON object. No versions, no metadata.

Values lie in the same store as those of version 2, of which only the newest version is kept.
"""

from __future__ import annotations

import msgspec

from secrethub.auth.tokens import MAX_TTL
from secrethub.engines.answers import AnyObject, Names, Nothing
from secrethub.engines.engine import EMPTY, Answer, Context, Operation, WholeBody
from secrethub.engines.kv.metadata import delete, list_names
from secrethub.engines.kv.store import cache_of, exists, opened, path_of, write_version
from secrethub.engines.listing import PAGES
from secrethub.engines.values import decoded, encoded, pieces
from secrethub.errors import InvalidRequest, NotFound
from secrethub.wire.durations import parse_duration


class KvV1Engine:
    """Engine kind ``kv-v1``; clients know it as ``kv`` with the option ``version`` 1."""

    kind = "kv-v1"

    def operations(self) -> tuple[Operation, ...]:
        """Return what a key/value mount of version 1 offers."""
        return (
            Operation(
                name="kv.v1.list",
                method="list",
                pattern="{path?}",
                handler=list_names,
                response=Names,
                capability="list",
                subject="path",
                query=PAGES,
                summary="List what lies directly below a path.",
            ),
            Operation(
                name="kv.v1.read",
                method="read",
                pattern="{path*}",
                handler=read,
                response=AnyObject,
                capability="read",
                subject="path",
                summary="Read a secret.",
            ),
            Operation(
                name="kv.v1.write",
                method="write",
                pattern="{path*}",
                handler=write,
                response=Nothing,
                capability="update",
                request=WholeBody,
                changes=True,
                subject="path",
                exists=exists,
                summary="Write a secret.",
            ),
            Operation(
                name="kv.v1.delete",
                method="delete",
                pattern="{path*}",
                handler=delete,
                response=Nothing,
                capability="delete",
                changes=True,
                subject="path",
                summary="Remove a secret.",
            ),
        )

    def native_prefix(self, mount: str) -> str:
        """Native rules write the path as it is."""
        return mount


async def read(context: Context, _body: None) -> Answer:
    """Answer the value; its own ``ttl`` says when to ask again."""
    path = path_of(context)
    context.depends("kv", context.stored(path))
    found = await cache_of(context.core).newest(context, path)
    plain = None if found is None else opened(context.core, found)
    if plain is None:
        raise NotFound("no such secret")
    data = pieces(plain)
    return Answer(data=data, lease_duration=_duration(context, data))


def _duration(context: Context, data: dict[str, msgspec.Raw]) -> int:
    """Return for how long a value is good: what it says itself, else what holds for the mount."""
    given = data.get("ttl", data.get("lease"))
    if given is not None:
        try:
            return parse_duration(msgspec.json.decode(given))
        except InvalidRequest:
            pass  # it is somebody's value, not our setting
    return context.lease_ttl or MAX_TTL


async def write(context: Context, body: WholeBody) -> Answer:
    """Write the value instead of the one before."""
    if not body.fields:
        raise InvalidRequest("missing data fields")
    plain = encoded(decoded(context.body))
    answer = await write_version(context, lambda _: plain, keep=1)
    return msgspec.structs.replace(EMPTY, detail=answer.detail)
