"""The archive is kept up: what is old enough leaves the ledger, whoever of the gateways does it."""

from __future__ import annotations

import asyncio
import logging

import asyncpg

from secrethub.engines.archive.archiver import run
from secrethub.engines.archive.config import configured
from secrethub.engines.runtime import Core
from secrethub.errors import Conflict, IntegrityFailure, InvalidRequest, SecretHubError
from secrethub.operations.months import drop_months

_SECONDS = 600.0
_FIRST_SECONDS = 60.0

_log = logging.getLogger(__name__)


async def keep_archive(core: Core) -> None:
    """Archive as long as the process lives."""
    await asyncio.sleep(_FIRST_SECONDS)
    while True:
        if core.unsealed:
            await _turn(core)
        await asyncio.sleep(_SECONDS)


async def _turn(core: Core) -> None:
    try:
        archive = await configured(core)
        if archive is None:
            return
        outcome = await run(core, archive)
        if outcome.segments:
            _log.info("%d entries of the ledger were archived", outcome.entries)
            await drop_months(core.database)
    except Conflict:
        return  # another process is at it
    except IntegrityFailure as exc:
        core.metrics.integrity_failures.labels(exc.table).inc()
        _log.error("the ledger cannot be archived: %s", exc)
    except InvalidRequest as exc:
        _log.warning("the ledger cannot be archived from this node: %s", exc.message)
    except (SecretHubError, asyncpg.PostgresError) as exc:
        _log.warning("the ledger could not be archived: %s", exc)
