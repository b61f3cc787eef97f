"""Auth methods that can be enabled, where their rows are, and their removal with the mount.

A method is known here by one entry of :data:`AUTH_METHODS`. Its rows are named after its mount by
:func:`row_name`, so that two mounts of one kind never meet. Tokens are found by the path that made them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from secrethub.engines.mounts import TOKEN_MOUNT
from secrethub.engines.own_changes import own_changes
from secrethub.engines.runtime import Core
from secrethub.engines.token.ending import remove_tokens
from secrethub.errors import IntegrityFailure, Stale
from secrethub.storage.authority import (
    APPROLES,
    BINDINGS,
    CERT_ROLES,
    LOGIN_FAILURES,
    MOUNTS,
    ROLE_IDS,
    SECRET_IDS,
    TOKENS,
    USERS,
    Change,
    Table,
)

_BATCH = 1000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthMethod:
    """A kind of auth method.

    Attributes:
        description: what it is called unless the operator says otherwise.
        rows: its tables, and by which column rows belong to a mount: the ``key`` or the ``owner`` is the
            text given here and what :func:`row_name` gives.
    """

    description: str
    rows: tuple[tuple[Table, Literal["key", "owner"], str], ...]


AUTH_METHODS: Mapping[str, AuthMethod] = {
    "approle": AuthMethod(
        description="machines",
        rows=(
            (SECRET_IDS, "owner", ""),
            (APPROLES, "key", ""),
            (ROLE_IDS, "owner", ""),
            (BINDINGS, "key", "approle/"),
        ),
    ),
    "userpass": AuthMethod(
        description="people",
        rows=((USERS, "key", ""), (LOGIN_FAILURES, "key", ""), (BINDINGS, "key", "user/")),
    ),
    "cert": AuthMethod(
        description="client certificates",
        rows=((CERT_ROLES, "key", ""), (BINDINGS, "key", "cert/")),
    ),
}
"""By kind. ``token`` is not among them: it is always there, once."""


def row_name(kind: str, mount: str, name: str) -> str:
    """Return how rows call something of an auth method: ``web``, or ``machines/web`` beyond the usual mount.

    Args:
        kind: of the method.
        mount: its path, e.g. ``auth/machines/``.
        name: without a slash.
    """
    return _prefix(kind, mount) + name


def belongs(kind: str, mount: str, row: str) -> bool:
    """Tell whether :func:`row_name` of this mount gave ``row``."""
    prefix = _prefix(kind, mount)
    return row.startswith(prefix) and "/" not in row[len(prefix) :]


def _prefix(kind: str, mount: str) -> str:
    return "" if mount == f"auth/{kind}/" else mount.removeprefix("auth/")


async def remove_rows(core: Core, mount: str, kind: str) -> None:
    """Remove the tokens that a leaving mount gave out and all that it keeps.

    Nobody takes these tokens any more (``token/known.py``), so this holds nobody up. It can be repeated.

    Raises:
        Sealed, Unavailable: it is not done yet.
    """
    for table, condition, value in _places(mount, kind):
        after: str | None = ""
        while after is not None:
            # Before it is looked whether the mount still leaves: one that is enabled anew makes this stale.
            try:
                async with (
                    own_changes(core, "sys.auth.disable", mount) as fence,
                    core.authority.issue(fence) as change,
                ):
                    row = await core.authority.fetch(MOUNTS, mount, change.connection)
                    if row is None or not row.body.get("leaving"):
                        return
                    after, failures = await _remove(core, change, table, condition, value, after)
            except Stale:
                await core.ledger.look()
                continue
            for failure in failures:
                core.metrics.integrity_failures.labels(failure.table).inc()
                _log.error("what belonged to a disabled auth method could not be removed: %s", failure)


def _places(mount: str, kind: str) -> Iterator[tuple[Table, str, Any]]:
    """Yield tables, a condition on their rows, and its value ``$1``."""
    yield TOKENS, "starts_with(body->>'path', $1)", mount
    prefix = _prefix(kind, mount)
    for table, column, lead in AUTH_METHODS[kind].rows:
        # Names have no slash, so without one is how rows of the usual mount are told from the others.
        mine = f"starts_with({column}, $1) AND strpos(substr({column}, length($1) + 1), '/') = 0"
        yield table, mine, lead + prefix


async def _remove(
    core: Core, change: Change, table: Table, condition: str, value: str, after: str
) -> tuple[str | None, list[IntegrityFailure]]:
    """Remove one batch; return where the next begins, None at the end, and what is wrong with rows."""
    found = await change.connection.fetch(
        f"SELECT key FROM {table.name} WHERE {condition} AND key > $2 ORDER BY key LIMIT $3",  # noqa: S608
        value,
        after,
        _BATCH,
    )
    keys = [row["key"] for row in found]
    if table is TOKENS:
        _, failures = await remove_tokens(change, core.keyring(), keys)
    else:
        _, failures = await change.delete_many(table, keys)
    return keys[-1] if len(keys) == _BATCH else None, failures


def is_auth(mount: str) -> bool:
    """Tell whether a mount is an auth method that can be disabled."""
    return mount.startswith("auth/") and mount != TOKEN_MOUNT
