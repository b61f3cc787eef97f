"""Roles and their RoleIDs."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from secrethub.auth.digests import role_id_digest
from secrethub.engines.auth_methods import belongs, row_name
from secrethub.engines.bindings import Subject, end_bindings
from secrethub.engines.engine import Answer, Context, Fence
from secrethub.engines.listing import shown
from secrethub.errors import InvalidRequest, NotFound, Sealed, Stale, Unavailable
from secrethub.ids import is_identity_value, new_uuid
from secrethub.policy.builtin import ROOT, normalise_policy_name
from secrethub.storage.authority import APPROLES, ROLE_IDS, SECRET_IDS, Row
from secrethub.wire.canonical_path import check_path
from secrethub.wire.durations import parse_duration

_MAX_LIST = 64
_MAX_USES = (1 << 31) - 1
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")

_log = logging.getLogger(__name__)


class WriteRole(msgspec.Struct, frozen=True):
    """A role. Absent fields keep what they were. Batch tokens and periods are refused.

    ``bound_cidr_list`` is an older name of ``secret_id_bound_cidrs``.
    """

    token_policies: list[str] | None = None
    policies: list[str] | None = None
    token_ttl: str | int | None = None
    token_max_ttl: str | int | None = None
    secret_id_ttl: str | int | None = None
    secret_id_num_uses: int | None = None
    secret_id_bound_cidrs: list[str] | None = None
    bound_cidr_list: list[str] | None = None
    bind_secret_id: bool | None = None
    token_no_default_policy: bool | None = None
    token_type: str | None = None
    token_period: str | int | None = None
    period: str | int | None = None
    token_num_uses: int | None = None
    token_bound_cidrs: list[str] | None = None
    token_explicit_max_ttl: str | int | None = None
    token_strictly_bind_ip: bool | None = None
    local_secret_ids: bool | None = None
    enable_local_secret_ids: bool | None = None


class WriteRoleId(msgspec.Struct, frozen=True):
    """A chosen RoleID."""

    role_id: str


def role_key(mount: str, name: str) -> str:
    """Return the key of a role's row: its name as it is, since policies see the path as it is.

    Roles of another mount than ``auth/approle/`` have its name before theirs: ``machines/web``.

    Raises:
        InvalidRequest: not a name.
    """
    if not is_identity_value(name) or len(name) > 128:
        raise InvalidRequest("a role name has 1 to 128 characters of A-Z, a-z, 0-9, '_', '.' and '-'")
    return row_name("approle", mount, name)


def chosen_role(text: str) -> str:
    """Return the key of a role that somebody names: ``web``, or ``machines/web`` of another mount.

    Raises:
        InvalidRequest: it cannot be one.
    """
    mount, slash, name = text.rpartition("/")
    return role_key(f"auth/{check_path(mount)}/" if slash else "auth/approle/", name)


def _key(context: Context) -> str:
    return role_key(context.mount, context.params["role"])


async def load_role(context: Context) -> Row:
    """Return the role that the path names.

    Raises:
        NotFound: there is none.
    """
    row = await context.core.authority.get(APPROLES, _key(context))
    if row is None:
        raise NotFound("no such role")
    return row


async def role_exists(context: Context) -> bool:
    """Tell whether a write would update rather than create."""
    return await context.core.authority.get(APPROLES, _key(context)) is not None


async def list_roles(context: Context, _body: None) -> Answer:
    """Answer the names of all roles."""
    rows, broken = await context.core.authority.everything(APPROLES)
    for trouble in broken.values():
        raise trouble
    here = (row.body["name"] for row in rows if belongs("approle", context.mount, row.key))
    names = await shown(context, sorted(here))
    if not names:
        raise NotFound("no roles")
    return Answer(data={"keys": names})


async def read_role(context: Context, _body: None) -> Answer:
    """Answer a role's settings."""
    body = (await load_role(context)).body
    return Answer(
        data={
            "bind_secret_id": True,
            "local_secret_ids": False,
            "policies": body["token_policies"],
            "secret_id_bound_cidrs": body["secret_id_bound_cidrs"] or None,
            "secret_id_num_uses": body["secret_id_num_uses"],
            "secret_id_ttl": body["secret_id_ttl"],
            "token_bound_cidrs": [],
            "token_explicit_max_ttl": 0,
            "token_max_ttl": body["token_max_ttl"],
            "token_no_default_policy": body["token_no_default_policy"],
            "token_num_uses": 0,
            "token_period": 0,
            "token_policies": body["token_policies"],
            "token_ttl": body["token_ttl"],
            "token_type": "default",
        }
    )


def _refuse_unknown(body: WriteRole) -> None:
    """Refuse what would narrow the role and is not enforced here."""
    for name in (
        "token_period",
        "period",
        "token_num_uses",
        "token_bound_cidrs",
        "token_explicit_max_ttl",
        "token_strictly_bind_ip",
        "local_secret_ids",
        "enable_local_secret_ids",
    ):
        if getattr(body, name) not in (None, 0, "", "0", "0s", []):
            raise InvalidRequest(f"{name} is not supported")
    if body.bind_secret_id is False:
        raise InvalidRequest("a role without a SecretID would let anybody in: bind_secret_id must be true")
    if body.token_type not in {None, "", "default", "service", "default-service"}:
        raise InvalidRequest("only tokens of type service are made")


def parse_cidrs(given: list[str]) -> list[str]:
    """Return networks in canonical form.

    Raises:
        InvalidRequest: one of them is none.
    """
    if len(given) > _MAX_LIST:
        raise InvalidRequest(f"at most {_MAX_LIST} CIDRs can be bound")
    try:
        return [str(_network(text)) for text in given]
    except ValueError as exc:
        raise InvalidRequest("bound CIDRs must be networks such as 10.0.0.0/8") from exc


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return a network; one of IPv4 addresses written as IPv6 becomes what it means."""
    network = ipaddress.ip_network(text, strict=False)
    if network.version == 6 and network.subnet_of(_MAPPED):
        return ipaddress.IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def _bound_cidrs(body: WriteRole) -> list[str] | None:
    """Return what SecretIDs are to be bound to, under whichever name it was given; None to keep it."""
    given = [
        parse_cidrs(cidrs)
        for cidrs in (body.secret_id_bound_cidrs, body.bound_cidr_list)
        if cidrs is not None
    ]
    if len(given) == 2 and given[0] != given[1]:
        # Whichever was taken, the caller may have meant to narrow the role by the other.
        raise InvalidRequest("secret_id_bound_cidrs and its older name bound_cidr_list differ")
    return given[0] if given else None


def check_uses(given: int, name: str) -> int:
    """Return a number of uses.

    Raises:
        InvalidRequest: negative, or more than can be counted.
    """
    if not 0 <= given <= _MAX_USES:
        raise InvalidRequest(f"{name} is between 0 and {_MAX_USES}")
    return given


def _merged(old: Mapping[str, Any], body: WriteRole) -> dict[str, Any]:
    merged = dict(old)
    policies = body.token_policies if body.token_policies is not None else body.policies
    if policies is not None:
        names = sorted({normalise_policy_name(name) for name in policies})
        if ROOT in names:
            raise InvalidRequest("a role cannot give out root")
        if len(names) > _MAX_LIST:
            raise InvalidRequest(f"a role has at most {_MAX_LIST} policies")
        merged["token_policies"] = names
    for name in ("token_ttl", "token_max_ttl", "secret_id_ttl"):
        if getattr(body, name) is not None:
            merged[name] = parse_duration(getattr(body, name))
    if body.secret_id_num_uses is not None:
        merged["secret_id_num_uses"] = check_uses(body.secret_id_num_uses, "secret_id_num_uses")
    cidrs = _bound_cidrs(body)
    if cidrs is not None:
        merged["secret_id_bound_cidrs"] = cidrs
    if body.token_no_default_policy is not None:
        merged["token_no_default_policy"] = body.token_no_default_policy
    if merged["token_max_ttl"] and merged["token_ttl"] > merged["token_max_ttl"]:
        raise InvalidRequest("token_ttl should not be greater than token_max_ttl")
    return merged


async def write_role(context: Context, body: WriteRole) -> Answer:
    """Write a role; agents and later logins have its policies at once."""
    core = context.core
    key = _key(context)
    _refuse_unknown(body)
    async with core.authority.change(context.fence) as change:
        old = await change.get(APPROLES, key)
        if old is not None:
            await change.put(APPROLES, key, _merged(old.body, body))
        else:
            role_id = new_uuid()
            empty = {
                "name": context.params["role"],
                "uuid": new_uuid(),
                "role_id": role_id,
                "token_policies": [],
                "token_ttl": 0,
                "token_max_ttl": 0,
                "secret_id_ttl": 0,
                "secret_id_num_uses": 0,
                "secret_id_bound_cidrs": [],
                "token_no_default_policy": False,
            }
            await change.put(APPROLES, key, _merged(empty, body), expected_revision=0)
            digest = role_id_digest(core.keyring(), context.mount, role_id)
            await change.put(ROLE_IDS, digest, {"role": key}, owner=key, expected_revision=0)
    return Answer(detail={"written": change.written})


async def delete_role(context: Context, _body: None) -> Answer:
    """Delete a role with its RoleID, SecretIDs and bindings; its agents lose their rights at once."""
    core = context.core
    key = _key(context)
    async with core.authority.change(context.fence) as change:
        if await change.delete(APPROLES, key):
            owned = f"SELECT key FROM {ROLE_IDS.name} WHERE owner = $1"  # noqa: S608 - a constant of ours
            rows = await change.connection.fetch(owned, key)
            await change.delete_many(ROLE_IDS, [row["key"] for row in rows])
            for failure in await end_bindings(change, [Subject("approle", key)]):
                core.metrics.integrity_failures.labels(failure.table).inc()
    if change.written:
        # SecretIDs are bound to the role that is gone, so their rows can go without holding anybody up.
        await _remove_secret_ids(context, key)
    return Answer(detail={"written": change.written})


async def _remove_secret_ids(context: Context, key: str) -> None:
    core = context.core
    after = ""
    try:
        while page := await core.authority.keys(SECRET_IDS, owner=key, after=after):
            after = page[-1]
            await core.ledger.look()
            fence = Fence(generation=core.caches.generation, seal_epoch=core.caches.seal_epoch)
            async with core.authority.issue(fence) as change:
                _, failures = await change.delete_many(SECRET_IDS, page)
            for failure in failures:
                core.metrics.integrity_failures.labels(failure.table).inc()
                _log.error("a SecretID of a deleted role could not be removed: %s", failure)
    except (Stale, Sealed, Unavailable) as exc:
        _log.warning("SecretIDs of a deleted role, which nobody can use, were left: %s", exc.code)


async def read_role_id(context: Context, _body: None) -> Answer:
    """Answer a role's RoleID."""
    return Answer(data={"role_id": (await load_role(context)).body["role_id"]})


async def write_role_id(context: Context, body: WriteRoleId) -> Answer:
    """Give a role a chosen RoleID; the former one is void."""
    if not 8 <= len(body.role_id) <= 256 or not body.role_id.isprintable():
        raise InvalidRequest("a RoleID has 8 to 256 printable characters")
    core, role = context.core, await load_role(context)
    keyring = core.keyring()
    digest = role_id_digest(keyring, context.mount, body.role_id)
    async with core.authority.change(context.fence) as change:
        current = await change.get(APPROLES, role.key)
        if current is None:
            raise NotFound("no such role")
        await change.delete(ROLE_IDS, role_id_digest(keyring, context.mount, current.body["role_id"]))
        if await change.get(ROLE_IDS, digest) is not None:
            raise InvalidRequest("this RoleID is in use")
        await change.put(APPROLES, role.key, {**current.body, "role_id": body.role_id})
        await change.put(ROLE_IDS, digest, {"role": role.key}, owner=role.key, expected_revision=0)
    return Answer(detail={"written": change.written})
