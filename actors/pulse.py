"""The life of an actor that looks at the database now and then."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from secrethub.errors import SecretHubError

_log = logging.getLogger(__name__)


async def pulse(step: Callable[[], Awaitable[None]], done: asyncio.Event, seconds: float) -> None:
    """Do ``step`` at once and then every ``seconds``, until ``done`` is set.

    A step that takes long comes later, for a quarter of the time is always left to others.

    Our own errors mean "not now" and wait for the next time. Anything else is a defect: it ends the
    actor, and its supervisor starts a fresh one.
    """
    life, clock = asyncio.current_task(), asyncio.get_running_loop().time
    while not done.is_set():
        begun = clock()
        try:
            await step()
        except SecretHubError as exc:
            _log.debug("%s: %s", getattr(step, "__qualname__", step), exc.code)
        if life is not None and life.cancelling():
            # Waiting with a time limit loses a cancellation that comes together with what is waited for.
            raise asyncio.CancelledError
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(begun + seconds - clock(), seconds / 4)):
                await done.wait()
