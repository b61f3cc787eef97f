"""The inventory of issued certificates: what they are, never their private keys.

No right comes from these rows, so they carry no authentication of their own: who is admitted stands in
authority rows. What is missing here, or revoked, does not log in (``engines/cert/trust.py``); nothing that
``pki/`` issues can be revoked yet, and whatever brings that must authenticate it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg


@dataclass(frozen=True, kw_only=True, slots=True)
class CertificateRow:
    """One issued certificate.

    Attributes:
        serial: as :func:`secrethub.pki.chain.serial_text` writes it.
        mount: path of the mount that issued it; ``transport/`` for gateways.
        kind: name of its profile.
        subject: its names, joined by commas; for agents the id.
        pem: the certificate alone.
    """

    serial: str
    mount: str
    kind: str
    subject: str
    issued_at: datetime
    not_after: datetime
    pem: str
    revoked_at: datetime | None = None


async def record(connection: asyncpg.Connection[Any], row: CertificateRow) -> None:
    """Write down an issued certificate."""
    await connection.execute(
        """INSERT INTO certificates (serial, mount, kind, subject, issued_at, not_after, pem)
           VALUES ($1, $2, $3, $4, $5, $6, $7)""",
        row.serial,
        row.mount,
        row.kind,
        row.subject,
        row.issued_at,
        row.not_after,
        row.pem,
    )


async def find(connection: asyncpg.Connection[Any], mount: str, serial: str) -> CertificateRow | None:
    """Return a certificate that ``mount`` issued, or None."""
    row = await connection.fetchrow(
        """SELECT serial, mount, kind, subject, issued_at, not_after, pem, revoked_at
           FROM certificates WHERE mount = $1 AND serial = $2""",
        mount,
        serial,
    )
    return None if row is None else CertificateRow(**dict(row))


async def serials(connection: asyncpg.Connection[Any], mount: str, after: str, limit: int) -> list[str]:
    """Return serial numbers in order, at most ``limit``, after ``after``."""
    rows = await connection.fetch(
        "SELECT serial FROM certificates WHERE mount = $1 AND serial > $2 ORDER BY serial LIMIT $3",
        mount,
        after,
        limit,
    )
    return [row["serial"] for row in rows]


async def mark_revoked(connection: asyncpg.Connection[Any], mount: str, subject: str, now: datetime) -> None:
    """Write down that every certificate of ``subject`` that still stands is revoked."""
    await connection.execute(
        """UPDATE certificates SET revoked_at = $3
           WHERE mount = $1 AND subject = $2 AND revoked_at IS NULL AND not_after > $3""",
        mount,
        subject,
        now,
    )


async def forget_expired(connection: asyncpg.Connection[Any], mount: str, now: datetime) -> None:
    """Remove what ``mount`` issued and what has ended."""
    await connection.execute("DELETE FROM certificates WHERE mount = $1 AND not_after < $2", mount, now)


async def names_in_use(
    connection: asyncpg.Connection[Any], mount: str, names: Sequence[str], now: datetime
) -> list[str]:
    """Return those of ``names`` that stand in a certificate of ``mount`` which is valid now."""
    rows = await connection.fetch(
        """SELECT DISTINCT name FROM certificates, unnest(string_to_array(subject, ',')) AS name
           WHERE mount = $1 AND not_after > $3 AND name = ANY($2::text[]) ORDER BY name""",
        mount,
        list(names),
        now,
    )
    return [row["name"] for row in rows]
