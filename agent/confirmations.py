"""Saying to Core which version of a secret is in use on this host: the one that everything here has.

A secret that several files hold is in use in its new version when each of them was written and its program
told; one that no file holds, when the cache gives it to applications. Core waits for that before it lets an
old value end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Protocol

from secrethub.wire.messages import Confirm


class Holder(Protocol):
    """A file as far as it matters here."""

    @property
    def paths(self) -> Collection[str]:
        """The secrets in it."""


class Confirmations:
    """What every file has, and what is still to be said."""

    def __init__(self, tell: Callable[[Confirm], Awaitable[None]]) -> None:
        """Prepare.

        Args:
            tell: says something to Core, or does nothing while there is no connection: a new one begins
                with everything read again.
        """
        self._tell = tell
        self._files: Sequence[Holder] = ()
        self._delivered: dict[Holder, Mapping[str, int]] = {}
        self._waiting: dict[str, int] = {}
        self._stirred = asyncio.Event()

    def watch_over(self, files: Sequence[Holder]) -> None:
        """Take note of all files that there are."""
        self._files = files

    def delivered(self, file: Holder, versions: Mapping[str, int]) -> None:
        """A file holds these versions, and its program was told."""
        self._delivered[file] = versions
        for path in versions:
            had = [
                self._delivered.get(other, {}).get(path, 0) for other in self._files if path in other.paths
            ]
            if lowest := min(had, default=0):
                self._say(path, lowest)

    def cached(self, path: str, version: int) -> None:
        """Applications get this version from now on."""
        if not any(path in file.paths for file in self._files):
            self._say(path, version)

    async def run(self) -> None:
        """Say what is to be said, until cancelled."""
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            waiting, self._waiting = self._waiting, {}
            for path, version in waiting.items():
                await self._tell(Confirm(path=path, version=version))

    def _say(self, path: str, version: int) -> None:
        self._waiting[path] = version
        self._stirred.set()
