"""How a mount is configured: who we are at AWS, and how long users of IAM live.

The secret key goes in and never comes out. Nothing of the server's own is ever used in its place.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from secrethub.clock import micros
from secrethub.engines.answers import Nothing
from secrethub.engines.aws.account import MOST_RETRIES, Account, account_of, check_endpoint
from secrethub.engines.aws.root import FORM, TARGET, Root, find_root, root_key, root_of, used_root
from secrethub.engines.database.usernames import check_template
from secrethub.engines.engine import EMPTY, Answer, Context, Hidden, Operation
from secrethub.engines.kept import kept_key
from secrethub.engines.reconciling import interval
from secrethub.engines.runtime import Core
from secrethub.engines.target_health import HealthOfTarget
from secrethub.errors import InvalidRequest, NotFound, Unavailable
from secrethub.storage import leases
from secrethub.storage.authority import ENGINE_CONFIGS
from secrethub.wire.durations import format_go_duration, parse_duration

_LEASE = "lease"
_ACCESS = re.compile(r"[A-Za-z0-9_]{16,128}")
_SECRET = re.compile(r"[\x21-\x7e]{1,256}")
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]{2,20}){1,3}-[0-9]{1,2}")
_WHERE = ("access_key", "iam_endpoint", "sts_endpoint")
"""What decides as whom, and at whom, the secret key is used."""
_MOVED = (
    "there are leases of this mount: they are ended as whom it is configured now; "
    "if that is in another account their users stay in the old one"
)


class WriteRoot(Hidden, msgspec.Struct, frozen=True):
    """Who we are, as it is written. What is absent keeps what it was.

    Attributes:
        access_key: id of our key.
        secret_key: proves it; never read back.
        region: of the services.
        iam_endpoint: URL; empty for Amazon's own.
        sts_endpoint: likewise.
        max_retries: beyond the first try of a call; -1 for what is usual here.
        username_template: how users are called.
        stray_check: between two searches for users without a lease; 0 for none, usually an hour.
        remove_strays: remove those, instead of only telling of them.
    """

    access_key: str | None = None
    secret_key: str | None = None
    region: str | None = None
    iam_endpoint: str | None = None
    sts_endpoint: str | None = None
    max_retries: int | None = None
    username_template: str | None = None
    stray_check: str | int | None = None
    remove_strays: bool | None = None


class WriteLease(msgspec.Struct, frozen=True):
    """How long users of IAM live: to begin with, and at most."""

    lease: str | int
    lease_max: str | int


class RootAnswer(msgspec.Struct, frozen=True):
    """Who we are; ``retiring_access_key`` is a former key that is not removed yet."""

    access_key: str
    region: str
    iam_endpoint: str
    sts_endpoint: str
    max_retries: int
    username_template: str
    stray_check: int
    remove_strays: bool
    retiring_access_key: str


class CheckedAnswer(msgspec.Struct, frozen=True):
    """Who AWS says that we are."""

    account: str
    arn: str
    user_id: str


class LeaseSettingsAnswer(msgspec.Struct, frozen=True):
    """How long leases last, usually and at most."""

    lease: str
    lease_max: str


class LeaseBounds(msgspec.Struct, frozen=True, kw_only=True):
    """How long users of IAM live, in seconds; 0 for what holds for the mount."""

    lease: int = 0
    lease_max: int = 0


def config_operations() -> tuple[Operation, ...]:
    """Return the operations on the configuration."""
    return (
        Operation(
            name="aws.root.read",
            method="read",
            pattern="config/root",
            handler=read_root,
            response=RootAnswer,
            capability="read",
            summary="Read who we are at AWS, without the secret key.",
        ),
        Operation(
            name="aws.root.write",
            method="write",
            pattern="config/root",
            handler=write_root,
            response=Nothing,
            capability="update",
            request=WriteRoot,
            changes=True,
            exists=root_exists,
            plain=frozenset(WriteRoot.__struct_fields__) - {"secret_key"},
            summary="Configure who we are at AWS.",
        ),
        Operation(
            name="aws.root.check",
            method="write",
            pattern="config/check",
            handler=check_root,
            response=CheckedAnswer,
            capability="update",
            changes=True,
            summary="Ask AWS who we are.",
        ),
        Operation(
            name="aws.health.read",
            method="read",
            pattern="health",
            handler=read_health,
            response=HealthOfTarget,
            capability="read",
            summary="Read how AWS was found lately by this node.",
        ),
        Operation(
            name="aws.health.check",
            method="write",
            pattern="health",
            handler=check_health,
            response=HealthOfTarget,
            capability="update",
            changes=True,
            summary="Find out now whether AWS answers and takes our key.",
        ),
        Operation(
            name="aws.lease.read",
            method="read",
            pattern="config/lease",
            handler=read_lease,
            response=LeaseSettingsAnswer,
            capability="read",
            summary="Read how long users of IAM live.",
        ),
        Operation(
            name="aws.lease.write",
            method="write",
            pattern="config/lease",
            handler=write_lease,
            response=Nothing,
            capability="update",
            request=WriteLease,
            changes=True,
            plain=frozenset(WriteLease.__struct_fields__),
            summary="Set how long users of IAM live.",
        ),
    )


async def root_exists(context: Context) -> bool:
    """Tell whether a write would update rather than create."""
    return await find_root(context.core, context.mount_id) is not None


async def read_root(context: Context, _body: None) -> Answer:
    """Answer who we are."""
    root = await find_root(context.core, context.mount_id)
    if root is None:
        raise NotFound("not configured yet")
    names = (
        "access_key",
        "region",
        "iam_endpoint",
        "sts_endpoint",
        "max_retries",
        "username_template",
        "stray_check",
        "remove_strays",
    )
    # Another key is there until the next rotation has removed it.
    return Answer(
        data={**{name: getattr(root, name) for name in names}, "retiring_access_key": root.retiring}
    )


async def write_root(context: Context, body: WriteRoot) -> Answer:
    """Keep who we are; AWS is not asked, as it is not in Vault.

    Raises:
        InvalidRequest: a value cannot be, or the secret key is missing.
        Conflict: our own key is being replaced.
    """
    core, key = context.core, root_key(context.mount_id)
    row = await core.authority.get(ENGINE_CONFIGS, key)
    old = Root(key=key) if row is None else root_of(row)
    # The new key would be kept nowhere.
    old.check_still(micros(core.clock.now()))
    fields = {
        name: value
        for name in WriteRoot.__struct_fields__
        if name != "secret_key" and (value := getattr(body, name)) is not None
    }
    if body.stray_check is not None:
        fields["stray_check"] = interval(body.stray_check)
    made = msgspec.structs.replace(old, **fields)
    await _check(core, made)
    moved = any(getattr(made, name) != getattr(old, name) for name in _WHERE)
    if body.secret_key:
        if _SECRET.fullmatch(body.secret_key) is None:
            raise InvalidRequest("secret_key is not one of AWS's")
        made = made.with_key(core.keyring(), made.access_key, body.secret_key)
    elif not old.secrets or moved:
        # Or whoever may write here, and does not know the key, would have us sign for a place of his own.
        raise InvalidRequest("secret_key is needed for another key or another endpoint")
    if made.access_key != old.access_key:
        made = msgspec.structs.replace(made, turn=None, retiring="")
    async with core.authority.change(context.fence) as change:
        await change.put(
            ENGINE_CONFIGS, key, made.body(), owner=context.mount_id, expected_revision=old.revision
        )
        leased = moved and await leases.any_of(change.connection, context.mount_id, TARGET)
    return Answer(warnings=(_MOVED,)) if leased else EMPTY


async def check_root(context: Context, _body: None) -> Answer:
    """Ask AWS who we are, which takes no permission there.

    Raises:
        InvalidRequest: AWS refuses our key.
        Unavailable: AWS does not answer.
    """
    await used_root(context.core, context.mount_id)
    account = await account_of(context.core, context.mount_id)
    account.health.wake()
    try:
        found = await account.who()
    except TimeoutError as exc:
        raise Unavailable(f"AWS did not answer in time: {exc}") from exc
    return Answer(data={"account": found["Account"], "arn": found["Arn"], "user_id": found["UserId"]})


async def read_health(context: Context, _body: None) -> Answer:
    """Answer what this node knows of whether AWS answers."""
    return Answer(data=await _health(context, await account_of(context.core, context.mount_id)))


async def check_health(context: Context, _body: None) -> Answer:
    """Ask AWS now, also when it is left alone, and answer what is known then."""
    account = await account_of(context.core, context.mount_id)
    await account.check(at_once=True)
    return Answer(data=await _health(context, account))


async def _health(context: Context, account: Account) -> dict[str, Any]:
    core = context.core
    return await account.health.told(core.database, core.settings.node, root_key(context.mount_id))


async def lease_of(core: Core, mount: str) -> LeaseBounds:
    """Return how long users of IAM live at the mount with a UUID."""
    row = await core.authority.get(ENGINE_CONFIGS, kept_key(mount, FORM, _LEASE))
    return LeaseBounds() if row is None else msgspec.convert(row.body, LeaseBounds)


async def read_lease(context: Context, _body: None) -> Answer:
    """Answer how long users of IAM live, in Go's spelling as Vault does."""
    key = kept_key(context.mount_id, FORM, _LEASE)
    if await context.core.authority.get(ENGINE_CONFIGS, key) is None:
        raise NotFound("not configured yet")
    found = await lease_of(context.core, context.mount_id)
    return Answer(
        data={"lease": format_go_duration(found.lease), "lease_max": format_go_duration(found.lease_max)}
    )


async def write_lease(context: Context, body: WriteLease) -> Answer:
    """Set how long users made from now on live."""
    made = LeaseBounds(lease=parse_duration(body.lease), lease_max=parse_duration(body.lease_max))
    if 0 < made.lease_max < made.lease:
        raise InvalidRequest("lease is longer than lease_max")
    body_of: dict[str, Any] = msgspec.to_builtins(made)
    async with context.core.authority.change(context.fence) as change:
        key = kept_key(context.mount_id, FORM, _LEASE)
        await change.put(ENGINE_CONFIGS, key, body_of, owner=context.mount_id)
    return EMPTY


async def _check(core: Core, root: Root) -> None:
    if _ACCESS.fullmatch(root.access_key) is None:
        raise InvalidRequest("access_key is the id of a key of AWS: nothing of the server's own is used")
    if _REGION.fullmatch(root.region) is None:
        raise InvalidRequest("region is not one of AWS's")
    if not -1 <= root.max_retries <= MOST_RETRIES:
        raise InvalidRequest(f"max_retries is from -1 to {MOST_RETRIES}: an issue has 20 seconds in all")
    check_template(root.username_template)
    for endpoint in (root.iam_endpoint, root.sts_endpoint):
        if endpoint:
            await check_endpoint(core.settings, endpoint)
