"""Searching the ledger: ``sys/audit/entries``.

Who did what is for few eyes: the path needs ``sudo``, and each search is an entry itself. Values in entries
are masked; ``sys/audit-hash`` tells what a known value looks like there.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, get_args

import msgspec

from secrethub.audit.event import Kind, Outcome, Record
from secrethub.auth.digests import accessor_digest
from secrethub.auth.networks import parse_address
from secrethub.clock import from_micros, micros
from secrethub.engines.engine import Answer, Context, Hidden, Operation
from secrethub.errors import InvalidRequest
from secrethub.storage.authority import ACCESSORS, AGENTS
from secrethub.storage.ledger_search import (
    Filter,
    Found,
    find,
    place_from,
    place_text,
)
from secrethub.wire.durations import format_rfc3339, parse_duration, parse_rfc3339

_LIMIT = 100
_MOST = 500
_PAGE_BYTES = 4 * 1024 * 1024
_MAX_TEXT = 4096
_DATE = re.compile(r"[0-9]{4}-")
_CLOSED = {"kind": get_args(Kind), "outcome": get_args(Outcome)}
"""What a criterion can be: anything else is a mistake, and would find nothing."""
_KEY = 36
"""Characters of a token's digest that the ledger names it by."""


class Criteria(Hidden, msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which entries; everything given must hold.

    Attributes:
        since: RFC 3339, or a duration back from now such as ``24h``.
        until: likewise; entries before it.
        actor: as the ledger writes it, or its beginning before the name.
        name: display name of a token, or name of an agent.
        accessor: of a token that still exists.
        agent: UUID or name of an agent.
        role: name of an AppRole role: what its tokens did.
        path: of the request; ``*`` is any text within a segment, ``**`` any text.
        operation: such as ``kv.read``.
        outcome: as :data:`secrethub.audit.event.Outcome` has them, such as denied.
        kind: as :data:`secrethub.audit.event.Kind` has them, such as request.
        request_id: of a request.
        client: address of the peer.
    """

    since: str | None = None
    until: str | None = None
    actor: str | None = None
    name: str | None = None
    accessor: str | None = None
    agent: str | None = None
    role: str | None = None
    path: str | None = None
    operation: str | None = None
    outcome: str | None = None
    kind: str | None = None
    request_id: str | None = None
    client: str | None = None


class EntriesRequest(Criteria, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of a search.

    Attributes:
        limit: entries at most.
        after: ``next`` of the page before.
    """

    limit: int = _LIMIT
    after: str = ""


class PlainEntry(msgspec.Struct, frozen=True):
    """An entry of the ledger as people are shown it."""

    stream: str
    number: int
    time: str
    kind: str
    request_id: str
    actor: str
    operation: str
    path: str
    outcome: str
    reason: str
    client: str
    door: str
    detail: Any


class ShownEntry(PlainEntry, frozen=True):
    """An entry with ``integrity``, the verdict on it alone."""

    integrity: str


class EntriesAnswer(msgspec.Struct, frozen=True):
    """A page of entries, the newest first; ``next`` is the next page's ``after``, empty at the end."""

    entries: list[ShownEntry]
    next: str


PLAIN = frozenset(Criteria.__struct_fields__) - {"accessor"}
"""What the ledger may show of a search; an accessor is masked."""


def entries_operations() -> tuple[Operation, ...]:
    """Return the operation that searches."""
    return (
        Operation(
            name="sys.audit.entries",
            method="read",
            pattern="audit/entries",
            handler=entries,
            response=EntriesAnswer,
            capability="read",
            request=EntriesRequest,
            sudo=True,
            plain=PLAIN | {"limit", "after"},
            summary="Search the audit ledger, the newest entry first.",
        ),
    )


async def entries(context: Context, body: EntriesRequest) -> Answer:
    """Answer entries, the newest first; ``next`` is the next page's ``after``, empty at the end."""
    if not 0 < body.limit <= _MOST:
        raise InvalidRequest(f"limit is from 1 to {_MOST}")
    wanted = await filter_of(context, body)
    core = context.core
    key = core.keyring().derived("audit-sign")
    beyond = place_from(body.after) if body.after else None
    async with core.database.read() as connection:
        found = await find(connection, key, wanted, beyond=beyond, limit=body.limit)
    page: list[Found] = []
    size = 0
    for one in found:
        size += len(one.record.entry.detail) + len(one.record.entry.path) + len(one.record.entry.reason)
        if page and size > _PAGE_BYTES:
            break
        page.append(one)
    broken = sum(one.integrity == "broken" for one in page)
    if broken:
        core.metrics.integrity_failures.labels("audit_entries").inc(broken)
    more = len(page) < len(found) or len(found) == body.limit
    return Answer(
        data={
            "entries": [shown(one.record) | {"integrity": one.integrity} for one in page],
            "next": place_text(page[-1].place) if more else "",
        },
        warnings=(f"{broken} of these entries were tampered with",) if broken else (),
        detail={"count": len(page)},
    )


async def filter_of(context: Context, body: Criteria) -> Filter:
    """Return what the request asks for.

    Raises:
        InvalidRequest: a value cannot be, or several speak of who did it and cannot all hold.
    """
    for name in body.__struct_fields__:
        value = getattr(body, name)
        if isinstance(value, str) and len(value) > _MAX_TEXT:
            raise InvalidRequest(f"{name} is longer than {_MAX_TEXT} characters")
    for name, values in _CLOSED.items():
        if getattr(body, name) and getattr(body, name) not in values:
            raise InvalidRequest(f"{name} is one of {', '.join(values)}")
    actor, named, by = await _who(context, body)
    return Filter(
        since=instant_of(body.since, context.now, "since"),
        until=instant_of(body.until, context.now, "until"),
        actor=actor,
        name=named,
        by=by,
        path=body.path or None,
        operation=body.operation or None,
        outcome=body.outcome or None,
        kind=body.kind or None,
        request_id=body.request_id.lower() if body.request_id else None,
        client=parse_address(body.client, "client") if body.client else None,
    )


async def _who(context: Context, body: Criteria) -> tuple[str | None, str | None, str | None]:
    """Return the actor, or the name and whose that is."""
    actors: list[str] = [body.actor] if body.actor else []
    names: list[tuple[str, str | None]] = [(body.name, None)] if body.name else []
    if body.accessor:
        row = await context.core.authority.get(
            ACCESSORS, accessor_digest(context.core.keyring(), body.accessor)
        )
        if row is None:
            raise InvalidRequest("no token has this accessor any more: look for its actor or name")
        actors.append(f"token:{row.body['token'][:_KEY]}")
    if body.agent:
        known = await context.core.authority.get(AGENTS, body.agent)
        if known is not None:
            actors.append(f"agent:{known.key}")
        else:
            names.append((body.agent, "agent"))
    if body.role:
        names.append((f"approle-{body.role}", "token"))
    if len(actors) > 1 or len(names) > 1:
        raise InvalidRequest("give one of actor, name, accessor, agent and role")
    name, by = names[0] if names else (None, None)
    return (actors[0] if actors else None), name, by


def instant_of(text: str | None, now: datetime, name: str) -> int | None:
    """Return an instant in microseconds since the epoch.

    Args:
        text: RFC 3339, or a duration back from ``now``; nothing for None.
        now: the present.
        name: of the parameter, for the error.

    Raises:
        InvalidRequest: it is neither.
    """
    if not text:
        return None
    present = micros(now)
    if _DATE.match(text) is None:
        try:
            return present - parse_duration(text) * 1_000_000
        except InvalidRequest as exc:
            raise InvalidRequest(
                f"{name} is a time like 2030-01-31T23:00:00Z or a duration like 24h"
            ) from exc
    instant = parse_rfc3339(text)
    return 0 if instant is None else micros(instant)


def shown(record: Record) -> dict[str, Any]:
    """Return an entry as people are shown it."""
    entry = record.entry
    return {
        "stream": entry.stream,
        "number": entry.number,
        "time": _time(entry.at),
        "kind": entry.kind,
        "request_id": entry.request_id,
        "actor": entry.actor,
        "operation": entry.operation,
        "path": entry.path,
        "outcome": entry.outcome,
        "reason": entry.reason,
        "client": entry.client,
        "door": entry.door,
        "detail": _detail(entry.detail),
    }


def _time(at: int) -> str:
    try:
        return format_rfc3339(from_micros(at))
    except (OverflowError, ValueError):
        return f"{at} µs"  # no process of ours wrote this


def _detail(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return text
