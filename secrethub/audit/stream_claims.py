"""What signed entries say of streams: their details (:mod:`secrethub.audit.event`), read back."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from secrethub.audit.event import Entry, StreamHead


class Claim(msgspec.Struct, frozen=True):
    """What a signed entry says of a stream: entry ``number`` exists and has the digest ``head``."""

    stream: str
    number: int
    head: str


class _Open(msgspec.Struct, frozen=True):
    follows: Claim | None = None


class _Streams(msgspec.Struct, frozen=True):
    streams: tuple[Claim, ...]


class _Lost(msgspec.Struct, frozen=True):
    stream: str
    first: int
    last: int
    head: str


def claims_of(entry: Entry) -> Iterator[Claim]:
    """Yield what a signed entry claims; a detail of another shape claims nothing."""
    try:
        if entry.kind == "open":
            follows = msgspec.json.decode(entry.detail, type=_Open).follows
            if follows is not None:
                yield follows
        elif entry.kind == "adopt":
            yield from msgspec.json.decode(entry.detail, type=_Streams).streams
        elif entry.kind == "lost":
            lost = msgspec.json.decode(entry.detail, type=_Lost)
            yield Claim(lost.stream, lost.first - 1, lost.head)
    except msgspec.MsgspecError:
        return


def pruned_by(detail: str) -> Iterator[StreamHead]:
    """Yield up to where a ``prune`` entry removes each stream; a detail of another shape removes nothing."""
    try:
        for claim in msgspec.json.decode(detail, type=_Streams).streams:
            yield StreamHead(claim.stream, claim.number, bytes.fromhex(claim.head))
    except (msgspec.MsgspecError, ValueError):
        return
