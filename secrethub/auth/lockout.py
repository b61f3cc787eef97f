"""When somebody has guessed too often. Pure; the numbers are Vault's defaults, which a mount may change.

An attempt is counted before the password is looked at, and taken back when it was right. So however many
are made at the same time, no more passwords than the threshold are tried. Names that nobody has are counted
as well: what is locked tells nothing about who exists.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

THRESHOLD = 5
"""Failures in a row after which nobody gets in under a name."""
DURATION = 15 * 60
"""Seconds that this lasts, from the last failure on."""
RESET = 15 * 60
"""Seconds after a failure when it is forgotten."""


class Lockout(msgspec.Struct, frozen=True, kw_only=True):
    """What holds at a mount.

    Attributes:
        threshold: failures in a row after which nobody gets in under a name.
        duration: seconds that this lasts, from the last failure on.
        reset: seconds after a failure when it is forgotten.
        disabled: whether nobody is locked out.
    """

    threshold: int = THRESHOLD
    duration: int = DURATION
    reset: int = RESET
    disabled: bool = False


USUAL = Lockout()


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """Attempts under a name that were not found right.

    Attributes:
        mount: UUID of the auth method.
        name: as in paths.
        count: how many, those under way included.
        last_at: seconds since the epoch.
    """

    mount: str
    name: str
    count: int
    last_at: int

    def locked(self, now: datetime, rules: Lockout = USUAL) -> bool:
        """Tell whether nobody gets in under the name now."""
        if rules.disabled:
            return False
        return self.count >= rules.threshold and now.timestamp() < self.last_at + rules.duration


def attempted(
    known: Failures | None, mount: str, name: str, now: datetime, rules: Lockout = USUAL
) -> Failures:
    """Return what is to be kept once another attempt begins; ``known`` must not be locked."""
    count = 0
    if known is not None and known.count < rules.threshold and now.timestamp() < known.last_at + rules.reset:
        count = known.count
    return Failures(mount=mount, name=name, count=count + 1, last_at=int(now.timestamp()))
