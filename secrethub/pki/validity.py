"""When a certificate begins, ends and is due for renewal. Instants are whole seconds (RFC 5280, 4.1.2.5)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from secrethub.errors import InvalidRequest

BACKDATE = timedelta(seconds=45)
"""How far ``notBefore`` lies in the past, for hosts whose clocks are behind."""
BEFORE_EXPIRY = timedelta(days=7)
"""How long before its end a long-lived certificate is renewed."""


class Window(NamedTuple):
    """From when to when a certificate is valid."""

    not_before: datetime
    not_after: datetime


def window(now: datetime, lifetime: timedelta, within: Window | None = None) -> Window:
    """Return the validity of a certificate issued at ``now``.

    Args:
        now: the instant of issuing.
        lifetime: from ``now``, at least one second.
        within: the validity of the issuer, which is never left.

    Raises:
        InvalidRequest: the lifetime is not positive, ends beyond the calendar or beyond the issuer,
            or the issuer is not valid now.
    """
    if lifetime < timedelta(seconds=1):
        raise InvalidRequest("a certificate must live for at least a second")
    try:
        not_after = (now + lifetime).replace(microsecond=0)
    except OverflowError as exc:
        raise InvalidRequest("the lifetime ends beyond the calendar") from exc
    not_before = (now - BACKDATE).replace(microsecond=0)
    if within is not None:
        if not within.not_before <= now < within.not_after:
            raise InvalidRequest("the issuing authority is not valid at this time")
        if not_after > within.not_after:
            raise InvalidRequest("the certificate would outlive its issuing authority")
        not_before = max(not_before, within.not_before)
    return Window(not_before, not_after)


def renewal_due(validity: Window) -> datetime:
    """Return when to renew: 7 days before the end, short-lived ones at two thirds of their life."""
    two_thirds = validity.not_before + (validity.not_after - validity.not_before) * 2 / 3
    return max(two_thirds, validity.not_after - BEFORE_EXPIRY)
