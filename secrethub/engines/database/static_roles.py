"""Static roles: written, read, listed, deleted; their passwords read and replaced."""

from __future__ import annotations

from typing import Any

import msgspec

from secrethub.clock import from_micros
from secrethub.engines.answers import Names, Nothing
from secrethub.engines.database.answers import StaticCredsAnswer, StaticRoleAnswer
from secrethub.engines.database.connection import used_connection
from secrethub.engines.database.fields import listed
from secrethub.engines.database.plugins import plugin_of
from secrethub.engines.database.replacing import alone, whatever_else_changes
from secrethub.engines.database.static_role import (
    FORM,
    StaticRole,
    ended,
    present_password,
    replacing_of,
    static_role_of,
)
from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.kept import kept_key, kept_names, kept_rows
from secrethub.engines.listing import PAGES
from secrethub.errors import InvalidRequest, NotFound
from secrethub.rotation.schedule import Schedule
from secrethub.storage.authority import ENGINE_ROLES, Change, Row
from secrethub.wire.durations import ZERO_TIME, format_rfc3339, parse_duration

_SHORTEST = 5
"""Seconds of the shortest period, as in Vault."""
_ROLE = "static-roles/{role}"


class WriteStaticRole(msgspec.Struct, frozen=True):
    """A static role as it is written. What is absent keeps what it was.

    Attributes:
        db_name: the connection by which the password is replaced.
        username: of a user that is there; not the connection's own.
        rotation_period: how often.
        rotation_schedule: instead of a period: five fields as in crontab(5).
        rotation_zone: time zone of that.
        rotation_statements: replace it, with ``{{name}}`` and ``{{password}}``; absent for what is usual.
        credential_type: ``password``.
    """

    db_name: str | None = None
    username: str | None = None
    rotation_period: str | int | None = None
    rotation_schedule: str | None = None
    rotation_zone: str | None = None
    rotation_statements: str | list[str] | None = None
    credential_type: str | None = None


def static_role_operations() -> tuple[Operation, ...]:
    """Return the operations on static roles."""
    return (
        Operation(
            name="database.static-role.list",
            method="list",
            pattern="static-roles",
            handler=list_static_roles,
            response=Names,
            capability="list",
            query=PAGES,
            summary="List static roles.",
        ),
        Operation(
            name="database.static-role.read",
            method="read",
            pattern=_ROLE,
            handler=read_static_role,
            response=StaticRoleAnswer,
            capability="read",
            summary="Read a static role, without its password.",
        ),
        Operation(
            name="database.static-role.write",
            method="write",
            pattern=_ROLE,
            handler=write_static_role,
            response=Nothing,
            capability="update",
            request=WriteStaticRole,
            changes=True,
            exists=static_role_exists,
            plain=frozenset(WriteStaticRole.__struct_fields__),
            summary="Take over the password of a user that is there, and replace it.",
        ),
        Operation(
            name="database.static-role.delete",
            method="delete",
            pattern=_ROLE,
            handler=delete_static_role,
            response=Nothing,
            capability="delete",
            changes=True,
            summary="Delete a static role; its user keeps the last password.",
        ),
        Operation(
            name="database.static-creds",
            method="read",
            pattern="static-creds/{role}",
            handler=read_password,
            response=StaticCredsAnswer,
            capability="read",
            summary="Read the password of a static role.",
        ),
        Operation(
            name="database.rotate-role",
            method="write",
            pattern="rotate-role/{role}",
            handler=rotate_role,
            response=Nothing,
            capability="update",
            changes=True,
            summary="Replace the password of a static role now.",
        ),
    )


async def list_static_roles(context: Context, _body: None) -> Answer:
    """Answer the names of static roles."""
    return Answer(data={"keys": await kept_names(context, ENGINE_ROLES, FORM)})


async def static_role_exists(context: Context) -> bool:
    """Tell whether a write would update rather than create."""
    return await context.core.authority.get(ENGINE_ROLES, _key(context)) is not None


async def read_static_role(context: Context, _body: None) -> Answer:
    """Answer a static role."""
    role = await _named(context)
    return Answer(
        data={
            "db_name": role.db_name,
            "username": role.username,
            **_schedule_of(role),
            "rotation_statements": list(role.rotation_statements),
            "last_vault_rotation": _instant(role),
            "credential_type": "password",
        }
    )


async def read_password(context: Context, _body: None) -> Answer:
    """Answer user and password of a static role."""
    role = await _named(context)
    return Answer(
        data={
            "username": role.username,
            "password": await present_password(context.core, role),
            "last_vault_rotation": _instant(role),
            **_schedule_of(role),
            "ttl": role.seconds_left(context.now),
        }
    )


async def write_static_role(context: Context, body: WriteStaticRole) -> Answer:
    """Write a static role; the password of a new one is replaced before this returns.

    Raises:
        InvalidRequest: a value cannot be, or the target refuses; a new role is not kept then.
        Unavailable: the target does not answer; a new role is kept, and its password is replaced later.
    """
    core, key = context.core, _key(context)
    async with alone(core, key):
        before = await core.authority.fetch(ENGINE_ROLES, key)
        role = await _changed(context, key, None if before is None else static_role_of(before), body)
        due = role.schedule.following(from_micros(role.rotated_at), context.now) if before else context.now
        async with core.authority.change(context.fence) as change:
            row = await change.put(
                ENGINE_ROLES,
                key,
                role.body(),
                owner=context.mount_id,
                expires_at=due,
                expected_revision=role.revision,
            )
        if before is not None:
            return EMPTY
        written = context.fence.written
        try:
            replacing = await replacing_of(core, row, written)
            await replacing.replace(None, ended(role, context.now))
        except InvalidRequest:
            await whatever_else_changes(core, lambda change: _delete(change, key), written)
            raise
    return EMPTY


async def delete_static_role(context: Context, _body: None) -> Answer:
    """Delete a static role; that there is none is no error."""
    core, key = context.core, _key(context)
    async with alone(core, key), core.authority.change(context.fence) as change:
        await change.delete(ENGINE_ROLES, key)
    return EMPTY


async def rotate_role(context: Context, _body: None) -> Answer:
    """Replace the password of a static role now.

    Raises:
        NotFound: there is no such role.
        InvalidRequest, Unavailable: it was not replaced, or whether it was is not known.
    """
    core, key = context.core, _key(context)
    async with alone(core, key):
        row = await core.authority.fetch(ENGINE_ROLES, key)
        if row is None:
            raise NotFound("no such role")
        replacing = await replacing_of(core, row, context.fence.written)
        await replacing.replace(context.fence, ended(static_role_of(row), context.now))
    return EMPTY


async def _delete(change: Change, key: str) -> None:
    await change.delete(ENGINE_ROLES, key)


async def _named(context: Context) -> StaticRole:
    row = await context.core.authority.get(ENGINE_ROLES, _key(context))
    if row is None:
        raise NotFound("no such role")
    return static_role_of(row)


def _key(context: Context) -> str:
    return kept_key(context.mount_id, FORM, context.params["role"])


def _instant(role: StaticRole) -> str:
    return format_rfc3339(from_micros(role.rotated_at)) if role.rotated_at else ZERO_TIME


def _schedule_of(role: StaticRole) -> dict[str, Any]:
    if role.schedule.every:
        return {"rotation_period": role.schedule.every}
    return {"rotation_schedule": role.schedule.cron, "rotation_zone": role.schedule.zone}


async def _changed(context: Context, key: str, old: StaticRole | None, body: WriteStaticRole) -> StaticRole:
    """Return the role with what was given.

    Raises:
        InvalidRequest: what is wrong with it.
    """
    if body.credential_type not in {None, "", "password"}:
        raise InvalidRequest("credential_type is password")
    base = old or StaticRole(key=key, db_name="", username="", schedule=Schedule())
    db_name, username = body.db_name or base.db_name, body.username or base.username
    if not db_name or not username:
        raise InvalidRequest("db_name and username are needed")
    if old is not None and (db_name, username) != (old.db_name, old.username):
        raise InvalidRequest("db_name and username of a static role cannot be changed: write another one")
    statements = base.rotation_statements
    if body.rotation_statements is not None:
        statements = listed(body.rotation_statements)
    changed = msgspec.structs.replace(
        base,
        db_name=db_name,
        username=username,
        schedule=_schedule(base.schedule, body),
        rotation_statements=statements,
    )
    connection = await used_connection(context.core, context.mount_id, db_name)
    plugin_of(connection.plugin_name).check_rotation(statements)
    await replacing_of(
        context.core, Row(table=ENGINE_ROLES.name, key=key, revision=0, body=changed.body()), []
    )
    for row in await kept_rows(context.core.authority, ENGINE_ROLES, context.mount_id, FORM):
        other = static_role_of(row)
        if row.key != key and (other.db_name, other.username) == (db_name, username):
            raise InvalidRequest(f"the password of this user is the static role {other.name}'s")
    return changed


def _schedule(old: Schedule, body: WriteStaticRole) -> Schedule:
    every = old.every if body.rotation_period is None else parse_duration(body.rotation_period)
    cron = old.cron if body.rotation_schedule is None else body.rotation_schedule
    if body.rotation_period is not None and body.rotation_schedule is None:
        cron = ""
    if body.rotation_schedule is not None and body.rotation_period is None:
        every = 0
    schedule = Schedule(every=every, cron=cron, zone=body.rotation_zone or old.zone)
    schedule.check()
    if not schedule.automatic or (every and every < _SHORTEST):
        raise InvalidRequest(f"rotation_period, at least {_SHORTEST} seconds, or rotation_schedule is needed")
    return schedule
