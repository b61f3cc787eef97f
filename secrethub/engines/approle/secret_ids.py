"""SecretIDs: made for a role, shown once, stored as keyed digests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from secrethub.auth.digests import secret_id_digest
from secrethub.engines.approle.roles import check_uses, load_role, parse_cidrs
from secrethub.engines.engine import Answer, Context
from secrethub.engines.text import text_map
from secrethub.errors import InvalidRequest, NotFound
from secrethub.ids import new_uuid
from secrethub.storage.authority import SECRET_IDS
from secrethub.wire.durations import format_rfc3339, parse_duration


class MakeSecretId(msgspec.Struct, frozen=True):
    """A SecretID, never wider than the role says."""

    metadata: str | dict[str, Any] | None = None
    cidr_list: list[str] | None = None
    ttl: str | int | None = None
    num_uses: int | None = None
    token_bound_cidrs: list[str] | None = None


def _metadata(given: str | dict[str, Any] | None) -> dict[str, str]:
    """Return what a login will attach to its token; Vault's clients send it as JSON in a string."""
    if isinstance(given, str):
        try:
            given = msgspec.json.decode(given, type=dict[str, Any]) if given else {}
        except (msgspec.MsgspecError, RecursionError) as exc:
            raise InvalidRequest("metadata must be a JSON object") from exc
    return text_map(given, "metadata")


async def make_secret_id(context: Context, body: MakeSecretId) -> Answer:
    """Make a SecretID; it is shown once."""
    core, role = context.core, await load_role(context)
    if body.token_bound_cidrs:
        raise InvalidRequest("token_bound_cidrs is not supported")
    limit_ttl, limit_uses = role.body["secret_id_ttl"], role.body["secret_id_num_uses"]
    ttl = parse_duration(body.ttl) if body.ttl is not None else limit_ttl
    uses = check_uses(body.num_uses, "num_uses") if body.num_uses is not None else limit_uses
    if limit_ttl and (ttl == 0 or ttl > limit_ttl):
        raise InvalidRequest("ttl cannot be longer than the role's secret_id_ttl")
    if limit_uses and (uses == 0 or uses > limit_uses):
        raise InvalidRequest("num_uses cannot be higher than the role's secret_id_num_uses")
    secret_id, accessor = new_uuid(), new_uuid()
    expires_at = context.now + timedelta(seconds=ttl) if ttl else None
    key = secret_id_digest(core.keyring(), context.mount, role.key, secret_id)
    async with core.authority.issue(context.fence) as change:
        await change.put(
            SECRET_IDS,
            key,
            {
                "role": role.key,
                "role_uuid": role.body["uuid"],
                "accessor": accessor,
                "uses_left": uses,
                "limited": uses > 0,
                "cidrs": parse_cidrs(body.cidr_list or []),
                "metadata": _metadata(body.metadata),
                "created_at": int(context.now.timestamp()),
                "expires": None if expires_at is None else format_rfc3339(expires_at),
            },
            owner=role.key,
            expires_at=expires_at,
            expected_revision=0,
        )
    return Answer(
        data={
            "secret_id": secret_id,
            "secret_id_accessor": accessor,
            "secret_id_ttl": ttl,
            "secret_id_num_uses": uses,
        },
        detail={"accessor": accessor, "written": change.written},
    )


async def list_secret_ids(context: Context, _body: None) -> Answer:
    """Answer the accessors of a role's SecretIDs."""
    core, role = context.core, await load_role(context)
    accessors: list[str] = []
    after = ""
    while page := await core.authority.keys(SECRET_IDS, owner=role.key, after=after):
        after = page[-1]
        for key in page:
            row = await core.authority.fetch(SECRET_IDS, key)
            if row is None or row.body["role_uuid"] != role.body["uuid"]:
                continue
            if row.expires_at is None or row.expires_at > context.now:
                accessors.append(row.body["accessor"])
    if not accessors:
        raise NotFound("no SecretIDs")
    return Answer(data={"keys": sorted(accessors)})
