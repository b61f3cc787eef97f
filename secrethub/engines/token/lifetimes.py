"""How long tokens live. Pure; seconds throughout, 0 for none."""

from __future__ import annotations

import msgspec

from secrethub.auth.tokens import MAX_TTL
from secrethub.wire.durations import format_go_duration


class Lifetime(msgspec.Struct, frozen=True, kw_only=True):
    """The life of a new token.

    Attributes:
        ttl: until it ends or is renewed; 0 for ever.
        max_ttl: its own maximum, from its creation on.
        explicit: whether that was asked for of the token itself.
        period: what each renewal gives.
        bound: the mount's maximum; 0 for the system's.
        warnings: for whoever asked for more.
    """

    ttl: int = 0
    max_ttl: int = 0
    explicit: bool = False
    period: int = 0
    bound: int = 0
    warnings: tuple[str, ...] = ()


def lifetime(
    asked: int, explicit: int, period: int, *, most: int = 0, usual: int = 0, bound: int = 0
) -> Lifetime:
    """Return the life of a token that ends.

    Args:
        asked: what the request, or the role, names.
        explicit: a maximum of its own, which only shortens, unless it is periodic.
        period: of a periodic token, which may be renewed beyond the mount's maximum.
        most: of the role, for one that is not periodic.
        usual: of the mount, where nothing is asked for; 0 for the system's.
        bound: most of the mount, renewals included; 0 for the system's.
    """
    period = shorter(period, bound) if period else 0
    if period:
        ttl = min(period, explicit or period)
        return Lifetime(
            ttl=ttl,
            max_ttl=explicit,
            explicit=explicit > 0,
            period=period,
            bound=bound,
            warnings=capped(period, ttl),
        )
    own = shorter(explicit, most)
    limit = min(own or bound or MAX_TTL, bound or MAX_TTL)
    return Lifetime(
        ttl=min(asked or usual or MAX_TTL, limit),
        max_ttl=shorter(own, bound),
        explicit=explicit > 0,
        bound=bound,
        warnings=capped(asked, limit),
    )


def shorter(one: int, other: int) -> int:
    """Return the shorter of two times, where 0 stands for no bound."""
    return min(one or other, other or one)


def longest(life: Lifetime) -> int | None:
    """Return the seconds from its creation that no renewal of a token passes; None when there are none."""
    if life.period:
        return life.max_ttl or None
    # A maximum of its own only shortens: the mount's, or the system's, holds for all without a period.
    return min(life.max_ttl or MAX_TTL, life.bound or MAX_TTL)


def capped(wanted: int, limit: int) -> tuple[str, ...]:
    """Return the warning that Vault gives when a lifetime is cut to its maximum."""
    if wanted <= limit:
        return ()
    asked, most = format_go_duration(wanted), format_go_duration(limit)
    return (f'TTL of "{asked}" exceeded the effective max_ttl of "{most}"; TTL value is capped accordingly',)
