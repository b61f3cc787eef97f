"""An actor that nobody calls: it works, with what a gateway has, until it is closed."""

from __future__ import annotations

import asyncio
import os
import time
from abc import ABC, abstractmethod
from typing import ClassVar

from actors.workplace import Workplace, until_done


class Worker(ABC):
    """One of its kind per node. It keeps nothing that a fresh one would miss.

    Attributes:
        name: of its kind, as in ``actors/tree.py``.
    """

    name: ClassVar[str]

    def __init__(self, *, node: str, workplace: Workplace) -> None:
        """Prepare.

        Args:
            node: this node's name.
            workplace: where the work is done.
        """
        self._node = node
        self._workplace = workplace
        self._begun = time.monotonic()
        self._done = asyncio.Event()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(node={self._node})"

    async def health(self) -> dict[str, object]:
        """Tell who this is; how the work goes is in the metrics."""
        return {
            "name": self.name,
            "node": self._node,
            "pid": os.getpid(),
            "uptime": time.monotonic() - self._begun,
        }

    async def hold(self) -> None:
        """Work until closed."""
        await until_done(self._done, self.work())

    @abstractmethod
    async def work(self) -> None:
        """Work until cancelled."""

    async def close(self) -> None:
        """End; what is under way is cut off, as by a crash."""
        self._done.set()
