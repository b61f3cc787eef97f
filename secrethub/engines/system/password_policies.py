"""Password policies: write, read, list, delete, and passwords made after them.

They decide how hard a generated password is to guess, so they are authority rows: who can write to the
database cannot make passwords short. Names have a case, as in Vault.
"""

from __future__ import annotations

import re
import secrets

import msgspec

from secrethub.engines.answers import Names, Nothing
from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.listing import PAGES, shown
from secrethub.engines.text import plain_document
from secrethub.errors import InvalidRequest, NotFound
from secrethub.policy.passwords import WEAK, parse_password_policy
from secrethub.policy.strict import MAX_POLICY
from secrethub.storage.authority import PASSWORD_POLICIES

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9_])?")
_SOURCES = frozenset({"", "platform"})
_PLACE = "policies/password"


class WritePasswordPolicy(msgspec.Struct, frozen=True):
    """``policy``: the document, as it is or in base64. ``entropy_source``: the operating system's alone."""

    policy: str = ""
    entropy_source: str = ""


class PasswordPolicyAnswer(msgspec.Struct, frozen=True):
    """A document as it was written."""

    policy: str


class PasswordAnswer(msgspec.Struct, frozen=True):
    """A fresh password."""

    password: str


def password_policy_operations() -> tuple[Operation, ...]:
    """Return the operations on password policies."""
    return (
        Operation(
            name="sys.password-policies.list",
            method="list",
            pattern=_PLACE,
            handler=list_policies,
            response=Names,
            capability="list",
            query=PAGES,
            summary="List password policies.",
        ),
        Operation(
            name="sys.password-policies.generate",
            method="read",
            pattern=_PLACE + "/{name}/generate",
            handler=generate,
            capability="read",
            response=PasswordAnswer,
            summary="Make a password after a policy.",
        ),
        Operation(
            name="sys.password-policies.read",
            method="read",
            pattern=_PLACE + "/{name}",
            handler=read_policy,
            capability="read",
            response=PasswordPolicyAnswer,
            summary="Read a password policy.",
        ),
        Operation(
            name="sys.password-policies.write",
            method="write",
            pattern=_PLACE + "/{name}",
            handler=write_policy,
            response=Nothing,
            capability="update",
            request=WritePasswordPolicy,
            changes=True,
            plain=frozenset(WritePasswordPolicy.__struct_fields__),
            summary="Write a password policy.",
        ),
        Operation(
            name="sys.password-policies.delete",
            method="delete",
            pattern=_PLACE + "/{name}",
            handler=delete_policy,
            response=Nothing,
            capability="delete",
            changes=True,
            summary="Delete a password policy.",
        ),
    )


async def list_policies(context: Context, _body: None) -> Answer:
    """Answer the names of password policies."""
    rows, broken = await context.core.authority.everything(PASSWORD_POLICIES)
    for trouble in broken.values():
        raise trouble
    names = await shown(context, sorted(row.key for row in rows))
    if not names:
        raise NotFound("no password policies")
    return Answer(data={"keys": names})


async def read_policy(context: Context, _body: None) -> Answer:
    """Answer the source as it was written."""
    return Answer(data={"policy": await _source(context)})


async def generate(context: Context, _body: None) -> Answer:
    """Answer a fresh password; it is written down nowhere."""
    policy = parse_password_policy(await _source(context))
    return Answer(data={"password": policy.generate(secrets.randbelow)})


async def write_policy(context: Context, body: WritePasswordPolicy) -> Answer:
    """Check a policy and put it in force."""
    name = context.params["name"]
    if _NAME.fullmatch(name) is None:
        raise InvalidRequest("a name has up to 128 letters, digits and _, inside it . and - too")
    if body.entropy_source not in _SOURCES:
        raise InvalidRequest("unsupported entropy source: there is platform")
    source = plain_document(body.policy)
    if len(source) > MAX_POLICY:
        raise InvalidRequest("a policy has at most 256 KiB")
    policy = parse_password_policy(source)
    async with context.core.authority.change(context.fence) as change:
        await change.put(PASSWORD_POLICIES, name, {"source": source})
    weak = f"passwords of this policy have {policy.bits:.0f} bits; from {WEAK} on they resist guessing"
    return Answer(warnings=(weak,) if policy.bits < WEAK else ())


async def delete_policy(context: Context, _body: None) -> Answer:
    """Delete a policy; that there is none is no error."""
    async with context.core.authority.change(context.fence) as change:
        if not await change.delete(PASSWORD_POLICIES, context.params["name"]):
            return EMPTY
    return EMPTY


async def _source(context: Context) -> str:
    row = await context.core.authority.get(PASSWORD_POLICIES, context.params["name"])
    if row is None:
        raise NotFound("no such password policy")
    return str(row.body["source"])
