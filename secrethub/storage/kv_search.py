"""Secrets found by a text in their path or custom metadata, page by page.

A page looks at a bounded number of secrets, however few of them are found. Upper and lower case of ASCII
letters are the same.
"""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec

from secrethub.crypto.keyring import Keyring
from secrethub.storage.kv import HIGHEST, Head, checked_head

SCANNED = 2000
"""Secrets that one page looks at."""


async def search_page(
    connection: asyncpg.Connection[Any],
    keyring: Keyring,
    store: str,
    prefix: str,
    text: str,
    *,
    after: str = "",
) -> tuple[list[Head], str]:
    """Return the secrets of a page that have the text, in order of their paths, and where the page ends.

    Args:
        connection: for reading.
        keyring: for the authentication.
        store: the store's id.
        prefix: "" or a path that ends with a slash: only what lies below.
        text: found in the path below ``prefix``, or anywhere in the custom metadata as it is stored.
        after: only paths after this one.

    Returns:
        Heads, and the last path that was looked at, or "" when there is nothing after it.

    Raises:
        IntegrityFailure: one that was found is not authentic.
    """
    # As the metadata's JSON has it, without the quotes.
    quoted = msgspec.json.encode(text)[1:-1].decode()
    rows = await connection.fetch(
        """SELECT path, strpos(lower(substr(path, $5)), $6) > 0
                        OR strpos(lower(custom_metadata COLLATE "C"), $7) > 0 AS found
           FROM (SELECT path, custom_metadata FROM kv_secrets
                 WHERE store = $1 AND path > $2 AND path < $3 ORDER BY path LIMIT $4) AS page""",
        store,
        max(prefix, after),
        prefix + HIGHEST,
        SCANNED,
        len(prefix) + 1,
        ascii_lower(text),
        ascii_lower(quoted),
    )
    end = rows[-1]["path"] if len(rows) == SCANNED else ""
    found = [row["path"] for row in rows if row["found"]]
    if not found:
        return [], end
    heads = await connection.fetch(
        "SELECT * FROM kv_secrets WHERE store = $1 AND path = ANY($2::text[]) ORDER BY path", store, found
    )
    key = keyring.derived("kv")
    return [checked_head(row, key) for row in heads], end


def ascii_lower(text: str) -> str:
    """Return ``text`` with its ASCII letters in lower case, as PostgreSQL does it here."""
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")
