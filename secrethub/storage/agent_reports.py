"""How the files of agents are, as each agent last said.

These rows grant nothing and are not authenticated. Their texts are the agents': bounded and printable where
they are written (``actors/sessions/condition.py``), and never a value of a secret unless the host lies.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import asyncpg
import msgspec


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is not up to date.

    Attributes:
        destination: where it belongs on the host.
        error: why, or empty when it was not tried yet.
    """

    destination: str
    error: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent says of its files.

    Attributes:
        files: how many it writes.
        failing: how many of them are not up to date.
        failures: the first of these.
    """

    files: int
    failing: int
    failures: tuple[Failure, ...] = ()


async def write(connection: asyncpg.Connection[Any], reports: Collection[tuple[str, Report]]) -> None:
    """Write down what agents say, each once, where it is not what they said before; inside a transaction."""
    ordered = sorted(reports, key=lambda pair: pair[0])
    await connection.execute(
        """INSERT INTO agent_reports AS r (agent, files, failing, failures)
           SELECT * FROM unnest($1::text[], $2::integer[], $3::integer[], $4::text[])
           ON CONFLICT (agent) DO UPDATE
           SET files = excluded.files, failing = excluded.failing, failures = excluded.failures,
               since = clock_timestamp()
           WHERE (r.files, r.failing, r.failures) <> (excluded.files, excluded.failing, excluded.failures)""",
        [agent for agent, _ in ordered],
        [report.files for _, report in ordered],
        [report.failing for _, report in ordered],
        [msgspec.json.encode(report.failures).decode() for _, report in ordered],
    )


async def read(connection: asyncpg.Connection[Any], agent: str) -> tuple[Report, datetime] | None:
    """Return what an agent said of its files, and since when it says so; None when it never did."""
    row = await connection.fetchrow("SELECT * FROM agent_reports WHERE agent = $1", agent)
    if row is None:
        return None
    failures = msgspec.json.decode(row["failures"], type=tuple[Failure, ...])
    return Report(files=row["files"], failing=row["failing"], failures=failures), row["since"]
