"""Requests that read the whole ledger: few at once in this process, for each takes a connection for long."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import TypeVar

from secrethub.engines.runtime import Core
from secrethub.errors import TooManyRequests

T = TypeVar("T")

_RETRY_SECONDS = 10.0


class UnderWay:
    """Those of one kind."""

    def __init__(self, core: Core, kind: str, most: int) -> None:
        """Find them.

        Args:
            core: this process.
            kind: such as ``exports``.
            most: that there may be at once.
        """
        running = core.engine_state.setdefault(kind, set())
        assert isinstance(running, set)
        self._kind, self._most = kind, most
        self._running: set[str] = running

    def check(self) -> None:
        """Check that one more may begin.

        Raises:
            TooManyRequests: not now.
        """
        if len(self._running) >= self._most:
            raise TooManyRequests(f"so many {self._kind} are under way already", _RETRY_SECONDS)

    async def counted(self, request_id: str, parts: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Give out ``parts``, as one of those under way until the end.

        Raises:
            TooManyRequests: not now; nothing was given out.
        """
        self.check()
        self._running.add(request_id)
        try:
            async with contextlib.aclosing(parts):
                async for part in parts:
                    yield part
        finally:
            self._running.discard(request_id)
