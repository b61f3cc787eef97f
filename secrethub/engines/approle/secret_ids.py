"""SecretIDs: made or chosen for a role, shown once, listed, looked up, destroyed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from secrethub.auth.digests import secret_id_digest
from secrethub.auth.networks import covered, parse_networks
from secrethub.engines.approle.role import IDS, Role, is_id, load_role, named_key
from secrethub.engines.approle.secret_id import (
    SecretId,
    belongs,
    find,
    find_by_accessor,
    is_good,
    shown,
)
from secrethub.engines.engine import EMPTY, Answer, Context, Hidden
from secrethub.engines.listing import page
from secrethub.engines.text import plain_document, text_map
from secrethub.engines.token.settings import checked_uses
from secrethub.errors import InvalidRequest, NotFound
from secrethub.ids import new_uuid
from secrethub.storage.authority import SECRET_IDS, Row
from secrethub.wire.durations import parse_duration

_PAGE = 1000


class SecretIdAnswer(msgspec.Struct, frozen=True):
    """A SecretID that was made: for how many seconds and logins it is good, 0 without a limit."""

    secret_id: str
    secret_id_accessor: str
    secret_id_ttl: int
    secret_id_num_uses: int


class ShownSecretId(msgspec.Struct, frozen=True):
    """What is known of a SecretID."""

    cidr_list: list[str]
    creation_time: str
    expiration_time: str
    last_updated_time: str
    metadata: dict[str, str]
    secret_id_accessor: str
    secret_id_num_uses: int
    secret_id_ttl: int
    token_bound_cidrs: list[str]


class MakeSecretId(Hidden, msgspec.Struct, frozen=True):
    """A SecretID, never wider than the role says."""

    metadata: str | dict[str, Any] | None = None
    cidr_list: list[str] | None = None
    ttl: str | int | None = None
    num_uses: int | None = None
    token_bound_cidrs: list[str] | None = None


class ChooseSecretId(MakeSecretId, frozen=True):
    """A SecretID of the caller's choice."""

    secret_id: str = ""


class NamedSecretId(Hidden, msgspec.Struct, frozen=True):
    """Which SecretID."""

    secret_id: str = ""


class NamedAccessor(msgspec.Struct, frozen=True):
    """The accessor of which SecretID."""

    secret_id_accessor: str = ""


async def make_secret_id(context: Context, body: MakeSecretId) -> Answer:
    """Make a SecretID; it is shown once."""
    return await _make(context, body, new_uuid())


async def choose_secret_id(context: Context, body: ChooseSecretId) -> Answer:
    """Take a chosen SecretID, which must be as hard to guess as one that is made here."""
    if not is_id(body.secret_id):
        raise InvalidRequest(f"a SecretID has {IDS}")
    return await _make(context, body, body.secret_id)


async def _make(context: Context, body: MakeSecretId, secret_id: str) -> Answer:
    core, role = context.core, await load_role(context)
    if not role.bind_secret_id:
        raise InvalidRequest("bind_secret_id is not set on the role")
    ttl, uses = _limits(role, body)
    cidrs = tuple(parse_networks(body.cidr_list or []))
    token_cidrs = tuple(parse_networks(body.token_bound_cidrs or []))
    for name, given, setting in (
        ("cidr_list", cidrs, "secret_id_bound_cidrs"),
        ("token_bound_cidrs", token_cidrs, "token_bound_cidrs"),
    ):
        if not covered(given, getattr(role, setting)):
            raise InvalidRequest(f"{name} goes beyond the role's {setting}")
    accessor = new_uuid()
    now = int(context.now.timestamp())
    expires_at = context.now + timedelta(seconds=ttl) if ttl else None
    made = SecretId(
        role_uuid=role.uuid,
        accessor=accessor,
        uses_left=uses or None,
        ttl=ttl,
        cidrs=cidrs,
        token_cidrs=token_cidrs,
        metadata=_metadata(body.metadata),
        created_at=now,
        updated_at=now,
    )
    key = secret_id_digest(core.keyring(), role.uuid, secret_id)
    async with core.authority.issue(context.fence) as change:
        old = await change.get(SECRET_IDS, key)
        if old is not None and is_good(old, context.now):
            raise InvalidRequest("SecretID is already registered")
        await change.put(
            SECRET_IDS, key, msgspec.to_builtins(made), owner=named_key(context), expires_at=expires_at
        )
    return Answer(
        data={
            "secret_id": secret_id,
            "secret_id_accessor": accessor,
            "secret_id_ttl": ttl,
            "secret_id_num_uses": uses,
        },
        detail={"accessor": accessor},
    )


async def list_secret_ids(context: Context, _body: None) -> Answer:
    """Answer the accessors of a role's SecretIDs in order, or a page of them.

    Which rows to read is told by the database. Each is authenticated; that one is missing is not noticed.

    Raises:
        NotFound: there are none, or none behind ``after``.
        IntegrityFailure: a row is not authentic.
    """
    core, role = context.core, await load_role(context)
    most, after = page(context)
    accessors: list[str] = []
    while most is None or len(accessors) < most:
        async with core.database.read() as connection:
            rows = await connection.fetch(
                f"""SELECT key, body->>'accessor' AS accessor FROM {SECRET_IDS.name}
                    WHERE owner = $1 AND body->>'accessor' > $2
                    ORDER BY body->>'accessor' LIMIT $3""",  # noqa: S608 - a constant
                named_key(context),
                after,
                _PAGE if most is None else min(_PAGE, most - len(accessors)),
            )
        if not rows:
            break
        after = rows[-1]["accessor"]
        for found in rows:
            row = await core.authority.fetch(SECRET_IDS, found["key"])
            if row is not None and belongs(row, role) and is_good(row, context.now):
                accessors.append(row.body["accessor"])
    if not accessors:
        raise NotFound("no SecretIDs")
    return Answer(data={"keys": accessors})


async def look_up(context: Context, body: NamedSecretId) -> Answer:
    """Answer what is known of a SecretID; nothing of one that is not, as in Vault."""
    row = await _named(context, body)
    return EMPTY if row is None else Answer(data=shown(row))


async def look_up_accessor(context: Context, body: NamedAccessor) -> Answer:
    """Answer what is known of the SecretID that has an accessor."""
    return Answer(data=shown(await _accessed(context, body)))


async def destroy(context: Context, body: NamedSecretId) -> Answer:
    """Destroy a SecretID: no login with it succeeds from now on. That there is none is no error."""
    row = await _named(context, body)
    return EMPTY if row is None else await _destroy(context, row)


async def destroy_accessor(context: Context, body: NamedAccessor) -> Answer:
    """Destroy the SecretID that has an accessor."""
    return await _destroy(context, await _accessed(context, body))


async def _named(context: Context, body: NamedSecretId) -> Row | None:
    role = await load_role(context)
    if not body.secret_id:
        raise InvalidRequest("missing secret_id")
    return await find(context, role, body.secret_id)


async def _accessed(context: Context, body: NamedAccessor) -> Row:
    role = await load_role(context)
    if not body.secret_id_accessor:
        raise InvalidRequest("missing secret_id_accessor")
    row = await find_by_accessor(context, role, body.secret_id_accessor)
    if row is None:
        raise NotFound("no SecretID has this accessor")
    return row


async def _destroy(context: Context, row: Row) -> Answer:
    async with context.core.authority.change(context.fence) as change:
        await change.delete(SECRET_IDS, row.key)
    return Answer(detail={"accessor": row.body["accessor"]})


def _limits(role: Role, body: MakeSecretId) -> tuple[int, int]:
    """Return for how long and how many logins a SecretID is good.

    Raises:
        InvalidRequest: for more than the role says.
    """
    ttl = parse_duration(body.ttl) if body.ttl is not None else role.secret_id_ttl
    uses = checked_uses(body.num_uses, "num_uses") if body.num_uses is not None else role.secret_id_num_uses
    if role.secret_id_ttl and (ttl == 0 or ttl > role.secret_id_ttl):
        raise InvalidRequest("ttl cannot be longer than the role's secret_id_ttl")
    if role.secret_id_num_uses and (uses == 0 or uses > role.secret_id_num_uses):
        raise InvalidRequest("num_uses cannot be higher than the role's secret_id_num_uses")
    return ttl, uses


def _metadata(given: str | dict[str, Any] | None) -> dict[str, str]:
    """Return what a login will attach to its token.

    Raises:
        InvalidRequest: it is none.
    """
    return text_map(_written(given) if isinstance(given, str) else given, "metadata")


def _written(text: str) -> dict[str, Any]:
    """Return metadata that was written as text, in each of the ways that Vault takes.

    That is JSON, or ``key=value,key=value``, which Vault writes in lower case; either in base64, too.
    """
    text = plain_document(text).strip()
    try:
        if text.startswith(("{", "[")):
            return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise InvalidRequest("metadata must be a JSON object") from exc
    found: dict[str, Any] = {}
    for pair in sorted(filter(None, map(str.strip, text.lower().split(",")))):
        name, *values = map(str.strip, pair.split("="))
        if len(values) != 1 or not name or not values[0]:
            raise InvalidRequest("metadata must be a JSON object, or key=value")
        found[name] = values[0]
    return found
