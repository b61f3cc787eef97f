"""Our own key at AWS is replaced, so that nobody but SecretHub knows it. The process may die anywhere.

AWS tells the secret of a key once, and a user has two keys at most. So the turn is written down with the keys
that there are; a new one is made, tried, and kept, with the old one as retiring; then that is removed. What
an interrupted turn has left, a key that nobody knows or one that retires, is removed by the next one. Until
the new key is kept the old one is good, and afterwards the new one is: no crash locks us out.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from secrethub.clock import micros
from secrethub.engines.aws.account import Account, Refused, accounts_of
from secrethub.engines.aws.root import Root, Turn, root_key, root_of
from secrethub.engines.engine import Answer, Context, Fence, Operation
from secrethub.engines.own_changes import present_fence
from secrethub.engines.runtime import Core
from secrethub.errors import InvalidRequest, SecretHubError, Stale, Unavailable
from secrethub.sensitive import Sensitive
from secrethub.storage.authority import ENGINE_CONFIGS

_TURN_SECONDS = 90.0
"""That a turn has; after some more it is taken for interrupted (``Root.check_still``)."""
_TRIES = 15
_PAUSE = 1.0
"""Seconds between tries of a new key, which AWS does not know everywhere at once."""


class RootRotated(msgspec.Struct, frozen=True):
    """The id of our key from now on."""

    access_key: str


def rotating_operations() -> tuple[Operation, ...]:
    """Return the operation that replaces our own key."""
    return (
        Operation(
            name="aws.root.rotate",
            method="write",
            pattern="config/rotate-root",
            handler=rotate_root,
            capability="update",
            response=RootRotated,
            changes=True,
            summary="Replace our own key at AWS by one that only SecretHub knows.",
        ),
    )


async def rotate_root(context: Context, _body: None) -> Answer:
    """Replace our own key.

    Raises:
        InvalidRequest: it is not configured, or AWS refuses; the old key stays good.
        Conflict: it is being replaced.
        Unavailable: AWS does not answer; the old or the new key is good and is the one that is kept.
    """
    core, mount = context.core, context.mount_id
    row = await core.authority.fetch(ENGINE_CONFIGS, root_key(mount))
    if row is None:
        raise InvalidRequest("config/root is not written yet")
    root, now = root_of(row), micros(core.clock.now())
    root.check_still(now)
    try:
        async with asyncio.timeout(_TURN_SECONDS):
            root, retired = await _turn(core, mount, root, now, context.fence)
    except TimeoutError as exc:
        raise Unavailable(f"AWS did not answer in time, the turn is taken up by the next one: {exc}") from exc
    warnings = () if retired else (f"the old key {root.retiring} is still there; the next turn removes it",)
    return Answer(data={"access_key": root.access_key}, warnings=warnings)


async def _turn(core: Core, mount: str, root: Root, now: int, fence: Fence) -> tuple[Root, bool]:
    """Return who we are afterwards, and whether the old key is gone."""
    account, written = accounts_of(core).of(mount, root), fence.written
    user = (await account.call("iam", "get_user"))["User"].get("UserName")
    if not user:
        raise InvalidRequest("the key is the account's own and no user's: IAM replaces only keys of users")
    present = await _tidied(account, user, root)
    turn = Turn(at=now, before=tuple(sorted(present)))
    root = await _keep(core, msgspec.structs.replace(root, turn=turn, retiring=""), written, fence)
    made = (await account.call("iam", "create_access_key", UserName=user))["AccessKey"]
    secret = Sensitive(str(made["SecretAccessKey"]))
    old = root.access_key
    candidate = msgspec.structs.replace(
        root.with_key(core.keyring(), made["AccessKeyId"], secret.reveal()), turn=None, retiring=old
    )
    successor = accounts_of(core).with_key(mount, candidate, secret)
    try:
        await _proven(successor)
    except InvalidRequest:
        await account.call("iam", "delete_access_key", UserName=user, AccessKeyId=candidate.access_key)
        await _keep(core, msgspec.structs.replace(root, turn=None), written)
        raise
    # If this cannot be said to be kept, it may be: then either key is good, and neither is removed.
    root = await _keep(core, candidate, written)
    try:
        await successor.call("iam", "delete_access_key", UserName=user, AccessKeyId=old)
    except (SecretHubError, TimeoutError):
        return root, False
    return await _keep(core, msgspec.structs.replace(root, retiring=""), written), True


async def _tidied(account: Account, user: str, root: Root) -> set[str]:
    """Remove what interrupted turns have left, and return the keys that there are: our own.

    Raises:
        InvalidRequest: there is another one.
    """
    found = await account.call("iam", "list_access_keys", UserName=user)
    present = {str(key["AccessKeyId"]) for key in found["AccessKeyMetadata"]}
    if root.access_key not in present:
        raise InvalidRequest("the key is none of the user that AWS says we are")
    left = present & {root.retiring}
    if root.turn is not None:
        left |= present - set(root.turn.before)
    for key in left - {root.access_key}:
        await account.call("iam", "delete_access_key", UserName=user, AccessKeyId=key)
        present.remove(key)
    if len(present) > 1:
        raise InvalidRequest("the user has a second access key, which leaves no place for a new one")
    return present


async def _proven(account: Account) -> None:
    """Use a new key until AWS knows it.

    Raises:
        InvalidRequest: AWS does not, after a while.
    """
    for count in range(1, _TRIES + 1):
        try:
            # The key is needed for both services, and takes a while to be known to each.
            await account.call("sts", "get_caller_identity")
            await account.call("iam", "get_user")
        except Refused:
            if count == _TRIES:
                raise
            await asyncio.sleep(_PAUSE)
        else:
            return


async def _keep(core: Core, root: Root, written: list[dict[str, Any]], fence: Fence | None = None) -> Root:
    """Write a row on from the revision that we know; ``fence`` where nothing has happened at AWS yet.

    Raises:
        Conflict: somebody has configured another key meanwhile.
        Stale: the decision was overtaken.
        Unavailable: whether it is written is unknown.
    """
    while True:
        held = fence or present_fence(core, written)
        try:
            async with core.authority.issue(held) as change:
                row = await change.put(
                    ENGINE_CONFIGS,
                    root.key,
                    root.body(),
                    owner=root.key.partition("/")[0],
                    expected_revision=root.revision,
                )
        except Stale:
            if fence is not None:
                raise
            await core.ledger.look()
        else:
            return root_of(row)
