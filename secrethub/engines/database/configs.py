"""Connections to targets: written, read, listed, deleted, tried.

Passwords go in and never come out. A connection that leases still need is not deleted: they could not be
ended without it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from secrethub.engines.answers import Names, Nothing
from secrethub.engines.database.answers import ConnectionAnswer
from secrethub.engines.database.connection import (
    FORM,
    Connection,
    checked,
    connection_of,
    find_connection,
)
from secrethub.engines.database.fields import listed, role_patterns
from secrethub.engines.database.passwords import check_policy
from secrethub.engines.database.plugins import plugin_of
from secrethub.engines.database.replacing import NEXT, PRESENT, alone
from secrethub.engines.database.targets import targets_of
from secrethub.engines.database.usernames import check_template
from secrethub.engines.engine import EMPTY, Answer, Context, Hidden, Operation
from secrethub.engines.kept import kept_key, kept_names
from secrethub.engines.listing import PAGES
from secrethub.engines.reconciling import interval
from secrethub.engines.target_health import HealthOfTarget
from secrethub.errors import InvalidRequest, Unavailable
from secrethub.storage import leases
from secrethub.storage.authority import ENGINE_CONFIGS
from secrethub.storage.lease_makings import GRACE_SECONDS
from secrethub.wire.durations import parse_duration

_CONFIG = "config/{name}"
_HEALTH = "health/{name}"
_OWN = (
    "connection_url",
    "username",
    "password",
    "tls_ca",
    "tls_certificate",
    "private_key",
    "password_authentication",
    "scram_iterations",
    "host",
    "port",
    "tls",
    "ca_cert",
    "persistence_mode",
)
"""What belongs to a kind of database."""


_PLACE = ("connection_url", "username", "tls_ca")
"""What decides whom a password is shown to."""


_LEFT = (
    "leases of this connection could not be ended without it: revoke them first; "
    f"one that was not finished ends by itself, within {GRACE_SECONDS:.0f} seconds or so"
)
_MOVED = (
    "there are leases of this connection: they are ended at the new place from now on; "
    "if that is another server their users stay at the old one"
)


_AS_GIVEN = (
    "verify_connection",
    "max_open_connections",
    "password_policy",
    "username_template",
    "remove_strays",
)
"""What is kept as it came."""


class WriteConnection(Hidden, msgspec.Struct, frozen=True):
    """A connection as it is written. What is absent keeps what it was.

    Attributes:
        plugin_name: kind of database.
        connection_url: where it is, with ``{{username}}`` and ``{{password}}``.
        username: ours at the target.
        password: of that; never read back.
        tls_ca: PEM of who signs the target's certificate.
        tls_certificate: PEM of ours.
        private_key: of that; never read back.
        password_authentication: ``scram-sha-256``.
        scram_iterations: of the verifiers of users; 4096.
        host: of Redis, instead of ``connection_url``.
        port: likewise.
        tls: whether to encrypt to ``host``.
        ca_cert: another name of ``tls_ca``, for Redis.
        persistence_mode: how Redis keeps users: ``ACLFILE``, ``REWRITE`` or ``NONE``.
        allowed_roles: names, ``*`` for any characters.
        verify_connection: try it before it is kept.
        max_open_connections: at once, of each process.
        max_connection_lifetime: how long one is kept; 0 for no bound.
        root_rotation_statements: replace our own password.
        password_policy: name of the policy of passwords.
        username_template: how users are called.
        stray_check: between two searches for users without a lease; 0 for none, usually an hour.
        remove_strays: remove those, instead of only telling of them.
    """

    plugin_name: str | None = None
    connection_url: str | None = None
    username: str | None = None
    password: str | None = None
    tls_ca: str | None = None
    tls_certificate: str | None = None
    private_key: str | None = None
    password_authentication: str | None = None
    scram_iterations: str | None = None
    host: str | None = None
    port: int | None = None
    tls: bool | None = None
    ca_cert: str | None = None
    persistence_mode: str | None = None
    allowed_roles: list[str] | None = None
    verify_connection: bool | None = None
    max_open_connections: int | None = None
    max_connection_lifetime: str | int | None = None
    root_rotation_statements: str | list[str] | None = None
    password_policy: str | None = None
    username_template: str | None = None
    stray_check: str | int | None = None
    remove_strays: bool | None = None


def config_operations() -> tuple[Operation, ...]:
    """Return the operations on connections."""
    return (
        Operation(
            name="database.config.list",
            method="list",
            pattern="config",
            handler=list_connections,
            response=Names,
            capability="list",
            query=PAGES,
            summary="List connections.",
        ),
        Operation(
            name="database.config.read",
            method="read",
            pattern=_CONFIG,
            handler=read_connection,
            response=ConnectionAnswer,
            capability="read",
            summary="Read a connection, without its password.",
        ),
        Operation(
            name="database.config.write",
            method="write",
            pattern=_CONFIG,
            handler=write_connection,
            response=Nothing,
            capability="update",
            request=WriteConnection,
            changes=True,
            exists=connection_exists,
            plain=frozenset(WriteConnection.__struct_fields__)
            - {"password", "private_key", "connection_url"},
            summary="Configure a connection to a database.",
        ),
        Operation(
            name="database.config.delete",
            method="delete",
            pattern=_CONFIG,
            handler=delete_connection,
            response=Nothing,
            capability="delete",
            changes=True,
            summary="Delete a connection that no lease needs.",
        ),
        Operation(
            name="database.reset",
            method="write",
            pattern="reset/{name}",
            handler=reset,
            response=Nothing,
            capability="update",
            changes=True,
            summary="Close the connections to a database and connect anew.",
        ),
        Operation(
            name="database.health.read",
            method="read",
            pattern=_HEALTH,
            handler=read_health,
            response=HealthOfTarget,
            capability="read",
            summary="Read how a database was found lately by this node.",
        ),
        Operation(
            name="database.health.check",
            method="write",
            pattern=_HEALTH,
            handler=check_health,
            response=HealthOfTarget,
            capability="update",
            changes=True,
            summary="Find out now whether a database answers.",
        ),
    )


async def list_connections(context: Context, _body: None) -> Answer:
    """Answer the names of connections."""
    return Answer(data={"keys": await kept_names(context, ENGINE_CONFIGS, FORM)})


async def read_connection(context: Context, _body: None) -> Answer:
    """Answer a connection as it was written, without what is secret of it."""
    found = await _named(context)
    return Answer(
        data={
            "plugin_name": found.plugin_name,
            "plugin_version": "",
            "connection_details": {
                **found.options,
                "max_open_connections": found.max_open_connections,
                "max_connection_lifetime": found.max_connection_lifetime,
                "username_template": found.username_template,
                "stray_check": found.stray_check,
                "remove_strays": found.remove_strays,
            },
            "allowed_roles": list(found.allowed_roles),
            "verify_connection": found.verify_connection,
            "root_credentials_rotate_statements": list(found.root_rotation_statements),
            "password_policy": found.password_policy,
        }
    )


async def connection_exists(context: Context) -> bool:
    """Tell whether a write would update rather than create."""
    return await context.core.authority.get(ENGINE_CONFIGS, _key(context)) is not None


async def write_connection(context: Context, body: WriteConnection) -> Answer:
    """Keep a connection, once it was tried."""
    core, key = context.core, _key(context)
    async with alone(core, key):
        return await _written(context, key, body)


async def _written(context: Context, key: str, body: WriteConnection) -> Answer:
    core = context.core
    row = await core.authority.fetch(ENGINE_CONFIGS, key)
    old = None if row is None else connection_of(row)
    made = await _changed(context, key, old, body)
    if made.verify_connection:
        target = plugin_of(made.plugin_name).open(made.setup(core))
        try:
            await target.check()
        except (Unavailable, TimeoutError) as exc:
            why = exc.message if isinstance(exc, Unavailable) else "it did not answer in time"
            raise InvalidRequest(f"error verifying connection: {why}") from exc
        finally:
            target.close()
    moved = old is not None and made.options.get("connection_url") != old.options.get("connection_url")
    async with core.authority.change(context.fence) as change:
        await change.put(
            ENGINE_CONFIGS, key, made.body(), owner=context.mount_id, expected_revision=made.revision
        )
        leased = moved and await leases.any_of(change.connection, context.mount_id, context.params["name"])
    return Answer(warnings=(_MOVED,)) if leased else EMPTY


async def delete_connection(context: Context, _body: None) -> Answer:
    """Delete a connection.

    Raises:
        InvalidRequest: leases need it.
    """
    core, key = context.core, _key(context)
    async with alone(core, key), core.authority.change(context.fence) as change:
        # No lease is begun meanwhile: that holds the fence, which this transaction moves.
        if await leases.any_of(change.connection, context.mount_id, context.params["name"]):
            raise InvalidRequest(_LEFT)
        if not await change.delete(ENGINE_CONFIGS, key):
            return EMPTY
    targets_of(core).forget(key)
    return EMPTY


async def reset(context: Context, _body: None) -> Answer:
    """Close the connections of this process to a target; the next use opens new ones."""
    found = await _named(context)
    targets = targets_of(context.core)
    targets.forget(found.key)
    check = await targets.check(found)
    if check.error:
        raise InvalidRequest(f"error connecting anew: {check.error}")
    return EMPTY


async def read_health(context: Context, _body: None) -> Answer:
    """Answer what this node knows of whether a target answers."""
    return Answer(data=await _health(context, await _named(context)))


async def check_health(context: Context, _body: None) -> Answer:
    """Ask a target now, also one that is left alone, and answer what is known then."""
    found = await _named(context)
    await targets_of(context.core).check(found, at_once=True)
    return Answer(data=await _health(context, found))


async def _health(context: Context, found: Connection) -> dict[str, Any]:
    core = context.core
    return await targets_of(core).health_of(found).told(core.database, core.settings.node, found.key)


async def _named(context: Context) -> Connection:
    return await find_connection(context.core, context.mount_id, context.params["name"])


def _key(context: Context) -> str:
    return kept_key(context.mount_id, FORM, context.params["name"])


async def _changed(context: Context, key: str, old: Connection | None, body: WriteConnection) -> Connection:
    """Return the connection with what was given.

    Raises:
        InvalidRequest: what is wrong with it.
    """
    core = context.core
    kept = {} if old is None else old.secrets_of(core)
    given = {name: _text(value) for name in _OWN if (value := getattr(body, name)) is not None}
    plugin_name = body.plugin_name or ("" if old is None else old.plugin_name)
    plugin = plugin_of(plugin_name)
    wanted = {**({} if old is None else old.options), **given}
    options, secrets = plugin.parse(wanted, kept)
    if old is not None and any(options.get(name) != old.options.get(name) for name in _PLACE):
        # Or whoever may write here, and knows no password, would have it sent to a place of his own.
        options, secrets = plugin.parse(wanted, {})
    if NEXT in kept and secrets.get(PRESENT) == kept.get(PRESENT):
        secrets[NEXT] = kept[NEXT]  # a replacement was interrupted: which of both is good is not known yet
    base = old or Connection(key=key, plugin_name=plugin_name, options={}, secrets="")
    changes: dict[str, Any] = {"plugin_name": plugin_name, "options": options}
    for name in _AS_GIVEN:
        if (value := getattr(body, name)) is not None:
            changes[name] = value
    if body.max_connection_lifetime is not None:
        changes["max_connection_lifetime"] = parse_duration(body.max_connection_lifetime)
    if body.stray_check is not None:
        changes["stray_check"] = interval(body.stray_check)
    if body.allowed_roles is not None:
        changes["allowed_roles"] = role_patterns(body.allowed_roles)
    if body.root_rotation_statements is not None:
        changes["root_rotation_statements"] = listed(body.root_rotation_statements)
        plugin.check_rotation(changes["root_rotation_statements"])
    made = checked(msgspec.structs.replace(base, **changes)).with_secrets(core, secrets)
    check_template(made.username_template)
    await check_policy(core, made.password_policy)
    return made


def _text(value: str | int) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
