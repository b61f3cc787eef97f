"""Credentials given out, and their end.

Temporary credentials cannot be taken back: their lease is not renewable, its end changes nothing at AWS, and
they are good until the time that AWS gave them, which is a quarter of an hour at least. Users of IAM are
removed with their lease.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from secrethub.clock import micros
from secrethub.engines.aws.account import Account, account_of, accounts_of
from secrethub.engines.aws.config import lease_of
from secrethub.engines.aws.role import LONGEST, SHORTEST, Role, find_role
from secrethub.engines.aws.root import TARGET, used_root
from secrethub.engines.aws.users import is_there, make_user, own_tags, removed
from secrethub.engines.database.usernames import cluster_tag, username
from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.leasing import Held, Made, Plan, issue
from secrethub.engines.mounts import Mount
from secrethub.engines.runtime import Core
from secrethub.errors import InvalidRequest, Unavailable
from secrethub.ids import base62
from secrethub.leases.deadlines import seconds_left
from secrethub.leases.lease import Lease
from secrethub.wire.durations import parse_duration

_DEFAULT_STS = 3600
_LONGEST_NAME = 64
_ODD = re.compile(r"[^\w+=,.@-]", re.ASCII)


class AskCreds(msgspec.Struct, frozen=True):
    """What may be asked for.

    Attributes:
        role_arn: which of the role's roles is assumed; none where there is one only.
        role_session_name: what the session is called in AWS's own logs.
        ttl: how long the credentials shall live, within the role's bounds.
    """

    role_arn: str = ""
    role_session_name: str = ""
    ttl: str | int | None = None


class CredsAnswer(msgspec.Struct, frozen=True):
    """Credentials. ``session_token`` is the newer name of ``security_token``; users of IAM have neither."""

    access_key: str
    secret_key: str
    security_token: str | None
    session_token: str | None
    arn: str | None = None
    ttl: int | None = None


def creds_operations() -> tuple[Operation, ...]:
    """Return the operations that give out credentials, at the two paths that Vault has for them."""
    return tuple(
        Operation(
            name=f"aws.{path}",
            method=method,
            pattern=f"{path}/{{role}}",
            handler=make_creds,
            capability="read",
            request=AskCreds,
            response=CredsAnswer,
            query=AskCreds.__struct_fields__ if method == "read" else (),
            changes=True,
            plain=frozenset(AskCreds.__struct_fields__),
            summary="Give out credentials of a role, for as long as a lease.",
        )
        for path in ("creds", "sts")
        for method in ("read", "write")
    )


async def make_creds(context: Context, body: AskCreds) -> Answer:
    """Give out credentials of a role.

    Raises:
        InvalidRequest: there is no such role, what is asked for is not within it, or AWS refuses.
        Unavailable: AWS does not answer.
    """
    core, name = context.core, context.params["role"]
    role = await find_role(core, context.mount_id, name)
    if role is None:
        raise InvalidRequest(f"Role {name!r} not found")
    root = await used_root(core, context.mount_id)
    account = accounts_of(core).of(context.mount_id, root)
    # Before there is an intent: an outage shall not leave one for each request that it refused.
    account.health.refuse_while_away()
    assumed = _assumed(role, body.role_arn)
    named: dict[str, str] = {}

    def intend(lease: Lease) -> Mapping[str, Any]:
        identity = context.identity
        named["username"] = username(
            root.username_template,
            role=name,
            display_name="" if identity is None else identity.name,
            tag=cluster_tag(core.keys.cluster_id),
            marker=lease.marker,
            longest=_LONGEST_NAME,
            unix_time=int(context.now.timestamp()),
            random=base62,
        )
        return _kept(role, named["username"])

    async def act(lease: Lease) -> Made:
        if role.credential_type == "iam_user":
            tags = own_tags(core.keys.cluster_id, lease.marker)
            key = await make_user(account, role, named["username"], tags)
            data: dict[str, Any] = {**key, "security_token": None, "session_token": None}
        elif role.credential_type == "assumed_role":
            session = _ODD.sub("_", body.role_session_name)[:_LONGEST_NAME] or named["username"]
            data = await _assume(account, role, assumed, session, lease)
        else:
            data = await _federate(account, role, lease)
        return Made(data=data, kept=_kept(role, named["username"]))

    return await issue(context, await _plan(context, role, body), intend, act)


async def end_creds(core: Core, mount: Mount, held: Sequence[Held]) -> Mapping[str, str]:
    """End users of IAM, and return why some could not be, by the ids of their leases.

    Raises:
        InvalidRequest: the mount is configured no more.
        Unavailable, TimeoutError: AWS does not answer.
    """
    made = [one for one in held if one.data["type"] == "iam_user"]
    if not made:
        return {}
    account, now = await account_of(core, mount.uuid), micros(core.clock.now())
    results = await asyncio.gather(
        *(removed(account, one.data["username"], seconds_left(one.lease.issued_at, now)) for one in made),
        return_exceptions=True,
    )
    # AWS that answers about some of them is there: then each of the others has a reason of its own.
    if not all(isinstance(result, BaseException) for result in results):
        results = [_reason(result) for result in results]
    reasons: dict[str, str] = {}
    for one, result in zip(made, results, strict=True):
        if isinstance(result, BaseException):
            raise result
        if result:
            reasons[one.lease.id] = result
    return reasons


async def extend_creds(core: Core, mount: Mount, held: Held, _until: datetime) -> None:
    """Let a user of IAM live longer: only its lease ends it, so it need only be there.

    Raises:
        InvalidRequest: it is gone.
        Unavailable: AWS does not answer.
    """
    account = await account_of(core, mount.uuid)
    try:
        if not await is_there(account, held.data["username"]):
            raise InvalidRequest("the user is gone")
    except TimeoutError as exc:
        raise Unavailable(f"AWS did not answer in time: {exc}") from exc


async def _plan(context: Context, role: Role, body: AskCreds) -> Plan:
    """Return how long credentials live.

    Raises:
        InvalidRequest: AWS gives none for so short a time.
    """
    asked = parse_duration(body.ttl) if body.ttl is not None else 0
    name = context.params["role"]
    if role.credential_type == "iam_user":
        held = await lease_of(context.core, context.mount_id)
        return Plan(role=name, target=TARGET, ttl=asked or held.lease, max_ttl=held.lease_max)
    if asked and asked < SHORTEST:
        raise InvalidRequest(f"AWS gives out temporary credentials for {SHORTEST} seconds at least")
    return Plan(
        role=name,
        target=TARGET,
        ttl=asked or role.default_sts_ttl or _DEFAULT_STS,
        max_ttl=role.max_sts_ttl or LONGEST[role.credential_type],
        renewable=False,
    )


def _reason(result: str | BaseException) -> str | BaseException:
    """Return why AWS did not answer about one user, and whatever else there was as it is."""
    if isinstance(result, Unavailable):
        return result.message
    return f"AWS did not answer in time: {result}" if isinstance(result, TimeoutError) else result


def _kept(role: Role, name: str) -> dict[str, str]:
    return {"type": role.credential_type, "username": name}


def _assumed(role: Role, asked: str) -> str:
    """Return which role of AWS is assumed; empty for other types.

    Raises:
        InvalidRequest: none, or one that the role does not have.
    """
    if role.credential_type != "assumed_role":
        if asked:
            raise InvalidRequest("role_arn is for credential_type assumed_role")
        return ""
    if not asked and len(role.role_arns) != 1:
        raise InvalidRequest("did not supply a role_arn parameter and unable to determine one")
    if asked and asked not in role.role_arns:
        raise InvalidRequest("role_arn is not one of the role's role_arns")
    return asked or role.role_arns[0]


async def _assume(account: Account, role: Role, arn: str, session: str, lease: Lease) -> dict[str, Any]:
    tags = [{"Key": key, "Value": value} for key, value in role.session_tags.items()]
    answer = await account.call(
        "sts",
        "assume_role",
        RoleArn=arn,
        RoleSessionName=session,
        DurationSeconds=_seconds(lease),
        **_within(role),
        **({"ExternalId": role.external_id} if role.external_id else {}),
        **({"Tags": tags} if tags else {}),
    )
    return _answered(answer, lease) | {"arn": answer["AssumedRoleUser"]["Arn"]}


async def _federate(account: Account, role: Role, lease: Lease) -> dict[str, Any]:
    # AWS takes 32 characters here.
    answer = await account.call(
        "sts",
        "get_federation_token",
        Name=f"sh-{lease.marker}",
        DurationSeconds=_seconds(lease),
        **_within(role),
    )
    return _answered(answer, lease) | {"arn": answer["FederatedUser"]["Arn"]}


def _within(role: Role) -> dict[str, Any]:
    """Return the policies that limit a session."""
    limits: dict[str, Any] = {}
    if role.policy_document:
        limits["Policy"] = role.policy_document
    if role.policy_arns:
        limits["PolicyArns"] = [{"arn": arn} for arn in role.policy_arns]
    return limits


def _seconds(lease: Lease) -> int:
    return max(SHORTEST, seconds_left(lease.issued_at, lease.expires_at))


def _answered(answer: Mapping[str, Any], lease: Lease) -> dict[str, Any]:
    found = answer["Credentials"]
    return {
        "access_key": found["AccessKeyId"],
        "secret_key": found["SecretAccessKey"],
        "security_token": found["SessionToken"],
        "session_token": found["SessionToken"],
        "ttl": _seconds(lease),
    }
