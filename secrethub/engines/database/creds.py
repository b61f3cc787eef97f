"""Users made for somebody, and their end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from secrethub.engines.database.connection import used_connection
from secrethub.engines.database.passwords import new_password
from secrethub.engines.database.plugins import plugin_of
from secrethub.engines.database.role import check_allowed, find_role
from secrethub.engines.database.target import NewUser, Statements
from secrethub.engines.database.targets import targets_of
from secrethub.engines.database.usernames import cluster_tag, owner_name, username
from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.leasing import Held, Made, Plan, issue
from secrethub.engines.mounts import Mount
from secrethub.engines.runtime import Core
from secrethub.errors import InvalidRequest, Unavailable
from secrethub.ids import base62
from secrethub.leases.lease import Lease


class UserAnswer(msgspec.Struct, frozen=True):
    """A user that was made."""

    username: str
    password: str


def creds_operations() -> tuple[Operation, ...]:
    """Return the operations that make users."""
    return tuple(
        Operation(
            name="database.creds",
            method=method,
            pattern="creds/{role}",
            handler=make_user,
            capability="read",
            response=UserAnswer,
            changes=True,
            summary="Make a user of a role, for as long as a lease.",
        )
        for method in ("read", "write")
    )


async def make_user(context: Context, _body: None) -> Answer:
    """Make a user of a role, and answer its name and password.

    Raises:
        InvalidRequest: there is no such role, it may not use its connection, or the target refuses.
        Unavailable: the target does not answer, or is left alone for a moment.
    """
    core, name = context.core, context.params["role"]
    role = await find_role(core, context.mount_id, name)
    if role is None:
        raise InvalidRequest(f"unknown role: {name}")
    connection = await used_connection(core, context.mount_id, role.db_name)
    check_allowed(connection, name)
    # Before there is an intent: an outage shall not leave one for each request that it refused.
    targets_of(core).health_of(connection).refuse_while_away()
    longest = plugin_of(connection.plugin_name).longest_name
    password = await new_password(core, connection.password_policy)

    planned: dict[str, Any] = {}

    def intend(lease: Lease) -> Mapping[str, Any]:
        identity = context.identity
        planned["username"] = username(
            connection.username_template,
            role=name,
            display_name="" if identity is None else identity.name,
            tag=cluster_tag(core.keys.cluster_id),
            marker=lease.marker,
            longest=longest,
            unix_time=int(context.now.timestamp()),
            random=base62,
        )
        planned["statements"] = msgspec.to_builtins(msgspec.structs.replace(role.statements, creation=()))
        return planned

    async def act(lease: Lease) -> Made:
        user = NewUser(name=planned["username"], password=password, until=lease.until)
        async with targets_of(core).use(connection) as target:
            await target.create(user, role.statements)
        return Made(data={"username": user.name, "password": password.reveal()}, kept=planned)

    plan = Plan(role=name, target=role.db_name, ttl=role.default_ttl, max_ttl=role.max_ttl)
    return await issue(context, plan, intend, act)


async def end_users(
    core: Core, mount: Mount, target: str, held: Sequence[Held], *, half_done: bool = False
) -> Mapping[str, str]:
    """End users of one target, and return why some could not be, by the ids of their leases.

    Args:
        core: unsealed.
        mount: whose leases they are.
        target: the connection.
        held: the leases, or intents.
        half_done: they are intents.

    Raises:
        InvalidRequest: the connection is configured no more, or the target refuses.
        Unavailable: the target does not answer.
    """
    connection = await used_connection(core, mount.uuid, target)
    alike: dict[Statements, dict[str, str]] = {}
    for one in held:
        owner = owner_name(core.keys.cluster_id, mount.uuid, one.lease.role)
        statements = msgspec.structs.replace(await _statements(core, mount, one), owner=owner)
        alike.setdefault(statements, {})[one.data["username"]] = one.lease.id
    reasons: dict[str, str] = {}
    async with targets_of(core).use(connection) as server:
        end = server.take_back if half_done else server.drop
        for statements, leases in alike.items():
            found = await end(list(leases), statements)
            reasons.update({leases[name]: why for name, why in found.items()})
    return reasons


async def extend_user(core: Core, mount: Mount, held: Held, until: datetime) -> None:
    """Let a user live until an instant.

    Raises:
        InvalidRequest: it is gone, or the connection is configured no more.
        Unavailable: the target does not answer.
    """
    connection = await used_connection(core, mount.uuid, held.lease.target)
    try:
        async with targets_of(core).use(connection) as target:
            await target.extend(held.data["username"], until, await _statements(core, mount, held))
    except TimeoutError as exc:
        # It may live longer now than its lease, whose end nevertheless ends it.
        raise Unavailable(f"{connection.name} did not answer in time") from exc


async def _statements(core: Core, mount: Mount, held: Held) -> Statements:
    """Return what ends or renews a lease: as its role says now, or said when it was made if it is gone."""
    role = await find_role(core, mount.uuid, held.lease.role)
    if role is not None and role.db_name == held.lease.target:
        return msgspec.structs.replace(role.statements, creation=())
    return msgspec.convert(held.data["statements"], Statements)
