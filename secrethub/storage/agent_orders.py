"""Commands that agents are to run for rotations, and how they ended.

An order is a question of one step of one run to one agent. It holds no value: those are in the rotation's
own row, which says whether the order still holds. Each row is authenticated; one that was put back speaks of
another attempt, and of another run at the latest.
"""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec

from secrethub.crypto.digests import equal, mac
from secrethub.crypto.keyring import Keyring
from secrethub.errors import IntegrityFailure

_TABLE = "agent_orders"
_PURPOSE = "agent-orders"
_COLUMNS = "rotation, run, step, attempt, key, agent, taken, outcome, said"
_MOST = 256
"""Open orders of an agent that are looked at."""


class AgentOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order.

    Attributes:
        rotation: UUID of the rotation.
        run: its number.
        step: what is to be done.
        attempt: of that step, from 1 on.
        key: of the rotation's row.
        agent: id of the agent.
        taken: the attempt that the agent was last given, 0 while it knows of none.
        outcome: how the attempt ended; empty while it has not.
        said: why; no secret.
    """

    rotation: str
    run: int
    step: str
    attempt: int
    key: str
    agent: str
    taken: int = 0
    outcome: str = ""
    said: str = ""


async def locked(
    connection: asyncpg.Connection[Any], keyring: Keyring, rotation: str, run: int, step: str
) -> AgentOrder | None:
    """Return the order of a step, held until the transaction ends; None when there is none.

    Raises:
        IntegrityFailure: it was edited.
    """
    row = await connection.fetchrow(
        f"""SELECT {_COLUMNS}, mac FROM {_TABLE}
            WHERE rotation = $1 AND run = $2 AND step = $3 FOR UPDATE""",  # noqa: S608 - constants of ours
        rotation,
        run,
        step,
    )
    return None if row is None else _checked(keyring, row)


async def put(connection: asyncpg.Connection[Any], keyring: Keyring, order: AgentOrder) -> None:
    """Write an order down, in place of the one of the same step."""
    await connection.execute(
        f"""INSERT INTO {_TABLE} ({_COLUMNS}, mac) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
            ON CONFLICT (rotation, run, step) DO UPDATE
            SET attempt = excluded.attempt, key = excluded.key, agent = excluded.agent,
                taken = excluded.taken, outcome = excluded.outcome, said = excluded.said,
                mac = excluded.mac""",  # noqa: S608
        *msgspec.structs.astuple(order),
        _mac(keyring, order),
    )


async def open_for(connection: asyncpg.Connection[Any], keyring: Keyring, agent: str) -> list[AgentOrder]:
    """Return what an agent has not done yet.

    Raises:
        IntegrityFailure: one was edited.
    """
    rows = await connection.fetch(
        f"""SELECT {_COLUMNS}, mac FROM {_TABLE} WHERE agent = $1 AND outcome = ''
            ORDER BY rotation, run, step LIMIT $2""",  # noqa: S608
        agent,
        _MOST,
    )
    return [_checked(keyring, row) for row in rows]


async def waiting(connection: asyncpg.Connection[Any]) -> list[str]:
    """Return the agents that have not taken what they are to do. A hint: nothing is decided by it."""
    rows = await connection.fetch(
        f"SELECT DISTINCT agent FROM {_TABLE} WHERE outcome = '' AND taken < attempt"  # noqa: S608
    )
    return [row["agent"] for row in rows]


async def forget(connection: asyncpg.Connection[Any], rotation: str) -> None:
    """Remove the orders of a rotation: none of them holds any longer."""
    await connection.execute(f"DELETE FROM {_TABLE} WHERE rotation = $1", rotation)  # noqa: S608


def _checked(keyring: Keyring, row: asyncpg.Record) -> AgentOrder:
    order = AgentOrder(**{name: row[name] for name in AgentOrder.__struct_fields__})
    if not equal(_mac(keyring, order), row["mac"]):
        raise IntegrityFailure(_TABLE, f"{order.rotation}/{order.run}/{order.step}", "the row was edited")
    return order


def _mac(keyring: Keyring, order: AgentOrder) -> bytes:
    return mac(keyring.derived(_PURPOSE), _PURPOSE, *msgspec.structs.astuple(order))
