"""Changes that rest on no request's decision, or are left over from one: they are written down, too.

Whatever changes a row that the ledger watches over (``audit/state.py``) does so under a fence, and whoever
made the fence writes down what was written under it. A request does that with its outcome; here are the
others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from secrethub.audit.masking import canonical_json
from secrethub.engines.engine import Fence
from secrethub.engines.runtime import Core
from secrethub.storage.ledger import Note

_MOST = 1000
"""Rows that one entry names."""


def present_fence(core: Core, written: list[dict[str, Any]]) -> Fence:
    """Return a fence of this moment; what is changed under it is added to ``written``."""
    return Fence(generation=core.caches.generation, seal_epoch=core.caches.seal_epoch, written=written)


@asynccontextmanager
async def own_changes(core: Core, operation: str, path: str = "") -> AsyncIterator[Fence]:
    """Give a fence of this moment; what was changed under it is written down when the block ends.

    No lock that others wait for may be held by then: the ledger's commit may wait for them.

    Args:
        core: unsealed.
        operation: for the entry.
        path: for the entry.

    Raises:
        Unavailable, Sealed: it could not be written down yet; it will be (:func:`record`).
    """
    written: list[dict[str, Any]] = []
    try:
        yield present_fence(core, written)
    finally:
        await record(core, operation, path, written)


async def record(
    core: Core,
    operation: str,
    path: str,
    written: list[dict[str, Any]],
    *,
    actor: str = "system",
    request_id: str = "",
) -> None:
    """Write down, and take out of ``written``, what was changed; also what could not be until now.

    Raises:
        Unavailable, Sealed: it could not be; the next call does it.
    """
    core.unrecorded.extend(written)
    written.clear()
    while core.unrecorded:
        rows = core.unrecorded[:_MOST]
        del core.unrecorded[:_MOST]
        try:
            await core.ledger.append(
                Note(
                    kind="event",
                    request_id=request_id,
                    actor=actor,
                    operation=operation,
                    path=path,
                    outcome="written",
                    detail=canonical_json({"written": rows}),
                )
            )
        except BaseException:
            core.unrecorded[:0] = rows
            raise
