"""Certificate roles: listed, read, written, deleted; and what holds for the whole mount."""

from __future__ import annotations

import msgspec

from secrethub.engines.answers import Names, Nothing
from secrethub.engines.auth_methods import belongs
from secrethub.engines.bindings import Subject, end_bindings
from secrethub.engines.cert.role import (
    CertRole,
    CertRoleAnswer,
    WriteCertRole,
    changed,
    role_key,
    role_of,
    shown,
)
from secrethub.engines.cert.trust import check_trusted
from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.listing import PAGES
from secrethub.engines.listing import shown as shown_names
from secrethub.engines.token.unknown_policies import unknown_when_written
from secrethub.errors import NotFound, Stale
from secrethub.ids import new_uuid
from secrethub.storage.authority import CERT_ROLES, MOUNTS

_ROLE = "certs/{role}"


class ConfigAnswer(msgspec.Struct, frozen=True):
    """``disable_binding``: whether tokens are renewed without the certificate's key."""

    disable_binding: bool


class WriteConfig(msgspec.Struct, frozen=True):
    """``disable_binding``: whether tokens are renewed without the certificate's key."""

    disable_binding: bool | None = None


def cert_operations() -> tuple[Operation, ...]:
    """Return the operations on certificate roles and on the mount's settings."""
    return (
        Operation(
            name="cert.role.list",
            method="list",
            pattern="certs",
            handler=list_roles,
            response=Names,
            capability="list",
            query=PAGES,
            summary="List certificate roles.",
        ),
        Operation(
            name="cert.role.read",
            method="read",
            pattern=_ROLE,
            handler=read_role,
            response=CertRoleAnswer,
            capability="read",
            summary="Read a certificate role.",
        ),
        Operation(
            name="cert.role.write",
            method="write",
            pattern=_ROLE,
            handler=write_role,
            response=Nothing,
            capability="update",
            request=WriteCertRole,
            changes=True,
            exists=role_exists,
            plain=frozenset(WriteCertRole.__struct_fields__),
            summary="Write a certificate role.",
        ),
        Operation(
            name="cert.role.delete",
            method="delete",
            pattern=_ROLE,
            handler=delete_role,
            response=Nothing,
            capability="delete",
            changes=True,
            summary="Delete a certificate role. Its tokens cannot be renewed any more.",
        ),
        Operation(
            name="cert.config.read",
            method="read",
            pattern="config",
            handler=read_config,
            response=ConfigAnswer,
            capability="read",
            summary="Read the settings of the mount.",
        ),
        Operation(
            name="cert.config.write",
            method="write",
            pattern="config",
            handler=write_config,
            response=Nothing,
            capability="update",
            request=WriteConfig,
            changes=True,
            plain=frozenset({"disable_binding"}),
            summary="Write the settings of the mount.",
        ),
    )


def _key(context: Context) -> str:
    return role_key(context.mount_id, context.params["role"])


async def role_exists(context: Context) -> bool:
    """Tell whether a write would update rather than create."""
    return await context.core.authority.get(CERT_ROLES, _key(context)) is not None


async def list_roles(context: Context, _body: None) -> Answer:
    """Answer the names of the mount's roles."""
    rows, broken = await context.core.authority.everything(CERT_ROLES)
    for trouble in broken.values():
        raise trouble
    here = sorted(row.body["name"] for row in rows if belongs(context.mount_id, row.key))
    names = await shown_names(context, here)
    if not names:
        raise NotFound("no certificate roles")
    return Answer(data={"keys": names})


async def read_role(context: Context, _body: None) -> Answer:
    """Answer a role's settings."""
    row = await context.core.authority.get(CERT_ROLES, _key(context))
    if row is None:
        raise NotFound("no such certificate role")
    return Answer(data=shown(role_of(row)))


async def write_role(context: Context, body: WriteCertRole) -> Answer:
    """Write a role; the listeners ask for certificates of its authorities a moment later."""
    core, key = context.core, _key(context)
    async with core.authority.change(context.fence) as change:
        row = await change.get(CERT_ROLES, key)
        old = CertRole(name=context.params["role"], uuid=new_uuid()) if row is None else role_of(row)
        role = changed(old, body)
        await check_trusted(core, role)
        await change.put(CERT_ROLES, key, msgspec.to_builtins(role), expected_revision=None if row else 0)
    return Answer(warnings=await unknown_when_written(core, body, role.token_policies))


async def delete_role(context: Context, _body: None) -> Answer:
    """Delete a role with its bindings; that there is none is no error, as in Vault."""
    core, key = context.core, _key(context)
    if await core.authority.get(CERT_ROLES, key) is None:
        return EMPTY
    async with core.authority.change(context.fence) as change:
        await change.delete(CERT_ROLES, key)
        for failure in await end_bindings(change, [Subject("cert", key)]):
            core.metrics.integrity_failures.labels(failure.table).inc()
    return EMPTY


async def read_config(context: Context, _body: None) -> Answer:
    """Answer the mount's settings."""
    return Answer(data={"disable_binding": bool(context.mount_settings.get("disable_binding", False))})


async def write_config(context: Context, body: WriteConfig) -> Answer:
    """Change the mount's settings."""
    if body.disable_binding is None:
        return EMPTY
    async with context.core.authority.change(context.fence) as change:
        row = await change.get(MOUNTS, context.mount)
        if row is None:
            raise Stale("the mount is gone")
        settings = {**row.body.get("settings", {}), "disable_binding": body.disable_binding}
        await change.put(MOUNTS, context.mount, {**row.body, "settings": settings})
    return EMPTY
