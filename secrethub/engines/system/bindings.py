"""Bindings of policies: made, removed, told by policy and by subject.

Whoever may bind can give rights that he does not have, to himself too. So everything here needs ``sudo``, and
the policy's name is in the path: a rule can leave a delegate no more than ``sys/policies/bindings/web-*``.
The subject is in the body, for an accessor belongs into no path.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from secrethub.auth.tokens import open_accessor
from secrethub.engines.agents.records import load
from secrethub.engines.answers import Names, Nothing
from secrethub.engines.approle.role import role_key
from secrethub.engines.auth_methods import called, chosen
from secrethub.engines.bindings import Subject, bind, unbind
from secrethub.engines.cert.role import role_key as cert_key
from secrethub.engines.engine import Answer, Context, Hidden, Operation
from secrethub.engines.listing import PAGES, shown
from secrethub.engines.system.policies import named
from secrethub.engines.token.known import find_by_accessor
from secrethub.engines.userpass.user import user_key
from secrethub.errors import InvalidRequest, NotFound
from secrethub.ids import is_application, is_uuid
from secrethub.policy.builtin import WRAPPING, check_policy_name
from secrethub.storage.authority import (
    AGENTS,
    APPROLES,
    BINDINGS,
    CERT_ROLES,
    POLICIES,
    TOKENS,
    USERS,
    Change,
    Row,
)

_MOST = 64
_PAGE = 1000
_PLAIN = frozenset({"role", "cert", "user", "agent", "application"})
_METHODS = {"approle": "approle", "cert": "cert", "user": "userpass"}
"""The kind of auth method that a kind of subject belongs to."""


class SubjectNamed(Hidden, msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of: a token's ``accessor``, a ``role``, ``cert`` role, ``user``, ``agent`` or ``application``.

    Roles are those of AppRole, an agent is named by its id, an application as in the settings of agents.
    Tokens are service tokens, users those with a password. A role or user of another mount than the usual one
    is named with its path: ``ci/web``.
    """

    accessor: str | None = None
    role: str | None = None
    cert: str | None = None
    user: str | None = None
    agent: str | None = None
    application: str | None = None


class BoundSubject(msgspec.Struct, frozen=True):
    """Who has a policy by a binding; ``accessor`` is there for a token."""

    kind: str
    name: str
    key: str
    accessor: str = ""


class SubjectsAnswer(msgspec.Struct, frozen=True):
    """To whom a policy is bound."""

    policy: str
    subjects: list[BoundSubject]


class BoundAnswer(msgspec.Struct, frozen=True):
    """What is bound to a subject."""

    kind: str
    policies: list[str]


def binding_operations() -> tuple[Operation, ...]:
    """Return the operations on bindings."""
    one = "policies/bindings/{name}"
    changing: tuple[tuple[str, str, Callable[[Context, SubjectNamed], Coroutine[Any, Any, Answer]], str], ...]
    changing = (
        (
            "sys.bindings.bind",
            one,
            bind_policy,
            "Bind a policy to a token, role, user, agent, application.",
        ),
        ("sys.bindings.unbind", one + "/remove", unbind_policy, "Take a bound policy away."),
    )
    return (
        *(
            Operation(
                name=name,
                method="write",
                pattern=pattern,
                handler=handler,
                response=Nothing,
                capability="update",
                sudo=True,
                request=SubjectNamed,
                strict=True,
                changes=True,
                plain=_PLAIN,
                summary=summary,
            )
            for name, pattern, handler, summary in changing
        ),
        Operation(
            name="sys.bindings.list",
            method="list",
            pattern="policies/bindings",
            handler=list_bound,
            response=Names,
            capability="list",
            sudo=True,
            query=PAGES,
            summary="List the policies that are bound to somebody.",
        ),
        Operation(
            name="sys.bindings.read",
            method="read",
            pattern=one,
            handler=read_bound,
            response=SubjectsAnswer,
            capability="read",
            sudo=True,
            query=("after",),
            summary="Tell to whom a policy is bound.",
        ),
        Operation(
            name="sys.bindings.lookup",
            method="write",
            pattern="policies/bound",
            handler=look_up,
            response=BoundAnswer,
            capability="update",
            sudo=True,
            request=SubjectNamed,
            strict=True,
            plain=_PLAIN,
            summary="Tell which policies are bound to a token, role, user, agent or application.",
        ),
    )


async def bind_policy(context: Context, body: SubjectNamed) -> Answer:
    """Bind a policy; every node knows before this returns. Binding it again changes nothing."""
    core, name = context.core, check_policy_name(named(context))
    async with core.authority.change(context.fence) as change:
        subject = await _living(context, body, change)
        if await change.get(POLICIES, name) is None:
            raise InvalidRequest(f"no policy is named {name}")
        if not await bind(change, subject, name, _MOST):
            raise InvalidRequest(f"at most {_MOST} policies are bound to one subject")
    return Answer(detail={"bound": await _for_ledger(context, subject)})


async def unbind_policy(context: Context, body: SubjectNamed) -> Answer:
    """Take a policy away; that it is not bound is no error."""
    name = check_policy_name(named(context))
    async with context.core.authority.change(context.fence) as change:
        subject = await _living(context, body, change)
        await unbind(change, subject, name)
    return Answer(detail={"unbound": await _for_ledger(context, subject)})


async def list_bound(context: Context, _body: None) -> Answer:
    """Answer the names of policies that are bound, with how many have each by that."""
    counts: dict[str, int] = {}
    for row in await _rows(context):
        for name in row.body["policies"]:
            counts[name] = counts.get(name, 0) + 1
    names = await shown(context, sorted(counts))
    if not names:
        raise NotFound("no policy is bound")
    return Answer(data={"keys": names, "key_info": {name: {"subjects": counts[name]} for name in names}})


async def read_bound(context: Context, _body: None) -> Answer:
    """Answer the subjects that a policy is bound to, a page of 1,000; ``after`` goes on behind a key."""
    name, after = named(context), context.query.get("after", "")
    rows = [row for row in await _rows(context) if name in row.body["policies"] and row.key > after]
    page = rows[:_PAGE]
    subjects = [found for row in page if (found := await _described(context, row)) is not None]
    if not subjects and not after:
        raise NotFound("this policy is bound to nobody")
    more = (f"there are more: read again with after={page[-1].key}",) if len(rows) > _PAGE else ()
    return Answer(data={"policy": name, "subjects": subjects}, warnings=more)


async def look_up(context: Context, body: SubjectNamed) -> Answer:
    """Answer the policies that are bound to a subject."""
    subject = await _living(context, body, None)
    bound = await context.core.bindings.policies(subject)
    return Answer(data={"kind": subject.kind, "policies": list(bound.beyond(()))})


async def _rows(context: Context) -> list[Row]:
    rows, broken = await context.core.authority.everything(BINDINGS)
    for trouble in broken.values():
        raise trouble
    # A binding that ended by expiry only is removed without a new generation.
    context.depends("issued", f"{BINDINGS.name}/")
    return sorted(rows, key=lambda row: row.key)


async def _described(context: Context, row: Row) -> dict[str, str] | None:
    """Return how people name the subject of a row; None when a token ended meanwhile."""
    kind, _, name = row.key.partition("/")
    if kind != "token":
        return {"kind": kind, "name": await _name(context, kind, name), "key": row.key}
    token = await context.core.authority.get(TOKENS, name)
    if token is None:
        return None
    accessor = open_accessor(context.core.keyring(), token.key, token.body)
    return {"kind": kind, "name": token.body["display_name"], "accessor": accessor, "key": row.key}


async def _living(context: Context, body: SubjectNamed, change: Change | None) -> Subject:
    """Return the subject that a body names, as it is now.

    Args:
        context: of the request.
        body: names it.
        change: the transaction in which it must still be there, if something is changed.

    Raises:
        InvalidRequest: none, several, or one that cannot have bindings.
    """
    if sum(getattr(body, name) is not None for name in body.__struct_fields__) != 1:
        raise InvalidRequest("name one subject: accessor, role, cert, user, agent or application")
    core = context.core
    if body.accessor is not None:
        known = await find_by_accessor(context, body.accessor)
        token = known if change is None else await change.get(TOKENS, known.key)
        if token is None:
            raise InvalidRequest("invalid accessor")
        if WRAPPING in token.body["policies"]:
            raise InvalidRequest("nothing is bound to a wrapping token")
        return Subject("token", token.key)
    if body.role is not None:
        key = role_key(*await chosen(core, "approle", body.role))
        role = await (core.authority.get(APPROLES, key) if change is None else change.get(APPROLES, key))
        if role is None:
            raise InvalidRequest("there is no such AppRole role")
        return Subject("approle", key, role.body["uuid"])
    if body.cert is not None:
        key = cert_key(*await chosen(core, "cert", body.cert))
        role = await (core.authority.get(CERT_ROLES, key) if change is None else change.get(CERT_ROLES, key))
        if role is None:
            raise InvalidRequest("there is no such certificate role")
        return Subject("cert", key, role.body["uuid"])
    if body.user is not None:
        mount, name = await chosen(core, "userpass", body.user)
        key = user_key(mount, name.lower())
        user = await (core.authority.get(USERS, key) if change is None else change.get(USERS, key))
        if user is None:
            raise InvalidRequest("there is no such user")
        return Subject("user", key, user.body["uuid"])
    if body.application is not None:
        if not is_application(body.application):
            raise InvalidRequest("an application's name has letters, digits, '_', '.' and '-' (at most 64)")
        return Subject("application", body.application)
    agent_id = body.agent or ""
    found = await load(core, agent_id, change) if is_uuid(agent_id) else None
    if found is None:
        raise InvalidRequest("there is no agent with this id")
    context.depends("issued", f"{AGENTS.name}/{agent_id}")
    if found[1].status != "active":
        raise InvalidRequest("this agent is revoked")
    return Subject("agent", agent_id)


async def _name(context: Context, kind: str, name: str) -> str:
    """Return how people call the subject of a key: an agent and a token are called as in the key."""
    method = _METHODS.get(kind)
    return name if method is None else await called(context.core, method, name)


async def _for_ledger(context: Context, subject: Subject) -> str:
    # Only a token's digest is cut: an agent's id and a role's name are as long as they are.
    name = await _name(context, subject.kind, subject.name)
    return f"{subject.kind}/{name[:36] if subject.kind == 'token' else name}"
