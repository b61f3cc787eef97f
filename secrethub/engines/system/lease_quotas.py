"""``sys/quotas/lease-count``: how many leases there may be (``engines/lease_quotas.py``)."""

from __future__ import annotations

import msgspec

from secrethub.engines.answers import Names, Nothing
from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.lease_quotas import LEASE_COUNT, LeaseQuota, bound, lease_quota_of, told
from secrethub.engines.leasing import leased_kinds
from secrethub.engines.listing import PAGES, shown
from secrethub.engines.system.quotas import check_named, place, quota_key
from secrethub.errors import InvalidRequest, NotFound
from secrethub.storage.authority import QUOTAS
from secrethub.storage.lease_makings import leases_within

_ONE = "quotas/lease-count/{name}"
_MOST = 256
_MAX_LEASES = 1_000_000_000


class WriteLeaseQuota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At most ``max_leases`` below ``path``, of ``role`` alone if there is one; what is absent stays.

    ``type`` and ``inheritable`` are what Vault's clients send, and say nothing here.
    """

    max_leases: int | None = None
    path: str | None = None
    role: str | None = None
    name: str | None = None
    type: str = ""
    inheritable: bool | None = None


class LeaseQuotaAnswer(msgspec.Struct, frozen=True):
    """A lease-count quota; ``counter`` is how many leases it counts now."""

    name: str
    type: str
    path: str
    role: str
    max_leases: int
    counter: int
    inheritable: bool


def lease_quota_operations() -> tuple[Operation, ...]:
    """Return the operations on lease-count quotas."""
    return (
        Operation(
            name="sys.quotas.lease-count.list",
            method="list",
            pattern="quotas/lease-count",
            handler=list_quotas,
            capability="list",
            response=Names,
            query=PAGES,
            summary="List lease-count quotas.",
        ),
        Operation(
            name="sys.quotas.lease-count.read",
            method="read",
            pattern=_ONE,
            handler=read_quota,
            capability="read",
            response=LeaseQuotaAnswer,
            summary="Read a lease-count quota, and how many leases it counts.",
        ),
        Operation(
            name="sys.quotas.lease-count.write",
            method="write",
            pattern=_ONE,
            handler=write_quota,
            capability="update",
            response=Nothing,
            request=WriteLeaseQuota,
            changes=True,
            exists=quota_exists,
            plain=frozenset(WriteLeaseQuota.__struct_fields__),
            summary="Limit how many leases there may be.",
        ),
        Operation(
            name="sys.quotas.lease-count.delete",
            method="delete",
            pattern=_ONE,
            handler=delete_quota,
            capability="delete",
            changes=True,
            response=Nothing,
            summary="Lift a lease-count quota.",
        ),
    )


async def quota_exists(context: Context) -> bool:
    """Tell whether a write would update rather than create."""
    return await context.core.authority.get(QUOTAS, quota_key(context, LEASE_COUNT)) is not None


async def list_quotas(context: Context, _body: None) -> Answer:
    """Answer the names of lease-count quotas."""
    quotas = (await context.core.quotas.load()).leases
    names = await shown(context, sorted(quota.name for quota in quotas))
    if not names:
        raise NotFound("no lease-count quotas")
    return Answer(data={"keys": names})


async def read_quota(context: Context, _body: None) -> Answer:
    """Answer a lease-count quota."""
    core = context.core
    row = await core.authority.get(QUOTAS, quota_key(context, LEASE_COUNT))
    if row is None:
        raise NotFound("no such lease-count quota")
    quota = lease_quota_of(row)
    mounts = {mount.path: mount.uuid for mount in await core.mounts.load()}
    async with core.database.read() as connection:
        counter = await leases_within(connection, bound(quota, mounts.get(quota.mount, "")))
    return Answer(data=told(quota, counter))


async def write_quota(context: Context, body: WriteLeaseQuota) -> Answer:
    """Write a lease-count quota. Leases that are there already stay, however many they are."""
    core, key = context.core, quota_key(context, LEASE_COUNT)
    check_named(context, body.name)
    if body.type not in {"", "lease-count"}:
        raise InvalidRequest("type is lease-count")
    async with core.authority.change(context.fence) as change:
        row = await change.get(QUOTAS, key)
        old = None if row is None else lease_quota_of(row)
        path = old.path if old is not None and body.path is None else body.path or ""
        wanted, mount, kind = await place(context, path)
        if kind and kind not in leased_kinds(core):
            raise InvalidRequest(f"{mount} leases nothing out")
        role = body.role if body.role is not None else old.role if old is not None else ""
        if role and (not wanted or wanted != mount):
            raise InvalidRequest("a role is of a secrets engine, and path is its mount")
        most = body.max_leases if body.max_leases is not None else 0 if old is None else old.max_leases
        if not 1 <= most <= _MAX_LEASES:
            raise InvalidRequest(f"max_leases is from 1 to {_MAX_LEASES}")
        quota = LeaseQuota(name=context.params["name"], path=wanted, mount=mount, role=role, max_leases=most)
        others = [other for other in (await core.quotas.load()).leases if other.name != quota.name]
        for other in others:
            if (other.path, other.role) == (quota.path, quota.role):
                raise InvalidRequest(f"a quota with the same path and role exists: {other.name}")
        if len(others) >= _MOST:
            raise InvalidRequest(f"at most {_MOST} lease-count quotas can be written")
        await change.put(QUOTAS, key, msgspec.to_builtins(quota))
    return EMPTY


async def delete_quota(context: Context, _body: None) -> Answer:
    """Lift a lease-count quota; that there is none is no error."""
    async with context.core.authority.change(context.fence) as change:
        await change.delete(QUOTAS, quota_key(context, LEASE_COUNT))
    return EMPTY
