"""Tokens make tokens: children, orphans, and whatever a token role says."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from secrethub.engines.answers import TokenGiven
from secrethub.engines.engine import Answer, Auth, Context, Hidden, Operation
from secrethub.engines.identity import Identity
from secrethub.engines.question import question_of
from secrethub.engines.text import text_map
from secrethub.engines.token.issuing import issue_batch, issue_token
from secrethub.engines.token.known import DEEPEST
from secrethub.engines.token.lifetimes import Lifetime, lifetime, shorter
from secrethub.engines.token.policies import child_policies
from secrethub.engines.token.role import TokenRole
from secrethub.engines.token.roles import load_role
from secrethub.engines.token.settings import checked_uses
from secrethub.engines.token.unknown_policies import unknown_policies
from secrethub.errors import InvalidRequest, PermissionDenied
from secrethub.policy.builtin import ROOT
from secrethub.policy.decision import Allowed, decide
from secrethub.wire.durations import parse_duration

_MAX_NAME = 100
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]")
_PLAIN = frozenset(
    {
        "policies",
        "ttl",
        "lease",
        "explicit_max_ttl",
        "period",
        "renewable",
        "display_name",
        "type",
        "num_uses",
        "no_parent",
        "no_default_policy",
    }
)


class CreateToken(Hidden, msgspec.Struct, frozen=True):
    """A new token. What would narrow it and is not known here is refused, never ignored.

    ``lease`` is an older name of ``ttl``.
    """

    policies: list[str] | None = None
    ttl: str | int | None = None
    lease: str | int | None = None
    explicit_max_ttl: str | int | None = None
    renewable: bool | None = None
    display_name: str = ""
    meta: dict[str, Any] | None = None
    no_default_policy: bool = False
    no_parent: bool = False
    type: str = ""
    period: str | int | None = None
    num_uses: int = 0
    id: str | None = None
    entity_alias: str | None = None


def creation_operations() -> tuple[Operation, ...]:
    """Return the operations that make tokens."""
    return tuple(
        Operation(
            name=name,
            method="write",
            pattern=pattern,
            handler=handler,
            response=TokenGiven,
            capability="update",
            request=CreateToken,
            changes=True,
            plain=_PLAIN,
            summary=summary,
        )
        for name, pattern, handler, summary in (
            ("token.create", "create", create, "Make a child token."),
            ("token.create-orphan", "create-orphan", create_orphan, "Make a token without a parent."),
            ("token.create-by-role", "create/{role}", create_by_role, "Make a token by way of a token role."),
        )
    )


async def create(context: Context, body: CreateToken) -> Answer:
    """Make a token that ends with its parent."""
    return await _create(context, body, None)


async def create_orphan(context: Context, body: CreateToken) -> Answer:
    """Make a token that ends with nobody; the right to this path is the right to do so."""
    return await _create(context, body, None, orphan=True)


async def create_by_role(context: Context, body: CreateToken) -> Answer:
    """Make a token as a role says."""
    name = context.params["role"]
    role = await load_role(context)
    if role is None:
        raise InvalidRequest(f"unknown role {name}")
    return await _create(context, body, role, role_name=name, orphan=role.orphan)


async def _create(
    context: Context, body: CreateToken, role: TokenRole | None, *, role_name: str = "", orphan: bool = False
) -> Answer:
    core, identity = context.core, _parent(context)
    sudo = await _may_sudo(context, identity)
    _check(body, sudo=sudo)
    batch = _is_batch(body, role)
    if body.no_parent and not orphan:
        if not sudo:
            raise PermissionDenied("root or sudo privileges required to create orphan token")
        orphan = True
    if not orphan and len(identity.lineage) >= DEEPEST:
        raise InvalidRequest(f"tokens have at most {DEEPEST} generations: only an orphan can be made here")
    names = child_policies(
        body.policies, identity.own_policies, role, sudo=sudo, no_default=body.no_default_policy
    )
    if batch and ROOT in names:
        raise InvalidRequest("batch tokens cannot be root tokens")
    unknown = await unknown_policies(core, names) if body.policies else ()
    life = _lifetime(context, body, role, root=ROOT in names)
    if not life.ttl and identity.expires_at is not None:
        raise InvalidRequest("expiring root tokens cannot create non-expiring root tokens")
    renewable = life.ttl > 0 and body.renewable is not False and (role is None or role.renewable)
    cidrs = role.bound_cidrs if role is not None and role.bound_cidrs else identity.bound_cidrs
    if not life.ttl:
        cidrs = ()  # a root token that nobody can use any more could not be made good again
    known: dict[str, Any] = {
        "display_name": _display_name(body.display_name),
        "policies": names,
        "ttl": life.ttl,
        "path": _path(context, role),
        "meta": text_map(body.meta, "meta"),
        "parent": None if orphan else identity.key,
        "bound_cidrs": cidrs,
        "role": role_name,
    }
    async with core.authority.issue(context.fence) as change:
        auth: Auth
        if batch:
            auth = issue_batch(core, context.now, **known)
        else:
            auth = await issue_token(
                change,
                core.keyring(),
                context.now,
                max_ttl=life.max_ttl,
                explicit=life.explicit,
                renewable=renewable,
                period=life.period,
                num_uses=_uses(body, role),
                **known,
            )
    return Answer(
        auth=auth,
        warnings=(*life.warnings, *unknown),
        detail={
            "policies": list(names),
            "ttl": life.ttl,
            "type": auth.token_type,
            "role": role_name,
        },
    )


def _parent(context: Context) -> Identity:
    """Return the token that makes another.

    Raises:
        PermissionDenied: no token asks.
        InvalidRequest: one of those that make none.
    """
    identity = context.identity
    if identity is None or identity.kind != "token":
        raise PermissionDenied("only tokens make tokens")
    if identity.batch:
        raise InvalidRequest("batch tokens cannot create more tokens")
    if identity.uses_left is not None:
        raise InvalidRequest("restricted use token cannot generate child tokens")
    return identity


async def _may_sudo(context: Context, identity: Identity) -> bool:
    """Tell whether the caller has ``sudo`` on the path, by the same decision as the request's."""
    if ROOT in identity.policies:
        return True
    core = context.core
    route = await core.mounts.route("write", context.path)
    question = question_of(route, "write", context.path, context.when)
    question = msgspec.structs.replace(question, needs_sudo=True)
    return isinstance(decide(question, await core.policies.compiled(identity)), Allowed)


def _check(body: CreateToken, *, sudo: bool) -> None:
    """Refuse what cannot be, and what would narrow the token and is not enforced here."""
    for name in ("id", "entity_alias"):
        if getattr(body, name):
            raise InvalidRequest(f"{name} is not supported")
    checked_uses(body.num_uses, "num_uses")
    if parse_duration(body.period or 0) and not sudo:
        raise PermissionDenied("root or sudo privileges required to create periodic token")


def _is_batch(body: CreateToken, role: TokenRole | None) -> bool:
    """Tell whether a batch token is asked for, or prescribed.

    Raises:
        InvalidRequest: an unknown type, one that the role does not make, or what no batch token has.
    """
    if body.type not in {"", "default", "service", "batch"}:
        raise InvalidRequest(f"invalid type {body.type!r}"[:100])
    kind = "" if body.type == "default" else body.type
    prescribed = "default-service" if role is None else role.token_type
    if not prescribed.startswith("default-"):
        if kind not in {"", prescribed}:
            raise InvalidRequest(f"token type cannot be {kind!r} when role overrides it to {prescribed!r}")
        kind = prescribed
    if (kind or prescribed.removeprefix("default-")) != "batch":
        return False
    for name, wrong in (
        ("explicit_max_ttl", parse_duration(body.explicit_max_ttl or 0)),
        ("num_uses", body.num_uses),
        ("period", parse_duration(body.period or 0)),
    ):
        if wrong:
            raise InvalidRequest(f"batch tokens cannot have {name!r} set")
    if role is not None and (role.num_uses or role.period or role.explicit_max_ttl):
        raise InvalidRequest("the role narrows its tokens as no batch token can be")
    return True


def _lifetime(context: Context, body: CreateToken, role: TokenRole | None, *, root: bool) -> Lifetime:
    """Return how long it lives; the shorter of request and role counts."""
    asked = parse_duration(body.ttl or body.lease or 0)
    explicit = shorter(parse_duration(body.explicit_max_ttl or 0), role.explicit_max_ttl if role else 0)
    period = shorter(parse_duration(body.period or 0), role.period if role else 0)
    if root and not asked and not explicit and not period:
        return Lifetime()
    return lifetime(asked, explicit, period, usual=context.lease_ttl, bound=context.max_lease_ttl)


def _uses(body: CreateToken, role: TokenRole | None) -> int:
    return shorter(body.num_uses, role.num_uses if role is not None else 0)


def _path(context: Context, role: TokenRole | None) -> str:
    return context.path if role is None or not role.path_suffix else f"{context.path}/{role.path_suffix}"


def _display_name(given: str) -> str:
    # It stands in the ledger between colons, so it is written like a name.
    chosen = _NOT_IN_NAMES.sub("-", given[:_MAX_NAME])
    return f"token-{chosen}" if chosen else "token"
