"""What is known of tokens: one's own, another one, one by its accessor; and the list of accessors."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec

from secrethub.auth.digests import accessor_digest
from secrethub.auth.tokens import open_accessor
from secrethub.crypto.keyring import Keyring
from secrethub.engines.answers import Names
from secrethub.engines.engine import Answer, Capability, Context, Hidden, Method, Operation
from secrethub.engines.listing import PAGES, page
from secrethub.engines.token.known import bound_to, find_by_accessor, find_token, good_token, lineage_of
from secrethub.errors import DecryptionFailed, IntegrityFailure, NotFound, PermissionDenied
from secrethub.storage.authority import ACCESSORS, TOKENS, Row
from secrethub.wire.durations import format_rfc3339

_PAGE = 1000
_MOST_ACCESSORS = 100_000


class TokenNamed(Hidden, msgspec.Struct, frozen=True):
    """``token``: which one; the caller's own when it is not given."""

    token: str = ""


class AccessorNamed(Hidden, msgspec.Struct, frozen=True):
    """``accessor``: of the token."""

    accessor: str = ""


class TokenAnswer(msgspec.Struct, frozen=True):
    """What is known of a token. Durations are seconds, 0 without a limit; times that are text are RFC 3339.

    Attributes:
        id: the token itself, where the caller has shown it.
        expire_time: null when it does not expire.
        identity_policies: those that it has by bindings.
        last_renewal: when it was renewed, if it was.
    """

    accessor: str
    creation_time: int
    creation_ttl: int
    display_name: str
    entity_id: str
    expire_time: str | None
    explicit_max_ttl: int
    id: str
    issue_time: str
    meta: dict[str, str] | None
    num_uses: int
    orphan: bool
    path: str
    policies: list[str]
    renewable: bool
    ttl: int
    type: str
    bound_cidrs: list[str] = []
    period: int = 0
    role: str = ""
    identity_policies: list[str] = []
    last_renewal: str = ""
    last_renewal_time: int = 0


_BOTH: tuple[tuple[Method, Capability], ...] = (("read", "read"), ("write", "update"))


def lookup_operations() -> tuple[Operation, ...]:
    """Return the operations that tell about tokens."""
    return (
        *(
            Operation(
                name="token.lookup-self",
                method=method,
                pattern="lookup-self",
                handler=lookup_self,
                response=TokenAnswer,
                capability=capability,
                summary="Tell about one's own token.",
            )
            for method, capability in _BOTH
        ),
        Operation(
            name="token.lookup",
            method="write",
            pattern="lookup",
            handler=lookup,
            response=TokenAnswer,
            capability="update",
            request=TokenNamed,
            summary="Tell about a token.",
        ),
        Operation(
            name="token.lookup-accessor",
            method="write",
            pattern="lookup-accessor",
            handler=lookup_accessor,
            response=TokenAnswer,
            capability="update",
            request=AccessorNamed,
            summary="Tell about the token that has an accessor, without knowing the token.",
        ),
        Operation(
            name="token.accessors",
            method="list",
            pattern="accessors",
            handler=list_accessors,
            response=Names,
            capability="list",
            query=PAGES,
            sudo=True,
            summary="List the accessors of all service tokens.",
        ),
    )


async def own_token(context: Context) -> Row:
    """Return the caller's token.

    Raises:
        PermissionDenied: an agent has none, or it is gone.
    """
    if context.identity is None or context.identity.kind != "token" or context.token is None:
        raise PermissionDenied("an agent has no token")
    context.depends("issued", f"{TOKENS.name}/{context.identity.key}")
    row = await find_token(context.core, context.token.reveal())
    if row is None:
        raise PermissionDenied("the token is gone")
    return row


def describe(keyring: Keyring, row: Row, now: datetime) -> dict[str, Any]:
    """Return what a lookup tells of a token; ``id`` is left to the caller, who may know the token."""
    body = row.body
    created = datetime.fromtimestamp(body["created_at"], UTC)
    ttl = 0 if row.expires_at is None else max(0, int((row.expires_at - now).total_seconds()))
    told: dict[str, Any] = {
        "accessor": open_accessor(keyring, row.key, body),
        "creation_time": body["created_at"],
        "creation_ttl": body["ttl"],
        "display_name": body["display_name"],
        "entity_id": "",
        "expire_time": None if row.expires_at is None else format_rfc3339(row.expires_at),
        "explicit_max_ttl": body["max_ttl"] if body.get("explicit", True) else 0,
        "id": "",
        "issue_time": format_rfc3339(created),
        "meta": body["meta"] or None,
        "num_uses": body["uses_left"] or 0,
        "orphan": row.owner is None,
        "path": body["path"],
        "policies": body["policies"],
        "renewable": body["renewable"],
        "ttl": ttl,
        "type": body["type"],
    }
    if body["bound_cidrs"]:
        told["bound_cidrs"] = body["bound_cidrs"]
    if body["period"]:
        told["period"] = body["period"]
    if body["role"]:
        told["role"] = body["role"]
    if "renewed_at" in body:
        told["last_renewal_time"] = body["renewed_at"]
        told["last_renewal"] = format_rfc3339(datetime.fromtimestamp(body["renewed_at"], UTC))
    return told


async def lookup_self(context: Context, _body: None) -> Answer:
    """Answer what is known of the caller's token."""
    row = await own_token(context)
    return await _told(context, row, "" if context.token is None else context.token.reveal())


async def lookup(context: Context, body: TokenNamed) -> Answer:
    """Answer what is known of a token that the caller has."""
    if not body.token:
        return await lookup_self(context, None)
    return await _told(context, await good_token(context, body.token), body.token)


async def lookup_accessor(context: Context, body: AccessorNamed) -> Answer:
    """Answer what is known of a token, except the token."""
    row = await find_by_accessor(context, body.accessor)
    await lineage_of(context.core, row, context.now)
    return await _told(context, row, "")


async def list_accessors(context: Context, _body: None) -> Answer:
    """Answer the accessors of the tokens that have not expired, in an order of no meaning, or a page of them.

    Each is sealed to its token's row, so none can be invented; that one is missing is not noticed here.

    Raises:
        NotFound: there are none, or none behind ``after``.
        IntegrityFailure: one was edited.
    """
    core = context.core
    context.depends("issued", f"{TOKENS.name}/")
    keyring = core.keyring()
    asked, last = page(context)
    most = min(asked or _MOST_ACCESSORS, _MOST_ACCESSORS)
    found: list[str] = []
    # In the order of their digests a page goes on also behind a token that is gone meanwhile.
    after: str | None = accessor_digest(keyring, last) if last else ""
    while after is not None and len(found) < most:
        wanted = min(_PAGE, most - len(found))
        async with core.database.read() as connection:
            rows = await connection.fetch(
                """SELECT a.key AS place, t.key, t.body->>'accessor' AS accessor
                   FROM accessors a JOIN tokens t ON t.key = a.body->>'token'
                   WHERE a.key > $1 AND (t.expires_at IS NULL OR t.expires_at > $2)
                   ORDER BY a.key LIMIT $3""",
                after,
                context.now,
                wanted,
            )
        found.extend(_authentic(keyring, row) for row in rows)
        after = rows[-1]["place"] if len(rows) == wanted else None
        await asyncio.sleep(0)
    if not found:
        raise NotFound("no accessors")
    cut = after is not None and asked is None
    more = (f"only {_MOST_ACCESSORS} accessors are shown; after=<the last> goes on",) if cut else ()
    return Answer(data={"keys": found}, warnings=more)


def _authentic(keyring: Keyring, row: Any) -> str:
    """Return the accessor that is sealed in a token's row, which was found by the accessor's digest."""
    try:
        accessor = open_accessor(keyring, row["key"], row)
    except (DecryptionFailed, ValueError) as exc:
        raise IntegrityFailure(TOKENS.name, row["key"], "its accessor was edited") from exc
    if accessor_digest(keyring, accessor) != row["place"]:
        raise IntegrityFailure(ACCESSORS.name, row["place"], "it names another accessor's token")
    return accessor


async def _told(context: Context, row: Row, token: str) -> Answer:
    told = describe(context.core.keyring(), row, context.now)
    bound = await bound_to(context.core, row)
    if bound:
        told["identity_policies"] = list(bound)
    return Answer(data={**told, "id": token})
