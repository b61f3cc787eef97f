"""``sys/quotas``: rate limits, and what is exempt from them."""

from __future__ import annotations

import re
from typing import Any, get_args

import msgspec

from secrethub.engines.answers import Names, Nothing
from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.flat import flat_view
from secrethub.engines.listing import PAGES, shown
from secrethub.engines.quotas import CONFIG, MILLI, RATE_LIMIT, GroupBy, Quota, quota_of, told
from secrethub.engines.system.answers import QuotaAnswer, QuotaConfigAnswer
from secrethub.errors import InvalidRequest, NotFound
from secrethub.ids import is_identity_value, new_uuid
from secrethub.policy.names import fold_policy_path
from secrethub.storage.authority import QUOTAS
from secrethub.wire.canonical_path import check_path
from secrethub.wire.durations import parse_duration

_ONE = "quotas/rate-limit/{name}"
_MOST = 256
_MAX_RATE = 1_000_000
_MAX_INTERVAL = 30 * 86_400
_MAX_EXEMPT = 100
_FLAT = "secrets/ is a view of secret/: write the path as secret/data/…"
_GLOB = re.compile(r"[^*]+\*?")


class WriteQuota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rate limit: ``rate`` requests in ``interval``. What is absent stays as it was.

    ``type`` and ``inheritable`` are what Vault's clients send, and say nothing here.
    """

    rate: float | int | str | None = None
    path: str | None = None
    role: str | None = None
    interval: str | int | None = None
    block_interval: str | int | None = None
    group_by: str | None = None
    name: str | None = None
    type: str = ""
    inheritable: bool | None = None
    secondary_rate: float | int | str | None = None


class WriteConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``rate_limit_exempt_paths``: canonical paths, perhaps with a trailing ``*``."""

    rate_limit_exempt_paths: list[str] | None = None
    enable_rate_limit_audit_logging: bool = False
    enable_rate_limit_response_headers: bool = False


def quota_operations() -> tuple[Operation, ...]:
    """Return the operations on quotas."""
    return (
        Operation(
            name="sys.quotas.config.read",
            method="read",
            pattern="quotas/config",
            handler=read_config,
            response=QuotaConfigAnswer,
            capability="read",
            summary="Tell what is exempt from rate limits.",
        ),
        Operation(
            name="sys.quotas.config.write",
            method="write",
            pattern="quotas/config",
            handler=write_config,
            response=Nothing,
            capability="update",
            request=WriteConfig,
            changes=True,
            plain=frozenset(WriteConfig.__struct_fields__),
            summary="Exempt paths from rate limits.",
        ),
        Operation(
            name="sys.quotas.rate-limit.list",
            method="list",
            pattern="quotas/rate-limit",
            handler=list_quotas,
            response=Names,
            capability="list",
            query=PAGES,
            summary="List rate limits.",
        ),
        Operation(
            name="sys.quotas.rate-limit.read",
            method="read",
            pattern=_ONE,
            handler=read_quota,
            response=QuotaAnswer,
            capability="read",
            summary="Read a rate limit.",
        ),
        Operation(
            name="sys.quotas.rate-limit.write",
            method="write",
            pattern=_ONE,
            handler=write_quota,
            response=Nothing,
            capability="update",
            request=WriteQuota,
            changes=True,
            exists=quota_exists,
            plain=frozenset(WriteQuota.__struct_fields__),
            summary="Limit how many requests are admitted.",
        ),
        Operation(
            name="sys.quotas.rate-limit.delete",
            method="delete",
            pattern=_ONE,
            handler=delete_quota,
            response=Nothing,
            capability="delete",
            changes=True,
            summary="Lift a rate limit.",
        ),
    )


def quota_key(context: Context, kind: str) -> str:
    """Return the key of the row of the quota that the request names.

    Args:
        context: of the request.
        kind: what keys of such quotas begin with.

    Raises:
        InvalidRequest: it is no name.
    """
    name = context.params["name"]
    if not is_identity_value(name) or len(name) > 128:
        raise InvalidRequest("a quota's name has 1 to 128 characters of A-Z, a-z, 0-9, '_', '.' and '-'")
    return kind + name


def check_named(context: Context, name: str | None) -> None:
    """Check that the name in a body, if there is one, is that of the path.

    Raises:
        InvalidRequest: it is another.
    """
    if name not in {None, "", context.params["name"]}:
        raise InvalidRequest("the name in the body is another than that of the path")


async def quota_exists(context: Context) -> bool:
    """Tell whether a write would update rather than create."""
    return await context.core.authority.get(QUOTAS, quota_key(context, RATE_LIMIT)) is not None


async def list_quotas(context: Context, _body: None) -> Answer:
    """Answer the names of rate limits."""
    quotas = (await context.core.quotas.load()).rates
    names = await shown(context, sorted(quota.name for quota in quotas))
    if not names:
        raise NotFound("no rate limits")
    return Answer(data={"keys": names})


async def read_quota(context: Context, _body: None) -> Answer:
    """Answer a rate limit."""
    row = await context.core.authority.get(QUOTAS, quota_key(context, RATE_LIMIT))
    if row is None:
        raise NotFound("no such rate limit")
    return Answer(data=told(quota_of(row)))


async def write_quota(context: Context, body: WriteQuota) -> Answer:
    """Write a rate limit. Its budget begins whole; other processes hear of it at once."""
    core, key = context.core, quota_key(context, RATE_LIMIT)
    check_named(context, body.name)
    _check(body)
    async with core.authority.change(context.fence) as change:
        row = await change.get(QUOTAS, key)
        old = None if row is None else quota_of(row)
        path = old.path if old is not None and body.path is None else body.path or ""
        wanted, mount, kind = await place(context, path)
        role = body.role if body.role is not None else old.role if old is not None else ""
        if role and (wanted != mount or kind not in {"approle", "userpass"}):
            raise InvalidRequest("a role is of an auth method with roles, and path is its mount")
        if kind == "userpass":
            role = role.lower()  # as are the names that logins claim
        quota = Quota(
            name=context.params["name"],
            uuid=new_uuid(),
            path=wanted,
            mount=mount,
            role=role,
            rate=_rate(body.rate, old),
            interval=_seconds(body.interval, 1 if old is None else old.interval, "interval") or 1,
            block_interval=_seconds(
                body.block_interval, 0 if old is None else old.block_interval, "block_interval"
            ),
            group_by=_group_by(body.group_by, old),
        )
        others = [other for other in (await core.quotas.load()).rates if other.name != quota.name]
        for other in others:
            if (other.path, other.role) == (quota.path, quota.role):
                raise InvalidRequest(f"a quota with the same path and role exists: {other.name}")
        if len(others) >= _MOST:
            raise InvalidRequest(f"at most {_MOST} rate limits can be written")
        await change.put(QUOTAS, key, msgspec.to_builtins(quota))
    return EMPTY


async def delete_quota(context: Context, _body: None) -> Answer:
    """Lift a rate limit; that there is none is no error."""
    async with context.core.authority.change(context.fence) as change:
        if not await change.delete(QUOTAS, quota_key(context, RATE_LIMIT)):
            return EMPTY
    return EMPTY


async def read_config(context: Context, _body: None) -> Answer:
    """Answer what is exempt."""
    exempt = (await context.core.quotas.load()).exempt
    return Answer(
        data={
            "rate_limit_exempt_paths": list(exempt),
            "enable_rate_limit_audit_logging": False,
            "enable_rate_limit_response_headers": False,
        }
    )


async def write_config(context: Context, body: WriteConfig) -> Answer:
    """Exempt other paths than before."""
    if body.enable_rate_limit_audit_logging:
        raise InvalidRequest("what a quota refuses is counted in summaries: nobody shall fill the ledger")
    if body.enable_rate_limit_response_headers:
        raise InvalidRequest("enable_rate_limit_response_headers is not supported")
    if body.rate_limit_exempt_paths is None:
        return EMPTY
    if len(body.rate_limit_exempt_paths) > _MAX_EXEMPT:
        raise InvalidRequest(f"at most {_MAX_EXEMPT} paths can be exempt")
    paths = sorted({_pattern(path) for path in body.rate_limit_exempt_paths})
    if any(flat_view("read", path) != path for path in paths):
        raise InvalidRequest(_FLAT)
    async with context.core.authority.change(context.fence) as change:
        await change.put(QUOTAS, CONFIG, {"exempt": paths})
    return EMPTY


def _check(body: WriteQuota) -> None:
    """Refuse what would not be done."""
    if body.type not in {"", "rate-limit"}:
        raise InvalidRequest("type is rate-limit")
    if body.secondary_rate not in {None, 0, "0", ""}:
        raise InvalidRequest("secondary_rate is not supported")


def _pattern(path: str) -> str:
    """Return a path as quotas compare it, perhaps with a trailing ``*``."""
    if _GLOB.fullmatch(path) is None:
        raise InvalidRequest("a path has at most one *, at its end")
    bare = path.removesuffix("*")
    end = "/" if bare != path and bare.endswith("/") else ""
    return fold_policy_path(check_path(bare.removeprefix("/"))) + end + path[len(bare) :]


async def place(context: Context, path: str) -> tuple[str, str, str]:
    """Return the path that a quota is about, its mount and the mount's type; empty for everything.

    Raises:
        InvalidRequest: nothing is mounted there, or it is a view of something else.
    """
    if path in {"", "/"}:
        return "", "", ""
    wanted = _pattern(path)
    for mount in await context.core.mounts.load():
        if mount.covers(wanted.removesuffix("*")):
            if mount.type == "flat":
                raise InvalidRequest(_FLAT)
            whole = wanted.rstrip("/") + "/" == mount.path or wanted == mount.path + "*"
            return mount.path if whole else wanted, mount.path, mount.type
    raise InvalidRequest("invalid mount path: nothing is mounted there")


def _rate(given: Any, old: Quota | None) -> int:
    if given is None:
        if old is None:
            raise InvalidRequest("rate is required")
        return old.rate
    try:
        milli = round(float(given) * MILLI)
    except (ValueError, OverflowError) as exc:
        raise InvalidRequest("rate is a number") from exc
    if not 1 <= milli <= _MAX_RATE * MILLI:
        raise InvalidRequest(f"rate is from 0.001 to {_MAX_RATE}")
    return milli


def _seconds(given: str | int | None, present: int, name: str) -> int:
    seconds = present if given is None or given == "" else parse_duration(given)
    if seconds > _MAX_INTERVAL:
        raise InvalidRequest(f"{name} is at most {_MAX_INTERVAL} seconds")
    return seconds


def _group_by(given: str | None, old: Quota | None) -> GroupBy:
    present = "ip" if old is None else old.group_by
    chosen = given or present
    for known in get_args(GroupBy):
        if chosen == known:
            return known  # type: ignore[no-any-return]
    raise InvalidRequest(f"group_by is one of {', '.join(get_args(GroupBy))}")
