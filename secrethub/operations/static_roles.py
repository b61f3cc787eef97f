"""Looking again and again for static roles whose passwords are due, and replacing those.

Every node's RotationScheduler does; whoever has a role's claim replaces its password, and of the others
nobody waits. What a process left half done is due still, and goes on with finding out which of two passwords
is good. While the cluster is sealed or the database is away it waits.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from secrethub.engines.database.replacing import alone
from secrethub.engines.database.static_role import FORM, ended, replacing_of, static_role_of
from secrethub.engines.kept import name_of
from secrethub.engines.own_changes import record
from secrethub.engines.runtime import Core
from secrethub.errors import Conflict, IntegrityFailure, SecretHubError
from secrethub.operations.note import note
from secrethub.storage.authority import ENGINE_ROLES

_LOOK_SECONDS = 1.0
_TOGETHER = 8
_FIRST_PAUSE = 2.0
_LONGEST_PAUSE = 300.0
# Not clock_timestamp(), which changes within a statement: an index could not be asked for it.
_DUE = f"""SELECT key FROM {ENGINE_ROLES.name}
           WHERE expires_at <= statement_timestamp() AND split_part(key, '/', 2) = $1
             AND key <> ALL($2::text[])
           ORDER BY expires_at LIMIT $3"""  # noqa: S608 - a constant of ours

_log = logging.getLogger(__name__)


async def rotate_static_roles(core: Core) -> None:
    """Replace passwords that are due until cancelled."""
    pauses: dict[str, tuple[float, float]] = {}
    while True:
        await core.opened.wait()
        now = core.clock.monotonic()
        try:
            resting = [key for key, (until, _) in pauses.items() if until > now]
            async with core.database.read() as connection:
                rows = await connection.fetch(_DUE, FORM, resting, _TOGETHER)
            keys = [row["key"] for row in rows]
            done = await asyncio.gather(*(_rotate(core, key) for key in keys))
            for key, well in zip(keys, done, strict=True):
                if well:
                    pauses.pop(key, None)
                else:
                    pause = min(2 * pauses.get(key, (0.0, _FIRST_PAUSE / 2))[1], _LONGEST_PAUSE)
                    pauses[key] = (core.clock.monotonic() + pause, pause)
        except SecretHubError as exc:
            _log.warning("passwords of static roles cannot be replaced now: %s", exc.code)
        await asyncio.sleep(_LOOK_SECONDS)


async def _rotate(core: Core, key: str) -> bool:
    """Replace the password of one role; tell whether it need not be tried again soon."""
    try:
        async with alone(core, key):
            row = await core.authority.fetch(ENGINE_ROLES, key)
            now = core.clock.now()
            if row is None or row.expires_at is None or row.expires_at > now:
                return True
            role = static_role_of(row)
            found = await core.mounts.by_uuid(role.mount)
            if found is None:
                return True
            path = f"{found[0].path}static-creds/{role.name}"
            written: list[dict[str, Any]] = []
            try:
                replacing = await replacing_of(core, row, written)
                await replacing.replace(None, ended(role, now))
            except SecretHubError:
                await record(core, "database.rotate-role", path, written)
                raise
            await note(
                core,
                operation="database.rotate-role",
                path=path,
                actor="system",
                outcome="done",
                detail={"written": written},
            )
    except Conflict:
        return True  # somebody else is at it
    except SecretHubError as exc:
        if isinstance(exc, IntegrityFailure):
            core.metrics.integrity_failures.labels(exc.table).inc()
        _log.warning("the password of the static role %s waits: %s", name_of(key), exc)
        return False
    return True
