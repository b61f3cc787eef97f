"""What all operations on secrets share: finding one, changing its state, writing a version.

A change is one transaction under the fence of its decision, conditional on the head that it was made
from; whoever comes second looks again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Collection
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec
from asyncpg import Connection

from secrethub.clock import from_micros, micros
from secrethub.crypto.aead import Place
from secrethub.engines.engine import Answer, Context
from secrethub.engines.kv.cache import Found, SecretCache, is_behind
from secrethub.engines.kv.rules import Settings, check_cas, mount_settings, new_head, with_version
from secrethub.engines.runtime import Core
from secrethub.errors import InvalidRequest, NotFound, Stale, TooLarge, Unavailable
from secrethub.ids import new_uuid
from secrethub.storage import kv, kv_ends
from secrethub.storage.fence import hold_shared
from secrethub.storage.kv_writer import put_within
from secrethub.wire.durations import ZERO_TIME, format_rfc3339

_MAX_VALUE = 1 << 20
_RESERVED = "dynamic"
"""Names below it in ``secrets/`` are those of dynamic engines, which no key may shadow."""
_ATTEMPTS = 20
_OPTIMISTIC = 3
"""Attempts at a version before the row is locked for it: who is slower than others may lose any number."""

Compose: TypeAlias = Callable[[Found | None], bytes]
"""Makes the value of a new version from what is there."""
Alter: TypeAlias = Callable[[kv.Head | None], kv.Head | None]
"""Gives a head as it shall be, or None when there is nothing to do."""


def cache_of(core: Core) -> SecretCache:
    """Return what this process keeps of secrets."""
    cache = core.engine_state.get("kv")
    if not isinstance(cache, SecretCache):
        cache = core.engine_state["kv"] = SecretCache(core)
    return cache


def path_of(context: Context) -> str:
    """Return the secret's path below its mount."""
    return context.params["path"]


def folder_of(context: Context) -> str:
    """Return the folder that the request names, with a trailing slash, or nothing for the whole mount."""
    path = context.params.get("path", "").strip("/")
    return path + "/" if path else ""


def settings_of(context: Context) -> Settings:
    """Return the settings of the mount."""
    return mount_settings(context.mount_settings)


def now_of(context: Context) -> int:
    """Return the present, as secrets' states have it."""
    return micros(context.core.clock.now())


@lru_cache(maxsize=8192)
def time_text(at: int) -> str:
    """Return an instant as it is shown."""
    return format_rfc3339(from_micros(at)) if at else ZERO_TIME


def metadata_of(head: kv.Head, version: int, state: kv.State) -> dict[str, Any]:
    """Return what is told of one version beside its value."""
    return {
        "created_time": time_text(state.created_at),
        "custom_metadata": custom_metadata_of(head),
        "deletion_time": time_text(state.deleted_at) if state.deleted_at else "",
        "destroyed": state.destroyed,
        "version": version,
    }


def custom_metadata_of(head: kv.Head) -> msgspec.Raw | None:
    """Return a secret's custom metadata as it is written into an answer."""
    return msgspec.Raw(head.custom_metadata.encode()) if head.custom_metadata else None


def opened(core: Core, found: Found, now: int | None = None, place: Place | None = None) -> bytes | None:
    """Return the value of a version, or None where there is none any more.

    Args:
        core: this process.
        found: the version and its secret's head.
        now: by default the present.
        place: where the value is at home, if that is known already.
    """
    head, version = found
    if version is None or version.sealed is None:
        return None
    state = version.state
    # Few versions end, and so few have to know the time.
    ends = state.destroyed or state.deleted_at
    if ends and state.gone(micros(core.clock.now()) if now is None else now):
        return None
    return core.keyring().open(version.sealed, place or kv.value_place(head.id, version.version))


def detail_of(head: kv.Head, **more: Any) -> dict[str, Any]:
    """Return what the ledger says of a change, beside the row that was written."""
    return {"version": head.current_version, **more}


async def exists(context: Context) -> bool:
    """Tell whether a write would update rather than create; that it creates is not to change."""
    if await cache_of(context.core).newest(context, path_of(context)) is not None:
        return True
    context.depends("kv", context.stored(path_of(context)))
    return False


def check_writable(context: Context) -> None:
    """Check that a secret may lie at the path that a request names, as :func:`check_unreserved` does."""
    check_unreserved(context.mount, path_of(context))


def check_unreserved(mount: str, path: str) -> None:
    """Check that a secret may lie at a path of a mount.

    Raises:
        InvalidRequest: it belongs to somebody else.
    """
    if mount == "secret/" and path.partition("/")[0] == _RESERVED:
        raise InvalidRequest(f"secrets/{_RESERVED}/ belongs to the dynamic engines; choose another path")


def _check_decision(context: Context, *, there: bool) -> None:
    """Check that what was allowed, to create or to update, is what is about to happen.

    Raises:
        Stale: somebody else made the secret, or removed it, meanwhile.
    """
    if there == (("kv", context.stored(path_of(context))) in context.touched):
        raise Stale("the secret was made or removed meanwhile")


async def write_version(
    context: Context,
    compose: Compose,
    *,
    cas: int | None = None,
    base: int | None = None,
    keep: int = 0,
    creates: bool = True,
    detail: dict[str, Any] | None = None,
) -> Answer:
    """Write a new version; answer its metadata.

    Args:
        context: of the request.
        compose: makes the value; called again when somebody else was faster.
        cas: the version that must be the newest.
        base: the version that ``compose`` is given, by default the newest.
        keep: versions to keep whatever the settings say.
        creates: whether a secret may be made, for which there is a right of its own.
        detail: for the ledger, beside what is always there.

    Raises:
        NotFound: there is none, and none may be made.
        CasMismatch, InvalidRequest: the secret is not as the caller thinks.
        TooLarge: the value is.
        Stale: the decision is older than the database.
        Unavailable: it could not be written.
    """
    core, path, key = context.core, path_of(context), context.stored(path_of(context))
    settings, now = settings_of(context), now_of(context)
    cache = cache_of(core)

    def next_version(found: Found | None) -> tuple[kv.Head, bytes]:
        if found is None and not creates:
            raise NotFound("no such secret")
        if creates:
            _check_decision(context, there=found is not None)
        before = found[0] if found else new_head(context.mount_id, path, new_uuid(), now)
        check_cas(before, settings, cas)
        plain = compose(found)
        if len(plain) > _MAX_VALUE:
            raise TooLarge("the secret is larger than 1 MiB")
        head = with_version(before, settings, now, first=found is None, keep=keep)
        return head, core.keyring().seal(plain, kv.value_place(head.id, head.current_version))

    async with contextlib.AsyncExitStack() as turns:
        found = await (cache.newest(context, path) if base is None else cache.load(context, path, base))
        for attempt in range(_OPTIMISTIC):
            head, sealed = next_version(found)
            position = core.caches.position
            result = await cache.writer.put(core.keyring(), context.fence, head, sealed, key)
            if result == "done":
                cache.written(key, head, sealed, position)
                core.feed.notify()
                break
            if result == "stale":
                raise Stale("authority moved on")
            # Somebody else wrote first: look again, one writer of this process after the other.
            if attempt == 0:
                await turns.enter_async_context(cache.turn(key))
            found = await cache.load(context, path, base)
        else:

            async def act(connection: Connection[Any], _: kv.Head | None) -> bool:
                nonlocal head
                keyring = core.keyring()
                locked = await kv.load(connection, keyring, context.mount_id, path, base)
                head, sealed = next_version(locked)
                return await put_within(connection, keyring, context.fence, head, sealed, key) == "done"

            await _under_lock(context, act)
    context.fence.written.append(kv.written(core.keyring(), head))
    return Answer(
        data=metadata_of(head, head.current_version, head.versions[-1]),
        detail=detail_of(head, **(detail or {})),
    )


async def change_state(
    context: Context, alter: Alter, *, decided: bool = False, destroyed: Collection[int] = ()
) -> kv.Head | None:
    """Change a secret's head in one transaction; return it, or None when there was nothing to do.

    Args:
        context: of the request.
        alter: what becomes of the head that is there, or of none.
        decided: whether to create and to update are different rights here.
        destroyed: versions whose values are removed.

    Raises:
        Stale: the decision is older than the database.
        IntegrityFailure: the head is not authentic.
    """
    keyring, key = context.core.keyring(), context.stored(path_of(context))
    result: kv.Head | None = None

    async def act(connection: Connection[Any], old: kv.Head | None) -> bool:
        nonlocal result
        if decided:
            _check_decision(context, there=old is not None)
        result = alter(old)
        if result is None:
            return True
        if old is None:
            return await kv.insert_head(connection, keyring, result, key)
        await kv.update_head(connection, keyring, result, key)
        if destroyed:
            await kv.remove_values(connection, result.id, destroyed)
        return True

    await _under_lock(context, act)
    if result is not None:
        context.fence.written.append(kv.written(keyring, result))
    return result


async def remove(context: Context) -> kv.Head | None:
    """Remove a secret with all its versions and its metadata; return what it was, or None.

    Raises:
        Stale: the decision is older than the database.
        IntegrityFailure: the head is not authentic.
    """
    keyring = context.core.keyring()
    removed: kv.Head | None = None

    async def act(connection: Connection[Any], head: kv.Head | None) -> bool:
        nonlocal removed
        removed = head
        if head is not None:
            await kv.remove_head(connection, keyring, head, context.stored(path_of(context)))
        return True

    await _under_lock(context, act)
    if removed is not None:
        context.fence.written.append(kv_ends.written(removed.id, removed.revision))
    return removed


async def _under_lock(
    context: Context, act: Callable[[Connection[Any], kv.Head | None], Awaitable[bool]]
) -> None:
    """Do something to a secret whose head is locked, until it succeeds."""
    core, path = context.core, path_of(context)
    cache = cache_of(core)
    for attempt in range(_ATTEMPTS):
        floor = cache.floor(context.stored(path))
        async with core.database.write() as connection:
            await hold_shared(connection, context.fence)
            head = await kv.lock_head(connection, core.keyring(), context.mount_id, path)
            behind = is_behind(head, floor)
            done = not behind and await act(connection, head)
        if behind:
            await cache.catch_up(path, attempt)
        if done:
            core.feed.notify()
            return
    raise Unavailable("too many writers at this path")
