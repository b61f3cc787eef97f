"""Sealing anew, in the background, what older data keys sealed.

There is nothing to resume: what is left is found by the number that each value begins with. Every node
works at it, in small transactions, each of which skips what somebody else is busy with, and rests in
between for as long as it worked. Values are changed in place: no version, head or right changes, and what a
process has read before still opens, since old keys are kept.

What cannot be sealed anew because it was tampered with is left alone and written down.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import asyncpg

from secrethub.audit.event import Outcome
from secrethub.crypto.keyring import Keyring
from secrethub.engines.own_changes import present_fence, record
from secrethub.engines.runtime import Core
from secrethub.errors import IntegrityFailure, Stale
from secrethub.operations.note import note
from secrethub.storage.fence import hold_shared
from secrethub.storage.sealed_columns import (
    FIELDS,
    LEASES,
    VALUES,
    Column,
    SealedField,
    any_left,
    reseal_leases,
    reseal_rows,
    reseal_values,
    stale_rows,
)

_OPERATION, _PATH, _ACTOR = "sys.reencrypt", "sys/rotate", "system"
_VALUES = 64
_ROWS = 16
_MOST_LEFT_ALONE = 1000
_STATE = "reencrypt"

_Reseal: TypeAlias = Callable[
    ["asyncpg.Connection[Any]", Keyring, Collection[str], int], Awaitable[tuple[int, list[IntegrityFailure]]]
]


@dataclass
class _Damaged:
    """What this process has found not to open while a data key sealed, so that it is told of once."""

    number: int
    places: dict[Column, set[str]] = field(default_factory=dict)
    """``<id>/<version>`` of values, ids of leases, buckets of fields."""

    def of(self, column: Column) -> set[str]:
        return self.places.setdefault(column, set())


async def reencrypt(core: Core) -> int:
    """Seal anew whatever is sealed under older data keys than the one that seals; return how much it was.

    Raises:
        SecretHubError: the database or the keys are not there; the next call goes on.
    """
    number = core.keyring().sealing
    damaged = core.engine_state.get(_STATE)
    if not isinstance(damaged, _Damaged) or damaged.number != number:
        damaged = core.engine_state[_STATE] = _Damaged(number)
    if not await any_left(core.database, number, damaged.places):
        return 0
    await _tell(core, "begun", {"term": number})
    count = await _values(core, damaged.of(VALUES), reseal_values)
    count += await _values(core, damaged.of(LEASES), reseal_leases)
    for column in FIELDS:
        count += await _rows(core, column, damaged.of((column.table.name, column.name)))
    await _tell(core, "done", {"term": number, "count": count})
    return count


async def _values(core: Core, damaged: set[str], reseal: _Reseal) -> int:
    count = 0
    while len(damaged) < _MOST_LEFT_ALONE:
        began = time.monotonic()
        try:
            async with core.database.write() as connection:
                await hold_shared(connection, present_fence(core, []))
                taken, failures = await reseal(connection, core.keyring(), damaged, _VALUES)
        except Stale as exc:
            await core.catch_up(exc)
            continue
        for failure in failures:
            damaged.add(failure.key)
            await _report(core, failure)
        count += taken - len(failures)
        if not taken:
            break
        await _rest(began)
    return count


async def _rows(core: Core, column: SealedField, damaged: set[str]) -> int:
    count = 0
    busy: set[str] = set()
    while len(damaged) + len(busy) < _MOST_LEFT_ALONE:
        began = time.monotonic()
        number = core.keyring().sealing
        async with core.database.read() as connection:
            found = await stale_rows(connection, column, number, damaged | busy, _ROWS)
        if found is None:
            break
        bucket, keys = found
        try:
            fence = present_fence(core, [])
            async with core.authority.issue(fence) as change:
                free = await reseal_rows(change, core.keyring(), column, bucket, keys)
        except Stale as exc:
            await core.catch_up(exc)
            continue
        except IntegrityFailure as exc:
            damaged.add(str(bucket))
            await _report(core, exc)
            continue
        if fence.written:
            count += len(fence.written)
            await record(core, _OPERATION, _PATH, fence.written)
        elif not free:
            busy.add(str(bucket))
        await _rest(began)
    return count


async def _rest(began: float) -> None:
    await asyncio.sleep(time.monotonic() - began)


async def _tell(core: Core, outcome: Outcome, detail: Mapping[str, Any]) -> None:
    await note(core, operation=_OPERATION, path=_PATH, actor=_ACTOR, outcome=outcome, detail=detail)


async def _report(core: Core, failure: IntegrityFailure) -> None:
    core.metrics.integrity_failures.labels(failure.table).inc()
    await note(core, operation=_OPERATION, path=_PATH, actor=_ACTOR, outcome="refused", reason=str(failure))
