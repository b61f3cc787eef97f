"""Tokens that a login gives, whichever auth method it was.

The token remembers what it was given by: the row of the role, user or certificate. Renewals ask that row
again, so who shortens or deletes it need not look for its tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import msgspec

from secrethub.engines.engine import Auth, Context
from secrethub.engines.mounts import Mount
from secrethub.engines.origin import Origin
from secrethub.engines.runtime import Core
from secrethub.engines.token.issuing import FreshToken, issue_batch, issue_token
from secrethub.engines.token.lifetimes import Lifetime, lifetime, shorter
from secrethub.engines.token.settings import TokenSettings
from secrethub.errors import InvalidRequest
from secrethub.policy.builtin import DEFAULT
from secrethub.storage.authority import APPROLES, TABLES, Change, Row

_GONE = "what this token was given for is gone, not renewing"


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
    life = _life(settings, context.lease_ttl, context.max_lease_ttl)
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
        explicit=life.explicit,
        renewable=True,
        period=life.period,
        num_uses=settings.token_num_uses,
        fresh=fresh,
    )
    return auth, life.warnings


@runtime_checkable
class AsksAgain(Protocol):
    """An auth method whose tokens are not renewed by whoever would not be let in again."""

    async def check_renewal(self, context: Context, origin: Origin, mount: Mount) -> None:
        """Check who renews a token. Raises InvalidRequest."""
        ...


async def present_terms(context: Context, token: Row, origin: Origin) -> Lifetime:
    """Return how a token of a login is renewed now: as its role says, within the bounds of its mount.

    Args:
        context: of the renewal.
        token: its row.
        origin: what it was given by.

    Raises:
        InvalidRequest: what it was given by is gone, gives other policies, or lets its owner in no more.
        IntegrityFailure: a row is not authentic.
    """
    core, body = context.core, token.body
    mount = await core.mounts.auth_method(body["path"])
    if mount is None:
        raise InvalidRequest(_GONE)
    settings = await _present_settings(core, origin)
    # As in Vault, AppRole's tokens keep the policies that they were given, whatever the role says since.
    if origin.table != APPROLES.name and not _same_policies(settings.token_policies, body["policies"]):
        raise InvalidRequest("policies have changed, not renewing")
    engine = core.mounts.engines[mount.kind]
    if isinstance(engine, AsksAgain):
        await engine.check_renewal(context, origin, mount)
    now = _life(settings, mount.default_lease_ttl, mount.max_lease_ttl)
    return Lifetime(
        ttl=now.ttl,
        max_ttl=shorter(body["max_ttl"], now.max_ttl),
        bound=now.bound,
        period=shorter(body["period"], now.period) if now.period else 0,
    )


def _life(settings: TokenSettings, usual: int, bound: int) -> Lifetime:
    """Return how long a token lives.

    Args:
        settings: what it shall be like.
        usual: seconds, for one that does not say; 0 for the system's.
        bound: seconds that none of the mount lives longer; 0 for the system's.
    """
    return lifetime(
        settings.token_ttl,
        settings.token_explicit_max_ttl,
        settings.token_period,
        most=settings.token_max_ttl,
        usual=usual,
        bound=bound,
    )


def _same_policies(one: Iterable[str], other: Iterable[str]) -> bool:
    return {*one} - {DEFAULT} == {*other} - {DEFAULT}


async def _present_settings(core: Core, origin: Origin) -> TokenSettings:
    """Return what holds now for tokens of a login.

    Raises:
        InvalidRequest: what they were given by is gone.
        IntegrityFailure: its row is not authentic.
    """
    table = next(table for table in TABLES if table.name == origin.table)
    row = await core.authority.get(table, origin.key)
    if row is None or row.body["uuid"] != origin.uuid:
        raise InvalidRequest(_GONE)
    return msgspec.convert(dict(row.body), TokenSettings)
