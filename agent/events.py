"""What Core says of its own accord, to whoever holds the connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Events(Protocol):
    """Who is told what Core says of its own accord. Nothing here waits."""

    def opened(self) -> None:
        """A new conversation is open: anything may have changed since the last one."""
        ...

    def changed(self, path: str) -> None:
        """A watched path changed."""
        ...

    def changed_all(self) -> None:
        """What the agent may read has changed."""
        ...

    def certificate_due(self) -> None:
        """The certificate should be renewed."""
        ...

    def order_due(self) -> None:
        """There is a command to be run."""
        ...

    def moved(self, urls: Sequence[str]) -> None:
        """These are the gateways from now on; they differ from those known before."""
        ...
