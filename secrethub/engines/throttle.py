"""A bound on what people without an identity can make us write: nobody fills the disk.

Token buckets of one process, one for all and one for each address, so that a single host does not use up
what the others need. What exceeds them is refused before the ledger and counted; a summary entry says
how much was left out.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from dataclasses import dataclass, field

from secrethub.errors import TooManyRequests

_ADDRESSES = 10_000
_UNKNOWN = "unknown"
"""Stands for everybody whose address is not known: together they are one, so they lock out nobody else."""
_SITE_BITS = 64
"""An IPv6 host chooses the rest of its address as it likes."""


@dataclass(slots=True)
class Bucket:
    """A token bucket.

    Attributes:
        rate: admissions a second in the long run.
        burst: admissions at once.
    """

    rate: float
    burst: float
    level: float = -1.0
    at: float = 0.0

    def wait(self, now: float) -> float:
        """Return seconds until one can be admitted; 0 for now."""
        if self.level < 0:
            self.level, self.at = self.burst, now
        self.level = min(self.burst, self.level + max(0.0, now - self.at) * self.rate)
        self.at = max(self.at, now)
        return 0.0 if self.level >= 1 else (1 - self.level) / self.rate


@dataclass(slots=True)
class Throttle:
    """A bucket for everybody and one for each address, and a count of what they refused.

    Attributes:
        rate: admissions a second in the long run, of everybody.
        burst: admissions at once, of everybody.
        address_rate: the same of one address; infinite for no such bound.
        address_burst: the same of one address.
    """

    rate: float
    burst: float
    address_rate: float = math.inf
    address_burst: float = math.inf
    refused: int = 0
    _all: Bucket = field(init=False)
    _addresses: OrderedDict[str, Bucket] = field(init=False, default_factory=OrderedDict)

    def __post_init__(self) -> None:
        """Fill the common bucket."""
        self._all = Bucket(self.rate, self.burst)

    def admit(self, now: float, address: str | None = None) -> None:
        """Admit one request at ``now`` (monotonic seconds).

        Args:
            now: seconds on a clock that never goes back.
            address: the client's, or None when it is unknown.

        Raises:
            TooManyRequests: a bucket is empty.
        """
        buckets = self._buckets(address)
        for bucket in buckets:
            wait = bucket.wait(now)
            if wait:
                self.refused += 1
                raise TooManyRequests("too many unauthenticated requests", wait)
        for bucket in buckets:
            bucket.level -= 1

    def give_back(self, address: str | None = None) -> None:
        """Take back an admission: its request turned out to have an identity."""
        for bucket in self._buckets(address):
            if bucket.level >= 0:
                bucket.level = min(bucket.burst, bucket.level + 1)

    def take_refused(self) -> int:
        """Return how many were refused since the last call."""
        count, self.refused = self.refused, 0
        return count

    def _buckets(self, address: str | None) -> list[Bucket]:
        if self.address_rate == math.inf:
            return [self._all]
        return [self._of(address if address is not None else _UNKNOWN), self._all]

    def _of(self, address: str) -> Bucket:
        where = site(address)
        bucket = self._addresses.get(where)
        if bucket is None:
            bucket = self._addresses[where] = Bucket(self.address_rate, self.address_burst)
            if len(self._addresses) > _ADDRESSES:
                self._addresses.popitem(last=False)
        else:
            self._addresses.move_to_end(where)
        return bucket


def site(address: str) -> str:
    """Return what stands for a client: its address, or its network where it chooses the rest itself."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _SITE_BITS), strict=False))
