"""Why a request was refused: what the ledger has about it, by its id.

Whoever is refused is told no more than no, and the request's id. Somebody who may ask finds the reason here.
"""

from __future__ import annotations

import msgspec

from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.system.ledger_entries import PlainEntry, shown
from secrethub.errors import InvalidRequest, NotFound
from secrethub.ids import is_uuid
from secrethub.storage.ledger_read import refusals


class RefusalAnswer(msgspec.Struct, frozen=True):
    """What the ledger has of a request that was refused."""

    entries: list[PlainEntry]


def why_operations() -> tuple[Operation, ...]:
    """Return the operation that explains."""
    return (
        Operation(
            name="sys.audit.refusal",
            method="read",
            pattern="audit/refusals/{request_id}",
            handler=refusal,
            response=RefusalAnswer,
            capability="read",
            sudo=True,
            summary="Read why a request was refused or failed, by its id.",
        ),
    )


async def refusal(context: Context, _body: None) -> Answer:
    """Answer how a request was refused, or failed. Values in it are masked."""
    request_id = context.params["request_id"].lower()
    if not is_uuid(request_id):
        raise InvalidRequest("a request id is a UUID, as in request_id of its answer")
    records = await refusals(context.core.database, request_id)
    if not records:
        raise NotFound("no such request was refused")
    return Answer(data={"entries": [shown(record) for record in records]})
