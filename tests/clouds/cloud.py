"""What tests do with a cloud."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from secrethub.node import KeyServiceSettings


@dataclass
class Cloud:
    """A running cloud with one key.

    Attributes:
        settings: of the key, as a node has them.
        stop: makes the cloud go away.
        deny: gives the node credentials that are no good.
    """

    settings: KeyServiceSettings
    stop: Callable[[], object]
    deny: Callable[[], None]
    stopped: bool = False

    def close(self) -> None:
        """Make the cloud go away, if it has not yet."""
        if not self.stopped:
            self.stopped = True
            self.stop()
