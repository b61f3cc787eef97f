"""IAM users: made whole, and removed with everything that belongs to them.

IAM is eventually consistent: for some seconds a user that was just made may be said not to exist, and keys
may not work yet. So that nobody is forgotten, "there is no such user" is only believed of one whose making is
a while ago.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from secrethub.engines.aws.account import Account, Refused
from secrethub.engines.aws.role import OWN_TAG, Role
from secrethub.errors import InvalidRequest

SETTLED_SECONDS = 60.0
"""After which IAM has told everywhere of what was made."""

_CLUSTER, _LEASE = f"{OWN_TAG}cluster", f"{OWN_TAG}lease"
_MISSING = "NoSuchEntity"
_POLICY = "secrethub"


async def make_user(account: Account, role: Role, name: str, tags: Mapping[str, str]) -> dict[str, str]:
    """Make a user with what its role gives it, and return its access key.

    Args:
        account: where.
        role: what it may do.
        name: of the user; there is none of this name.
        tags: of :func:`own_tags`.

    Raises:
        Refused, Unavailable, TimeoutError: it may be there, in part.
    """
    boundary = {}
    if role.permissions_boundary_arn:
        boundary["PermissionsBoundary"] = role.permissions_boundary_arn
    await account.call(
        "iam",
        "create_user",
        UserName=name,
        Path=role.user_path,
        Tags=[{"Key": key, "Value": value} for key, value in {**role.iam_tags, **tags}.items()],
        **boundary,
    )
    for arn in role.policy_arns:
        await account.call("iam", "attach_user_policy", UserName=name, PolicyArn=arn)
    if role.policy_document:
        await account.call(
            "iam",
            "put_user_policy",
            UserName=name,
            PolicyName=_POLICY,
            PolicyDocument=role.policy_document,
        )
    for group in role.iam_groups:
        await account.call("iam", "add_user_to_group", UserName=name, GroupName=group)
    made = (await account.call("iam", "create_access_key", UserName=name))["AccessKey"]
    return {"access_key": made["AccessKeyId"], "secret_key": made["SecretAccessKey"]}


def own_tags(cluster: str, marker: str) -> dict[str, str]:
    """Return the tags by which a cluster knows its users."""
    return {_CLUSTER: cluster, _LEASE: marker}


async def remove_user(account: Account, name: str, age: float) -> None:
    """Remove a user: first its keys, so that it can do nothing any more.

    Its tags are not asked for: a user may be allowed to change its own. The name is proof enough, for the
    marker in it is random, and where a user of that name had been, none was made.

    Args:
        account: where.
        name: of the user, from an authentic lease; gone already is fine.
        age: seconds since it was planned.

    Raises:
        InvalidRequest: it may not be seen yet, or AWS refuses.
        Unavailable, TimeoutError: AWS does not answer; this can be done again.
    """
    keys = await _all(account, "list_access_keys", "AccessKeyMetadata", name)
    if keys is None:
        if age < SETTLED_SECONDS:
            raise InvalidRequest("IAM does not know the user, which may be too new to be seen everywhere")
        return
    for key in keys:
        await _gone(account, "delete_access_key", name, AccessKeyId=key["AccessKeyId"])
    for policy in await _all(account, "list_attached_user_policies", "AttachedPolicies", name) or ():
        await _gone(account, "detach_user_policy", name, PolicyArn=policy["PolicyArn"])
    for inline in await _all(account, "list_user_policies", "PolicyNames", name) or ():
        await _gone(account, "delete_user_policy", name, PolicyName=inline)
    for group in await _all(account, "list_groups_for_user", "Groups", name) or ():
        await _gone(account, "remove_user_from_group", name, GroupName=group["GroupName"])
    await _gone(account, "delete_user", name)


async def removed(account: Account, name: str, age: float) -> str:
    """Remove a user, and return why it could not be; empty when it is gone.

    Raises:
        Unavailable, TimeoutError: as :func:`remove_user`.
    """
    try:
        await remove_user(account, name, age)
    except InvalidRequest as exc:
        return exc.message
    return ""


async def is_there(account: Account, name: str) -> bool:
    """Tell whether a user is there. Raises as :func:`remove_user`."""
    return await _all(account, "list_access_keys", "AccessKeyMetadata", name) is not None


async def is_ours(account: Account, name: str, tags: Mapping[str, str]) -> bool:
    """Tell whether a user is there and has these tags. Raises as :func:`remove_user`."""
    found = await _all(account, "list_user_tags", "Tags", name) or ()
    there = {tag["Key"]: tag["Value"] for tag in found}
    return all(there.get(key) == value for key, value in tags.items())


async def users(account: Account) -> AsyncIterator[str]:
    """Yield the names of all users of the account."""
    marker: dict[str, str] = {}
    while True:
        page = await account.call("iam", "list_users", MaxItems=1000, **marker)
        for user in page["Users"]:
            yield user["UserName"]
        if not page.get("IsTruncated"):
            return
        marker = {"Marker": page["Marker"]}


async def _all(account: Account, method: str, what: str, name: str) -> list[Any] | None:
    """Return what a user has, less of each than one page holds; None when there is no such user."""
    try:
        answer = await account.call("iam", method, UserName=name)
    except Refused as exc:
        if exc.aws_code == _MISSING:
            return None
        raise
    found: list[Any] = answer[what]
    return found


async def _gone(account: Account, method: str, name: str, **what: str) -> None:
    """Take something away; that it is gone already is fine."""
    try:
        await account.call("iam", method, UserName=name, **what)
    except Refused as exc:
        if exc.aws_code != _MISSING:
            raise
