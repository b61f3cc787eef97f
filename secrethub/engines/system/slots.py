"""Unseal slots: what opens the cluster. Listed and tried with a token, changed with enough shares.

A change is begun with a token that has sudo, and carried out by shares, which need none.
"""

from __future__ import annotations

from typing import Any

import msgspec

from secrethub.engines.answers import Names, Nothing
from secrethub.engines.ceremonies import CeremonyResult, Progress
from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.system.attempts import Attempt, new_shares
from secrethub.engines.system.seal_answers import AttemptAnswer
from secrethub.engines.system.seal_gate import beside_the_ingress, origin_of
from secrethub.errors import InvalidRequest
from secrethub.seal.slots import KMS_KINDS
from secrethub.seal.wishes import Rekey, RemoveSlot


class AddRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A slot to add: of a key in the nodes' settings, or of unseal shares where there are none.

    Where a key is, and what to sign in with, is never part of a request.
    """

    type: str
    service: str = ""
    secret_shares: int = 5
    secret_threshold: int = 3


class NoRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing can be chosen."""


_PLAIN = frozenset({"type", "service", "secret_shares", "secret_threshold"})


def _shown(found: Progress) -> dict[str, Any]:
    return {
        "nonce": found.nonce,
        "started": found.started,
        "progress": found.progress,
        "required": found.required,
        "complete": False,
    }


def _done(result: CeremonyResult) -> dict[str, Any]:
    made = result.progress
    data = {"nonce": made.nonce, "complete": True, "slot": made.slot_id}
    return {**data, **new_shares(result)} if result.secret else data


_CHANGE = Attempt(
    purpose="slots",
    names=("sys.slots.progress", "sys.slots.cancel", "sys.slots.update"),
    attempt="seal/slots/attempt",
    give="seal/slots/update",
    summaries=(
        "Tell how far a change of the unseal slots is.",
        "Give up a change of the unseal slots.",
        "Give a share, so that the unseal slots are changed.",
    ),
    shown=_shown,
    done=_done,
    bare=False,
)


def slot_operations() -> tuple[Operation, ...]:
    """Return the operations."""
    return (
        *_CHANGE.operations(),
        Operation(
            name="sys.slots.list",
            method="list",
            pattern="seal/slots",
            handler=listed,
            response=Names,
            capability="list",
            summary="List the unseal slots.",
        ),
        Operation(
            name="sys.slots.read",
            method="read",
            pattern="seal/slots",
            handler=listed,
            response=Names,
            capability="read",
            summary="Show the unseal slots.",
        ),
        Operation(
            name="sys.slots.add",
            method="write",
            pattern="seal/slots",
            handler=add,
            response=AttemptAnswer,
            capability="update",
            request=AddRequest,
            changes=True,
            sudo=True,
            plain=_PLAIN,
            strict=True,
            summary="Begin to add an unseal slot.",
        ),
        Operation(
            name="sys.slots.test",
            method="write",
            pattern="seal/slots/{slot}/test",
            handler=test,
            response=Nothing,
            capability="update",
            request=NoRequest,
            changes=True,
            sudo=True,
            strict=True,
            summary="Show that a key service opens its slot now.",
        ),
        Operation(
            name="sys.slots.remove",
            method="delete",
            pattern="seal/slots/{slot}",
            handler=remove,
            response=AttemptAnswer,
            capability="delete",
            changes=True,
            sudo=True,
            summary="Begin to remove an unseal slot.",
        ),
    )


async def listed(context: Context, _body: None) -> Answer:
    """Answer every slot; nothing of it is secret."""
    found = await context.core.seal.ceremonies.slots()
    slots: dict[str, dict[str, Any]] = {}
    for slot in found:
        shown: dict[str, Any] = {"type": slot.kind}
        if slot.service:
            shown["service"] = slot.service
        if slot.shares:
            shown |= {"shares": slot.shares, "threshold": slot.threshold, "leaving": slot.leaving}
        slots[slot.slot_id] = shown
    return Answer(data={"keys": list(slots), "key_info": slots})


async def add(context: Context, body: AddRequest) -> Answer:
    """Begin to add a slot; a key service shows at once that it gives back what it wraps."""
    beside_the_ingress(context)
    ceremonies = context.core.seal.ceremonies
    if body.type == "shamir":
        if body.service:
            raise InvalidRequest("unseal shares have no service")
        wish = Rekey(shares=body.secret_shares, threshold=body.secret_threshold, recovery=True, slot=True)
        return _CHANGE.begun(await ceremonies.start("slots", wish, origin_of(context)))
    if body.type not in KMS_KINDS:
        raise InvalidRequest(f"type must be shamir, {', '.join(KMS_KINDS)}")
    return _CHANGE.begun(await ceremonies.add_slot(body.type, body.service, origin_of(context)))  # type: ignore[arg-type]


async def remove(context: Context, _body: None) -> Answer:
    """Begin to remove a slot."""
    beside_the_ingress(context)
    wish = RemoveSlot(slot_id=context.params["slot"])
    return _CHANGE.begun(await context.core.seal.ceremonies.start("slots", wish, origin_of(context)))


async def test(context: Context, _body: NoRequest) -> Answer:
    """Ask a key service to open its slot; nothing is changed."""
    await context.core.seal.ceremonies.try_slot(context.params["slot"], origin_of(context))
    return EMPTY
