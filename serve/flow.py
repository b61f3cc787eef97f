"""Answers of any length, sent while they are made.

What was decided before the first byte need not hold at the last: between two pieces the process looks whether
authority has changed, and if so whether the caller may still have this. Whatever goes wrong ends the
connection before the answer's end, so that no part is taken for the whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any

from secrethub.engines.engine import Flow
from secrethub.engines.runtime import Core
from secrethub.errors import SecretHubError
from secrethub.operations.call import Call
from secrethub.operations.recheck import check_again
from serve.request import Headers, Receive

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_PATIENCE = 30.0
"""Seconds for a client to take a piece."""

_log = logging.getLogger(__name__)


async def send_flow(
    core: Core, call: Call, flow: Flow, headers: Headers, receive: Receive, send: Send
) -> None:
    """Send an answer.

    Args:
        core: this process.
        call: what is answered; it was allowed.
        flow: the answer.
        headers: all of them.
        receive: the ASGI channel from the client, whose body was read.
        send: the ASGI channel to the client.

    Returns without the answer's end when it broke off, upon which the server ends the connection.

    Raises:
        SecretHubError: it did not even begin.
    """
    moves, begun = core.caches.authority_moves, False
    # Writing to a connection that has ended fails in silence.
    gone = asyncio.create_task(_disconnected(receive), name="flow-client")
    try:
        async for chunk in flow.chunks:
            await core.ledger.look()
            if core.caches.authority_moves != moves or not core.unsealed:
                moves = core.caches.authority_moves
                await check_again(core, call)
            if gone.done():
                return
            if not begun:
                await _send(send, {"type": "http.response.start", "status": 200, "headers": headers})
                begun = True
            await _send(send, {"type": "http.response.body", "body": chunk, "more_body": True})
        await _send(send, {"type": "http.response.body", "body": b""})
    except (SecretHubError, TimeoutError) as exc:
        if not begun and isinstance(exc, SecretHubError):
            raise
        reason = f"{exc.code}: {exc}" if isinstance(exc, SecretHubError) else "the client takes nothing"
        _log.warning("the answer to request %s broke off: %s", call.request_id, reason)
    finally:
        gone.cancel()
        if isinstance(flow.chunks, AsyncGenerator):
            with contextlib.suppress(SecretHubError):
                await flow.chunks.aclose()


async def _send(send: Send, message: MutableMapping[str, Any]) -> None:
    async with asyncio.timeout(_PATIENCE):
        await send(message)


async def _disconnected(receive: Receive) -> None:
    """Return when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
