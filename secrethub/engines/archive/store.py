"""Where segments of the archive are kept."""

from __future__ import annotations

from typing import IO, Protocol


class StoreFailed(Exception):
    """A store did not do what it was asked. ``reason`` may be shown: it holds no secret."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Store(Protocol):
    """Keeps files by their names. Every method may block: call it in a thread."""

    def put(self, name: str, source: IO[bytes]) -> None:
        """Keep what ``source`` gives, from its present place to its end, under a name.

        Raises:
            StoreFailed: it is not there.
        """
        ...

    def get(self, name: str, target: IO[bytes], limit: int) -> bool:
        """Write what is kept under a name into ``target``; False when there is nothing.

        Args:
            name: of the file.
            target: where to.
            limit: bytes at most.

        Raises:
            StoreFailed: it cannot be told, or there is more.
        """
        ...
