"""Versions and their values: ``data/<path>`` and ``subkeys/<path>``."""

from __future__ import annotations

from typing import Any

import msgspec

from secrethub.engines.answers import Nothing
from secrethub.engines.engine import EMPTY, Answer, Context, Hidden, Operation
from secrethub.engines.kv.answers import SubkeysAnswer, VersionAnswer, VersionMetadata
from secrethub.engines.kv.cache import Found
from secrethub.engines.kv.merge_patch import merged, subkeys
from secrethub.engines.kv.store import (
    cache_of,
    change_state,
    check_writable,
    detail_of,
    exists,
    metadata_of,
    now_of,
    opened,
    path_of,
    write_version,
)
from secrethub.engines.listing import whole_number
from secrethub.engines.values import decoded, encoded, given_data
from secrethub.errors import InvalidRequest, NotFound
from secrethub.storage import kv


class WriteOptions(msgspec.Struct, frozen=True):
    """``cas``: the version that must be current; 0 for "must not exist"."""

    cas: int | None = None


class WriteData(Hidden, msgspec.Struct, frozen=True):
    """A new version, or a patch of the newest: any JSON object, and options."""

    data: dict[str, Any] | None = None
    options: WriteOptions | None = None


def data_operations() -> tuple[Operation, ...]:
    """Return the operations on values."""
    return (
        Operation(
            name="kv.read",
            method="read",
            pattern="data/{path*}",
            handler=read,
            at_hand=read_kept,
            response=VersionAnswer,
            capability="read",
            subject="path",
            query=("version",),
            summary="Read a version of a secret, by default the newest.",
        ),
        Operation(
            name="kv.write",
            method="write",
            pattern="data/{path*}",
            handler=write,
            response=VersionMetadata,
            capability="update",
            request=WriteData,
            changes=True,
            subject="path",
            exists=exists,
            plain=frozenset({"options.cas"}),
            summary="Write a new version of a secret.",
        ),
        Operation(
            name="kv.patch",
            method="patch",
            pattern="data/{path*}",
            handler=patch,
            response=VersionMetadata,
            capability="update",
            request=WriteData,
            changes=True,
            subject="path",
            plain=frozenset({"options.cas"}),
            summary="Change fields of the newest version into a new one (JSON merge patch).",
        ),
        Operation(
            name="kv.delete",
            method="delete",
            pattern="data/{path*}",
            handler=delete,
            response=Nothing,
            capability="delete",
            changes=True,
            subject="path",
            summary="Delete the newest version softly.",
        ),
        Operation(
            name="kv.subkeys",
            method="read",
            pattern="subkeys/{path*}",
            handler=read_subkeys,
            response=SubkeysAnswer,
            capability="read",
            subject="path",
            query=("version", "depth"),
            summary="Read the keys of a version without the values.",
        ),
    )


async def read(context: Context, _body: None) -> Answer:
    """Answer one version: its value and metadata."""
    head, version = await version_asked_for(context)
    metadata = metadata_of(head, version.version, version.state)
    return _answered(version, opened(context.core, (head, version)), metadata)


def read_kept(context: Context) -> Answer | None:
    """Answer the newest version if it is in memory, as :func:`read` does."""
    if context.query:
        return None
    key = context.stored(path_of(context))
    kept = cache_of(context.core).kept(key)
    if kept is None:
        return None
    head, version = kept.found
    if version is None:
        return None
    context.depends("kv", key)
    if kept.told is None:
        kept.told = msgspec.Raw(msgspec.json.encode(metadata_of(head, version.version, version.state)))
    plain = opened(context.core, kept.found, place=kept.place)
    return _answered(version, plain, kept.told)


def _answered(version: kv.Version, plain: bytes | None, metadata: object) -> Answer:
    return Answer(
        data={"data": None if plain is None else msgspec.Raw(plain), "metadata": metadata},
        missing=plain is None,
        detail={"version": version.version},
    )


async def read_subkeys(context: Context, _body: None) -> Answer:
    """Answer the keys of one version."""
    depth = whole_number(context.query.get("depth"), name="depth") or 0
    head, version = await version_asked_for(context)
    plain = opened(context.core, (head, version))
    return Answer(
        data={
            "subkeys": None if plain is None else subkeys(msgspec.json.decode(plain), depth),
            "metadata": metadata_of(head, version.version, version.state),
        },
        missing=plain is None,
        detail={"version": version.version},
    )


async def version_asked_for(context: Context) -> tuple[kv.Head, kv.Version]:
    """Return the version that the query names, by default the newest.

    Raises:
        NotFound: it never was, or is not kept any more.
    """
    path = path_of(context)
    context.depends("kv", context.stored(path))
    wanted = whole_number(context.query.get("version"))
    cache = cache_of(context.core)
    found = await (cache.newest(context, path) if wanted is None else cache.load(context, path, wanted))
    if found is None or found[1] is None:
        raise NotFound("no such secret")
    return found[0], found[1]


async def write(context: Context, body: WriteData) -> Answer:
    """Write a new version; answer its metadata."""
    if body.data is None:
        raise InvalidRequest('no data provided: the body must be {"data": {…}}')
    check_writable(context)
    plain = encoded(given_data(context))
    return await write_version(context, lambda _: plain, cas=cas_of(body.options))


async def patch(context: Context, body: WriteData) -> Answer:
    """Write a new version that is the newest with some fields changed; answer its metadata."""
    if body.data is None:
        raise InvalidRequest('no data provided: the body must be {"data": {…}}')
    changes = given_data(context)
    now = now_of(context)

    def compose(found: Found | None) -> bytes:
        plain = None if found is None else opened(context.core, found, now)
        if plain is None:
            raise NotFound("there is no version to patch")
        return encoded(merged(decoded(plain), changes))

    return await write_version(context, compose, cas=cas_of(body.options), creates=False)


def cas_of(options: WriteOptions | None) -> int | None:
    """Return the version that must be current, or None."""
    return None if options is None else options.cas


async def delete(context: Context, _body: None) -> Answer:
    """Delete the newest version softly; nothing there is no error."""
    now = now_of(context)

    def alter(head: kv.Head | None) -> kv.Head | None:
        state = None if head is None else head.state(head.current_version)
        if head is None or state is None or state.gone(now):
            return None
        return head.changed({head.current_version: state._replace(deleted_at=now)}, now)

    head = await change_state(context, alter)
    return EMPTY if head is None else Answer(detail=detail_of(head))
