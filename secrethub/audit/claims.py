"""What checkpoints say of streams, kept small: a ledger of years has tens of millions of them.

Of every stream the newest claim is kept whole: together with the hash chain it vouches for everything
before. Of earlier ones the number and the first bytes of the digest are enough, for they only tell
where between two checkpoints a stream was forged by somebody who has the ledger's key.
"""

from __future__ import annotations

from array import array

from secrethub.audit.event import StreamHead

_PREFIX = 8

NO_CLAIM = 1 << 63
"""The number of a claim that will not come."""


class StreamClaims:
    """The claims about one stream, in order of their numbers."""

    __slots__ = ("_at", "_numbers", "_prefixes", "last")

    def __init__(self, head: StreamHead) -> None:
        self.last = head
        self._numbers = array("Q", [head.number])
        self._prefixes = bytearray(head.head[:_PREFIX])
        self._at = 0

    def add(self, head: StreamHead) -> bool:
        """Take one more; False when it does not go beyond the one before."""
        if head.number <= self.last.number:
            return head == self.last
        self.last = head
        self._numbers.append(head.number)
        self._prefixes += head.head[:_PREFIX]
        return True

    def next_after(self, number: int) -> int:
        """Return the number of the first claim beyond ``number``, which never falls from call to call."""
        numbers, at = self._numbers, self._at
        while at < len(numbers) and numbers[at] <= number:
            at += 1
        self._at = at
        return numbers[at] if at < len(numbers) else NO_CLAIM

    def allows(self, number: int, digest: bytes) -> bool:
        """Tell whether the entry with the number that :meth:`next_after` gave may have this digest."""
        if number == self.last.number:
            return digest == self.last.head
        start = self._at * _PREFIX
        return digest[:_PREFIX] == self._prefixes[start : start + _PREFIX]
