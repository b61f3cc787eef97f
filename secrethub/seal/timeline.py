"""Timelines: a restored database that K shares have accepted begins another one.

The number stands in the high bits of everything that must never come back: seal epochs, authority
generations, incarnations and revisions of buckets. So nothing that the lost future has given out fits. It
carries an HMAC under the root key: who writes to the database alone begins no timeline that the notary would
sign.
"""

from __future__ import annotations

from secrethub.crypto.digests import derive, equal, mac

FIRST = 1
BITS = 40
"""Bits below the number of the timeline: a thousand changes a second for 35 years."""


def first_of(timeline: int) -> int:
    """Return the lowest number that belongs to ``timeline`` and to none before it."""
    return timeline << BITS


def moved_to(timeline: int, number: int) -> int:
    """Return ``number`` with the high bits of ``timeline``."""
    return first_of(timeline) | (number & (first_of(1) - 1))


def timeline_mac(root_key: bytes, cluster_id: str, timeline: int) -> bytes:
    """Return what shows that the root key began ``timeline`` (32 bytes)."""
    return mac(derive(root_key, "secrethub/root/timeline"), "secrethub/timeline/v1", cluster_id, timeline)


def is_begun(root_key: bytes, cluster_id: str, timeline: int, given: bytes) -> bool:
    """Tell whether ``given`` shows that."""
    return equal(timeline_mac(root_key, cluster_id, timeline), given)
