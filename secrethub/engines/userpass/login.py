"""Login with name and password.

A login that fails says the same, and takes as long, whether there is such a user or not. An attempt is
counted before the password is looked at (``auth/lockout.py``), for names that nobody has too.
"""

from __future__ import annotations

import contextlib

import msgspec

from secrethub.auth.digests import accessor_digest
from secrethub.auth.networks import within
from secrethub.auth.passwords import LONGEST, STAND_IN, fits
from secrethub.engines.auth_methods import row_name
from secrethub.engines.engine import Answer, Context, Hidden
from secrethub.engines.failures import begin_attempt, take_back
from secrethub.engines.origin import Origin
from secrethub.engines.token.logins import issue_for_login
from secrethub.engines.userpass.hashing import hashing
from secrethub.engines.userpass.user import User, is_user_name, user_of
from secrethub.errors import LoginFailed, SecretHubError
from secrethub.storage.authority import LOGIN_FAILURES, USERS

_FAILED = "invalid username or password"


class PasswordLogin(Hidden, msgspec.Struct, frozen=True):
    """The password."""

    password: str = ""


async def login(context: Context, body: PasswordLogin) -> Answer:
    """Trade name and password for a token."""
    name = context.params["user"].lower()
    if not is_user_name(name) or not 0 < len(body.password) <= LONGEST:
        raise LoginFailed(_FAILED, "no user name, or no password was given")
    key = row_name(context.mount_id, name)
    async with hashing(context.core).turn(key):
        await begin_attempt(context, key, name)
        try:
            user = await _checked(context, key, body.password)
            return await _let_in(context, key, user)
        except LoginFailed:
            raise
        except SecretHubError:
            # Not this attempt's fault, or it is made again: the password was not found wrong.
            with contextlib.suppress(SecretHubError):
                await take_back(context, key)
            raise


async def _checked(context: Context, key: str, password: str) -> User:
    """Return the user if this is the password, from where it may be used.

    Raises:
        LoginFailed: it is not.
    """
    core = context.core
    row = await core.authority.fetch(USERS, key)
    kept, keyring = STAND_IN if row is None else user_of(row).password, core.keyring()
    right = await hashing(core).run(lambda: fits(keyring, password, kept))
    if row is None:
        raise LoginFailed(_FAILED, "there is no such user")
    user = user_of(row)
    if not right:
        raise LoginFailed(_FAILED, f"the password of the user {user.name} is another one")
    if not within(context.client_address, user.token_bound_cidrs):
        raise LoginFailed(_FAILED, f"the user {user.name} is not bound to this address")
    return user


async def _let_in(context: Context, key: str, user: User) -> Answer:
    core = context.core
    async with core.authority.issue(context.fence) as change:
        await change.delete(LOGIN_FAILURES, key)
        auth, warnings = await issue_for_login(
            context,
            change,
            user,
            Origin(table=USERS.name, key=key, uuid=user.uuid),
            display_name=f"userpass-{user.name}",
            meta={"username": user.name},
        )
    return Answer(
        auth=auth,
        warnings=warnings,
        detail={
            "user": user.name,
            "token_accessor": accessor_digest(core.keyring(), auth.accessor)[:16] if auth.accessor else "",
        },
    )
