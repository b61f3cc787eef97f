"""A SecretID's row: what it says, how it is found, what of it is shown. The SecretID itself is not kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from secrethub.auth.digests import secret_id_digest
from secrethub.engines.approle.role import LONGEST_ID, Role
from secrethub.engines.engine import Context
from secrethub.storage.authority import SECRET_IDS, Row
from secrethub.wire.durations import format_rfc3339

_NEVER = "0001-01-01T00:00:00Z"


class SecretId(msgspec.Struct, frozen=True, kw_only=True):
    """A SecretID.

    Attributes:
        role_uuid: of its role; one made anew under the name is another.
        accessor: names it without giving it away.
        uses_left: logins that it is good for; None for any number.
        ttl: seconds it was made for; 0 for ever.
        cidrs: networks that logins may come from, besides the role's.
        token_cidrs: networks that its tokens are good from, besides the role's.
        metadata: attached to its tokens.
        created_at: seconds since the epoch.
        updated_at: of the last login that was counted.
    """

    role_uuid: str
    accessor: str
    uses_left: int | None
    ttl: int
    cidrs: tuple[str, ...]
    token_cidrs: tuple[str, ...]
    metadata: Mapping[str, str]
    created_at: int
    updated_at: int


def secret_id_of(row: Row) -> SecretId:
    """Return the SecretID of a row."""
    return msgspec.convert(dict(row.body), SecretId)


def is_good(row: Row, now: datetime) -> bool:
    """Tell whether a SecretID has not expired."""
    return row.expires_at is None or row.expires_at > now


async def find(context: Context, role: Role, secret_id: str) -> Row | None:
    """Return the row of a role's SecretID that is still good, or None.

    Raises:
        IntegrityFailure: it is not authentic.
    """
    core = context.core
    key = secret_id_digest(core.keyring(), role.uuid, secret_id[: LONGEST_ID + 1])
    row = await core.authority.fetch(SECRET_IDS, key)
    return row if row is not None and is_good(row, context.now) else None


def belongs(row: Row, role: Role) -> bool:
    """Tell whether a SecretID is this role's."""
    return bool(row.body["role_uuid"] == role.uuid)


async def find_by_accessor(context: Context, role: Role, accessor: str) -> Row | None:
    """Return the row of the role's SecretID that has an accessor, or None, as :func:`find`.

    Which row to read is told by the database. The row itself is authenticated, and with it whose it is.
    """
    core = context.core
    async with core.database.read() as connection:
        key = await connection.fetchval(
            f"SELECT key FROM {SECRET_IDS.name} WHERE body->>'accessor' = $1",  # noqa: S608 - a constant
            accessor[: LONGEST_ID + 1],
        )
    if key is None:
        return None
    row = await core.authority.fetch(SECRET_IDS, key)
    if row is None or not belongs(row, role) or row.body["accessor"] != accessor:
        return None
    return row if is_good(row, context.now) else None


def shown(row: Row) -> dict[str, Any]:
    """Return what lookups tell of a SecretID."""
    known = secret_id_of(row)
    return {
        "cidr_list": list(known.cidrs),
        "creation_time": _instant(known.created_at),
        "expiration_time": _NEVER if row.expires_at is None else format_rfc3339(row.expires_at),
        "last_updated_time": _instant(known.updated_at),
        "metadata": dict(known.metadata),
        "secret_id_accessor": known.accessor,
        "secret_id_num_uses": known.uses_left or 0,
        "secret_id_ttl": known.ttl,
        "token_bound_cidrs": list(known.token_cidrs),
    }


def _instant(seconds: int) -> str:
    return format_rfc3339(datetime.fromtimestamp(seconds, UTC))
