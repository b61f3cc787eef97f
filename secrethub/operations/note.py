"""Ledger entries of a serving process: how a request, its refusal or an event is written down."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from secrethub.audit.event import Kind, Outcome
from secrethub.audit.masking import MAX_SIZE, canonical_json, mask
from secrethub.engines.engine import Operation
from secrethub.engines.identity import Identity
from secrethub.engines.own_changes import record
from secrethub.engines.runtime import Core
from secrethub.errors import SecretHubError
from secrethub.operations.call import AgentCertificate, Call
from secrethub.storage.ledger import Note

ANONYMOUS_SIZE = 512
"""Bytes that each part of an entry may take while it is not known who asks: nobody fills the disk."""

_ENCODER = msgspec.json.Encoder(order="deterministic")


def actor_of(call: Call, identity: Identity | None) -> str:
    """Return how the ledger names who asked: ``token:<digest>:<name>``, ``agent:<uuid>:<name>`` or less."""
    if identity is not None:
        return f"{identity.kind}:{identity.key[:36]}:{identity.name}"
    if isinstance(call.credential, AgentCertificate):
        return f"agent:{call.credential.agent_id}"
    return "anonymous"


def request_note(
    core: Core,
    call: Call,
    *,
    kind: Kind,
    operation: str,
    path: str,
    identity: Identity | None,
    outcome: Outcome,
    reason: str = "",
    declared: Operation | None = None,
    answer: Mapping[str, Any] | None = None,
    with_body: bool = True,
    written: Sequence[Mapping[str, Any]] = (),
) -> Note:
    """Return the entry of a request; values of body and query are masked unless declared plain."""
    detail: dict[str, Any] = {}
    size = ANONYMOUS_SIZE if identity is None else MAX_SIZE
    if isinstance(call.credential, AgentCertificate) and call.credential.application:
        detail["application"] = call.credential.application
    if answer:
        detail["answer"] = answer
    if written:
        detail["written"] = list(written)
    if with_body and call.wrap_ttl:
        detail["wrap_ttl"] = call.wrap_ttl
    if with_body and (call.body or call.query):
        key = core.keyring().derived("audit-mask")
        plain = declared.plain if declared is not None else frozenset()
        if call.body:
            try:
                detail["body"] = mask(msgspec.json.decode(call.body), key, plain, size=size)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                detail["body"] = mask(call.body.hex(), key, frozenset())
        if call.query:
            detail["query"] = mask(dict(call.query), key, plain, size=size)
    return Note(
        kind=kind,
        request_id=call.request_id,
        actor=actor_of(call, identity),
        operation=operation,
        path=path if identity is not None else shortened(path),
        outcome=outcome,
        reason=reason if identity is not None else shortened(reason),
        client=call.client_address or "",
        door=call.door,
        detail=_text(detail),
    )


async def note_rest(
    core: Core, call: Call, path: str, identity: Identity | None, written: list[dict[str, Any]]
) -> None:
    """Write down rows that were changed after the entry that ended a request, or without one.

    What cannot be written down now is with whatever is written down next.
    """
    with contextlib.suppress(SecretHubError):
        await record(core, "state", path, written, actor=actor_of(call, identity), request_id=call.request_id)


def shortened(text: str) -> str:
    """Return the beginning of a text that somebody unknown chose."""
    return text if len(text) <= ANONYMOUS_SIZE else text[: ANONYMOUS_SIZE - 1] + "…"


def _text(detail: Mapping[str, Any]) -> str:
    """Return canonical JSON; the fast encoder gives the same text while everything is ASCII."""
    if not detail:
        return "{}"
    text = _ENCODER.encode(detail).decode()
    return text if text.isascii() and "\x7f" not in text else canonical_json(detail)


async def note(
    core: Core,
    *,
    operation: str,
    path: str,
    actor: str,
    outcome: Outcome,
    reason: str = "",
    client: str = "",
    door: str = "",
    request_id: str = "",
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write down an event that is no request, such as a refused connection.

    Raises:
        Unavailable: it could not be made durable.
        Sealed: there is no key to sign with.
    """
    await core.ledger.append(
        Note(
            kind="event",
            request_id=request_id,
            actor=actor,
            operation=operation,
            path=path,
            outcome=outcome,
            reason=reason,
            client=client,
            door=door,
            detail=canonical_json(dict(detail or {})),
        )
    )
