"""Tokens that a login gives, whichever auth method it was.

The token remembers what it was given by: the row of the role, user or certificate. Renewals ask that row
again, so who shortens or deletes it need not look for its tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from secrethub.engines.engine import Auth, Context
from secrethub.engines.origin import Origin
from secrethub.engines.runtime import Core
from secrethub.engines.token.issuing import FreshToken, issue_batch, issue_token
from secrethub.engines.token.lifetimes import Lifetime, lifetime, shorter
from secrethub.engines.token.settings import TokenSettings
from secrethub.errors import InvalidRequest
from secrethub.pki.chain import from_der
from secrethub.pki.keys import key_digest
from secrethub.policy.builtin import DEFAULT
from secrethub.storage.authority import TABLES, Change


async def issue_for_login(
    context: Context,
    change: Change,
    settings: TokenSettings,
    origin: Origin,
    *,
    display_name: str,
    meta: Mapping[str, str],
    bound_cidrs: tuple[str, ...] | None = None,
    fresh: FreshToken | None = None,
) -> tuple[Auth, tuple[str, ...]]:
    """Make the token of a login and return it, with warnings.

    Args:
        context: of the login.
        change: the transaction in which the login is counted.
        settings: what the token shall be like.
        origin: what it was given by.
        display_name: for people and the ledger.
        meta: what the method knows of its owner.
        bound_cidrs: networks that it is good from, if other than the settings say.
        fresh: a service token that is known beforehand.

    Raises:
        InvalidRequest: a batch token would not fit into a header.
    """
    core = context.core
    names = {*settings.token_policies, *(() if settings.token_no_default_policy else (DEFAULT,))}
    cidrs = settings.token_bound_cidrs if bound_cidrs is None else bound_cidrs
    life = _life(context, settings)
    known: dict[str, Any] = {
        "display_name": display_name,
        "policies": sorted(names),
        "ttl": life.ttl,
        "path": context.path,
        "meta": dict(meta),
        "bound_cidrs": cidrs,
        "origin": msgspec.to_builtins(origin),
    }
    if settings.token_type == "batch":  # noqa: S105 - a kind, not a secret
        return issue_batch(core, context.now, **known), life.warnings
    auth = await issue_token(
        change,
        core.keyring(),
        context.now,
        **known,
        max_ttl=life.max_ttl,
        renewable=True,
        period=life.period,
        num_uses=settings.token_num_uses,
        fresh=fresh,
    )
    return auth, life.warnings


def _life(context: Context, settings: TokenSettings) -> Lifetime:
    """Return how long a token lives, within the bounds of the auth method's mount."""
    most, bound = longest_life(settings), context.max_lease_ttl
    if settings.token_period:
        return lifetime(0, most, shorter(settings.token_period, bound))
    return lifetime(settings.token_ttl or context.lease_ttl, shorter(most, bound), 0)


async def check_proof(context: Context, origin: Origin, path: str) -> None:
    """Check that a renewal shows the key of the client certificate that the login showed.

    Args:
        context: of the renewal.
        origin: of the token.
        path: of its login.

    Raises:
        InvalidRequest: it does not, and the mount does not let it.
    """
    mount = await context.core.mounts.auth_method(path)
    if mount is not None and mount.settings.get("disable_binding"):
        return
    if not context.peer or key_digest(from_der(context.peer[0]).public_key()) != origin.proof:  # type: ignore[arg-type]
        raise InvalidRequest("the client certificate is not the one that the token was got with")


async def present_settings(core: Core, origin: Origin) -> TokenSettings:
    """Return what holds now for tokens of a login.

    Raises:
        InvalidRequest: what they were given by is gone.
        IntegrityFailure: its row is not authentic.
    """
    table = next(table for table in TABLES if table.name == origin.table)
    row = await core.authority.get(table, origin.key)
    if row is None or row.body["uuid"] != origin.uuid:
        raise InvalidRequest("what this token was given for is gone, not renewing")
    return msgspec.convert(dict(row.body), TokenSettings)


def longest_life(settings: TokenSettings) -> int:
    """Return the seconds from a token's creation that its renewals reach; 0 for the system's maximum."""
    explicit = settings.token_explicit_max_ttl
    return explicit if settings.token_period else shorter(explicit, settings.token_max_ttl)
