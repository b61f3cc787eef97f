"""The secret that is rotated: read as it is now, and written in the transaction that moves its rotation on.

So a version that a rotation made and the rotation's row never tell different stories, whatever dies when.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from secrethub.clock import micros
from secrethub.engines.engine import Fence
from secrethub.engines.kv.cache import Found, is_behind
from secrethub.engines.kv.rules import mount_settings, new_head, with_version
from secrethub.engines.kv.store import cache_of, opened
from secrethub.engines.mounts import Mount
from secrethub.engines.rotators.rotator import Plan
from secrethub.engines.runtime import Core
from secrethub.engines.values import decoded, encoded
from secrethub.errors import Stale, Unavailable
from secrethub.ids import new_uuid
from secrethub.storage import kv
from secrethub.storage.kv_writer import put_within


@dataclass(frozen=True, kw_only=True, slots=True)
class Current:
    """A secret now.

    Attributes:
        version: the newest one's number, 0 when there is no secret.
        fields: of the newest version; empty when it is deleted or there is none.
    """

    version: int
    fields: Mapping[str, Any] = field(repr=False)


async def read_secret(core: Core, mount: Mount, path: str) -> Current:
    """Return a secret as the database has it.

    Raises:
        IntegrityFailure: it is not authentic.
        Unavailable: the database does not answer, or shows less than this process knows of.
    """
    floor = cache_of(core).floor(announced_as(mount.uuid, path))
    async with core.database.read() as connection:
        found = await kv.load(connection, core.keyring(), mount.uuid, path)
    return _current(core, found, floor)


async def write_secret(
    core: Core,
    connection: asyncpg.Connection[Any],
    fence: Fence,
    mount: Mount,
    path: str,
    alter: Callable[[Mapping[str, Any]], dict[str, Any] | None],
) -> tuple[int, list[dict[str, Any]]]:
    """Write a new version; return its number, and what the ledger keeps of it.

    Args:
        core: unsealed.
        connection: in a transaction that holds ``fence``.
        fence: what it rests on.
        mount: of the secret.
        path: below it.
        alter: gives the fields from those that are there; None to write nothing.

    Raises:
        IntegrityFailure, Unavailable: as :func:`read_secret`.
        Stale: somebody else made the secret meanwhile.
    """
    keyring, key = core.keyring(), announced_as(mount.uuid, path)
    floor = cache_of(core).floor(key)
    head = await kv.lock_head(connection, keyring, mount.uuid, path)
    found = None if head is None else await kv.load(connection, keyring, mount.uuid, path)
    current = _current(core, found, floor)
    fields = alter(current.fields)
    if fields is None:
        return current.version, []
    now = micros(core.clock.now())
    before = head or new_head(mount.uuid, path, new_uuid(), now)
    after = with_version(before, mount_settings(mount.settings), now, first=head is None)
    place = kv.value_place(after.id, after.current_version)
    sealed = keyring.seal(encoded(fields), place)
    if await put_within(connection, keyring, fence, after, sealed, key) != "done":
        raise Stale("the secret was made meanwhile")
    return after.current_version, [kv.written(keyring, after)]


def announced_as(store: str, path: str) -> str:
    """Return the key under which changes of a secret are announced.

    Args:
        store: UUID of its mount.
        path: below that.
    """
    return f"{store}/{path}"


def promoted(plan: Plan, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a secret's fields with those that were planned; the others stay as they are by now."""
    return {**fields, **plan.fields}


def reverted(plan: Plan, fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a secret's fields without those that were planned; None when somebody has replaced them."""
    if any(name not in fields or fields[name] != value for name, value in plan.fields.items()):
        return None
    kept = {name: value for name, value in fields.items() if name not in plan.fields}
    return {**kept, **plan.before}


def _current(core: Core, found: Found | None, floor: int) -> Current:
    if is_behind(None if found is None else found[0], floor):
        raise Unavailable("the secret is not as new as it is known to be")
    if found is None:
        return Current(version=0, fields={})
    plain = opened(core, found)
    fields = {} if plain is None else decoded(plain)
    return Current(version=found[0].current_version, fields=fields)
