"""Policies: write, read, list, delete. Both languages in one store, kept with their source text."""

from __future__ import annotations

from typing import Any

import msgspec

from secrethub.engines.answers import Nothing
from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.listing import PAGES, shown
from secrethub.engines.system.answers import PolicyNames
from secrethub.engines.text import plain_document
from secrethub.errors import InvalidRequest, NotFound
from secrethub.policy.builtin import DEFAULT, ROOT, check_policy_name, normalise_policy_name
from secrethub.policy.document import parse_policy
from secrethub.storage.authority import POLICIES

_MAX_SOURCE = 262_144


class PolicyAnswer(msgspec.Struct, frozen=True):
    """A policy as it was written."""

    name: str
    policy: str


class LegacyPolicyAnswer(msgspec.Struct, frozen=True):
    """The same for older clients."""

    name: str
    rules: str


class WritePolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A document as text, in base64 too, or object. ``rules`` is the older name that clients still send."""

    policy: str | dict[str, Any] | None = None
    rules: str | None = None


def policy_operations() -> tuple[Operation, ...]:
    """Return the operations on policies, under the present and the older paths."""
    operations = []
    for prefix, legacy in (("policies/acl", False), ("policy", True)):
        operations += [
            Operation(
                name="sys.policies.list",
                method=method,
                pattern=prefix,
                handler=list_policies,
                response=PolicyNames,
                capability="list",
                query=PAGES,
                summary="List policies.",
            )
            for method in (("list", "read") if legacy else ("list",))
        ]
        operations += [
            Operation(
                name="sys.policies.read",
                method="read",
                pattern=prefix + "/{name}",
                handler=read_legacy if legacy else read_policy,
                response=LegacyPolicyAnswer if legacy else PolicyAnswer,
                capability="read",
                summary="Read a policy.",
            ),
            Operation(
                name="sys.policies.write",
                method="write",
                pattern=prefix + "/{name}",
                handler=write_policy,
                response=Nothing,
                capability="update",
                request=WritePolicy,
                changes=True,
                strict=True,
                plain=frozenset({"policy", "rules"}),
                summary="Write a policy.",
            ),
            Operation(
                name="sys.policies.delete",
                method="delete",
                pattern=prefix + "/{name}",
                handler=delete_policy,
                response=Nothing,
                capability="delete",
                changes=True,
                summary="Delete a policy.",
            ),
        ]
    return tuple(operations)


async def list_policies(context: Context, _body: None) -> Answer:
    """Answer every name, ``root`` included."""
    rows, broken = await context.core.authority.everything(POLICIES)
    for trouble in broken.values():
        raise trouble
    names = await shown(context, sorted({*(row.key for row in rows), ROOT}))
    return Answer(data={"keys": names, "policies": names})


def named(context: Context) -> str:
    """Return the name that the path holds.

    Raises:
        InvalidRequest: it is none, or is not in lower case. The gateway has brought it to lower case
            before the decision (``policy/names.py``); whoever comes another way was decided on with
            the name as it is, and another policy must not be meant.
    """
    given = context.params["name"]
    name = normalise_policy_name(given)
    if name != given:
        raise InvalidRequest(f"names of policies are in lower case: {name}")
    return name


async def _source(context: Context) -> tuple[str, Any]:
    name = named(context)
    if name == ROOT:
        return name, ""
    row = await context.core.authority.get(POLICIES, name)
    if row is None:
        raise NotFound(f"no policy is named {name!r}")
    return name, row.body["source"]


async def read_policy(context: Context, _body: None) -> Answer:
    """Answer the source as it was written."""
    name, source = await _source(context)
    return Answer(data={"name": name, "policy": source})


async def read_legacy(context: Context, _body: None) -> Answer:
    """Answer as older clients expect it."""
    name, source = await _source(context)
    return Answer(data={"name": name, "rules": source})


async def write_policy(context: Context, body: WritePolicy) -> Answer:
    """Check a document and put it in force; every node knows before this returns."""
    name = check_policy_name(named(context))
    given = body.policy if body.policy is not None else body.rules
    if given is None:
        raise InvalidRequest("'policy' must hold the document as text or as an object")
    source = plain_document(given) if isinstance(given, str) else msgspec.json.encode(given).decode()
    if len(source) > _MAX_SOURCE:
        raise InvalidRequest("a policy has at most 256 KiB")
    parsed = parse_policy(name, source)
    async with context.core.authority.change(context.fence) as change:
        await change.put(POLICIES, name, {"source": source, "language": parsed.language})
    return Answer(detail={"language": parsed.language})


async def delete_policy(context: Context, _body: None) -> Answer:
    """Delete a policy; who had it loses what it granted at once."""
    name = check_policy_name(named(context))
    if name == DEFAULT:
        raise InvalidRequest("the policy default cannot be deleted")
    async with context.core.authority.change(context.fence) as change:
        await change.delete(POLICIES, name)
    return Answer()
