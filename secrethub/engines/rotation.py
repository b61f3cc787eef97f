"""When the cluster makes a new data key by itself: settings, and the decision as a pure function."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from secrethub.errors import InvalidRequest
from secrethub.storage.authority import SETTINGS
from secrethub.wire.durations import format_go_duration

if TYPE_CHECKING:
    from secrethub.engines.runtime import Core

MOST_OPERATIONS = 3_865_470_566
"""Nine tenths of what one key may seal: the rest is for what is sealed until the next key does."""

ROW = "rotation"
"""Key of the row of settings."""

_FEWEST_OPERATIONS = 1_000_000
_SHORTEST_INTERVAL = 24 * 3600


class Rotation(msgspec.Struct, frozen=True, kw_only=True):
    """When data keys are rotated.

    Attributes:
        enabled: whether that is done without being asked for.
        interval: seconds after which a key is followed by another; 0 for any age.
        max_operations: uses after which it is.
    """

    enabled: bool = True
    interval: int = 0
    max_operations: int = MOST_OPERATIONS

    def check(self) -> None:
        """Refuse impossible settings.

        Raises:
            InvalidRequest: which one it is.
        """
        if 0 < self.interval < _SHORTEST_INTERVAL:
            raise InvalidRequest(
                f"interval must be greater or equal to {format_go_duration(_SHORTEST_INTERVAL)}"
            )
        if not _FEWEST_OPERATIONS <= self.max_operations <= MOST_OPERATIONS:
            raise InvalidRequest(
                f"max_operations must be in the range [{_FEWEST_OPERATIONS},{MOST_OPERATIONS}]"
            )

    def due(self, *, made_at: int, uses: int, now: datetime) -> str:
        """Tell why the newest key should be followed by another now; empty when it should not.

        Args:
            made_at: when it was made, in seconds since the epoch.
            uses: how often it was used at most.
            now: the instant.
        """
        if not self.enabled:
            return ""
        if uses >= self.max_operations:
            return "used often"
        if self.interval and now.timestamp() - made_at >= self.interval:
            return "old"
        return ""


async def load_rotation(core: Core) -> Rotation:
    """Return the cluster's settings.

    Raises:
        IntegrityFailure: they are not authentic.
        Sealed, Unavailable: they cannot be read now.
    """
    row = await core.authority.get(SETTINGS, ROW)
    return Rotation() if row is None else msgspec.convert(row.body, Rotation)
