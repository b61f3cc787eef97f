"""Passwords of users that are made: after the connection's policy, or 32 letters and digits."""

from __future__ import annotations

import secrets

from secrethub.engines.runtime import Core
from secrethub.errors import InvalidRequest
from secrethub.ids import base62
from secrethub.policy.passwords import PasswordPolicy, parse_password_policy
from secrethub.sensitive import Sensitive
from secrethub.storage.authority import PASSWORD_POLICIES

_LENGTH = 32


async def new_password(core: Core, policy: str) -> Sensitive[str]:
    """Return a fresh password.

    Args:
        core: unsealed.
        policy: name of a password policy; empty for the usual.

    Raises:
        InvalidRequest: there is no such policy.
        IntegrityFailure: its row is not authentic.
    """
    if not policy:
        return Sensitive(base62(_LENGTH))
    return Sensitive((await _policy(core, policy)).generate(secrets.randbelow))


async def check_policy(core: Core, policy: str) -> None:
    """Check that there is a policy, if one is named. Raises as :func:`new_password`."""
    if policy:
        await _policy(core, policy)


async def _policy(core: Core, name: str) -> PasswordPolicy:
    row = await core.authority.get(PASSWORD_POLICIES, name)
    if row is None:
        raise InvalidRequest(f"there is no password policy {name}")
    return parse_password_policy(str(row.body["source"]))
