"""What comes while a transaction is under way goes with the next one: fewer commits, however many ask.

Whoever asks is answered by himself: one that is refused harms no other. A commit that is lost fails all that
shared it, and each of them may have happened.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from secrethub.errors import SecretHubError, Unavailable

MOST = 256
"""Pieces of work of one transaction, unless said otherwise."""

W = TypeVar("W")
R = TypeVar("R")


class SharedWork(Generic[W, R]):
    """One kind of work, of one process."""

    def __init__(
        self,
        name: str,
        carry_out: Callable[[Sequence[W]], Awaitable[Sequence[R | Exception]]],
        *,
        key: Callable[[W], Hashable] | None = None,
        weight: Callable[[W], int] = lambda _: 1,
        most: int = MOST,
    ) -> None:
        """Prepare.

        Args:
            name: of the task that does it.
            carry_out: does several pieces in one transaction, and returns for each its result, or why not.
                When it raises what is no SecretHubError, nothing has happened.
            key: of two pieces with the same one, the second waits for the next transaction.
            weight: of a piece.
            most: that the pieces of one transaction weigh together, unless one alone is heavier.
        """
        self._name = name
        self._carry_out = carry_out
        self._key = key
        self._weight = weight
        self._most = most
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
        taken: list[tuple[W, asyncio.Future[R]]] = []
        try:
            while self._waiting:
                taken = self._taken()
                if taken:
                    await self._together(taken)
        except BaseException:
            # Nobody is left to do it: this process is stopping.
            for _, future in (*taken, *self._waiting):
                _settle(future, Unavailable("this was cut off; its outcome is unknown"))
            self._waiting.clear()
            raise

    def _taken(self) -> list[tuple[W, asyncio.Future[R]]]:
        """Take what goes together from what waits."""
        taken: list[tuple[W, asyncio.Future[R]]] = []
        later: list[tuple[W, asyncio.Future[R]]] = []
        keys: set[Hashable] = set()
        left = self._most
        for one in self._waiting:
            work, future = one
            # Who went away wants nothing any more.
            if future.done():
                continue
            key = future if self._key is None else self._key(work)
            weight = self._weight(work)
            if key not in keys and (weight <= left or not taken):
                taken.append(one)
                keys.add(key)
                left -= weight
            else:
                later.append(one)
        self._waiting = later
        return taken

    async def _together(self, taken: Sequence[tuple[W, asyncio.Future[R]]]) -> None:
        outcomes: Sequence[R | Exception]
        try:
            outcomes = await self._carry_out([work for work, _ in taken])
        except SecretHubError as exc:
            outcomes = [copy.copy(exc) for _ in taken]
        except Exception as exc:  # noqa: BLE001 - whoever asked is told
            # Nothing of it has happened: one that the database does not take is not the end of the others.
            if len(taken) > 1:
                for one in taken:
                    await self._together([one])
                return
            outcomes = [exc]
        for (_, future), outcome in zip(taken, outcomes, strict=True):
            _settle(future, outcome)


def _settle(future: asyncio.Future[R], outcome: R | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
