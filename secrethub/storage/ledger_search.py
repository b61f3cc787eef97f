"""Finding entries of the ledger in the order of time, page by page.

A page continues where the one before it ended, at an entry and not after so many of them. So what is written
meanwhile neither repeats an entry nor hides one that was there already. Each entry that is found is checked
by itself: its digest is made again over it and over the digest before it, and must carry the cluster's
signature. What streams and checkpoints say about each other is left to the verification of the whole.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import asyncpg
import msgspec

from secrethub.audit.event import GENESIS, Record, entry_hash, entry_signature
from secrethub.crypto.digests import equal
from secrethub.errors import InvalidRequest
from secrethub.storage.ledger_read import record_of

Integrity = Literal["ok", "unsigned", "broken"]
"""``unsigned``: written while sealed, when there was no key; chained, but only the verification of the whole
ledger tells whether it was adopted. ``broken``: somebody changed it, or took away the entry before it."""

_IDENTITY = 42
"""Characters of an actor up to its name: ``token:`` or ``agent:`` and 36 more."""
_PREFIX = 128
_FREQUENT = ("kv.read", "kv.write")
_ORDINARY = ("done", "begun")
_MAX_WILDCARDS = 8
_HIGHEST = "\U0010ffff"
_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
_SPECIAL = re.compile(r"([^0-9A-Za-z_/-])")


class Place(NamedTuple):
    """A place among the entries."""

    at: int
    stream: str
    number: int


OLDEST = Place(-(1 << 63), "", 0)
NEWEST = Place((1 << 63) - 1, "", 0)


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for; what is None does not matter.

    Attributes:
        since: microseconds since the epoch; entries at or after it.
        until: entries before it.
        actor: ``token:<36 characters of its digest>``, ``agent:<uuid>``, or a word such as ``anonymous``.
        name: a token's display name, or an agent's name.
        by: ``token`` or ``agent``: whose name it is.
        path: of the request; ``*`` stands for any text within a segment, ``**`` for any text.
        operation: such as ``kv.read``.
        outcome: such as ``denied``.
        kind: such as ``request``.
        request_id: of the request.
        client: address of the peer.
    """

    since: int | None = None
    until: int | None = None
    actor: str | None = None
    name: str | None = None
    by: str | None = None
    path: str | None = None
    operation: str | None = None
    outcome: str | None = None
    kind: str | None = None
    request_id: str | None = None
    client: str | None = None


class Found(NamedTuple):
    """An entry and whether it is authentic by itself."""

    record: Record
    integrity: Integrity

    @property
    def place(self) -> Place:
        """Return where it is."""
        entry = self.record.entry
        return Place(entry.at, entry.stream, entry.number)


async def find(
    connection: asyncpg.Connection[Any],
    key: bytes,
    wanted: Filter,
    *,
    beyond: Place | None = None,
    limit: int,
    oldest_first: bool = False,
) -> list[Found]:
    """Return a page of entries, by default the newest first.

    Args:
        connection: for reading.
        key: signs the entries.
        wanted: which.
        beyond: the last entry of the page before.
        limit: entries at most.
        oldest_first: the other way round.

    Raises:
        InvalidRequest: a path with too many wildcards.
    """
    values: list[Any] = []
    conditions = _conditions(wanted, values)
    values += [*(beyond or (OLDEST if oldest_first else NEWEST)), limit]
    at, stream, number, most = (f"${len(values) - 3 + offset}" for offset in range(4))
    place = f"({at}, {stream}, {number})"
    way, less = ("ASC", ">") if oldest_first else ("DESC", "<")
    rows = await connection.fetch(
        f"""SELECT e.*, COALESCE(before.hash, pruned.hash) AS previous
            FROM (SELECT * FROM audit_entries
                  WHERE at {less}= {at} AND (at, stream, number) {less} {place} {conditions}
                  ORDER BY at {way}, stream {way}, number {way} LIMIT {most}) AS e
            LEFT JOIN audit_entries AS before ON before.stream = e.stream AND before.number = e.number - 1
            LEFT JOIN audit_pruned AS pruned ON pruned.stream = e.stream AND pruned.number = e.number - 1
            ORDER BY e.at {way}, e.stream {way}, e.number {way}""",  # noqa: S608 - conditions of ours
        *values,
    )
    return [Found(record_of(row), integrity_of(record_of(row), row["previous"], key)) for row in rows]


def integrity_of(record: Record, previous: bytes | None, key: bytes) -> Integrity:
    """Tell whether an entry is authentic by itself.

    Args:
        record: the entry.
        previous: digest of the entry before it, None if that is not there.
        key: signs the entries.
    """
    before = GENESIS if record.entry.number == 1 else previous
    try:
        chained = before is not None and equal(entry_hash(before, record.entry), record.hash)
    except (OverflowError, UnicodeEncodeError):
        chained = False
    if not chained:
        return "broken"
    if record.signature == b"":
        return "unsigned"
    return "ok" if equal(entry_signature(key, record.hash), record.signature) else "broken"


def place_text(place: Place) -> str:
    """Return a place as callers are given it."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).rstrip(b"=").decode()


def place_from(text: str) -> Place:
    """Return the place that :func:`place_text` wrote.

    Raises:
        InvalidRequest: it is none.
    """
    try:
        raw = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        return Place(*msgspec.json.decode(raw, type=tuple[_Number, str, _Number]))
    except (ValueError, binascii.Error, msgspec.MsgspecError) as exc:
        raise InvalidRequest("after is what an earlier page gave as next") from exc


def _conditions(wanted: Filter, values: list[Any]) -> str:
    """Return what follows the first condition, and add to ``values`` what it speaks of.

    Spelled as the indexes of ``audit_entries`` are, or they would not be used.
    """

    def parameter(value: Any) -> str:
        values.append(value)
        return f"${len(values)}"

    parts = []
    if wanted.since is not None:
        parts.append(f"at >= {parameter(wanted.since)}")
    if wanted.until is not None:
        parts.append(f"at < {parameter(wanted.until)}")
    if wanted.actor is not None:
        text = parameter(wanted.actor[:_IDENTITY])
        parts.append(
            f"hashtextextended(left(actor, 42), 0) = hashtextextended({text}, 0) AND left(actor, 42) = {text}"
        )
        if len(wanted.actor) > _IDENTITY:
            parts.append(f"actor = {parameter(wanted.actor)}")
    if wanted.name is not None:
        text = parameter(wanted.name)
        parts.append(
            f"hashtextextended(substr(actor, 44), 0) = hashtextextended({text}, 0)"
            f" AND substr(actor, 44) = {text} AND substr(actor, 44) <> ''"
        )
    if wanted.by is not None:
        parts.append(f"starts_with(actor, {parameter(f'{wanted.by}:')})")
    if wanted.request_id is not None:
        text = parameter(wanted.request_id)
        parts.append(f"hashtextextended(request_id, 0) = hashtextextended({text}, 0) AND request_id = {text}")
    if wanted.path is not None:
        parts += _path(wanted.path, parameter)
    for column, value, frequent in (
        ("operation", wanted.operation, _FREQUENT),
        ("outcome", wanted.outcome, _ORDINARY),
    ):
        if value is not None:
            parts.append(f"{column} = {parameter(value)}")
            if value not in frequent:
                # The partial index leaves these out; without this it could not be used.
                parts.append(f"{column} NOT IN ({', '.join(repr(word) for word in frequent)})")
    if wanted.kind is not None:
        parts.append(f"kind = {parameter(wanted.kind)}")
    if wanted.client is not None:
        parts.append(f"client = {parameter(wanted.client)}")
    return "".join(f" AND {part}" for part in parts)


def _path(path: str, parameter: Any) -> Sequence[str]:
    start = path.partition("*")[0]
    shortened = start[:_PREFIX]
    if "*" not in path:
        text = parameter(shortened)
        return [f'left(path, 128) COLLATE "C" = {text}', f"path = {parameter(path)}"]
    if len(re.findall(r"\*+", path)) > _MAX_WILDCARDS:
        raise InvalidRequest(f"a path to look for has at most {_MAX_WILDCARDS} wildcards")
    pieces = re.split(r"(\*+)", path)
    pattern = "".join(
        (".*" if len(piece) > 1 else "[^/]*") if piece.startswith("*") else _SPECIAL.sub(r"\\\1", piece)
        for piece in pieces
    )
    found = [f"path ~ {parameter(f'^{pattern}$')}"]
    if shortened:
        found += [
            f'left(path, 128) COLLATE "C" >= {parameter(shortened)}',
            f'left(path, 128) COLLATE "C" <= {parameter(shortened + _HIGHEST)}',
        ]
    return found
