"""Tokens end before their time: one's own, another one, one by its accessor, one without its children."""

from __future__ import annotations

from secrethub.engines.answers import Nothing
from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.token.ending import end_orphaning, end_token
from secrethub.engines.token.known import find_by_accessor, find_token
from secrethub.engines.token.lookup import AccessorNamed, TokenNamed, own_token
from secrethub.errors import InvalidRequest
from secrethub.storage.authority import Row


def revocation_operations() -> tuple[Operation, ...]:
    """Return the operations that revoke."""
    return (
        Operation(
            name="token.revoke-self",
            method="write",
            pattern="revoke-self",
            handler=revoke_self,
            response=Nothing,
            capability="update",
            changes=True,
            summary="End one's own token and everything made from it.",
        ),
        Operation(
            name="token.revoke",
            method="write",
            pattern="revoke",
            handler=revoke,
            response=Nothing,
            capability="update",
            request=TokenNamed,
            changes=True,
            summary="End a token and everything made from it.",
        ),
        Operation(
            name="token.revoke-accessor",
            method="write",
            pattern="revoke-accessor",
            handler=revoke_accessor,
            response=Nothing,
            capability="update",
            request=AccessorNamed,
            changes=True,
            summary="End the token that has an accessor, and everything made from it.",
        ),
        Operation(
            name="token.revoke-orphan",
            method="write",
            pattern="revoke-orphan",
            handler=revoke_orphan,
            response=Nothing,
            capability="update",
            request=TokenNamed,
            changes=True,
            sudo=True,
            summary="End a token alone; what was made from it lives on.",
        ),
    )


async def revoke_self(context: Context, _body: None) -> Answer:
    """End the token and all its descendants, on every node before this returns."""
    return await end_token(context, _service(await own_token(context)).key)


async def revoke(context: Context, body: TokenNamed) -> Answer:
    """End a token and all its descendants; that there is none is no error, as in Vault."""
    if not body.token:
        raise InvalidRequest("missing token")
    row = await find_token(context.core, body.token)
    return EMPTY if row is None else await end_token(context, _service(row).key)


async def revoke_accessor(context: Context, body: AccessorNamed) -> Answer:
    """End the token that has an accessor, and all its descendants."""
    return await end_token(context, (await find_by_accessor(context, body.accessor)).key)


async def revoke_orphan(context: Context, body: TokenNamed) -> Answer:
    """End a token; its children become orphans. Its batch children end, for they cannot be changed."""
    row = await find_token(context.core, body.token)
    if row is None:
        raise InvalidRequest("token to revoke not found")
    return await end_orphaning(context, _service(row).key)


def _service(row: Row) -> Row:
    if row.body["type"] == "batch":
        raise InvalidRequest("batch tokens cannot be revoked")
    return row
