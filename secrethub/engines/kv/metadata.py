"""What is known of secrets beside their values: ``metadata/<path>``, lists too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from secrethub.engines.answers import Names, Nothing
from secrethub.engines.engine import EMPTY, Answer, Context, Hidden, Operation, WholeBody
from secrethub.engines.kv.answers import MetadataAnswer
from secrethub.engines.kv.merge_patch import merged
from secrethub.engines.kv.rules import checked_metadata, checked_versions, duration_text, new_head
from secrethub.engines.kv.store import (
    Alter,
    cache_of,
    change_state,
    check_writable,
    custom_metadata_of,
    detail_of,
    exists,
    folder_of,
    now_of,
    path_of,
    remove,
    settings_of,
    time_text,
)
from secrethub.engines.listing import PAGES, page, without_denied
from secrethub.errors import InvalidRequest, NotFound
from secrethub.ids import new_uuid
from secrethub.storage import kv
from secrethub.wire.durations import parse_duration

_PAGE = 10_000
"""Names that one look at the database gives."""
_IGNORED = '"cas_required" set to false, but is mandated by backend config. This value will be ignored.'
_PLAIN = frozenset({"max_versions", "cas_required", "delete_version_after"})


class MetadataRequest(Hidden, msgspec.Struct, frozen=True):
    """Settings of one secret; what is absent stays as it is.

    Attributes:
        max_versions: versions that are kept, 0 for the mount's setting.
        cas_required: whether every write must say which version it follows.
        delete_version_after: how long new versions are readable, 0 for the mount's setting.
        custom_metadata: text by text, instead of all that was there.
    """

    max_versions: int | None = None
    cas_required: bool | None = None
    delete_version_after: str | int | None = None
    custom_metadata: dict[str, Any] | None = None


def metadata_operations() -> tuple[Operation, ...]:
    """Return the operations on metadata."""
    return (
        Operation(
            name="kv.list",
            method="list",
            pattern="metadata/{path?}",
            handler=list_names,
            response=Names,
            capability="list",
            subject="path",
            query=PAGES,
            summary="List what lies directly below a path.",
        ),
        Operation(
            name="kv.list",
            method="list",
            pattern="metadata",
            handler=list_names,
            response=Names,
            capability="list",
            subject="path",
            query=PAGES,
            summary="List what lies at the top.",
        ),
        Operation(
            name="kv.metadata",
            method="read",
            pattern="metadata/{path*}",
            handler=read,
            response=MetadataAnswer,
            capability="read",
            subject="path",
            summary="Read a secret's versions and settings without its values.",
        ),
        Operation(
            name="kv.metadata.write",
            method="write",
            pattern="metadata/{path*}",
            handler=write,
            response=Nothing,
            capability="update",
            request=MetadataRequest,
            changes=True,
            subject="path",
            exists=exists,
            plain=_PLAIN,
            summary="Write a secret's settings and custom metadata.",
        ),
        Operation(
            name="kv.metadata.patch",
            method="patch",
            pattern="metadata/{path*}",
            handler=patch,
            response=Nothing,
            capability="update",
            request=WholeBody,
            changes=True,
            subject="path",
            plain=_PLAIN,
            summary="Change some of a secret's settings and custom metadata (JSON merge patch).",
        ),
        Operation(
            name="kv.metadata.delete",
            method="delete",
            pattern="metadata/{path*}",
            handler=delete,
            response=Nothing,
            capability="delete",
            changes=True,
            subject="path",
            summary="Remove a secret with all its versions and metadata.",
        ),
    )


async def list_names(context: Context, _body: None) -> Answer:
    """List names, folders with a trailing slash; ``after`` and ``limit`` page through them."""
    prefix = folder_of(context)
    context.depends("kv", context.stored(prefix))
    limit, after = page(context)
    names: list[str] = []
    size = min(limit or _PAGE, _PAGE)
    while limit is None or len(names) < limit:
        async with context.core.database.read() as connection:
            found = await kv.children(connection, context.mount_id, prefix, after=after, limit=size)
        names += await _shown(context, prefix, found)
        if len(found) < size:
            break
        # However few are asked for, many that are denied are not looked at one by one.
        after, size = found[-1], min(2 * size, _PAGE)
    if not names:
        raise NotFound("")
    return Answer(data={"keys": names[:limit]}, detail={"count": len(names[:limit])})


async def _shown(context: Context, prefix: str, names: Sequence[str]) -> Sequence[str]:
    assert context.identity is not None
    return await without_denied(
        names,
        await context.core.policies.compiled(context.identity),
        folder=f"{context.path.removesuffix(prefix.rstrip('/')).rstrip('/')}/{prefix}",
        native_folder=native_prefix(context.mount) + prefix,
        when=context.when,
    )


def native_prefix(mount: str) -> str:
    """Native rules write ``secrets/…`` for the store at ``secret/``."""
    return "secrets/" if mount == "secret/" else mount


async def read(context: Context, _body: None) -> Answer:
    """Answer which versions exist, and what holds for the secret."""
    path = path_of(context)
    context.depends("kv", context.stored(path))
    found = await cache_of(context.core).load(context, path)
    if found is None:
        raise NotFound("no such secret")
    head = found[0]
    return Answer(
        data={
            "cas_required": head.cas_required,
            "created_time": time_text(head.created_at),
            "current_version": head.current_version,
            "custom_metadata": custom_metadata_of(head),
            "delete_version_after": duration_text(head.delete_version_after),
            "max_versions": head.max_versions,
            # Before anything was removed Vault has 0 here.
            "oldest_version": head.oldest_version if head.oldest_version > 1 else 0,
            "updated_time": time_text(head.updated_at),
            "versions": {
                str(number): {
                    "created_time": time_text(state.created_at),
                    "deletion_time": time_text(state.deleted_at) if state.deleted_at else "",
                    "destroyed": state.destroyed,
                }
                for number, state in enumerate(head.versions, start=head.oldest_version)
            },
        }
    )


async def write(context: Context, body: MetadataRequest) -> Answer:
    """Write settings and custom metadata; where there is no secret, one without versions is made."""
    check_writable(context)
    changes = _checked(
        {
            name: value
            for name in MetadataRequest.__struct_fields__
            if (value := getattr(body, name)) is not None
        }
    )
    if not changes:
        return EMPTY
    now = now_of(context)

    def alter(head: kv.Head | None) -> kv.Head:
        if head is None:
            made = new_head(context.mount_id, path_of(context), new_uuid(), now)
            return replace(made, **changes)
        return replace(head, revision=head.revision + 1, updated_at=now, **changes)

    return await _changed(context, alter, body.cas_required, decided=True)


async def patch(context: Context, body: WholeBody) -> Answer:
    """Change some settings and fields of the custom metadata; null takes one back."""
    unknown = body.fields.keys() - MetadataRequest.__struct_fields__
    given = {name: value for name, value in body.fields.items() if name not in unknown}
    custom = given.pop("custom_metadata", {})
    if custom is not None and not isinstance(custom, dict):
        raise InvalidRequest("custom_metadata must be an object")
    neutral = {"max_versions": 0, "cas_required": False, "delete_version_after": 0}
    changes = _checked({name: neutral[name] if value is None else value for name, value in given.items()})
    now = now_of(context)

    def alter(head: kv.Head | None) -> kv.Head:
        if head is None:
            raise NotFound("no such secret")
        present = msgspec.json.decode(head.custom_metadata) if head.custom_metadata else {}
        metadata = checked_metadata({} if custom is None else merged(present, custom))
        return replace(head, revision=head.revision + 1, updated_at=now, custom_metadata=metadata, **changes)

    answer = await _changed(context, alter, changes.get("cas_required"))
    if not unknown:
        return answer
    warning = f"unknown fields were ignored: {', '.join(map(repr, sorted(unknown)))}"[:400]
    return msgspec.structs.replace(answer, warnings=(*answer.warnings, warning))


async def _changed(
    context: Context, alter: Alter, cas_required: bool | None, *, decided: bool = False
) -> Answer:
    head = await change_state(context, alter, decided=decided)
    assert head is not None
    ignored = cas_required is False and settings_of(context).cas_required
    return Answer(warnings=(_IGNORED,) if ignored else (), detail=detail_of(head))


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as a head has them.

    Raises:
        InvalidRequest: one is not what it should be.
    """
    checked: dict[str, Any] = {}
    for name, value in given.items():
        if name == "custom_metadata":
            checked[name] = checked_metadata(value)
        elif name == "delete_version_after":
            checked[name] = parse_duration(value)
        elif name == "cas_required":
            checked[name] = _boolean(value)
        else:
            checked[name] = checked_versions(_whole(value))
    return checked


def _boolean(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise InvalidRequest("cas_required is true or false")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequest("max_versions is a whole number")
    return value


async def delete(context: Context, _body: None) -> Answer:
    """Remove the secret with everything of it; nothing there is no error."""
    head = await remove(context)
    if head is None:
        return EMPTY
    return Answer(detail=detail_of(head))
