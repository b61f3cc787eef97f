"""How long leases live. Pure; seconds and microseconds as said, 0 for no bound."""

from __future__ import annotations

from dataclasses import dataclass

_MICROS = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What a lease may live.

    Attributes:
        ttl: seconds to begin with.
        max_ttl: seconds from its making that no renewal passes.
        owner_ends: microseconds since the epoch when its owner ends by itself; 0 for never.
    """

    ttl: int
    max_ttl: int
    owner_ends: int = 0


def terms(
    *,
    ttl: int,
    max_ttl: int,
    mount_ttl: int,
    mount_max_ttl: int,
    most: int,
    owner_ends: int = 0,
) -> Terms:
    """Return what a new lease may live: what its role says, within its mount's and the cluster's bounds.

    Args:
        ttl: of the role; 0 for the mount's.
        max_ttl: likewise.
        mount_ttl: of the mount; 0 for the cluster's.
        mount_max_ttl: likewise.
        most: seconds that holds in the whole cluster, for both.
        owner_ends: when its owner ends by itself.
    """
    longest = min(bound for bound in (max_ttl, mount_max_ttl, most) if bound)
    first = min(ttl or mount_ttl or most, longest)
    return Terms(ttl=first, max_ttl=longest, owner_ends=owner_ends)


def first_deadlines(now: int, held: Terms) -> tuple[int, int]:
    """Return when a lease made now ends, and beyond what no renewal reaches, in microseconds."""
    longest = now + held.max_ttl * _MICROS
    return within(now + held.ttl * _MICROS, longest, held.owner_ends), longest


def renewed(now: int, increment: int, *, max_expires_at: int, owner_ends: int) -> int:
    """Return when a lease ends that is renewed now for ``increment`` seconds."""
    return within(now + increment * _MICROS, max_expires_at, owner_ends)


def within(until: int, max_expires_at: int, owner_ends: int) -> int:
    """Return the earliest of the instants, where an owner that ends at 0 never ends."""
    return min(until, max_expires_at, owner_ends or until)


def seconds_left(now: int, until: int) -> int:
    """Return the whole seconds until an instant, never less than 0."""
    return max(0, (until - now) // _MICROS)
