"""What comes while a transaction is under way goes with the next one: fewer commits, however many ask.

Whoever asks is answered by himself: one that is refused harms no other. A commit that is lost fails all that
shared it, and each of them may have happened.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from secrethub.errors import SecretHubError

MOST = 256
"""Pieces of work of one transaction."""

W = TypeVar("W")
R = TypeVar("R")


class SharedWork(Generic[W, R]):
    """One kind of work, of one process."""

    def __init__(
        self,
        name: str,
        carry_out: Callable[[Sequence[W]], Awaitable[Sequence[R | SecretHubError]]],
        key: Callable[[W], Hashable],
    ) -> None:
        """Prepare.

        Args:
            name: of the task that does it.
            carry_out: does several pieces in one transaction, and returns for each its result, or why not.
            key: of two pieces with the same one, the second waits for the next transaction.
        """
        self._name = name
        self._carry_out = carry_out
        self._key = key
        self._waiting: list[tuple[W, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None

    async def do(self, work: W) -> R:
        """Have a piece of work done, and return its result once it is durable.

        Raises:
            SecretHubError: why it was not done.
            Unavailable: the database does not answer; if it was lost while committing, it may have been done.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=self._name)
        return await future

    async def _run(self) -> None:
        while self._waiting:
            taken = self._taken()
            if taken:
                await self._together(taken)

    def _taken(self) -> list[tuple[W, asyncio.Future[R]]]:
        """Take what goes together from what waits."""
        taken: dict[Hashable, tuple[W, asyncio.Future[R]]] = {}
        later: list[tuple[W, asyncio.Future[R]]] = []
        for one in self._waiting:
            # Who went away wants nothing any more.
            if one[1].done():
                continue
            key = self._key(one[0])
            if len(taken) < MOST and key not in taken:
                taken[key] = one
            else:
                later.append(one)
        self._waiting = later
        return list(taken.values())

    async def _together(self, taken: Sequence[tuple[W, asyncio.Future[R]]]) -> None:
        outcomes: Sequence[R | SecretHubError | Exception]
        try:
            outcomes = await self._carry_out([work for work, _ in taken])
        except Exception as exc:  # noqa: BLE001 - everybody is told, each by himself
            outcomes = [copy.copy(exc) for _ in taken]
        for (_, future), outcome in zip(taken, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
