"""Nonces of enrolments that are under way: bound to a token, used once, short-lived.

Only the digest is stored. A row that a database writer adds helps nobody without the token it names.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import asyncpg

MOST_PER_TOKEN = 256
"""Enrolments that one token may have under way."""


async def add(
    connection: asyncpg.Connection[Any], digest: bytes, token: str, now: datetime, expires_at: datetime
) -> bool:
    """Keep a nonce's digest until ``expires_at``; False when the token has too many under way."""
    await connection.execute(
        """DELETE FROM enrollments WHERE nonce_digest IN (
               SELECT nonce_digest FROM enrollments WHERE expires_at <= $1
               LIMIT 1000 FOR UPDATE SKIP LOCKED)""",
        now,
    )
    under_way = await connection.fetchval("SELECT count(*) FROM enrollments WHERE token = $1", token)
    if under_way >= MOST_PER_TOKEN:
        return False
    await connection.execute(
        "INSERT INTO enrollments (nonce_digest, token, expires_at) VALUES ($1, $2, $3)",
        digest,
        token,
        expires_at,
    )
    return True


async def use(connection: asyncpg.Connection[Any], digest: bytes, token: str, now: datetime) -> bool:
    """Use up a nonce in the caller's transaction; False when it is not this token's, or no longer good."""
    used = await connection.fetchval(
        """DELETE FROM enrollments WHERE nonce_digest = $1 AND token = $2 AND expires_at > $3
           RETURNING true""",
        digest,
        token,
        now,
    )
    return used is True
