"""What is kept of the ends of streams is looked after: nobody hides entries from sinks and the notary.

Every gateway does it. A difference was made by somebody who writes to the database: it is written down,
counted, and put right by the entries, which sinks are given then and the notary signs.
"""

from __future__ import annotations

import asyncio
import logging

from secrethub.engines.runtime import Core
from secrethub.errors import SecretHubError
from secrethub.operations.note import note
from secrethub.storage import stream_ends

_NAMED = 10
"""Streams that an entry names."""

_log = logging.getLogger(__name__)


async def keep_stream_ends(core: Core, seconds: float) -> None:
    """Look as long as the process lives.

    Args:
        core: this process.
        seconds: between two looks.
    """
    while True:
        await asyncio.sleep(seconds)
        if not core.unsealed:
            continue
        try:
            await mend(core)
        except SecretHubError as exc:
            _log.warning("the ends of the ledger's streams could not be looked at: %s", exc.code)


async def mend(core: Core) -> None:
    """Look at all streams once, and put right what is kept of their ends.

    Raises:
        SecretHubError: not now; the next call goes on.
    """
    async with core.database.read() as connection:
        ends = [end async for page in stream_ends.hidden(connection) for end in page]
    if not ends:
        return
    core.metrics.integrity_failures.labels(stream_ends.TABLE).inc(len(ends))
    _log.error("somebody edited how far %d streams of the ledger go; that is put right", len(ends))
    await note(
        core,
        operation="audit.stream.mend",
        path="sys/audit",
        actor="system",
        outcome="done",
        reason="how far streams go was edited: their newest entries were hidden from sinks and checkpoints",
        detail={"count": len(ends), "streams": [end.stream for end in ends[:_NAMED]]},
    )
    async with core.database.write() as connection:
        await stream_ends.put_right(connection, ends)
