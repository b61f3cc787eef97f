"""Accepting that the database was put back: with as many shares as unseal, and with the same ones."""

from __future__ import annotations

import msgspec

from secrethub.engines.engine import Answer, Context, Hidden, Operation
from secrethub.engines.system.seal import opened
from secrethub.engines.system.seal_answers import SealStatusAnswer
from secrethub.engines.system.seal_gate import checks, origin_of
from secrethub.errors import InvalidRequest
from secrethub.seal.shares import decode_share


class AcceptRequest(Hidden, msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One share in hexadecimal or base64, or ``reset``. Not shown by ``repr``."""

    key: str = ""
    reset: bool = False


def restore_operations() -> tuple[Operation, ...]:
    """Return the operations about a database that was put back."""
    return (
        Operation(
            name="sys.accept-restore",
            method="write",
            pattern="accept-restore",
            handler=accept_restore,
            response=SealStatusAnswer,
            capability="update",
            request=AcceptRequest,
            changes=True,
            public=True,
            keyless=True,
            strict=True,
            summary="Give an unseal share to accept that the database was put back, and void every token.",
        ),
    )


async def accept_restore(context: Context, body: AcceptRequest) -> Answer:
    """Take one share, or forget those given so far; answer the progress."""
    async with checks(context, "sys.accept-restore"):
        if body.reset is bool(body.key):
            raise InvalidRequest("either 'key' must be given, or 'reset' set to true")
        share = b"" if body.reset else decode_share(body.key)
    if body.reset:
        await context.core.seal.reset(origin_of(context))
    else:
        await context.core.seal.accept_restore(share, origin_of(context))
    return await opened(context)
