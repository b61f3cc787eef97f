"""Sealing: it ends when nobody has keys any more, or says who did not say so."""

from __future__ import annotations

import asyncio
import contextlib
import time

from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.runtime import Core
from secrethub.engines.system.seal_answers import SealedAnswer
from secrethub.engines.system.seal_gate import origin_of
from secrethub.errors import SecretHubError
from secrethub.storage.key_users import holding_keys

_DROPPING_SECONDS = 5.0
"""How long a seal waits for other processes to say that they have dropped their keys."""
_LOOK_SECONDS = 0.02


def sealing_operations() -> tuple[Operation, ...]:
    """Return the operation."""
    return (
        Operation(
            name="sys.seal",
            method="write",
            pattern="seal",
            handler=seal,
            response=SealedAnswer,
            capability="update",
            changes=True,
            sudo=True,
            sealing=True,
            summary="Seal the cluster.",
        ),
    )


async def seal(context: Context, _body: None) -> Answer:
    """Seal: when this returns no node answers any more, and every process has dropped its keys.

    Those that did not say so are named. They can answer nothing: every answer passes a commit that tells
    of the seal.
    """
    core = context.core
    missed = await core.seal.seal(origin_of(context))
    with contextlib.suppress(SecretHubError):
        await core.ledger.look()
    core.lock()
    missed += await _still_holding(core)
    if not missed:
        return EMPTY
    warning = (
        "the cluster is sealed, and nothing is answered any more; not every process has said that it has "
        f"dropped its keys: {', '.join(missed)}"
    )
    return Answer(data={"sealed": True, "unreached": missed}, warnings=(warning,))


async def _still_holding(core: Core) -> list[str]:
    """Wait until no serving process holds keys; return those that still do, or are silent."""
    until = time.monotonic() + _DROPPING_SECONDS
    while True:
        try:
            holding = await holding_keys(core.database)
        except SecretHubError:
            return ["the gateways, for the database does not answer"]
        if not holding or time.monotonic() > until:
            return holding
        await asyncio.sleep(_LOOK_SECONDS)
