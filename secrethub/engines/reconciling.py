"""What engines have in common whose targets are searched for users without a lease."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from secrethub.engines.runtime import Core
from secrethub.errors import InvalidRequest
from secrethub.storage.authority import Row
from secrethub.wire.durations import parse_duration

USUAL_SECONDS = 3600
_SHORTEST = 60


class StrayRule(msgspec.Struct, frozen=True, kw_only=True):
    """How a target is searched.

    Attributes:
        target: its name in the mount.
        seconds: between two searches; 0 for none.
        remove: whether strays are removed, or only told of.
    """

    target: str
    seconds: int
    remove: bool


@runtime_checkable
class ReconciledEngine(Protocol):
    """A kind of engine that makes users at targets."""

    def stray_rule(self, row: Row) -> StrayRule | None:
        """Return how the target that a row configures is searched; None for other rows."""
        ...

    async def strays(self, core: Core, mount: str, target: str) -> Sequence[str]:
        """Return the users of this cluster that have no lease.

        Raises:
            Unavailable, TimeoutError: the target does not answer, or is left alone.
            SecretHubError: it cannot be asked.
        """
        ...

    async def remove_strays(
        self, core: Core, mount: str, target: str, names: Sequence[str]
    ) -> Mapping[str, str]:
        """Remove some of them, and return why others could not be. Raises as :meth:`strays`."""
        ...


def interval(given: str | int) -> int:
    """Return the seconds between two searches that somebody wrote.

    Raises:
        InvalidRequest: it is too short.
    """
    seconds = parse_duration(given)
    if 0 < seconds < _SHORTEST:
        raise InvalidRequest(f"stray_check is 0 (never) or at least {_SHORTEST} seconds")
    return seconds
