"""Which agents use a secret, and which version they have said to use: what rotations wait for.

Every agent gateway writes down what its agents watch and confirm, so that whoever carries a rotation on finds
out here, whichever node the agents are connected to. Agents that are away still count: what they wrote to
their hosts is in use. Those that were revoked do not, nor does what an agent has not asked for again since it
came back.

These rows grant nothing and are not authenticated: at worst an old value is retired early, or late.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import asyncpg
import msgspec

NAMED = 20
"""Agents that the ledger names when they have not confirmed."""

_MOST = 10_000


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """What is new of an agent and a secret.

    Attributes:
        agent: its id.
        key: the secret's, as changes announce it.
        session: of the agent.
        watched: whether a watch began.
        gone: whether it ended.
        version: that the agent uses now; None when it did not say.
    """

    agent: str
    key: str
    session: str
    watched: bool = False
    gone: bool = False
    version: int | None = None


async def write(connection: asyncpg.Connection[Any], uses: Collection[Use]) -> None:
    """Write down what is new, for each agent and secret once; inside a transaction."""
    gone = [use for use in uses if use.gone]
    watched = sorted(
        (use for use in uses if use.watched and not use.gone), key=lambda use: (use.key, use.agent)
    )
    said = [use for use in uses if use.version is not None and not use.gone]
    await connection.execute(
        """DELETE FROM agent_watches USING unnest($1::text[], $2::text[]) AS g(key, agent)
           WHERE agent_watches.key = g.key AND agent_watches.agent = g.agent""",
        [use.key for use in gone],
        [use.agent for use in gone],
    )
    await connection.execute(
        """INSERT INTO agent_watches AS w (key, agent, session)
           SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
           ON CONFLICT (key, agent) DO UPDATE SET session = excluded.session, since = clock_timestamp()
           WHERE w.session <> excluded.session""",
        [use.key for use in watched],
        [use.agent for use in watched],
        [use.session for use in watched],
    )
    await connection.execute(
        """UPDATE agent_watches SET version = s.version
           FROM unnest($1::text[], $2::text[], $3::bigint[]) AS s(key, agent, version)
           WHERE agent_watches.key = s.key AND agent_watches.agent = s.agent""",
        [use.key for use in said],
        [use.agent for use in said],
        [use.version for use in said],
    )


async def reset(connection: asyncpg.Connection[Any], key: str) -> None:
    """Forget what agents said of a secret: from now on they speak of what is written in this transaction."""
    await connection.execute("UPDATE agent_watches SET version = 0 WHERE key = $1", key)


async def behind(connection: asyncpg.Connection[Any], key: str, version: int) -> list[str]:
    """Return the ids of agents that use a secret and have not said to use ``version`` or a newer one.

    An agent asks for everything it uses right after it connects; what it has not asked for a minute after
    something else was, in a newer session, it does not use any more.
    """
    rows = await connection.fetch(
        """SELECT w.agent FROM agent_watches w
           JOIN agents a ON a.key = w.agent AND a.body->>'status' = 'active'
           WHERE w.key = $1 AND w.version < $2 AND NOT EXISTS (
               SELECT 1 FROM agent_watches n
               WHERE n.agent = w.agent AND n.session <> w.session AND n.since > w.since
                     AND n.since < clock_timestamp() - interval '1 minute')
           ORDER BY w.agent LIMIT $3""",
        key,
        version,
        _MOST,
    )
    return [row["agent"] for row in rows]
