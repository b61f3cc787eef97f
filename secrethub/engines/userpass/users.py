"""Users: listed, read, written, deleted; password and policies at paths of their own."""

from __future__ import annotations

import msgspec

from secrethub.auth.passwords import Password, make_password
from secrethub.engines.answers import Names, Nothing
from secrethub.engines.auth_methods import belongs
from secrethub.engines.bindings import Subject, end_bindings
from secrethub.engines.engine import EMPTY, Answer, Context, Hidden, Operation
from secrethub.engines.listing import PAGES, shown
from secrethub.engines.token.settings import TokenSettings, check_tokens, either, shown_tokens, token_changes
from secrethub.engines.token.unknown_policies import unknown_policies, unknown_when_written
from secrethub.engines.userpass.hashing import hashing
from secrethub.engines.userpass.user import (
    User,
    WriteUser,
    checked_password,
    load_user,
    user_exists,
    user_key,
    user_of,
)
from secrethub.errors import InvalidRequest, NotFound
from secrethub.ids import new_uuid
from secrethub.storage.authority import USERS

_USER = "users/{user}"
_OLDER = {"token_ttl": "ttl", "token_max_ttl": "max_ttl", "token_bound_cidrs": "bound_cidrs"}


class UserAnswer(TokenSettings, frozen=True, kw_only=True):
    """A user as it is read; ``policies`` is an older name."""

    policies: list[str]


class WritePassword(Hidden, msgspec.Struct, frozen=True):
    """A new password."""

    password: str = ""
    password_hash: str | None = None


class WritePolicies(msgspec.Struct, frozen=True):
    """Names of policies; ``policies`` is an older name."""

    token_policies: list[str] | None = None
    policies: list[str] | None = None


def user_operations() -> tuple[Operation, ...]:
    """Return the operations on users."""
    return (
        Operation(
            name="userpass.user.list",
            method="list",
            pattern="users",
            handler=list_users,
            response=Names,
            capability="list",
            query=PAGES,
            summary="List users.",
        ),
        Operation(
            name="userpass.user.read",
            method="read",
            pattern=_USER,
            handler=read_user,
            response=UserAnswer,
            capability="read",
            summary="Read a user.",
        ),
        Operation(
            name="userpass.user.write",
            method="write",
            pattern=_USER,
            handler=write_user,
            response=Nothing,
            capability="update",
            request=WriteUser,
            changes=True,
            exists=user_exists,
            plain=frozenset(WriteUser.__struct_fields__) - {"password", "password_hash"},
            summary="Write a user.",
        ),
        Operation(
            name="userpass.user.delete",
            method="delete",
            pattern=_USER,
            handler=delete_user,
            response=Nothing,
            capability="delete",
            changes=True,
            summary="Delete a user. Tokens live on and cannot be renewed.",
        ),
        Operation(
            name="userpass.password.write",
            method="write",
            pattern=_USER + "/password",
            handler=write_password,
            response=Nothing,
            capability="update",
            request=WritePassword,
            changes=True,
            summary="Change a user's password.",
        ),
        Operation(
            name="userpass.policies.write",
            method="write",
            pattern=_USER + "/policies",
            handler=write_policies,
            response=Nothing,
            capability="update",
            request=WritePolicies,
            changes=True,
            plain=frozenset(WritePolicies.__struct_fields__),
            summary="Change the policies of a user's tokens.",
        ),
    )


async def list_users(context: Context, _body: None) -> Answer:
    """Answer the names of the mount's users."""
    rows, broken = await context.core.authority.everything(USERS)
    for trouble in broken.values():
        raise trouble
    here = sorted(row.body["name"] for row in rows if belongs(context.mount_id, row.key))
    names = await shown(context, here)
    if not names:
        raise NotFound("no users")
    return Answer(data={"keys": names})


async def read_user(context: Context, _body: None) -> Answer:
    """Answer a user's settings, never what is kept of the password."""
    told = shown_tokens(await load_user(context))
    return Answer(data={**told, "policies": told["token_policies"]})


async def write_user(context: Context, body: WriteUser) -> Answer:
    """Write a user; tokens that exist keep their policies."""
    core, key = context.core, user_key(context.mount_id, context.params["user"])
    given = token_changes(_renamed(body))
    _no_hash(body.password_hash)
    kept = await _hashed(context, body.password) if body.password else None
    async with core.authority.change(context.fence) as change:
        row = await change.get(USERS, key)
        if row is not None:
            user = user_of(row)
        elif kept is not None:
            user = User(name=context.params["user"], uuid=new_uuid(), password=kept)
        else:
            raise InvalidRequest("missing password")
        user = msgspec.structs.replace(user, **given, password=kept or user.password)
        check_tokens(user)
        await change.put(USERS, key, msgspec.to_builtins(user), expected_revision=None if row else 0)
    return Answer(warnings=await unknown_when_written(core, body, user.token_policies))


async def delete_user(context: Context, _body: None) -> Answer:
    """Delete a user; that there is none is no error, as in Vault."""
    core, key = context.core, user_key(context.mount_id, context.params["user"])
    if await core.authority.get(USERS, key) is None:
        return EMPTY
    async with core.authority.change(context.fence) as change:
        await change.delete(USERS, key)
        for failure in await end_bindings(change, [Subject("user", key)]):
            core.metrics.integrity_failures.labels(failure.table).inc()
    return EMPTY


async def write_password(context: Context, body: WritePassword) -> Answer:
    """Change a password; the former one is no good any more."""
    _no_hash(body.password_hash)
    await _change(context, password=await _hashed(context, body.password))
    return EMPTY


async def write_policies(context: Context, body: WritePolicies) -> Answer:
    """Change the policies of logins to come."""
    given = token_changes(WriteUser(token_policies=body.token_policies, policies=body.policies))
    if not given:
        raise InvalidRequest("missing token_policies")
    await _change(context, **given)
    return Answer(warnings=await unknown_policies(context.core, given["token_policies"]))


async def _change(context: Context, **given: object) -> None:
    key = user_key(context.mount_id, context.params["user"])
    async with context.core.authority.change(context.fence) as change:
        row = await change.get(USERS, key)
        if row is None:
            raise NotFound("no such user")
        await change.put(USERS, key, msgspec.to_builtins(msgspec.structs.replace(user_of(row), **given)))


async def _hashed(context: Context, password: str) -> Password:
    chosen, keyring = checked_password(password), context.core.keyring()
    return await hashing(context.core).run(lambda: make_password(keyring, chosen))


def _renamed(body: WriteUser) -> WriteUser:
    """Return the body with older names replaced."""
    return msgspec.structs.replace(
        body, **{name: either(body, name, older) for name, older in _OLDER.items()}
    )


def _no_hash(given: str | None) -> None:
    if given:
        raise InvalidRequest("password_hash is not supported: what is kept depends on the cluster's keys")
