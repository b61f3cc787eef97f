"""Sweeping over the ends of a whole server: killed before each commit of something, one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2

from tests.gateway.behind import ledger_is_good
from tests.gateway.key_steps import got, put
from tests.gateway.whole_server import Server

SHARES = {"secret_shares": 3, "secret_threshold": 3}
STEP = 1 if "SECRETHUB_SOAK_MINUTES" in os.environ else 2
"""From one commit to the next before which a server dies; ``./dev soak commits`` leaves none out."""


async def call(server: Server, method: str, path: str, body: Any = None, token: str | None = None) -> Any:
    """Send a request that must be answered well; return the body."""
    answer = await server.call(method, path, token, json=body)
    assert answer.status_code in {200, 204}, (path, answer.text)
    return answer.json() if answer.content else None


async def last_words(
    server: Server, method: str, path: str, body: Any = None, token: str | None = None
) -> Any:
    """Send a request to a server that may die of it; None when there was no answer."""
    with contextlib.suppress(httpx2.TransportError):
        return await call(server, method, path, body, token) or {}
    await server.ended()
    return None


async def given(server: Server, path: str, nonce: str, shares: list[str]) -> dict[str, str]:
    """Give all shares but the last; return what gives that."""
    for share in shares[:-1]:
        await call(server, "PUT", path, {"key": share, "nonce": nonce}, "")
    return {"key": shares[-1], "nonce": nonce}


async def restarted(server: Server) -> bool:
    """Start a server that has died; False when it has not, and will not any more."""
    if await server.spared():
        return False
    await server.ended()
    await server.start()
    return True


async def sweep(
    server: Server, attempt: Callable[[int], Awaitable[bool]], *, least: int, step: int = STEP
) -> None:
    """Attempt with the server's end before one commit after the other, until the attempt ends before.

    Args:
        server: an open server.
        attempt: is told the number of the commit, begins, lets the server die, starts it again and opens it;
            returns whether it came to its end before.
        least: how many commits there must have been at least; otherwise nothing was shown.
        step: from one number to the next; the first is any below.
    """
    first = random.randint(1, step)
    for count, number in enumerate(itertools.count(first, step)):
        await put(server, f"kept/{count}", n=number)
        finished = await attempt(number)
        # Everything that was acknowledged is there, can be read, and is vouched for.
        found = await asyncio.gather(*(got(server, f"kept/{one}") for one in range(count + 1)))
        assert found == [{"n": first + one * step} for one in range(count + 1)]
        await ledger_is_good(server, state=True)
        if finished:
            assert number > least
            return
