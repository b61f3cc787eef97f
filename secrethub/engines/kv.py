"""Key/value secrets, version 2: every write makes a version, versions are sealed one by one.

Vault's paths below the mount: ``data/<path>`` and ``metadata/<path>``. The flat view ``secrets/`` comes
here too, rewritten before any decision.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.kv_cache import SecretCache, check_floor
from secrethub.engines.listing import without_denied
from secrethub.engines.rights import circumstances
from secrethub.engines.runtime import Core
from secrethub.errors import CasMismatch, InvalidRequest, NotFound, Stale, TooLarge, Unavailable
from secrethub.ids import new_uuid
from secrethub.storage import kv
from secrethub.storage.fence import hold_shared
from secrethub.wire.durations import ZERO_TIME, format_rfc3339

_MAX_VERSIONS = 10
_MAX_VALUE = 1 << 20
_MAX_LIST = 10_000
_RESERVED = "dynamic"
"""Names below it in ``secrets/`` are those of dynamic engines, which no key may shadow."""
_ATTEMPTS = 20


class WriteOptions(msgspec.Struct, frozen=True):
    """``cas``: the version that must be current; 0 for "must not exist"."""

    cas: int | None = None


class WriteData(msgspec.Struct, frozen=True):
    """A new version: any JSON object, and options."""

    data: dict[str, Any] | None = None
    options: WriteOptions | None = None


class KvEngine:
    """Engine kind ``kv``."""

    kind = "kv"

    def operations(self) -> tuple[Operation, ...]:
        """Return what a key/value mount offers."""
        return (
            Operation(
                name="kv.read",
                method="read",
                pattern="data/{path*}",
                handler=self.read,
                capability="read",
                subject="path",
                summary="Read a version of a secret, by default the newest.",
            ),
            Operation(
                name="kv.write",
                method="write",
                pattern="data/{path*}",
                handler=self.write,
                capability="update",
                request=WriteData,
                changes=True,
                subject="path",
                exists=self.exists,
                plain=frozenset({"options.cas"}),
                summary="Write a new version of a secret.",
            ),
            Operation(
                name="kv.delete",
                method="delete",
                pattern="data/{path*}",
                handler=self.delete,
                capability="delete",
                changes=True,
                subject="path",
                summary="Delete the newest version softly.",
            ),
            Operation(
                name="kv.list",
                method="list",
                pattern="metadata/{path?}",
                handler=self.list,
                capability="list",
                subject="path",
                summary="List what lies directly below a path.",
            ),
            Operation(
                name="kv.list",
                method="list",
                pattern="metadata",
                handler=self.list,
                capability="list",
                subject="path",
                summary="List what lies at the top.",
            ),
            Operation(
                name="kv.metadata",
                method="read",
                pattern="metadata/{path*}",
                handler=self.metadata,
                capability="read",
                subject="path",
                summary="Read a secret's versions without their values.",
            ),
        )

    def native_prefix(self, mount: str) -> str:
        """Native rules write ``secrets/…`` for the store at ``secret/``."""
        return "secrets/" if mount == "secret/" else mount

    def _cache(self, core: Core) -> SecretCache:
        cache = core.engine_state.get("kv")
        if not isinstance(cache, SecretCache):
            cache = core.engine_state["kv"] = SecretCache(core)
        return cache

    async def exists(self, context: Context) -> bool:
        """Tell whether a write would update rather than create; that it creates is not to change."""
        found = await self._cache(context.core).newest(context, _path(context))
        if found is not None and found[0].current_version > 0:
            return True
        context.depends("kv", context.mount + _path(context))
        return False

    async def read(self, context: Context, _body: None) -> Answer:
        """Answer one version: its value and metadata."""
        path = _path(context)
        context.depends("kv", context.mount + path)
        wanted = _version(context.query.get("version"))
        cache = self._cache(context.core)
        found = await (cache.newest(context, path) if wanted is None else cache.load(context, path, wanted))
        if found is None or found[1] is None:
            raise NotFound("no such secret")
        head, version = found[0], found[1]
        metadata = _metadata(version.version, version.state)
        if version.state.deleted_at or version.sealed is None:
            return Answer(
                data={"data": None, "metadata": metadata}, missing=True, detail={"version": version.version}
            )
        plain = context.core.keyring().open(version.sealed, kv.value_place(head.id, version.version))
        return Answer(
            data={"data": msgspec.Raw(plain), "metadata": metadata}, detail={"version": version.version}
        )

    async def write(self, context: Context, body: WriteData) -> Answer:
        """Write a new version; answer its metadata."""
        if body.data is None:
            raise InvalidRequest('no data provided: the body must be {"data": {…}}')
        if context.mount == "secret/" and _path(context).partition("/")[0] == _RESERVED:
            raise InvalidRequest(f"secrets/{_RESERVED}/ belongs to the dynamic engines; choose another path")
        plain = msgspec.json.encode(body.data)
        if len(plain) > _MAX_VALUE:
            raise TooLarge("the secret is larger than 1 MiB")
        cas = body.options.cas if body.options is not None else None
        core, path = context.core, _path(context)
        now = int(core.clock.now().timestamp() * 1_000_000)
        cache = self._cache(core)
        async with contextlib.AsyncExitStack() as turns:
            found = await cache.newest(context, path)
            for attempt in range(_ATTEMPTS):
                if found is not None and ("kv", context.mount + path) in context.touched:
                    # Allowed to create, and somebody else did: to update is another right.
                    raise Stale("the secret was made meanwhile")
                head = _next_head(context, path, found[0] if found is not None else None, now)
                _check_cas(head, cas)
                sealed = core.keyring().seal(plain, kv.value_place(head.id, head.current_version))
                result = await cache.writer.put(
                    core.keyring(), context.fence, head, sealed, context.mount + path
                )
                if result == "done":
                    core.feed.notify()
                    return Answer(
                        data=_metadata(head.current_version, head.versions[-1]), detail=_detail(core, head)
                    )
                if result == "stale":
                    raise Stale("authority moved on")
                # Somebody else wrote first: look again, one writer of this process after the other.
                if attempt == 0:
                    await turns.enter_async_context(cache.turn(context.mount + path))
                found = await cache.load(context, path)
        raise Unavailable("too many writers at this path")

    async def delete(self, context: Context, _body: None) -> Answer:
        """Delete the newest version softly; nothing there is no error."""
        core, path = context.core, _path(context)
        keyring = core.keyring()
        now = int(core.clock.now().timestamp() * 1_000_000)
        floor = self._cache(core).floor(context.mount + path)
        async with core.database.write() as connection:
            await hold_shared(connection, context.fence)
            head = await kv.load_head(connection, keyring, context.mount_id, path, lock=True)
            check_floor(path, head, floor)
            state = None if head is None else head.state(head.current_version)
            if head is None or state is None or state.deleted_at or state.destroyed:
                return EMPTY
            head = head.changed(head.current_version, state._replace(deleted_at=now), now)
            await kv.update_head(connection, keyring, head, context.mount + path)
        core.feed.notify()
        return Answer(detail=_detail(core, head))

    async def list(self, context: Context, _body: None) -> Answer:
        """List names, folders with a trailing slash; ``after`` and ``limit`` page through them."""
        path = context.params.get("path", "").strip("/")
        prefix = path + "/" if path else ""
        context.depends("kv", context.mount + prefix)
        limit = _version(context.query.get("limit"), name="limit") or _MAX_LIST
        after = context.query.get("after", "")
        names: list[str] = []
        while len(names) < limit:
            async with context.core.database.read() as connection:
                page = await kv.children(
                    connection, context.mount_id, prefix, after=after, limit=min(limit, _MAX_LIST)
                )
            names += await self._shown(context, prefix, page)
            if len(page) < min(limit, _MAX_LIST):
                break
            after = page[-1]
        if not names:
            raise NotFound("")
        return Answer(data={"keys": names[:limit]}, detail={"count": len(names[:limit])})

    async def _shown(self, context: Context, prefix: str, names: Sequence[str]) -> Sequence[str]:
        assert context.identity is not None
        return await without_denied(
            names,
            await context.core.policies.compiled(context.identity.policies),
            folder=f"{context.mount}metadata/{prefix}",
            native_folder=self.native_prefix(context.mount) + prefix,
            when=circumstances(context.identity, context.now, context.client_address),
        )

    async def metadata(self, context: Context, _body: None) -> Answer:
        """Answer which versions exist."""
        path = _path(context)
        context.depends("kv", context.mount + path)
        core = context.core
        floor = self._cache(core).floor(context.mount + path)
        async with core.database.read() as connection:
            head = await kv.load_head(connection, core.keyring(), context.mount_id, path)
        check_floor(path, head, floor)
        if head is None:
            raise NotFound("no such secret")
        return Answer(
            data={
                "cas_required": head.cas_required,
                "created_time": _time(head.created_at),
                "current_version": head.current_version,
                "custom_metadata": None,
                "delete_version_after": "0s",
                "max_versions": head.max_versions,
                "oldest_version": head.oldest_version,
                "updated_time": _time(head.updated_at),
                "versions": {
                    str(number): {
                        "created_time": _time(state.created_at),
                        "deletion_time": _time(state.deleted_at) if state.deleted_at else "",
                        "destroyed": state.destroyed,
                    }
                    for number, state in enumerate(head.versions, start=head.oldest_version)
                },
            }
        )


def _path(context: Context) -> str:
    return context.params["path"]


def _version(text: str | None, *, name: str = "version") -> int | None:
    if text is None or text in {"", "0"}:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InvalidRequest(f"{name} must be a positive whole number")
    return int(text)


def _next_head(context: Context, path: str, old: kv.Head | None, now: int) -> kv.Head:
    if old is None:
        return kv.Head(
            store=context.mount_id,
            path=path,
            id=new_uuid(),
            revision=1,
            current_version=1,
            oldest_version=1,
            max_versions=0,
            cas_required=False,
            created_at=now,
            updated_at=now,
            versions=(kv.State(created_at=now),),
        )
    current = old.current_version + 1
    oldest = max(old.oldest_version, current - (old.max_versions or _MAX_VERSIONS) + 1)
    return replace(
        old,
        revision=old.revision + 1,
        current_version=current,
        oldest_version=oldest,
        updated_at=now,
        versions=(*old.versions[oldest - old.oldest_version :], kv.State(created_at=now)),
    )


def _detail(core: Core, head: kv.Head) -> dict[str, Any]:
    """Return what the ledger keeps of a change."""
    authentication = kv.head_mac(core.keyring().derived("kv"), head).hex()
    row = {"table": "kv_secrets", "key": head.id, "revision": head.revision, "mac": authentication}
    return {"version": head.current_version, "written": [row]}


def _check_cas(head: kv.Head, cas: int | None) -> None:
    if cas is None:
        if head.cas_required:
            raise InvalidRequest("check-and-set parameter required for this call")
        return
    if cas != head.current_version - 1:
        raise CasMismatch


def _metadata(version: int, state: kv.State) -> dict[str, Any]:
    return {
        "created_time": _time(state.created_at),
        "custom_metadata": None,
        "deletion_time": _time(state.deleted_at) if state.deleted_at else "",
        "destroyed": state.destroyed,
        "version": version,
    }


@lru_cache(maxsize=8192)
def _time(micros: int) -> str:
    if micros == 0:
        return ZERO_TIME
    return format_rfc3339(datetime.fromtimestamp(micros / 1_000_000, UTC))
