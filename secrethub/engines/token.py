"""Tokens: create, look up, renew and revoke one's own, with everything made from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from secrethub.auth.digests import accessor_digest, token_digest
from secrethub.auth.tokens import MAX_TTL, open_accessor, token_body
from secrethub.crypto.keyring import Keyring
from secrethub.engines.engine import Answer, Auth, Context, Operation
from secrethub.engines.text import text_map
from secrethub.engines.token_end import end_token
from secrethub.errors import InvalidRequest, PermissionDenied, Stale
from secrethub.ids import new_accessor, new_token
from secrethub.policy.builtin import DEFAULT, ROOT, normalise_policy_name
from secrethub.storage.authority import ACCESSORS, TOKENS, Change, Row
from secrethub.wire.durations import format_go_duration, format_rfc3339, parse_duration

_MAX_POLICIES = 64
_MAX_NAME = 100
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]")


class CreateToken(msgspec.Struct, frozen=True):
    """A child token. What would narrow it and is not known here is refused, never ignored."""

    policies: list[str] | None = None
    ttl: str | int | None = None
    explicit_max_ttl: str | int | None = None
    renewable: bool = True
    display_name: str = ""
    meta: dict[str, Any] | None = None
    no_default_policy: bool = False
    no_parent: bool = False
    type: str = "service"
    period: str | int | None = None
    num_uses: int = 0
    id: str | None = None
    entity_alias: str | None = None


class RenewSelf(msgspec.Struct, frozen=True):
    """``increment``: how long it shall live from now on."""

    increment: str | int | None = None


def token_operations() -> tuple[Operation, ...]:
    """Return the operations on tokens."""
    return (
        Operation(
            name="token.create",
            method="write",
            pattern="create",
            handler=create,
            capability="update",
            request=CreateToken,
            changes=True,
            plain=frozenset({"policies", "ttl", "explicit_max_ttl", "renewable", "display_name"}),
            summary="Make a child token.",
        ),
        Operation(
            name="token.lookup-self",
            method="read",
            pattern="lookup-self",
            handler=lookup_self,
            capability="read",
            summary="Tell about one's own token.",
        ),
        Operation(
            name="token.renew-self",
            method="write",
            pattern="renew-self",
            handler=renew_self,
            capability="update",
            request=RenewSelf,
            changes=True,
            plain=frozenset({"increment"}),
            summary="Let one's own token live longer.",
        ),
        Operation(
            name="token.revoke-self",
            method="write",
            pattern="revoke-self",
            handler=revoke_self,
            capability="update",
            changes=True,
            summary="End one's own token and everything made from it.",
        ),
    )


class TokenEngine:
    """Auth method ``token``."""

    kind = "token"

    def operations(self) -> tuple[Operation, ...]:
        """Return what ``auth/token/`` offers."""
        return token_operations()

    def native_prefix(self, mount: str) -> str:
        """Native rules write the path as it is."""
        return mount


async def issue_token(
    change: Change,
    keyring: Keyring,
    now: datetime,
    *,
    display_name: str,
    policies: Sequence[str],
    ttl: int,
    max_ttl: int,
    renewable: bool,
    path: str,
    meta: dict[str, str],
    parent: str | None = None,
) -> Auth:
    """Make a token inside a transaction and return it.

    Args:
        change: an issue or change of authority.
        keyring: for digests and the sealed accessor.
        now: the instant of creation.
        display_name: for people and the ledger.
        policies: names.
        ttl: seconds; 0 for ever.
        max_ttl: seconds that renewals reach at most; 0 for the system's maximum.
        renewable: whether it can be renewed.
        path: where it was made.
        meta: what the auth method knows.
        parent: digest of the token it belongs to; None for an orphan.
    """
    token, accessor = new_token(), new_accessor()
    digest = token_digest(keyring, token)
    names = tuple(policies)
    await change.put(
        TOKENS,
        digest,
        token_body(
            keyring,
            digest,
            accessor,
            display_name=display_name,
            policies=names,
            now=now,
            path=path,
            ttl=ttl,
            max_ttl=max_ttl,
            renewable=renewable,
            meta=meta,
        ),
        owner=parent,
        expires_at=now + timedelta(seconds=ttl) if ttl else None,
        expected_revision=0,
    )
    await change.put(
        ACCESSORS,
        accessor_digest(keyring, accessor),
        {"token": digest},
        owner=digest,
        expires_at=now + timedelta(seconds=max_ttl or MAX_TTL) if ttl else None,
        expected_revision=0,
    )
    return Auth(
        client_token=token,
        accessor=accessor,
        policies=names,
        token_policies=names,
        metadata=meta,
        lease_duration=ttl,
        renewable=renewable,
        orphan=parent is None,
    )


def _names(context: Context, body: CreateToken) -> tuple[str, ...]:
    """Return the child's policies: never more than its parent's, unless the parent is root.

    Without ``policies`` they are the parent's. ``default`` is added if the parent has it.
    """
    assert context.identity is not None
    own = frozenset(context.identity.policies)
    wanted = {normalise_policy_name(name) for name in body.policies or own}
    if len(wanted) > _MAX_POLICIES:
        raise InvalidRequest(f"a token has at most {_MAX_POLICIES} policies")
    if ROOT not in own and not wanted <= own:
        raise InvalidRequest(f"child policies must be subset of parent: {', '.join(sorted(wanted - own))}")
    if ROOT in wanted:
        return (ROOT,)
    if not body.no_default_policy and not own.isdisjoint({ROOT, DEFAULT}):
        wanted.add(DEFAULT)
    return tuple(sorted(wanted))


def _refuse_unknown(body: CreateToken) -> None:
    """Refuse what would narrow the token and is not enforced here."""
    if body.type not in {"service", "default", ""}:
        raise InvalidRequest("only tokens of type service are made")
    for name in ("num_uses", "id", "entity_alias"):
        if getattr(body, name):
            raise InvalidRequest(f"{name} is not supported")
    if parse_duration(body.period or 0):
        raise InvalidRequest("period is not supported")


def _capped(wanted: int, limit: int) -> tuple[str, ...]:
    """Return the warning that Vault gives when a lifetime is cut to its maximum."""
    if wanted <= limit:
        return ()
    asked, most = format_go_duration(wanted), format_go_duration(limit)
    return (f'TTL of "{asked}" exceeded the effective max_ttl of "{most}"; TTL value is capped accordingly',)


async def create(context: Context, body: CreateToken) -> Answer:
    """Make a token that ends with its parent."""
    core, identity = context.core, context.identity
    assert identity is not None
    if identity.kind != "token":
        raise PermissionDenied("only tokens make tokens")
    _refuse_unknown(body)
    names = _names(context, body)
    is_root = ROOT in identity.policies
    if body.no_parent and not is_root:
        raise PermissionDenied("root or sudo privileges required to create orphan token")
    explicit = parse_duration(body.explicit_max_ttl or 0)
    asked = parse_duration(body.ttl or 0)
    limit = min(explicit or MAX_TTL, MAX_TTL)
    for_ever = ROOT in names and not asked and not explicit
    ttl = 0 if for_ever else min(asked or MAX_TTL, limit)
    if ROOT in names and identity.expires_at is not None and not ttl:
        raise InvalidRequest("expiring root tokens cannot create non-expiring root tokens")
    meta = text_map(body.meta, "meta")
    # It stands in the ledger between colons, so it is written like a name.
    chosen = _NOT_IN_NAMES.sub("-", body.display_name[:_MAX_NAME])
    async with core.authority.issue(context.fence) as change:
        auth = await issue_token(
            change,
            core.keyring(),
            context.now,
            display_name=f"token-{chosen}" if chosen else "token",
            policies=names,
            ttl=ttl,
            max_ttl=explicit,
            renewable=body.renewable and ttl > 0,
            path=context.path,
            meta=meta,
            parent=None if body.no_parent else identity.key,
        )
    return Answer(
        auth=auth,
        warnings=_capped(asked, limit),
        detail={"policies": list(names), "ttl": ttl, "written": change.written},
    )


async def _own(context: Context) -> Row:
    assert context.identity is not None
    if context.identity.kind != "token":
        raise PermissionDenied("an agent has no token")
    row = await context.core.authority.get(TOKENS, context.identity.key)
    if row is None:
        raise PermissionDenied("the token is gone")
    return row


def describe(keyring: Keyring, row: Row, now: datetime) -> dict[str, Any]:
    """Return what a lookup tells of a token; ``id`` is left to the caller, who knows the token."""
    body = row.body
    created = datetime.fromtimestamp(body["created_at"], UTC)
    ttl = 0 if row.expires_at is None else max(0, int((row.expires_at - now).total_seconds()))
    return {
        "accessor": open_accessor(keyring, row.key, body),
        "creation_time": body["created_at"],
        "creation_ttl": body["ttl"],
        "display_name": body["display_name"],
        "entity_id": "",
        "expire_time": None if row.expires_at is None else format_rfc3339(row.expires_at),
        "explicit_max_ttl": body["max_ttl"],
        "id": "",
        "issue_time": format_rfc3339(created),
        "meta": body["meta"] or None,
        "num_uses": 0,
        "orphan": row.owner is None,
        "path": body["path"],
        "policies": body["policies"],
        "renewable": body["renewable"],
        "ttl": ttl,
        "type": body["type"],
    }


async def lookup_self(context: Context, _body: None) -> Answer:
    """Answer what is known of the caller's token."""
    # A renewal by way of another process takes nothing away, so only this tells that it happened.
    context.depends("issued", f"{TOKENS.name}/{context.identity.key if context.identity else ''}")
    row = await _own(context)
    data = describe(context.core.keyring(), row, context.now)
    data["id"] = context.token.reveal() if context.token is not None else ""
    return Answer(data=data)


async def renew_self(context: Context, body: RenewSelf) -> Answer:
    """Let the token live for another period, up to its maximum."""
    core = context.core
    keyring = core.keyring()
    row = await _own(context)
    if row.expires_at is None or not row.body["renewable"]:
        raise InvalidRequest("lease is not renewable")
    wanted = parse_duration(body.increment or 0) or row.body["ttl"]
    created = datetime.fromtimestamp(row.body["created_at"], UTC)
    # A maximum of its own only shortens: the system's holds for every token.
    most = min(row.body["max_ttl"] or MAX_TTL, MAX_TTL)
    longest = context.now + timedelta(seconds=wanted)
    until = min(longest, created + timedelta(seconds=most))
    ttl = max(0, int((until - context.now).total_seconds()))
    # Whoever shortens a life takes something away: that must be known everywhere before it is answered.
    shortens = until < row.expires_at
    opened = core.authority.change(context.fence) if shortens else core.authority.issue(context.fence)
    async with opened as change:
        current = await change.get(TOKENS, row.key)
        if current is None:
            raise PermissionDenied("the token is gone")
        if not shortens and current.expires_at is not None and until < current.expires_at:
            raise Stale("the token was renewed for longer meanwhile")
        await change.put(TOKENS, row.key, current.body, owner=current.owner, expires_at=until)
    names = tuple(row.body["policies"])
    return Answer(
        auth=Auth(
            client_token=context.token.reveal() if context.token is not None else "",
            accessor=open_accessor(keyring, row.key, row.body),
            policies=names,
            token_policies=names,
            metadata=row.body["meta"],
            lease_duration=ttl,
            renewable=True,
            orphan=row.owner is None,
        ),
        warnings=_capped(wanted, ttl) if until < longest else (),
        detail={"ttl": ttl, "written": change.written},
    )


async def revoke_self(context: Context, _body: None) -> Answer:
    """End the token and all its descendants, on every node before this returns."""
    return await end_token(context, (await _own(context)).key)
