"""One entry of the ledger, its digest, and what entries may claim about other streams.

Every field of an entry enters its digest, together with the digest of the entry before: changing,
removing or moving an entry breaks the chain from there on. A signature under a key that the
database does not have keeps someone who can write to it from computing a new chain.

Claims tie streams together. They stand in the detail of signed entries:

* ``open``: ``{"node", …, "follows": {"stream", "number", "head"}}``, the stream that this process's
  predecessor left, if known: it must still reach that entry.
* ``adopt``: ``{"streams": [{"stream", "number", "head"}, …]}``: streams written without a key while
  the cluster was sealed, trustworthy up to that entry from now on.
* ``lost``: ``{"stream", "first", "last", "head"}``: entries ``first`` to ``last`` of that stream may
  or may not have become durable; everything before them did, and ``head`` is where it ended.
* ``prune``: ``{"streams": [{"stream", "number", "head"}, …]}``: entries of these streams up to that one were
  removed on purpose. An entry like this stays, unless a later one says the same again. It also says what
  those entries said of rows (:mod:`secrethub.audit.state`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from secrethub.audit.masking import canonical_json
from secrethub.crypto.digests import mac, sha256

Kind: TypeAlias = Literal["open", "request", "intent", "outcome", "event", "lost", "adopt", "prune", "close"]

Outcome: TypeAlias = Literal[
    "begun",
    "intent",
    "progress",
    "authorised",
    "ignored",
    "done",
    "denied",
    "refused",
    "failed",
    "given up",
    "found",
    "removed",
    "missing",
    "ordered",
    "written",
    "late",
    "unconfirmed",
    "undone",
    "again",
    "unknown",
]
"""All that entries say of how something went.

``begun``, and of the seal ``intent``: it is about to be done. ``missing``: there is none. ``ordered``:
somebody does it later. ``written``: rows that were changed. ``progress``, ``authorised``, ``ignored``: of
shares. ``given up``: of leases. ``found``, ``removed``: of users without a lease. ``late``, ``unconfirmed``,
``undone``: of rotations. ``again``, ``unknown``: of commands, which failed for now, or are not on the host.
"""

GENESIS = bytes(32)
"""What stands for the digest before the first entry of a stream."""

_encode = msgspec.msgpack.Encoder().encode
_ENTRY = "secrethub/audit/entry/v1"
_SIGNATURE = "secrethub/audit/signature/v1"


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where an event of the seal comes from; nobody, when SecretHub does it by itself.

    Attributes:
        request_id: UUID of the request.
        actor: who asked.
        path: the canonical path.
        client: address of the peer, or empty when unknown.
        door: the listener that accepted the request.
    """

    request_id: str = ""
    actor: str = "system"
    path: str = "sys/seal"
    client: str = ""
    door: str = ""


class Entry(msgspec.Struct, frozen=True):
    """What is recorded.

    Attributes:
        stream: UUID of the stream; one writing process, one stream.
        number: place in the stream, from 1, without gaps.
        at: microseconds since the epoch, UTC.
        kind: what sort of entry this is. A read is one ``request``; a change is an ``intent``
            before it and an ``outcome`` after it.
        request_id: UUID of the request, or empty.
        actor: who asked.
        operation: what was asked, e.g. ``kv.read``.
        path: the canonical path, or the escaped text of one that has no canonical form.
        outcome: how it ended.
        reason: why it was refused or failed; not shown to the caller.
        client: address of the peer, or empty when unknown.
        door: the listener that accepted the request.
        detail: canonical JSON text with masked values.
    """

    stream: str
    number: int
    at: int
    kind: Kind
    request_id: str
    actor: str
    operation: str
    path: str
    outcome: str
    reason: str
    client: str
    door: str
    detail: str


class Record(msgspec.Struct, frozen=True):
    """An entry as stored. ``signature`` is empty in a stream that was written without a key."""

    entry: Entry
    hash: bytes
    signature: bytes


Row: TypeAlias = tuple[Any, ...]
"""A record as plain values: the fields of :class:`Entry` in their order, digest, signature."""

FIELDS = len(Entry.__struct_fields__)


class StreamHead(msgspec.Struct, frozen=True):
    """A place in a stream: the entry with this number has this digest."""

    stream: str
    number: int
    head: bytes


def entry_hash(previous: bytes, entry: Entry) -> bytes:
    """Return the digest of ``entry`` after the entry with digest ``previous``.

    SHA-256 over domain, ``previous`` and every field in the order of their declaration, in the
    encoding of :func:`secrethub.crypto.digests.canonical`.
    """
    return sha256(_ENTRY, previous, *msgspec.structs.astuple(entry))


def entry_signature(key: bytes, digest: bytes) -> bytes:
    """Return the signature (HMAC-SHA256) of an entry with this digest."""
    return mac(key, _SIGNATURE, digest)


def row_hash(previous: bytes, row: Row) -> bytes:
    """Return what :func:`entry_hash` does, for an entry as a row: fast, and nothing is checked.

    Raises:
        OverflowError, TypeError, UnicodeEncodeError: perhaps, for fields that no entry can have.
    """
    return hashlib.sha256(_encode((_ENTRY, previous, *row[:FIELDS]))).digest()


def signature_message(digest: bytes) -> bytes:
    """Return what is signed of an entry with this digest, for :mod:`secrethub.crypto.prepared_mac`."""
    return _encode((_SIGNATURE, digest))


def record_from(row: Row) -> Record:
    """Return the record of a row."""
    return Record(Entry(*row[:FIELDS]), row[FIELDS], row[FIELDS + 1])


def row_from(record: Record) -> Row:
    """Return the row of a record."""
    return *msgspec.structs.astuple(record.entry), record.hash, record.signature


def open_detail(origin: Mapping[str, Any], follows: StreamHead | None = None) -> str:
    """Return the detail of an ``open`` entry.

    Args:
        origin: names the node, the process and its start; nothing secret.
        follows: where the stream before this one ended, if known.
    """
    return canonical_json({**origin, "follows": None if follows is None else _claim(follows)})


def adopt_detail(heads: Iterable[StreamHead]) -> str:
    """Return the detail of an ``adopt`` entry for the streams that end at ``heads``."""
    return canonical_json({"streams": [_claim(head) for head in heads]})


def prune_detail(heads: Iterable[StreamHead], state: Mapping[str, Any]) -> str:
    """Return the detail of a ``prune`` entry.

    Args:
        heads: of each stream, everything up to its head here is removed.
        state: what stays known of rows (``audit/state.py``).
    """
    return canonical_json({"streams": [_claim(head) for head in heads], **state})


def lost_detail(start: StreamHead, last: int) -> str:
    """Return the detail of a ``lost`` entry: what comes after ``start``, up to ``last``, is uncertain."""
    claim = {"stream": start.stream, "first": start.number + 1, "last": last, "head": start.head.hex()}
    return canonical_json(claim)


def _claim(head: StreamHead) -> dict[str, Any]:
    return {"stream": head.stream, "number": head.number, "head": head.head.hex()}
